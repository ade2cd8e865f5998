/** The processes that train together, each on a device of its own, as one of them sees them. */
export interface ProcessGroup {
  /** This process, 0 to `world - 1`. Process 0 is the one that writes. */
  readonly rank: number;
  /** How many there are. */
  readonly world: number;
  /**
   * Gives every process the bytes of every process, by rank. All have to call it, as often and in the same order; it
   * resolves when all have. Through the host's network: for facts and waiting, not for tensors.
   */
  exchange(bytes: Uint8Array): Promise<readonly Uint8Array[]>;
}
