// Checks arguments before anything is sent to a worker, so that errors use the caller's names.

import { T5Error } from "./errors.js";
import type { EncodeOptions, FileType } from "./types.js";

export function wrong(name: string, expected: string, found: unknown): T5Error {
  return new T5Error("bad-option", `${name}: expected ${expected}, found ${shown(found)}`);
}

/** Refuses an option's value, if there is one and it is not what is expected. */
export function check(name: string, value: unknown, is: boolean, expected: string): void {
  if (value !== undefined && !is) throw wrong(name, expected, value);
}

/** A value in a few words. */
function shown(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value.length > 60 ? `${value.slice(0, 60)}…` : value);
  if (Array.isArray(value)) return value.length === 0 ? "an empty list" : `a list with ${shown(value[0])}`;
  if (typeof value === "object" && value !== null)
    return `an object (${value.constructor?.name ?? "without a prototype"})`;
  return typeof value === "function" ? "a function" : String(value);
}

/** Runs `f`; anything it throws synchronously rejects the promise. */
export async function attempt<T>(f: () => Promise<T>): Promise<T> {
  return f();
}

export function text(name: string, value: unknown): string {
  if (typeof value !== "string") throw wrong(name, "a text", value);
  return value;
}

export function texts(name: string, values: readonly unknown[]): string[] {
  return values.map((value, i) => text(`${name}[${i}]`, value));
}

export function ids(name: string, value: unknown): number[] {
  const list =
    Array.isArray(value) || value instanceof Uint32Array ? Array.from(value as ArrayLike<unknown>) : undefined;
  if (!list) throw wrong(name, "a list of ids", value);
  list.forEach((id, i) => {
    if (!(Number.isInteger(id) && (id as number) >= 0 && (id as number) < 2 ** 32)) {
      throw wrong(`${name}[${i}]`, "an id, a whole number of 0 or more", id);
    }
  });
  return list as number[];
}

export function textOrIds(name: string, value: unknown): string | number[] {
  if (typeof value === "string") return value;
  if (Array.isArray(value) || value instanceof Uint32Array) return ids(name, value);
  throw wrong(name, "a text or a list of ids", value);
}

/** Refuses what is no object. */
export function object(name: string, value: unknown): void {
  if (typeof value !== "object" || value === null) throw wrong(name, "an object", value);
}

/** Refuses options of other names. */
export function known(options: object, names: readonly string[]): void {
  object("options", options);
  for (const name of Object.keys(options)) {
    if (!names.includes(name)) throw new T5Error("bad-option", `${name}: there is no option of this name`);
  }
}

/** Options of `embed` and `encode`. */
export function limits(options: EncodeOptions): EncodeOptions {
  known(options, ["signal", "maxInputTokens", "truncate"]);
  const { maxInputTokens: most, truncate } = options;
  if (most !== undefined && !(Number.isInteger(most) && most >= 1 && most < 2 ** 32)) {
    throw wrong("maxInputTokens", "a whole number of 1 or more", most);
  }
  if (truncate !== undefined && typeof truncate !== "boolean") throw wrong("truncate", "true or false", truncate);
  return options;
}

/** The files of a list of any kind; undefined if it is none, or has something else in it. */
export function filesOf(value: unknown): File[] | undefined {
  if (typeof value !== "object" || value === null || !(Symbol.iterator in value)) return undefined;
  const list = [...(value as Iterable<unknown>)];
  const isFile = (file: unknown): boolean => ["File", "Blob"].includes(kindOf(file));
  return list.every(isFile) ? (list as File[]) : undefined;
}

/** What kind of object a value is, also one of another frame, whose classes are others. */
const kindOf = (value: unknown): string => Object.prototype.toString.call(value).slice("[object ".length, -1);

/**
 * Whether a request can be sent with these headers. Not every place where `load` is called has `Headers`. An object of
 * that class, or a `Map`, would reach the worker empty.
 */
export function areHeaders(value: unknown): boolean {
  const isHeader = ([name, text]: [string, unknown]): boolean =>
    /^[\w!#$%&'*+.^`|~-]+$/.test(name) && typeof text === "string" && /^[^\0\r\n\u0100-\uffff]*$/.test(text.trim());
  return kindOf(value) === "Object" && Object.entries(value as object).every(isHeader);
}

/** Whether this is a text or a `URL`; what it stands for is looked at where it is used. */
export function isAddress(value: unknown): value is string | URL {
  return typeof value === "string" || kindOf(value) === "URL";
}

/** Whether a text is an address of the web that can be asked. */
export function isWebAddress(value: unknown): boolean {
  if (typeof value !== "string" || !/^https?:\/\/[^/]/.test(value)) return false;
  try {
    return Boolean(new URL(value));
  } catch {
    return false;
  }
}

/** Every type once: the compiler sees that none is missing. */
const FILE_TYPES: Record<FileType, true> = { q8_0: true, f16: true, f32: true, q4_0: true, q4_k: true };

/** Refuses what `quantize` does not write, before it reads anything; the module has the same list. */
export function checkType(type: unknown): void {
  const names = Object.keys(FILE_TYPES);
  check("type", type, names.includes(type as string), `one of ${names.join(", ")}`);
}

/** Options that are set, as they can be sent. Their names and types are the module's to check. */
export function plain<T extends object>(options: T): T {
  const set = Object.entries(options).filter(([, value]) => value !== undefined);
  for (const [name, value] of set) {
    if (typeof value === "function" || typeof value === "symbol") throw wrong(name, "a value", value);
    if (typeof value === "number" && !Number.isFinite(value)) throw wrong(name, "a finite number", value);
  }
  return Object.fromEntries(set) as T;
}

export function checkSignal(signal: AbortSignal | undefined): AbortSignal | undefined {
  if (signal !== undefined && typeof (signal as Partial<AbortSignal>)?.addEventListener !== "function") {
    throw wrong("signal", "an AbortSignal", signal);
  }
  return signal;
}
