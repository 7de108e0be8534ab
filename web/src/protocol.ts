// Messages between page and worker. Every request has an id, which its answers repeat.

import type { ErrorCode } from "./errors.js";
import type { Build, GenerateOptions, Isa, Progress } from "./types.js";

/** The part of `LoadOptions` that the worker needs. */
export interface LoadRequest {
  source: string | Blob | ArrayBuffer | Uint8Array;
  sha256?: string;
  threads?: number;
  build?: Build;
  isa?: Isa;
  endpoint?: string;
  cache?: boolean;
  stallMs?: number;
  headers?: Record<string, string>;
  token?: string;
  /** Port to the caller's `fetch`. */
  fetch?: MessagePort;
  /** The module's code. */
  wasm?: WebAssembly.Module;
  /** Where copies of the package's folders are, for worker code that runs inside a bundle. */
  assets?: string;
  /** The key and name under which a file without an address is kept. */
  keepAs?: { source: string; name: string };
}

/** Answer to a load whose source has no GGUF file: the checkpoint's files, which must be converted first. */
export interface Unquantized {
  files: { name: string; url: string }[];
}

/** How a file is fetched. */
export type Fetching = Pick<LoadRequest, "stallMs" | "headers" | "token" | "endpoint" | "fetch">;

export interface QuantizeRequest extends Fetching {
  /** Addresses, or blobs (not `File`: Node cannot send those to a worker). */
  files: { name: string; blob?: Blob; url?: string }[];
  name: string;
  type: string;
}

/** Limits for `embed` and `encode`. */
export interface Limits {
  maxInputTokens?: number;
  truncate?: boolean;
}

export type Call =
  | { op: "load"; request: LoadRequest }
  | { op: "quantize"; request: QuantizeRequest }
  | { op: "generate"; source: string | readonly number[]; options: Omit<GenerateOptions, "signal"> }
  | { op: "batch"; texts: string[]; group: number; options: Omit<GenerateOptions, "signal" | "batch"> }
  | { op: "score"; source: string; target: string }
  | { op: "alignment"; source: string; target: string }
  | { op: "embed"; text: string; limits: Limits }
  | { op: "encode"; text: string; limits: Limits }
  | { op: "sentences"; text: string }
  | { op: "tokenize"; text: string }
  | { op: "detokenize"; ids: readonly number[] }
  | { op: "info" };

export type ToWorker = ({ id: number } & Call) | { id: number; op: "abort" };

export type FromWorker =
  /** The name of a lock that the worker holds while it lives. */
  | { id: 0; kind: "alive"; lock: string }
  /** A large file is about to be kept: the page may ask the browser for persistent storage. */
  | { id: number; kind: "persist" }
  | { id: number; kind: "progress"; progress: Progress }
  | { id: number; kind: "piece"; piece: string }
  | { id: number; kind: "note"; note: string }
  | { id: number; kind: "result"; result: unknown }
  | { id: number; kind: "error"; code: ErrorCode; message: string; fatal: boolean };

/** One end of the connection between page and worker. */
export interface Port<Send, Receive> {
  post(message: Send, transfer?: ArrayBuffer[]): void;
  receive(handler: (message: Receive) => void): void;
}
