// What was changed between two texts, word by word.

/** A stretch of a text: in both, only in the first, only in the second. */
export interface Change {
  kind: "same" | "out" | "in";
  text: string;
}

/** Words, marks and white space: what a correction changes as a whole. */
function parts(text: string): string[] {
  return text.match(/[\p{L}\p{N}\p{M}]+(?:['’][\p{L}\p{N}]+)*|\s+|[^]/gu) ?? [];
}

/**
 * The fewest words to take out and put in (a longest common subsequence). What goes out stands before what comes in;
 * neighbouring changes are one.
 */
export function diff(before: string, after: string): Change[] {
  const [a, b] = [parts(before), parts(after)];
  // common[i][j]: how much a[i..] and b[j..] share, in characters: so words count more than the spaces between them.
  const common = Array.from({ length: a.length + 1 }, () => new Uint32Array(b.length + 1));
  const at = (i: number, j: number): number => common[i]?.[j] ?? 0;
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      const both = a[i] === b[j] ? at(i + 1, j + 1) + (a[i]?.length ?? 0) : 0;
      common[i]![j] = Math.max(both, at(i + 1, j), at(i, j + 1));
    }
  }
  const changes: Change[] = [];
  let [i, j] = [0, 0];
  let [out, into] = ["", ""];
  const flush = (): void => {
    if (out) changes.push({ kind: "out", text: out });
    if (into) changes.push({ kind: "in", text: into });
    out = into = "";
  };
  while (i < a.length || j < b.length) {
    const [x, y] = [a[i], b[j]];
    if (x !== undefined && x === y && at(i, j) === at(i + 1, j + 1) + x.length) {
      // One space between two changed words belongs to the change.
      const within = /^\s+$/.test(x) && out !== "" && into !== "" && a[i + 1] !== b[j + 1];
      if (within) {
        out += x;
        into += x;
      } else {
        flush();
        const last = changes.at(-1);
        if (last?.kind === "same") last.text += x;
        else changes.push({ kind: "same", text: x });
      }
      i++;
      j++;
    } else if (j >= b.length || (i < a.length && at(i + 1, j) >= at(i, j + 1))) {
      out += a[i++];
    } else {
      into += b[j++];
    }
  }
  flush();
  return changes;
}
