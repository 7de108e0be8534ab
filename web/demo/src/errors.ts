// Errors in words.

import { T5Error } from "pocket-t5";

/** What to do, by code. */
const ADVICE: Record<string, string> = {
  "bad-model": "Choose a GGUF file of a T5 model, or all files of a Hugging Face folder.",
  "out-of-memory": "Close other tabs, or choose a smaller model.",
  "not-found": "Check the address.",
  network: "Check the connection and try again: what has arrived is kept. Other sites must allow this page (CORS).",
  checksum: "The file was damaged on its way, or replaced. Load it again.",
  unsupported: "Use a browser from 2023 or newer.",
};

/** An error as a sentence and what to do. An address is said as it was typed, not as it was resolved. */
export function explain(error: unknown, typed?: string): string {
  const code = error instanceof T5Error ? error.code : "failed";
  const text = error instanceof Error ? error.message : String(error);
  const advice = code === "not-found" && typed === undefined ? "Try again later." : (ADVICE[code] ?? "");
  return `${sentence(typed === undefined ? text : asTyped(text, typed))} ${advice}`.trim();
}

function asTyped(text: string, typed: string): string {
  if (!URL.canParse(typed, location.href)) return text;
  return text.replaceAll(new URL(typed, location.href).href, typed).replace(typed, `“${typed}”`);
}

/** With a full stop, and a capital letter where it does not begin with an address. */
function sentence(text: string): string {
  const whole = text.replace(/\.?$/, ".");
  return /^\w+:\/\//.test(whole) ? whole : whole.charAt(0).toUpperCase() + whole.slice(1);
}

/** Whether somebody wanted this end: then it is no error. */
export function wanted(error: unknown): boolean {
  if (error instanceof T5Error) return error.code === "aborted" || error.code === "disposed";
  return error instanceof DOMException && error.name === "AbortError";
}

/** Whether the model is gone and can only be loaded again. */
export function lost(error: unknown): boolean {
  return error instanceof T5Error && error.code === "lost";
}
