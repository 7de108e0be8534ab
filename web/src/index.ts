/**
 * Pocket T5: T5 models in the browser and in Node.
 *
 * ```js
 * const t5 = await T5.load("model.gguf", { onProgress: ({ loaded, total }) => … });
 * for await (const piece of t5.generate("translate English to German: Good morning.")) console.log(piece);
 * ```
 */

import { attempt, checkSignal, ids, known, plain, text, textOrIds, texts, wrong } from "./check.js";
import { Client } from "./client.js";
import { aborted, T5Error } from "./errors.js";
import { absolute } from "./platform.js";
import type { LoadRequest } from "./protocol.js";
import type {
  Alignment, GenerateOptions, Info, LoadOptions, Output, QuantizeOptions, RequestOptions, Score, Sentence, Source,
} from "./types.js";

export { cache, type StoredModel } from "./store.js";
export { registerServiceWorker, type ServiceWorkerOptions } from "./register.js";
export { T5Error, type ErrorCode } from "./errors.js";
export type {
  Alignment,
  Build,
  FileType,
  GenerateOptions,
  Info,
  Isa,
  LoadOptions,
  Output,
  Progress,
  QuantizeOptions,
  RequestOptions,
  Score,
  Sentence,
  Source,
} from "./types.js";

/** A text on its way: iterate over it for the pieces, or await the results. */
export class Generation implements AsyncIterable<string> {
  /** The results, best first. */
  readonly outputs: Promise<Output[]>;
  private readonly pieces: string[] = [];
  private readonly abort = new AbortController();
  private ended = false;
  private wake: (() => void) | undefined;

  /** @internal */
  constructor(client: Client, source: string | readonly number[] | Uint32Array, options: GenerateOptions) {
    const { signal, ...rest } = options;
    const abort = (): void => this.abort.abort(signal?.reason);
    if (signal?.aborted) abort();
    signal?.addEventListener?.("abort", abort);
    const piece = (piece: string): void => {
      this.pieces.push(piece);
      this.wake?.();
    };
    this.outputs = attempt(() => {
      checkSignal(signal);
      const call = { op: "generate", source: textOrIds("source", source), options: plain(rest) } as const;
      return client.request<Output[]>(call, { signal: this.abort.signal, piece });
    });
    const end = (): void => {
      signal?.removeEventListener?.("abort", abort);
      this.ended = true;
      this.wake?.();
    };
    // Who only iterates meets the error there; it is not unhandled here.
    this.outputs.then(end, end);
  }

  /** The pieces as they come. Leaving the loop early aborts the request. */
  async *[Symbol.asyncIterator](): AsyncGenerator<string, void, undefined> {
    try {
      for (;;) {
        const piece = this.pieces.shift();
        if (piece !== undefined) yield piece;
        else if (this.ended) break;
        else await new Promise<void>((resolve) => (this.wake = resolve));
      }
      await this.outputs;
    } finally {
      if (!this.ended) this.abort.abort();
    }
  }

  /** The best result's text. */
  async text(): Promise<string> {
    return (await this.outputs)[0]?.text ?? "";
  }
}

/** Texts on their way, for a list of texts. */
export class Batch {
  /** The results of each text, best first. */
  readonly outputs: Promise<Output[][]>;

  /** @internal */
  constructor(client: Client, sources: readonly string[], { signal, ...options }: GenerateOptions) {
    this.outputs = attempt(() => {
      const call = { op: "batch", texts: texts("source", sources), options: plain(options) } as const;
      return client.request<Output[][]>(call, { signal: checkSignal(signal) });
    });
    // As for one text: who only asks for the texts meets the error there.
    this.outputs.catch(() => {});
  }

  /** The best result's text for each text. */
  async texts(): Promise<string[]> {
    return (await this.outputs).map(([best]) => best?.text ?? "");
  }
}

/** What a Hugging Face folder's checkpoint consists of; other files in it are not read. */
const CHECKPOINT =
  /^(config\.json|generation_config\.json|tokenizer\.json|tokenizer_config\.json|spiece\.model|tokenizer\.model|sentencepiece\.model|model.*\.safetensors|model\.safetensors\.index\.json)$/;

/**
 * Turns the files of a Hugging Face folder into one GGUF file, in a worker that ends with it. The file can be loaded
 * and saved. Aborting ends the work at once.
 */
export async function quantize(files: Iterable<File>, options: QuantizeOptions = {}): Promise<File> {
  known(options, ["type", "name", "onProgress", "signal", "assets"]);
  const { type = "q8_0", name = "model.gguf", onProgress, signal, assets } = options;
  checkSignal(signal);
  const chosen = [...files].filter((file) => CHECKPOINT.test(file.name));
  const client = await Client.start(assets);
  const request = { files: chosen.map((file) => ({ name: file.name, blob: file.slice() })), name, type };
  const end = (): void => client.close(aborted(signal));
  signal?.addEventListener("abort", end);
  try {
    const blob = await client.request<Blob>({ op: "quantize", request }, { signal, progress: onProgress });
    return new File([blob], name, { type: blob.type });
  } finally {
    signal?.removeEventListener("abort", end);
    client.close(new T5Error("disposed", "the work is done"));
  }
}

/** A loaded model in a worker of its own. Any number of requests may be pending; they run in their order. */
export class T5 {
  private constructor(private readonly client: Client) {}

  /** Loads a model: see {@link Source} for what it may come from. */
  static async load(source: Source, options: LoadOptions = {}): Promise<T5> {
    const request = { source: await readable(source, options), ...loadOptions(options) };
    const { onProgress, signal, assets } = options;
    const client = await Client.start(assets);
    try {
      await client.request({ op: "load", request }, { signal, progress: onProgress, orderly: true });
    } catch (error) {
      client.close(error as T5Error);
      throw error;
    }
    return new T5(client);
  }

