// A corrected text with its changes marked.

import type { Answer } from "./answers.js";
import { diff, type Change } from "./diff.js";
import type { Field } from "./field.js";
import { make } from "./page.js";

/** Shows what goes out and what comes in; marks what goes out in the text as well. How many changes there are. */
export function showCorrection(place: HTMLElement, { pieces, after }: Answer, field: Field): number {
  let count = 0;
  const marks: { begin: number; end: number; name: string }[] = [];
  const content = pieces.map(({ begin, source, before, answer, done }) => {
    if (!done) return make("span", {}, before, answer, make("span", { class: "coming" }));
    let at = begin;
    const changes = diff(source, answer);
    changes.forEach(({ kind, text }, i) => {
      if (kind === "in") count += changes[i - 1]?.kind === "out" ? 0 : 1;
      if (kind === "out") {
        count++;
        marks.push({ begin: at, end: at + text.length, name: "slip" });
      }
      if (kind !== "in") at += text.length;
    });
    return make("span", {}, before, ...changes.map(shown));
  });
  place.replaceChildren(...content, after);
  field.mark(marks);
  return count;
}

function shown({ kind, text }: Change): Node | string {
  if (kind === "same") return text;
  // Screen readers do not tell <ins> and <del> by themselves.
  const [name, before, after] = kind === "in" ? ["ins", "added: ", " "] : ["del", "taken out: ", " "];
  const unseen = (words: string): Node => make("span", { class: "unseen" }, words);
  return make(name as "ins" | "del", {}, unseen(before), text, unseen(after));
}
