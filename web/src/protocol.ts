// What page and worker say to each other. Every request has an id; its answers carry the same.

import type { ErrorCode } from "./errors.js";
import type { Build, GenerateOptions, Isa, Progress } from "./types.js";

/** What the worker needs of `LoadOptions`. */
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
  /** Where the page fetches what it is asked for. */
  fetch?: MessagePort;
  /** The module's code. */
  wasm?: WebAssembly.Module;
  /** Where copies of the package's folders lie, for what runs in a bundle and not in a worker from there. */
  assets?: string;
  /** What a file that has no address is kept under, and its name. */
  keepAs?: { source: string; name: string };
}

/** What a load that is not done yet needs: the checkpoint's files, to be made one. */
export interface Unquantized {
  files: { name: string; url: string }[];
}

/** How a file is fetched. */
export type Fetching = Pick<LoadRequest, "stallMs" | "headers" | "token" | "endpoint" | "fetch">;

export interface QuantizeRequest extends Fetching {
  /** Bytes, not `File` (Node's do not cross), or addresses. */
  files: { name: string; blob?: Blob; url?: string }[];
  name: string;
  type: string;
}

/** Limits of a source that is only encoded. */
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
  /** A lock that the worker holds as long as it lives. */
  | { id: 0; kind: "alive"; lock: string }
  /** A large file will be kept: the page may ask that it is not taken away again. */
  | { id: number; kind: "persist" }
  | { id: number; kind: "progress"; progress: Progress }
  | { id: number; kind: "piece"; piece: string }
  | { id: number; kind: "note"; note: string }
  | { id: number; kind: "result"; result: unknown }
  | { id: number; kind: "error"; code: ErrorCode; message: string; fatal: boolean };

/** One end of the line between page and worker. */
export interface Port<Send, Receive> {
  post(message: Send, transfer?: ArrayBuffer[]): void;
  receive(handler: (message: Receive) => void): void;
}
