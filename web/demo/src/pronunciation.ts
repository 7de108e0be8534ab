// How words sound: the phonetic alphabet, and ARPAbet below it.

import type { T5 } from "pocket-t5";
import type { Care } from "./answers.js";
import { sounds, type Sound } from "./ipa.js";
import { make } from "./page.js";
import type { Task } from "./tasks.js";

/** Words that are pronounced at once. */
const GROUP = 8;
/** Ways of saying a word that are shown. */
const WAYS = 3;

interface Way {
  arpabet: string;
  sounds: Sound[] | undefined;
}

/** The words of a text, one after the other. What they sound like, as a text. */
export async function pronounce(
  place: HTMLElement,
  text: string,
  { t5, task, care, signal }: { t5: T5; task: Task; care: Care; signal: AbortSignal },
): Promise<string> {
  const all = (text.match(/[\p{L}\p{M}]+(?:['’.-][\p{L}\p{M}]+)*/gu) ?? []).map((word) => word.replaceAll("’", "'"));
  const shown: HTMLElement[] = [];
  const heard: string[] = [];
  for (let at = 0; at < all.length; at += GROUP) {
    const group = all.slice(at, at + GROUP);
    const beams = Math.max(care.beams, WAYS);
    const outputs = await t5.generate(
      group.map((word) => word.toLowerCase()),
      { ...(task.name && { task: task.name }), beams, nBest: WAYS, maxNewTokens: care.limit, signal },
    ).outputs;
    signal.throwIfAborted();
    group.forEach((word, i) => {
      const ways = (outputs[i] ?? []).map(({ text }) => ({ arpabet: text, sounds: sounds(text) }));
      shown.push(entry(word, ways));
      heard.push(ipa(ways[0]));
    });
    // A long text's first words are there before its last ones.
    place.replaceChildren(...shown);
  }
  const whole = heard.length > 0 ? `/${heard.join(" ")}/` : "";
  if (heard.length > 1) shown.unshift(make("p", { class: "whole", lang: "en-fonipa" }, whole));
  place.replaceChildren(...shown);
  return whole;
}

/** A word in the phonetic alphabet; as the model wrote it where that is none. */
const ipa = (way: Way | undefined): string => way?.sounds?.map(({ ipa }) => ipa).join("") ?? way?.arpabet ?? "";

function entry(word: string, [best, ...others]: Way[]): HTMLElement {
  const whole = make("p", { class: "ipa", lang: "en-fonipa" }, `/${ipa(best)}/`);
  const columns = (best?.sounds ?? []).map(({ ipa, arpabet }) =>
    make("li", {}, make("span", { lang: "en-fonipa" }, ipa), make("code", {}, arpabet)),
  );
  const also = [...new Set(others.map(ipa))].filter((way) => way !== ipa(best)).map((way) => `/${way}/`);
  const perhaps = make("span", { lang: "en-fonipa" }, also.join("  "));
  return make(
    "section",
    { class: "pronounced" },
    make("h2", { lang: "en" }, word),
    whole,
    make("ul", { class: "sounds", "aria-label": "Sound by sound: phonetic alphabet and ARPAbet" }, ...columns),
    ...(also.length > 0 ? [make("p", { class: "quiet also" }, "Perhaps also ", perhaps)] : []),
  );
}