  /** Generates text for a text, or for ids that end with `</s>`. The request is in the queue at once. */
  generate(source: string | readonly number[] | Uint32Array, options?: GenerateOptions): Generation;
  /** Generates text for each text of a list, several at once: faster than one by one, with the same results. */
  generate(sources: readonly string[], options?: GenerateOptions): Batch;
  generate(
    source: string | readonly number[] | Uint32Array | readonly string[],
    options: GenerateOptions = {},
  ): Generation | Batch {
    if (Array.isArray(source) && typeof source[0] === "string") return new Batch(this.client, source, options);
    return new Generation(this.client, source as string | number[], options);
  }

  /** How likely a target text is, given a source text. */
  score(source: string, target: string, { signal }: RequestOptions = {}): Promise<Score> {
    return attempt(() => {
      const call = { op: "score", source: text("source", source), target: text("target", target) } as const;
      return this.client.request(call, { signal: checkSignal(signal) });
    });
  }

  /** Which words of the source each word of the target looked at (cross-attention, averaged over heads and layers). */
  alignment(source: string, target: string, { signal }: RequestOptions = {}): Promise<Alignment> {
    return attempt(() => {
      const call = { op: "alignment", source: text("source", source), target: text("target", target) } as const;
      return this.client.request(call, { signal: checkSignal(signal) });
    });
  }

  /** The mean of the encoder's hidden states, `d_model` numbers; of each text of a list. */
  embed(source: string, options?: RequestOptions): Promise<Float32Array>;
  embed(source: readonly string[], options?: RequestOptions): Promise<Float32Array[]>;
  embed(source: string | readonly string[], { signal }: RequestOptions = {}): Promise<Float32Array | Float32Array[]> {
    return attempt<Float32Array | Float32Array[]>(() => {
      checkSignal(signal);
      const one = (text: string): Promise<Float32Array> => this.client.request({ op: "embed", text }, { signal });
      return Array.isArray(source) ? Promise.all(texts("text", source).map(one)) : one(text("text", source));
    });
  }

  /**
   * The sentences of a text, in their order, as `generate` cuts it for tasks that are done sentence by sentence. What
   * stands between them (white space, line breaks, bullets) is in none.
   */
  sentences(source: string): Promise<Sentence[]> {
    return attempt(() => this.client.request({ op: "sentences", text: text("text", source) }));
  }

  /** The ids of a text, `</s>` behind them. */
  tokenize(source: string): Promise<number[]> {
    return attempt(() => this.client.request({ op: "tokenize", text: text("text", source) }));
  }

  /** The text of ids. */
  detokenize(source: readonly number[] | Uint32Array): Promise<string> {
    return attempt(() => this.client.request({ op: "detokenize", ids: ids("ids", source) }));
  }

  /** What is loaded, which build runs and why, and the memory it takes. */
  info(): Promise<Info> {
    return this.client.request({ op: "info" });
  }

  /** Ends the worker and gives its memory back. Pending requests fail with the code `disposed`. */
  dispose(): void {
    this.client.close(new T5Error("disposed", "the model was disposed of"));
  }
}

/** The source as a worker can read it: names made absolute, folders made one file. */
async function readable(source: Source, options: LoadOptions): Promise<LoadRequest["source"]> {
  if (typeof source === "string" || source instanceof URL) return absolute(String(source));
  if (source instanceof Blob || source instanceof ArrayBuffer || source instanceof Uint8Array) return source;
  if (typeof Response === "function" && source instanceof Response) {
    if (!source.ok) throw new T5Error("network", `source: expected a file, found HTTP status ${source.status}`);
    return source.blob().catch((error: Error) => {
      throw new T5Error("network", `source: ${error.message}`, { cause: error });
    });
  }
  const files = typeof source === "object" && source !== null && Symbol.iterator in source ? [...source] : undefined;
  if (!files?.length || !files.every((file) => file instanceof Blob)) {
    throw wrong("source", "an address, a file, its bytes, or the files of a folder", files ?? source);
  }
  // One file is a model whatever its name.
  if (files.length === 1 && !files[0]?.name?.endsWith(".safetensors")) return files[0] as File;
  const { signal, onProgress, assets } = options;
  return quantize(files, { ...(signal && { signal }), ...(onProgress && { onProgress }), ...(assets && { assets }) });
}

/** What the worker hears of the options. */
function loadOptions(options: LoadOptions): Omit<LoadRequest, "source"> {
  const mine = ["onProgress", "signal", "assets"];
  known(options, [...mine, "cache", "sha256", "threads", "build", "isa", "endpoint", "stallMs"]);
  const { onProgress, signal, assets, ...rest } = options;
  const { sha256, stallMs, cache, endpoint } = rest;
  checkSignal(signal);
  if (onProgress !== undefined && typeof onProgress !== "function") throw wrong("onProgress", "a function", onProgress);
  if (sha256 !== undefined && !(typeof sha256 === "string" && /^[0-9a-f]{64}$/i.test(sha256))) {
    throw wrong("sha256", "64 hexadecimal digits", sha256);
  }
  if (stallMs !== undefined && !(typeof stallMs === "number" && stallMs > 0 && stallMs < 2 ** 31)) {
    throw wrong("stallMs", "a number of milliseconds above 0", stallMs);
  }
  if (cache !== undefined && typeof cache !== "boolean") throw wrong("cache", "true or false", cache);
  if (endpoint !== undefined && typeof endpoint !== "string") throw wrong("endpoint", "an address", endpoint);
  return rest;
}
