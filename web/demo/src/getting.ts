// The place of the answer while there is no model yet: first use, progress, a way on where it cannot be had.

import { explain, wanted } from "./errors.js";
import { BUILT_IN_BYTES, type Coming } from "./model.js";
import { element, megabytes } from "./page.js";
import { inWords, setBar, share } from "./settings.js";

const SIZE = megabytes(BUILT_IN_BYTES);

export class Getting {
  private readonly get = element("get");
  private readonly cancel = element("cancel");
  private readonly bar = element<HTMLProgressElement>("progress");
  private readonly text = element("progress-text");
  private readonly title = element("getting-title");

  constructor(get: () => void, cancel: () => void) {
    this.get.addEventListener("click", get);
    this.cancel.addEventListener("click", cancel);
  }

  coming({ builtIn, name, progress }: Coming): void {
    this.show(true);
    // What is kept here is there at once: nothing to say about its size.
    const kept = progress?.phase === "read" || progress?.phase === "prepare";
    const what = builtIn ? "the translator" : name;
    this.title.textContent = kept ? `Opening ${what}…` : `Getting ${what}`;
    element("getting-why").hidden = kept || !builtIn;
    this.text.textContent = inWords(progress);
    this.cancel.hidden = kept;
    setBar(this.bar, share(progress));
  }

  /** Nobody has asked for it yet, or somebody cancelled. */
  waiting(): void {
    this.offer("The translator is not here yet.", `Get it (${SIZE})`, "Once it is, it works without a network.");
  }

  failed(error: unknown): void {
    if (wanted(error)) return this.waiting();
    this.offer("The translator could not be had.", "Try again", explain(error));
  }

  private offer(title: string, get: string, text: string): void {
    this.show(false);
    element("getting-why").hidden = true;
    this.title.textContent = title;
    this.get.textContent = get;
    this.text.textContent = text;
  }

  private show(comes: boolean): void {
    element("getting").hidden = false;
    element("getting").classList.toggle("comes", comes);
    this.bar.hidden = this.cancel.hidden = !comes;
    this.get.hidden = comes;
  }

  done(): void {
    element("getting").hidden = true;
  }
}
