// From pieces to words: what people read in the attention table.

import type { Alignment } from "pocket-t5";

/** A word and the places of its pieces. */
export interface Word {
  text: string;
  pieces: number[];
}

/** Pieces that begin with `▁` begin a word; `</s>` and pieces without text are left out. */
export function words(pieces: (string | null)[]): Word[] {
  const found: Word[] = [];
  pieces.forEach((piece, place) => {
    if (piece === null || /^<\/?(s|pad|unk)>$/.test(piece)) return;
    const text = piece.replaceAll("▁", "");
    const last = found.at(-1);
    if (last && !piece.startsWith("▁")) {
      last.text += text;
      last.pieces.push(place);
    } else {
      found.push({ text, pieces: [place] });
    }
  });
  return found.filter((word) => word.text !== "");
}

export interface WordAlignment {
  source: Word[];
  target: Word[];
  /** A row for each target word: how much of its attention each source word got. */
  weights: number[][];
}

/** Attention between words: a source word gets its pieces' sum, a target word is the mean of its pieces. */
export function byWords({ sourcePieces, targetPieces, weights }: Alignment): WordAlignment {
  const [source, target] = [words(sourcePieces), words(targetPieces)];
  return {
    source,
    target,
    weights: target.map((to) =>
      source.map((from) => {
        const sums = to.pieces.map((row) =>
          from.pieces.reduce((sum, column) => sum + (weights[row]?.[column] ?? 0), 0),
        );
        return sums.reduce((a, b) => a + b, 0) / sums.length;
      }),
    ),
  };
}
