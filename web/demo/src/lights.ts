// Words that belong together light up in both texts.

import type { Answer } from "./answers.js";
import type { Field } from "./field.js";

/** A word: which sentence's, and which of its words. */
export const key = (piece: number, word: number): string => `${piece}:${word}`;

const parts = (key: string): [piece: number, word: number] => key.split(":").map(Number) as [number, number];

export class Lights {
  private answer: Answer | undefined;
  private lit = "";
  /** A word of the answer that stays lit while something is done with it. */
  private held: string | undefined;

  /** Words stand in both places as elements with a key. */
  constructor(
    private readonly field: Field,
    private readonly source: HTMLElement,
    private readonly target: HTMLElement,
  ) {
    const { area } = field;
    area.addEventListener("pointermove", (event) => {
      if (event.pointerType === "mouse") this.ofSource(field.keyAt(event.clientX, event.clientY));
    });
    area.addEventListener("pointerleave", () => this.off());
    // Where the caret goes by keys or by tapping; not while somebody types.
    for (const name of ["keyup", "click"]) area.addEventListener(name, () => this.ofSource(field.keyAtCaret()));
    area.addEventListener("blur", () => this.off());
    const wordOf = (event: Event): string | undefined =>
      (event.target as HTMLElement).closest<HTMLElement>("[data-key]")?.dataset.key;
    target.addEventListener("pointerover", (event) => this.ofTarget(wordOf(event)));
    target.addEventListener("pointerleave", () => this.off());
  }

  /** The words of another answer. */
  show(answer: Answer | undefined): void {
    this.answer = answer;
    this.hold(undefined);
    this.field.mark(
      (answer?.pieces ?? []).flatMap(({ begin, links }, i) =>
        (links?.source ?? []).map((word, j) => ({
          begin: begin + word.begin,
          end: begin + word.end,
          key: key(i, j),
        })),
      ),
    );
  }

  /** The source's words that a word of the answer comes from. */
  partners(at: string): string[] {
    const [i, j] = parts(at);
    const piece = this.answer?.pieces[i];
    return (piece?.links?.partners[j] ?? []).map((word) => {
      const { begin, end } = piece?.links?.source[word] ?? { begin: 0, end: 0 };
      return piece?.source.slice(begin, end) ?? "";
    });
  }

  /** Lights a word of the answer and those that it comes from. */
  ofTarget(at: string | undefined): void {
    if (at === undefined) return this.off();
    const [i, j] = parts(at);
    const sources = this.answer?.pieces[i]?.links?.partners[j] ?? [];
    this.on(`answer ${at}`, sources.map((word) => key(i, word)), [at]);
  }

  /** Lights a word of the text and those that come from it. */
  ofSource(at: string | undefined): void {
    if (at === undefined) return this.off();
    const [i, j] = parts(at);
    const partners = this.answer?.pieces[i]?.links?.partners ?? [];
    const targets = partners.flatMap((sources, word) => (sources.includes(j) ? [key(i, word)] : []));
    this.on(`source ${at}`, [at], targets);
  }

  /** Keeps a word of the answer lit; undefined: no longer. */
  hold(at: string | undefined): void {
    this.held = at;
    this.off();
  }

  off(): void {
    if (this.held !== undefined) this.ofTarget(this.held);
    else this.on("", [], []);
  }

  private on(lit: string, sources: string[], targets: string[]): void {
    if (lit === this.lit) return;
    this.lit = lit;
    for (const [place, keys] of [
      [this.source, sources],
      [this.target, targets],
    ] as const) {
      for (const word of place.querySelectorAll(".lit")) word.classList.remove("lit");
      for (const at of keys) place.querySelector(`[data-key="${at}"]`)?.classList.add("lit");
    }
  }
}
