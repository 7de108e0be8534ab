// Copies of texts, and links that hold one. What stands behind # in an address is never sent to a server.

import { picture, say } from "./page.js";

/** What a link says. */
export interface Shared {
  /** The task's name; that of its view where it has none. */
  task: string;
  text: string;
}

export function linkTo({ task, text }: Shared): string {
  const link = new URL(location.href);
  link.hash = new URLSearchParams({ task, text }).toString();
  return link.href;
}

/** What the page's own address says. */
export function shared(): Shared | undefined {
  const said = new URLSearchParams(location.hash.slice(1));
  const [task, text] = [said.get("task"), said.get("text")];
  return task !== null && text !== null ? { task, text } : undefined;
}

/** The text has changed: the address does not hold it any longer. */
export function forget(): void {
  if (location.hash) history.replaceState(null, "", location.pathname + location.search);
}

/** Makes a button copy a text, and say so. */
export function copies(button: HTMLButtonElement, name: string, done: string, text: () => string): void {
  const label = button.getAttribute("aria-label") ?? "";
  let timer: ReturnType<typeof setTimeout> | undefined;
  const show = (sign: string, words: string): void => {
    picture(button, sign, words);
    say(words);
    clearTimeout(timer);
    timer = setTimeout(() => picture(button, name, label), 2500);
  };
  button.addEventListener("click", () => {
    const copied = navigator.clipboard?.writeText(text()) ?? Promise.reject();
    copied.then(
      () => show("done", done),
      () => show("clear", "This browser did not let the page copy"),
    );
  });
}
