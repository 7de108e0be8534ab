/** What went wrong, for programs to check. The message is for people. */
export type ErrorCode =
  /** An option is unknown, out of range or contradicts another one. */
  | "bad-option"
  /** The file is not a model that this package can run. */
  | "bad-model"
  /** The model does not fit into memory. */
  | "out-of-memory"
  /** There is no file at the address. */
  | "not-found"
  /** The transfer failed, also after several attempts, or the server refuses it. */
  | "network"
  /** The file is not the one whose SHA-256 was given. */
  | "checksum"
  /** The request's signal was aborted. */
  | "aborted"
  /** `dispose()` was called. */
  | "disposed"
  /** The browser lacks something that is needed. */
  | "unsupported"
  /** The model ended in an earlier request, or its worker did: it must be loaded again. */
  | "lost"
  /** A bug in this package. */
  | "failed";

/** The only kind of error that this package throws. */
export class T5Error extends Error {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
    // Programs check for this name after aborting.
    this.name = code === "aborted" ? "AbortError" : "T5Error";
  }
}

const CODES: ReadonlySet<string> = new Set<ErrorCode>([
  "bad-option", "bad-model", "out-of-memory", "not-found", "network", "checksum", "aborted", "disposed", "unsupported",
  "lost", "failed",
]);

/** Turns anything thrown into a `T5Error`: the module's errors carry a code; others, such as traps, get `failed`. */
export function asT5Error(error: unknown): T5Error {
  if (error instanceof T5Error) return error;
  const { code, message } = (error ?? {}) as { code?: unknown; message?: unknown };
  const text = typeof message === "string" ? message : String(error);
  return new T5Error(typeof code === "string" && CODES.has(code) ? (code as ErrorCode) : "failed", text);
}

/** Throws if the signal is aborted. */
export function throwIfAborted(signal?: AbortSignal): void {
  if (signal?.aborted) throw aborted();
}

/** Waits for the promise until the signal is aborted, whose reason is then thrown. */
export function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return promise;
  return new Promise<T>((resolve, reject) => {
    const stop = (): void => reject(signal.reason);
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", stop));
    if (signal.aborted) stop();
    else signal.addEventListener("abort", stop, { once: true });
  });
}

/** The error of an aborted request; its `cause` is the signal's reason. */
export function aborted(signal?: AbortSignal): T5Error {
  return new T5Error("aborted", "the request was aborted", signal?.aborted ? { cause: signal.reason } : undefined);
}

/** Whether an error is a WebAssembly trap: the module's memory may be corrupt and must not be used again. */
export function isTrap(error: unknown): boolean {
  return error instanceof WebAssembly.RuntimeError;
}
