// Words of a text and where they stand, and which of two texts belong together.

import type { Alignment } from "pocket-t5";

/** A word's place: `text.slice(begin, end)`. */
export interface Place {
  begin: number;
  end: number;
}

/** Words of a sentence and of its answer, and for each word of the answer the words that it comes from. */
export interface Links {
  source: Place[];
  answer: Place[];
  partners: number[][];
}

const LETTERS = /[\p{L}\p{N}][^]*[\p{L}\p{N}]|[\p{L}\p{N}]/u;

/** What stands between white space, without the marks around it. */
export function words(text: string): Place[] {
  return [...text.matchAll(/\S+/g)].map((match) => bare(text, match.index, match.index + match[0].length));
}

/** A stretch without marks at its ends, if it is not made of marks alone. */
function bare(text: string, begin: number, end: number): Place {
  const inner = LETTERS.exec(text.slice(begin, end));
  return inner ? { begin: begin + inner.index, end: begin + inner.index + inner[0].length } : { begin, end };
}

/**
 * Where given words stand in a text, in their order. A model may write a character in another way than the text (it
 * normalises them): as many words as the text has are then taken one by one.
 */
export function places(text: string, given: string[]): Place[] | undefined {
  const found: Place[] = [];
  let at = 0;
  for (const word of given) {
    const begin = text.indexOf(word, at);
    if (begin < 0) {
      const all = words(text);
      return all.length === given.length ? all : undefined;
    }
    at = begin + word.length;
    found.push(bare(text, begin, at));
  }
  return found;
}

/** A word belongs to those that it looked at most: at least half as much as at the first of them, and not by chance. */
export function linked(source: string, answer: string, alignment: Alignment): Links | undefined {
  const from = places(source, alignment.source);
  const to = places(answer, alignment.target);
  if (!from || !to) return undefined;
  const partners = alignment.weights.map((row) => {
    const most = Math.max(...row);
    return row.flatMap((weight, i) => (weight >= 0.1 && weight >= most / 2 ? [i] : []));
  });
  return { source: from, answer: to, partners };
}
