import type { StageProgress } from '../pipeline/progress.ts';
import type { Terminal } from './command.ts';
import { createProgress, type Progress } from './progress.ts';

/** Shows the stages of making a video one after the other, each with its own bar. Bind it with `using`, as a {@link Progress}. */
export function stageProgress(terminal: Terminal): Disposable & {
  readonly onProgress: (progress: StageProgress) => void;
  readonly finish: () => void;
} {
  let current: { readonly stage: string; readonly progress: Progress } | undefined;
  const finish = () => {
    current?.progress.finish();
    current = undefined;
  };
  return {
    finish,
    [Symbol.dispose]: () => current?.progress[Symbol.dispose](),
    onProgress: ({ stage, done, total, unit }) => {
      if (current?.stage !== stage) {
        finish();
        current = { stage, progress: createProgress(terminal, { label: stage, total, unit }) };
      }
      current.progress.update(done);
    },
  };
}
