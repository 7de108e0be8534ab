// An answer on the page, sentence by sentence, with words that can be pointed at.

import type { Answer, Piece } from "./answers.js";
import { key, type Lights } from "./lights.js";
import { make, say } from "./page.js";
import { words, type Place } from "./words.js";

/** Somebody wants to see other wordings from a word of a sentence on. */
export type Ask = (piece: Piece, place: Place, word: HTMLElement, byKeyboard: boolean) => void;

export class AnswerText {
  private shown: { state: string; element: HTMLElement }[] = [];
  /** The answers that stood here before, for the time until new ones are there. */
  private before: string[] = [];
  private answer: Answer | undefined;
  private current = -1;

  constructor(
    private readonly place: HTMLElement,
    private readonly lights: Lights,
    ask: Ask,
  ) {
    const askFor = (word: HTMLElement | undefined, byKeyboard: boolean): void => {
      const [i, j] = (word?.dataset.key ?? "").split(":").map(Number);
      const piece = this.answer?.pieces[i ?? -1];
      const found = piece && placesOf(piece)[j ?? -1];
      if (word && piece?.done && found) ask(piece, found, word, byKeyboard);
    };
    place.addEventListener("click", (event) => {
      // Somebody who selects text does not ask.
      if (!getSelection()?.isCollapsed) return;
      askFor((event.target as HTMLElement).closest<HTMLElement>(".word") ?? undefined, false);
    });
    place.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const all = this.words();
      if (event.key === "Enter" && all[this.current]) {
        event.preventDefault();
        return askFor(all[this.current], true);
      }
      const to = { ArrowRight: this.current + 1, ArrowLeft: this.current - 1, Home: 0, End: all.length - 1 }[event.key];
      if (to === undefined || all.length === 0) return;
      event.preventDefault();
      this.go(Math.min(Math.max(to, 0), all.length - 1));
    });
    place.addEventListener("focus", () => {
      if (place.matches(":focus-visible") && this.words().length > 0) this.go(Math.max(this.current, 0));
    });
    place.addEventListener("blur", () => {
      lights.off();
      place.querySelector(".current")?.classList.remove("current");
    });
  }

  /** Shows an answer as far as it goes. Only sentences that changed are written anew. */
  show(answer: Answer): void {
    this.answer = answer;
    answer.pieces.forEach((piece, i) => {
      const { before, answer, done, links } = piece;
      const state = JSON.stringify([before, answer, done, links !== undefined, done ? "" : this.before[i]]);
      const known = this.shown[i];
      if (known?.state === state) return;
      const element = make("span", {}, before, ...this.content(piece, i));
      if (known) known.element.replaceWith(element);
      else this.place.append(element);
      this.shown[i] = { state, element };
    });
    for (const { element } of this.shown.splice(answer.pieces.length)) element.remove();
    // What stands behind the last sentence, such as a number alone.
    this.place.querySelector(".after")?.remove();
    if (answer.after.trim()) this.place.append(make("span", { class: "after" }, answer.after));
    if (answer.pieces.every(({ done }) => done)) this.before = answer.pieces.map(({ answer }) => answer);
    this.place.tabIndex = answer.pieces.length > 0 ? 0 : -1;
  }

  clear(): void {
    this.answer = undefined;
    this.shown = [];
    this.before = [];
    this.current = -1;
    this.place.replaceChildren();
    this.place.tabIndex = -1;
  }

  private content(piece: Piece, i: number): (Node | string)[] {
    if (!piece.done) {
      const old = (this.before[i] ?? "").slice(piece.answer.length);
      return [piece.answer, make("span", { class: old ? "stale" : "coming" }, old)];
    }
    const content: (Node | string)[] = [];
    let at = 0;
    placesOf(piece).forEach(({ begin, end }, j) => {
      const word = make("span", { class: "word", "data-key": key(i, j) }, piece.answer.slice(begin, end));
      content.push(piece.answer.slice(at, begin), word);
      at = end;
    });
    return [...content, piece.answer.slice(at)];
  }

  private words(): HTMLElement[] {
    return [...this.place.querySelectorAll<HTMLElement>(".word")];
  }

  /** Moves to a word by keyboard: it lights up, and its partners are told. */
  private go(to: number): void {
    const all = this.words();
    all[this.current]?.classList.remove("current");
    this.current = to;
    const word = all[to];
    const at = word?.dataset.key;
    if (!word || at === undefined) return;
    word.classList.add("current");
    word.scrollIntoView({ block: "nearest" });
    this.lights.ofTarget(at);
    const partners = this.lights.partners(at);
    say(partners.length > 0 ? `${word.textContent}: ${partners.join(" ")}` : (word.textContent ?? ""));
  }
}

/** The words of an answer that can be pointed at. */
function placesOf({ answer, links }: Piece): Place[] {
  return links?.answer ?? words(answer);
}
