// Other answers, on demand: to each sentence, and from a word on.

import type { Answers, Piece } from "./answers.js";
import { button, element, make } from "./page.js";
import { wanted } from "./errors.js";
import type { Place } from "./words.js";

/** Somebody chose another answer to a sentence. */
export type Choose = (piece: Piece, answer: string) => void;

/** Lists other answers to each sentence, one sentence after the other. */
export async function listOthers(
  answers: Answers,
  pieces: Piece[],
  lang: string,
  signal: AbortSignal,
  choose: Choose,
): Promise<void> {
  const place = element("alternatives");
  place.hidden = false;
  const several = pieces.length > 1;
  const waiting = make("p", { class: "quiet" }, "Looking for other wordings…");
  place.replaceChildren(waiting);
  let found = 0;
  for (const piece of pieces) {
    const others = await answers.others(piece, signal);
    signal.throwIfAborted();
    if (others.length === 0) continue;
    found += others.length;
    if (several) waiting.before(make("p", { class: "quiet", lang }, piece.answer));
    const items = others.map((text) => make("li", {}, button(text, () => choose(piece, text), { lang })));
    waiting.before(make("ul", {}, ...items));
  }
  if (found > 0) waiting.remove();
  else waiting.textContent = "There is no other wording.";
}

/** The panel with other wordings from a word on. */
export class Wordings {
  private readonly panel = element("words");
  private readonly list = element("words-list");
  private abort: AbortController | undefined;
  private opener: HTMLElement | undefined;
  /** The word that the panel belongs to. */
  private word: HTMLElement | undefined;

  /** `closed` hears that the panel is no longer there. */
  constructor(
    private readonly choose: Choose,
    private readonly closed: () => void,
  ) {
    document.addEventListener("pointerdown", (event) => {
      if (!this.panel.hidden && !this.panel.contains(event.target as Node)) this.close();
    });
    this.panel.addEventListener("keydown", (event) => {
      const buttons = [...this.list.querySelectorAll("button")];
      const at = buttons.indexOf(document.activeElement as HTMLButtonElement);
      const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: buttons.length - 1 }[event.key];
      if (to === undefined || buttons.length === 0) return;
      event.preventDefault();
      buttons[(to + buttons.length) % buttons.length]?.focus();
    });
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !this.panel.hidden) this.close(true);
    });
    addEventListener("resize", () => this.word && this.below(this.word));
  }

  /** Shows wordings below a word. `from` are the words that it comes from. */
  async open(
    answers: Answers,
    piece: Piece,
    place: Place,
    word: HTMLElement,
    from: string[],
    lang: string,
    byKeyboard: boolean,
  ): Promise<void> {
    this.close();
    const abort = (this.abort = new AbortController());
    this.word = word;
    this.opener = byKeyboard ? (word.closest<HTMLElement>("[tabindex]") ?? undefined) : undefined;
    const title = make("span", { lang }, word.textContent ?? "");
    element("words-title").replaceChildren(title, ...(from.length > 0 ? [make("small", {}, from.join(" "))] : []));
    const waiting = make("p", { class: "quiet" }, "Looking for other wordings…");
    this.list.replaceChildren(waiting);
    this.panel.hidden = false;
    this.below(word);
    if (byKeyboard) this.panel.focus();
    try {
      for await (const text of answers.wordings(piece, place.begin, abort.signal)) {
        if (abort.signal.aborted) return;
        const press = (): void => {
          this.close(byKeyboard);
          this.choose(piece, text);
        };
        const one = button("", press, { lang });
        one.append(...fromHere(text, piece.answer, place.begin));
        waiting.before(one);
        if (byKeyboard && document.activeElement === this.panel) one.focus();
        this.below(word);
      }
      if (this.list.querySelector("button")) waiting.remove();
      else waiting.textContent = "There is no other wording from here on.";
    } catch (error) {
      if (abort.signal.aborted || wanted(error)) return;
      waiting.textContent = "Other wordings could not be found.";
    }
  }

  close(back = false): void {
    this.abort?.abort();
    if (this.panel.hidden) return;
    this.panel.hidden = true;
    this.word = undefined;
    this.closed();
    if (back) this.opener?.focus();
  }

  /** Below the word, or above it where there is no room; style.css puts it at the bottom of small screens. */
  private below(word: HTMLElement): void {
    // From the corner of what it is placed in.
    const from = (this.panel.offsetParent ?? document.body).getBoundingClientRect();
    const { left, bottom, top } = word.getBoundingClientRect();
    const { offsetWidth: width, offsetHeight: height } = this.panel;
    const { clientWidth, clientHeight } = document.documentElement;
    const x = Math.max(8, Math.min(left, clientWidth - width - 8));
    const y = bottom + 6 + height > clientHeight && top - 6 - height > 0 ? top - 6 - height : bottom + 6;
    this.panel.style.setProperty("--x", `${Math.round(x - from.left)}px`);
    this.panel.style.setProperty("--y", `${Math.round(y - from.top)}px`);
  }
}

/** The rest of an answer from a place on; the words that another answer does not have there are bold. */
function fromHere(text: string, other: string, place: number): (Node | string)[] {
  const rest = text.slice(place).trimStart();
  const [mine, theirs] = [rest.split(" "), other.slice(place).split(" ")];
  // They may end alike.
  let same = 0;
  while (same < mine.length - 1 && same < theirs.length - 1 && mine.at(-1 - same) === theirs.at(-1 - same)) same++;
  const changed = mine.slice(0, mine.length - same).join(" ");
  const end = mine.slice(mine.length - same).join(" ");
  return [place > 0 ? "… " : "", make("b", {}, changed), end ? ` ${end}` : ""];
}
