// The text that visitors write. Words in a text area cannot be marked: a copy of the text lies behind it.

import { element, make } from "./page.js";
import type { Place } from "./words.js";

/** A stretch of the text that can be marked. */
export interface Mark extends Place {
  /** Which word it is, for whoever lights it up. */
  key?: string;
  name?: string;
}

export class Field {
  readonly area = element<HTMLTextAreaElement>("source");
  private readonly mirror = element("mirror");
  private marks: Mark[] = [];

  constructor(changed: () => void) {
    this.area.addEventListener("input", () => {
      this.mark([]);
      changed();
    });
  }

  get text(): string {
    return this.area.value;
  }

  set text(text: string) {
    this.area.value = text;
    this.mark([]);
  }

  /** What stands there before a text does. */
  set placeholder(text: string) {
    this.area.placeholder = text;
    if (this.text === "") this.mark([]);
  }

  /** Which stretches can be marked from now on, in their order; until the text changes. */
  mark(marks: Mark[]): void {
    this.marks = marks;
    const { text } = this;
    let at = 0;
    const content: (Node | string)[] = [];
    for (const { begin, end, key, name } of marks) {
      const attributes = { ...(key !== undefined && { "data-key": key }), ...(name && { class: name }) };
      content.push(text.slice(at, begin), make("span", attributes, text.slice(begin, end)));
      at = end;
    }
    // A placeholder needs its height, too; and the last line counts also where it is empty.
    const rest = text === "" ? this.area.placeholder : text.slice(at);
    this.mirror.replaceChildren(...content, `${rest}\u200b`);
    document.body.classList.toggle("long", text.length > 160 || text.split("\n").length > 6);
  }

  /** The word at a point of the screen. */
  keyAt(x: number, y: number): string | undefined {
    for (const found of document.elementsFromPoint(x, y)) {
      if (found instanceof HTMLElement && found.dataset.key && this.mirror.contains(found)) return found.dataset.key;
    }
    return undefined;
  }

  /** The word at the caret, if nothing is selected. */
  keyAtCaret(): string | undefined {
    const { selectionStart: caret, selectionEnd } = this.area;
    if (caret !== selectionEnd) return undefined;
    return this.marks.find(({ begin, end }) => begin <= caret && caret <= end)?.key;
  }

  /** Writes in place of what is selected. */
  insert(text: string): void {
    this.area.focus();
    const { selectionStart, selectionEnd } = this.area;
    this.area.setRangeText(text, selectionStart, selectionEnd, "end");
    this.area.dispatchEvent(new Event("input", { bubbles: true }));
  }
}
