// A text with its gaps filled, and other fillings.

import type { T5 } from "pocket-t5";
import type { Care } from "./answers.js";
import { around, fillings, marked } from "./gaps.js";
import { button, make } from "./page.js";

/** Fillings that are weighed. */
const WAYS = 4;

/** Fills the gaps of a text; `chosen` hears of the whole text, also when another filling is chosen. */
export async function fill(
  place: HTMLElement,
  text: string,
  { t5, marks, end, care, signal }: { t5: T5; marks: number[]; end: number; care: Care; signal: AbortSignal },
  chosen: (text: string) => void,
): Promise<string | undefined> {
  const { text: asked, gaps } = marked(text);
  if (gaps === 0) return "Write two underscores or more where a word is missing: __";
  if (gaps >= marks.length) return `A text may have ${marks.length - 1} gaps at most; this one has ${gaps}.`;
  const beams = Math.max(care.beams, WAYS);
  const options = { beams, nBest: WAYS, maxNewTokens: care.limit, splitSentences: false, signal };
  const outputs = await t5.generate(asked, options).outputs;
  const ways: string[][] = [];
  for (const { ids } of outputs) {
    const found = fillings(ids, marks.slice(0, gaps + 1), end);
    const texts = await Promise.all(found.map((ids) => t5.detokenize(ids)));
    const way = texts.map((text) => text.trim());
    if (!ways.some((other) => other.join("\n") === way.join("\n"))) ways.push(way);
  }
  signal.throwIfAborted();
  const stretches = around(text);
  const show = (way: string[]): void => {
    const filled = stretches.flatMap((stretch, i) =>
      i < gaps ? [stretch, make("mark", {}, way[i] || "…")] : [stretch],
    );
    const others = ways.filter((other) => other !== way);
    const list = others.map((other) => {
      const label = other.map((word) => word || "…").join(", ");
      return make("li", {}, button(label, () => show(other)));
    });
    place.replaceChildren(make("p", {}, ...filled));
    if (list.length > 0) {
      place.append(make("div", { class: "ways" }, make("p", { class: "quiet" }, "Or"), make("ul", {}, ...list)));
    }
    chosen(stretches.map((stretch, i) => stretch + (i < gaps ? way[i] || "…" : "")).join(""));
  };
  show(ways[0] ?? []);
  return undefined;
}
