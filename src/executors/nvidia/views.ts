import type { Tensor } from '../../tensor/tensor.ts';

/** What a tensor is a reshape of, or itself. */
export function reshaped(tensor: Tensor): Tensor {
  let found = tensor;
  while (found.node.op === 'reshape') found = found.node.operands[0];
  return found;
}
