import { openOnnxExecutor } from '../../src/executors/onnx/open-node.ts';
import { cases, longAttention } from './cases.ts';
import { describeConformance } from './conformance.ts';
import { nnCases } from './nn-cases.ts';

// float32 against float64: a few units in the last place of the largest value.
const tolerance = 1e-6;

describeConformance(
  'onnx cpu',
  () => openOnnxExecutor(),
  { ...cases, ...nnCases, longAttention },
  { tolerance },
);

// So little room for scores that every attention is computed in parts, by rows of the batch and by queries.
const { attention, attentionGradient } = cases;
describeConformance(
  'onnx cpu, attention in parts',
  () => openOnnxExecutor({ scoreBytes: 200 }),
  { attention, attentionGradient },
  { tolerance },
);

// Where the C library cannot be loaded: what runs of flat stages and reshaped outputs differ in.
describeConformance(
  'onnx cpu, by its Node package',
  () => openOnnxExecutor({ binding: 'package' }),
  { add: cases.add, attention, attentionGradient, call: cases.call, cast: cases.cast, ...nnCases },
  { tolerance },
);
