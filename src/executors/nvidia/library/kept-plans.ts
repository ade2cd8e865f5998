import { DiskCache } from '../disk-cache.ts';
import type { CudnnGraph, CudnnPlan } from './cudnn-graph.ts';

/**
 * Plans of cuDNN on disk. Its engines for attention are compiled at run time: half a second for each that a process has not
 * built yet, which a plan restored from its text has behind it.
 */
export class KeptPlans {
  private readonly machine: string;
  private readonly texts = new DiskCache('plans', 'json');

  /** @param gpu name of the GPU. @param versions of what makes and runs the plans, cuDNN and the driver. */
  constructor(gpu: string, ...versions: readonly (number | string)[]) {
    this.machine = [gpu, ...versions].join('\n');
  }

  /**
   * The plan that cuDNN thinks fastest for a graph.
   * @throws CudnnError when there is none.
   */
  planOf(graph: CudnnGraph): CudnnPlan {
    const key = `${this.machine}\n${graph.text}`;
    const known = this.texts.read(key);
    const restored = known && graph.restored(known);
    if (restored !== undefined) return restored;
    const [plan] = graph.plans(1);
    if (plan === undefined) throw new Error('cuDNN has no plan');
    const text = plan.text();
    if (text !== undefined) this.texts.write(key, text);
    return plan;
  }
}
