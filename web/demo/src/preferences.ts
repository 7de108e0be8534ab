// What visitors chose, kept in this browser.

import type { Care } from "./answers.js";

export interface Preferences extends Care {
  /** The name of the task last used; that of its view where it has none. */
  task: string;
}

const KEY = "pocket-t5: choices";
const DEFAULTS: Preferences = { beams: 4, limit: 128, task: "translation_en_to_de" };

/** What is kept; defaults where there is nothing, or nothing of use. */
export function preferences(): Preferences {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY) ?? "{}") as Partial<Preferences>;
    return {
      beams: whole(kept.beams, 1, 16, DEFAULTS.beams),
      limit: whole(kept.limit, 8, 512, DEFAULTS.limit),
      task: typeof kept.task === "string" ? kept.task : DEFAULTS.task,
    };
  } catch {
    return { ...DEFAULTS };
  }
}

export function keep(preferences: Preferences): void {
  try {
    localStorage.setItem(KEY, JSON.stringify(preferences));
  } catch {
    // Where nothing may be stored, choices last as long as the page.
  }
}

/** A whole number within bounds. */
export function whole(value: unknown, least: number, most: number, otherwise: number): number {
  const number = Math.round(Number(value));
  return value !== "" && value !== undefined && Number.isFinite(number)
    ? Math.min(most, Math.max(least, number))
    : otherwise;
}
