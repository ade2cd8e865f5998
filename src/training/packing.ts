import type { SequenceBudget } from '../models/transformer/sequence.ts';

/** What a clip takes of a row. */
export interface PackItem {
  /** Text tokens. */
  readonly text: number;
  /** Video tokens. */
  readonly video: number;
}

/** A clip and the row that it goes into. */
export interface Packed<Item> {
  readonly row: number;
  readonly item: Item;
}

/**
 * Packs clips into rows of static budgets ("patch n' pack", Dehghani et al. 2023): each goes into the first row that has
 * room for it; the first that fits nowhere ends the batch and begins the next one, so that none is passed over.
 *
 * @param itemAt clips in their order, without end.
 * @throws RangeError when a clip does not fit into an empty row.
 */
export function packFirstFit<Item extends PackItem>(
  { rows, videoTokens, textTokens, segments }: SequenceBudget,
  itemAt: (index: number) => Item,
): Packed<Item>[] {
  const room = Array.from({ length: rows }, () => ({
    video: videoTokens,
    text: textTokens,
    clips: segments,
  }));
  const packed: Packed<Item>[] = [];
  for (let index = 0; ; index++) {
    const item = itemAt(index);
    const row = room.findIndex(
      ({ video, text, clips }) => item.video <= video && item.text <= text && clips > 0,
    );
    const place = room[row];
    if (place === undefined) {
      if (index > 0) return packed;
      throw new RangeError(
        `a clip of ${item.video} video and ${item.text} text tokens does not fit a row of ${videoTokens} and ${textTokens}`,
      );
    }
    place.video -= item.video;
    place.text -= item.text;
    place.clips--;
    packed.push({ row, item });
  }
}
