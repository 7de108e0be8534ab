// Gaps in a text: how visitors write them, how the model reads them, and what it puts there.

/** Two underscores or more, or the model's own marks. */
const GAP = /_{2,}|<extra_id_\d+>/g;

/** A text with the model's marks for its gaps, numbered in their order; and how many there are. */
export function marked(text: string): { text: string; gaps: number } {
  let gaps = 0;
  return { text: text.replace(GAP, () => `<extra_id_${gaps++}>`), gaps };
}

/** A text around its gaps: one more stretch than gaps. */
export function around(text: string): string[] {
  return text.split(GAP);
}

/** What an answer's ids say for each gap: what stands behind each mark, up to the next one. */
export function fillings(ids: readonly number[], marks: readonly number[], end: number): number[][] {
  const found: number[][] = marks.map(() => []);
  let gap = -1;
  for (const id of ids) {
    if (id === end) break;
    const mark = marks.indexOf(id);
    if (mark >= 0) gap = mark;
    else found[gap]?.push(id);
  }
  // The mark behind the last gap only ends it.
  return found.slice(0, -1);
}
