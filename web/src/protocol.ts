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
}

export interface QuantizeRequest {
  /** Not `File`: Node's do not cross. */
  files: { name: string; blob: Blob }[];
  name: string;
  type: string;
}

export type Call =
  | { op: "load"; request: LoadRequest }
  | { op: "quantize"; request: QuantizeRequest }
  | { op: "generate"; source: string | readonly number[]; options: Omit<GenerateOptions, "signal"> }
  | { op: "batch"; texts: string[]; options: Omit<GenerateOptions, "signal"> }
  | { op: "score"; source: string; target: string }
  | { op: "alignment"; source: string; target: string }
  | { op: "embed"; text: string }
  | { op: "sentences"; text: string }
  | { op: "tokenize"; text: string }
  | { op: "detokenize"; ids: readonly number[] }
  | { op: "info" };

export type ToWorker = ({ id: number } & Call) | { id: number; op: "abort" };

export type FromWorker =
  | { id: number; kind: "progress"; progress: Progress }
  | { id: number; kind: "piece"; piece: string }
  | { id: number; kind: "result"; result: unknown }
  | { id: number; kind: "error"; code: ErrorCode; message: string; fatal: boolean };

/** One end of the line between page and worker. */
export interface Port<Send, Receive> {
  post(message: Send, transfer?: ArrayBuffer[]): void;
  receive(handler: (message: Receive) => void): void;
}
