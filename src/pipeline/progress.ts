/** What a long run is doing. */
export type Stage = 'encoding' | 'previewing' | 'sampling' | 'decoding';

/** How far a stage is. */
export interface StageProgress {
  readonly stage: Stage;
  /** Units that are done, 0 to `total`. */
  readonly done: number;
  readonly total: number;
  /** What is counted, in the plural. */
  readonly unit: 'frames' | 'steps';
}

/** How a run is watched and stopped. */
export interface RunHooks {
  /** Aborted: the run ends with the signal's reason, before its next step or piece of video. */
  readonly signal?: AbortSignal | undefined;
  /** Told when a stage begins, with nothing done, and whenever it is further. */
  readonly onProgress?: ((progress: StageProgress) => void) | undefined;
}
