// What the model can do, from what its file says of its tasks.

import type { Info } from "pocket-t5";

export type View = "translate" | "pronounce" | "correct" | "free" | "gaps";

/** Something to ask of the model. */
export interface Task {
  view: View;
  /** The task's name in the model's file; none where the text goes in as it is. */
  name?: string;
  /** What the file puts before the text. */
  prefix: string;
  /** Languages of the text and the answer (BCP 47), where they are known. */
  from?: string;
  to?: string;
}

/** In the order of the tabs. */
const LABELS: Record<View, string> = {
  translate: "Translate",
  pronounce: "Pronounce",
  correct: "Correct",
  free: "Free text",
  gaps: "Fill gaps",
};

const VIEWS = Object.keys(LABELS);

export const label = (view: View): string => LABELS[view];

/** The tasks of the built-in model, for the time until it is there. */
export const EXPECTED: Task[] = [
  { view: "translate", name: "translation_en_to_de", prefix: "", from: "en", to: "de" },
  { view: "translate", name: "translation_en_to_fr", prefix: "", from: "en", to: "fr" },
  { view: "translate", name: "translation_de_to_en", prefix: "", from: "de", to: "en" },
  { view: "translate", name: "translation_fr_to_en", prefix: "", from: "fr", to: "en" },
  { view: "pronounce", name: "pronunciation", prefix: "", from: "en" },
  { view: "correct", name: "correction", prefix: "", from: "en", to: "en" },
  { view: "gaps", prefix: "", from: "en", to: "en" },
];

/** The tasks of a loaded model; `gaps` says whether its vocabulary has marks for gaps. */
export function tasksOf(info: Info, gaps: boolean): Task[] {
  const named = (info.generation.task_specific_params ?? {}) as Record<string, { prefix?: unknown }>;
  const all = Object.entries(named).map(([name, settings]) => task(name, String(settings?.prefix ?? "")));
  // A model without tasks was made for one thing, or for instructions: both are texts as they are.
  if (!all.some(({ view }) => view !== "free")) all.push({ view: "free", prefix: "" });
  if (gaps) all.push({ view: "gaps", prefix: "" });
  // A file has its tasks in the order of their names.
  return all.sort((a, b) => VIEWS.indexOf(a.view) - VIEWS.indexOf(b.view));
}

function task(name: string, prefix: string): Task {
  const languages = /^translation_([a-z]{2,3}(?:[-_][A-Za-z]+)*?)_to_([a-z]{2,3}(?:[-_][A-Za-z]+)*)$/.exec(name);
  if (languages) {
    const [from, to] = languages.slice(1).map((code) => code.replaceAll("_", "-"));
    return { view: "translate", name, prefix, from, to };
  }
  if (name === "pronunciation") return { view: "pronounce", name, prefix, from: "en" };
  if (name === "correction") return { view: "correct", name, prefix, from: "en", to: "en" };
  return { view: "free", name, prefix };
}

const names = new Intl.DisplayNames(["en"], { type: "language", fallback: "code" });

/** A language's name, such as "German" for "de". */
export function language(code: string | undefined): string {
  try {
    return code ? (names.of(code) ?? code) : "";
  } catch {
    return code ?? "";
  }
}

const FROM: Record<string, string[]> = {
  en: ["Where is the station?", "I have never seen such a beautiful house.", "She reads a book every week. Do you?"],
  de: ["Wo ist der Bahnhof?", "Ich habe noch nie so ein schönes Haus gesehen.", "Wir fahren morgen ans Meer."],
  fr: ["Où est la gare ?", "Je n'ai jamais vu une si belle maison.", "Nous allons à la plage demain."],
};

/** Texts to try. */
export function examples({ view, from }: Task): string[] {
  switch (view) {
    case "translate":
      return FROM[from ?? ""] ?? [];
    case "pronounce":
      return ["thorough", "pocket", "a foreign language"];
    case "correct":
      return ["he go to school evry day", "I has two cats.", "Their is a problem with teh car."];
    case "gaps":
      return ["The ___ walks in ___ park.", "It was a dark and ___ night."];
    case "free":
      return [];
  }
}
