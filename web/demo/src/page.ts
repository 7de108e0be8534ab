// The page's elements, and errors in words.

import { T5Error } from "pocket-t5";

/** An element that index.html has. */
export function element<T extends HTMLElement = HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (!found) throw new Error(`expected an element with id ${id}, found none`);
  return found as T;
}

export function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
}

/** What to do, by code. */
const ADVICE: Record<string, string> = {
  "bad-model": "Choose a GGUF file of a T5 model, or all files of a Hugging Face folder.",
  "out-of-memory": "Close other tabs, or choose a smaller model.",
  "not-found": "Check the address.",
  network: "Check the connection and load again: what has arrived is kept. Other sites must allow this page (CORS).",
  checksum: "The file was damaged on its way, or replaced. Load it again.",
  unsupported: "Use a browser from 2023 or newer.",
};

export function explain(error: unknown): string {
  const { code, message } = error instanceof T5Error ? error : { code: "failed", message: String(error) };
  const sentence = message.charAt(0).toUpperCase() + message.slice(1);
  return [sentence.replace(/\.?$/, "."), ADVICE[code] ?? ""].join(" ").trim();
}

/** Shows an error, or takes the last one away. An abort is none. */
export function report(error?: unknown): void {
  const place = element("error");
  const shown =
    error !== undefined && !(error instanceof T5Error && (error.code === "aborted" || error.code === "disposed"));
  place.hidden = !shown;
  place.textContent = shown ? explain(error) : "";
}
