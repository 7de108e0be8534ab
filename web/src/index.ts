/// <reference lib="esnext.disposable" preserve="true" />
/**
 * Pocket T5: T5 models in the browser and in Node.
 *
 * ```js
 * const t5 = await T5.load("model.gguf", { onProgress: ({ loaded, total }) => … });
 * for await (const piece of t5.generate("translate English to German: Good morning.")) console.log(piece);
 * ```
 */

import {
  areHeaders,
  attempt,
  check,
  checkSignal,
  checkType,
  filesOf,
  ids,
  isAddress,
  isWebAddress,
  known,
  limits,
  object,
  plain,
  text,
  textOrIds,
  texts,
  wrong,
} from "./check.js";
import { Client, folder, type Listeners } from "./client.js";
import { aborted, T5Error } from "./errors.js";
import { checkToken, offer, type Fetch } from "./fetch.js";
import { absolute, hasWorkers } from "./platform.js";
import type { Fetching, LoadRequest, QuantizeRequest, Unquantized } from "./protocol.js";
import { CHECKPOINT, HUB, inside } from "./source.js";
import { exclusively, keyOf, NewsOf } from "./store.js";
import type {
  Alignment,
  EncodeOptions,
  GenerateOptions,
  Info,
  LoadOptions,
  Output,
  Progress,
  QuantizeOptions,
  RequestOptions,
  Score,
  Sentence,
  Source,
  TokenStates,
} from "./types.js";

export { cache, type StoredModel } from "./store.js";
export { registerServiceWorker, type ServiceWorkerOptions } from "./register.js";
export { T5Error, type ErrorCode } from "./errors.js";
export type {
  Alignment,
  Build,
  EncodeOptions,
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
  TokenStates,
} from "./types.js";

/** A running generation: iterate over it for pieces of text, or await the results. */
export class Generation implements AsyncIterable<string> {
  /** The results, best first. */
  readonly outputs: Promise<Output[]>;
  private readonly pieces: string[] = [];
  private readonly abort = new AbortController();
  private ended = false;
  /** Loops over the pieces that have seen all that came. */
  private readonly waiting: (() => void)[] = [];

  /** @internal */
  constructor(client: Client, source: string | readonly number[] | Uint32Array, options: GenerateOptions) {
    // What is no object is refused below, where it rejects a promise.
    const { signal, ...rest }: GenerateOptions = options ?? {};
    const abort = (): void => this.abort.abort(signal?.reason);
    if (signal?.aborted) abort();
    signal?.addEventListener?.("abort", abort);
    const piece = (piece: string): void => {
      this.pieces.push(piece);
      this.wake();
    };
    this.outputs = attempt(() => {
      object("options", options);
      checkSignal(signal);
      if (rest.batch !== undefined) throw wrong("batch", "a list of texts", source);
      const call = { op: "generate", source: textOrIds("source", source), options: plain(rest) } as const;
      return client.request<Output[]>(call, { signal: this.abort.signal, piece });
    });
    const end = (): void => {
      signal?.removeEventListener?.("abort", abort);
      this.ended = true;
      this.wake();
    };
    // Also handles errors, so that a caller who only iterates (and gets the error there) has no unhandled rejection.
    this.outputs.then(end, end);
  }

  private wake(): void {
    this.waiting.splice(0).forEach((wake) => wake());
  }

  /** The pieces as they come, all of them for each loop. Leaving a loop early aborts the request. */
  async *[Symbol.asyncIterator](): AsyncGenerator<string, void, undefined> {
    try {
      for (let next = 0; ; ) {
        const piece = this.pieces[next];
        if (piece !== undefined) {
          next += 1;
          yield piece;
        } else if (this.ended) break;
        else await new Promise<void>((resolve) => this.waiting.push(resolve));
      }
      await this.outputs;
    } finally {
      if (!this.ended) this.abort.abort();
    }
  }

  /** The pieces as a stream, for `Response` and the like. Cancelling it aborts the request. */
  stream(): ReadableStream<string> {
    const pieces = this[Symbol.asyncIterator]();
    return new ReadableStream<string>(
      {
        async pull(controller) {
          const { done, value } = await pieces.next();
          if (done) controller.close();
          else controller.enqueue(value);
        },
        cancel: (reason) => this.abort.abort(reason),
      },
      { highWaterMark: 0 },
    );
  }

  /** The best result's text. */
  async text(): Promise<string> {
    return (await this.outputs)[0]?.text ?? "";
  }
}

/** A running generation for a list of texts. */
export class Batch {
  /** The results of each text, best first. */
  readonly outputs: Promise<Output[][]>;

  /** @internal */
  constructor(client: Client, sources: readonly string[], options: GenerateOptions) {
    this.outputs = attempt(() => {
      object("options", options);
      const { signal, batch = 16, ...rest } = options;
      if (!(Number.isInteger(batch) && batch >= 1 && batch <= 256)) throw wrong("batch", "1 to 256", batch);
      const call = { op: "batch", texts: texts("source", sources), group: batch, options: plain(rest) } as const;
      return client.request<Output[][]>(call, { signal: checkSignal(signal) });
    });
    // As for one text: a caller who only awaits `texts()` gets the error there.
    this.outputs.catch(() => {});
  }

  /** The best result's text for each text. */
  async texts(): Promise<string[]> {
    return (await this.outputs).map(([best]) => best?.text ?? "");
  }
}

/**
 * Turns the files of a Hugging Face folder into one GGUF file, in a worker that ends with it. The file can be loaded
 * and saved. Aborting ends the work at once.
 */
export async function quantize(files: Iterable<File>, options: QuantizeOptions = {}): Promise<File> {
  known(options, ["type", "name", "onProgress", "signal", "assets"]);
  const { type, name, onProgress, signal, assets } = options;
  checkSignal(signal);
  checkType(type);
  check("name", name, typeof name === "string", "a text");
  check("onProgress", onProgress, typeof onProgress === "function", "a function");
  check("assets", assets, isAddress(assets), "an address");
  const given = filesOf(files);
  if (!given) throw wrong("files", "the files of a Hugging Face folder", files);
  const chosen = given.filter((file) => CHECKPOINT.test(inside(file)));
  return quantized(
    chosen.map((file) => ({ name: inside(file), blob: file.slice() })),
    options,
  );
}

async function quantized(
  files: QuantizeRequest["files"],
  { type = "q8_0", name = "model.gguf", onProgress, signal, assets }: QuantizeOptions,
  { fetch, ...fetching }: Omit<Fetching, "fetch"> & { fetch?: Fetch | undefined } = {},
): Promise<File> {
  // In a worker if there are any, whatever `threads` says: it takes seconds.
  const client = await Client.start({ assets, inline: !hasWorkers });
  const offered = fetch && offer(fetch);
  const request = { files, name, type, ...fetching, ...(offered && { fetch: offered.port }) };
  const end = (): void => client.close(aborted(signal));
  signal?.addEventListener("abort", end);
  try {
    const transfer = offered ? [offered.port] : [];
    const listeners = { signal, progress: onProgress, transfer };
    const blob = await client.request<Blob>({ op: "quantize", request }, listeners);
    return new File([blob], name, { type: blob.type });
  } finally {
    signal?.removeEventListener("abort", end);
    offered?.close();
    client.close(new T5Error("disposed", "the work is done"));
  }
}

/** A loaded model in a worker of its own. Any number of requests may be pending; they run in their order. */
export class T5 {
  private constructor(private readonly client: Client) {}

  /**
   * Loads a model: see {@link Source} for what it may come from. Without a source, the built-in model of the package
   * `pocket-t5-model`, which is installed with this one.
   */
  static async load(source?: Source, options: LoadOptions = {}): Promise<T5> {
    const settings = loadOptions(options);
    const { onProgress, signal, assets, fetch, persist = true } = options;
    const from = await readable(source === undefined ? builtIn(assets) : source);
    checkToken(from.source, settings, HUB);
    if (signal?.aborted) throw aborted(signal);
    const inline = settings.threads === 0 || !hasWorkers;
    const client = await Client.start({ assets, inline });
    const ask = <T>(request: Partial<LoadRequest>): Promise<T> => {
      const offered = fetch && offer(fetch);
      const listeners: Listeners = {
        signal,
        progress: onProgress,
        persist: persist ? keepForGood : undefined,
        orderly: true,
        transfer: offered ? [offered.port] : [],
      };
      const all = { source: from.source, ...settings, ...request };
      if (inline) Object.assign(all, { threads: 0, ...(assets !== undefined && { assets: folder(assets).href }) });
      const call = { op: "load", request: { ...all, ...(offered && { fetch: offered.port }) } } as const;
      return client.request<T>(call, listeners).finally(() => offered?.close());
    };
    try {
      const files = from.files ?? (await ask<Unquantized | undefined>({}))?.files;
      const made = files && (await quantizeAndLoad(String(from.source), files, options, ask));
      // Not for a model that would have to be transferred again, and no copy of its bytes is held just for this.
      const again = made ?? { source: from.source };
      if (again.source instanceof Blob || (typeof again.source === "string" && (await isNear(client, again.source)))) {
        client.replaceable({ op: "load", request: { ...again, ...settings } });
      }
    } catch (error) {
      client.close(error as T5Error);
      if (source !== undefined || (error as T5Error).code !== "not-found") throw error;
      const what = `expected the package pocket-t5-model beside this one, or a source: ${(error as T5Error).message}`;
      throw new T5Error("not-found", what, { cause: error });
    }
    return new T5(client);
  }

  /** Generates from a text, or from ids that end with `</s>`, at least one. The request is queued at once. */
  generate(source: string | readonly number[] | Uint32Array, options?: GenerateOptions): Generation;
  /**
   * Generates from each text of a list, several at once: faster than one by one, with the same results. An empty list
   * is one of texts.
   */
  generate(sources: readonly string[], options?: GenerateOptions): Batch;
  generate(
    source: string | readonly number[] | Uint32Array | readonly string[],
    options: GenerateOptions = {},
  ): Generation | Batch {
    const isBatch = Array.isArray(source) && (source.length === 0 || typeof source[0] === "string");
    if (isBatch) return new Batch(this.client, source as string[], options);
    return new Generation(this.client, source as string | number[], options);
  }

  /** How likely a target text is, given a source text. */
  score(source: string, target: string, options: RequestOptions = {}): Promise<Score> {
    return attempt(() => {
      known(options, ["signal"]);
      const call = { op: "score", source: text("source", source), target: text("target", target) } as const;
      return this.client.request(call, { signal: checkSignal(options.signal) });
    });
  }

  /**
   * Which words of the source each word of the target comes from: the cross-attention of the heads that the model's
   * file names for this, else of all.
   */
  alignment(source: string, target: string, options: RequestOptions = {}): Promise<Alignment> {
    return attempt(() => {
      known(options, ["signal"]);
      const call = { op: "alignment", source: text("source", source), target: text("target", target) } as const;
      return this.client.request(call, { signal: checkSignal(options.signal) });
    });
  }

  /** A sentence model's vector, else the mean of the encoder's hidden states (`d_model` numbers). */
  embed(source: string, options?: EncodeOptions): Promise<Float32Array>;
  embed(source: readonly string[], options?: EncodeOptions): Promise<Float32Array[]>;
  embed(source: string | readonly string[], options: EncodeOptions = {}): Promise<Float32Array | Float32Array[]> {
    return this.encoded<Float32Array>("embed", source, options);
  }

  /** The encoder's hidden state of each token, `</s>` included; for a list, those of each text. */
  encode(source: string, options?: EncodeOptions): Promise<TokenStates>;
  encode(source: readonly string[], options?: EncodeOptions): Promise<TokenStates[]>;
  encode(source: string | readonly string[], options: EncodeOptions = {}): Promise<TokenStates | TokenStates[]> {
    return this.encoded<TokenStates>("encode", source, options);
  }

  private encoded<T>(
    op: "embed" | "encode",
    source: string | readonly string[],
    options: EncodeOptions,
  ): Promise<T | T[]> {
    return attempt<T | T[]>(() => {
      const { signal, ...wanted } = limits(options);
      checkSignal(signal);
      const one = (text: string, signal?: AbortSignal): Promise<T> =>
        this.client.request({ op, text, limits: wanted }, { signal });
      return Array.isArray(source) ? together(texts("text", source), signal, one) : one(text("text", source), signal);
    });
  }

  /**
   * The sentences of a text in order, as `generate` splits it for tasks that work sentence by sentence. What stands
   * between them (white space, line breaks, bullets) belongs to none.
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

/** With `Symbol.asyncDispose`, where there is one: `await using t5 = await T5.load()`. */
export interface T5 extends AsyncDisposable {}

if (Symbol.asyncDispose) {
  Object.defineProperty(T5.prototype, Symbol.asyncDispose, {
    async value(this: T5) {
      this.dispose();
    },
  });
}

/** Asks for each text; once one fails, nobody waits for the others, and they end. */
async function together<T>(
  list: readonly string[],
  signal: AbortSignal | undefined,
  ask: (text: string, signal: AbortSignal) => Promise<T>,
): Promise<T[]> {
  // One for each: Node warns of a signal with more than ten listeners.
  const aborts = list.map(() => new AbortController());
  const abort = (): void => aborts.forEach((one) => one.abort(signal?.reason));
  if (signal?.aborted) abort();
  signal?.addEventListener("abort", abort);
  try {
    return await Promise.all(list.map((text, i) => ask(text, aborts[i]!.signal)));
  } catch (error) {
    abort();
    throw error;
  } finally {
    signal?.removeEventListener("abort", abort);
  }
}

/** A converted file, and the key under which it is kept. */
type Made = Pick<LoadRequest, "source" | "keepAs">;

/** Converts the checkpoint that `key` names to one file, keeps that and loads it; loads a kept one if there is one. */
async function quantizeAndLoad(
  key: string,
  files: QuantizeRequest["files"],
  { onProgress, signal, assets, fetch, cache, stallMs, headers, token, endpoint }: LoadOptions,
  ask: <T>(request: Partial<LoadRequest>) => Promise<T>,
): Promise<Made | undefined> {
  let made: Made | undefined;
  const kept = async (): Promise<boolean> => {
    if (cache === false) return false;
    try {
      return (await ask({})) === undefined;
    } catch (error) {
      if ((error as T5Error).code === "not-found") return false;
      throw error;
    }
  };
  // hf:owner/name@revision, folder:name/digits
  const [kind, first, second] = key.replace(/@.*/, "").split(/[/:]/);
  const name = `${kind === "hf" ? second : first}-q8_0.gguf`;
  const keep = keyOf(key, endpoint);
  const work = `quantize ${keep}`;
  const news = new NewsOf(work);
  news.listen(onProgress);
  const report = (progress: Progress): void => (news.tell(progress), onProgress?.(progress));
  try {
    // Another tab may be doing the same; once it is done, the file is kept.
    await exclusively(work, signal, async () => {
      news.listen(undefined);
      if (await kept()) return;
      const fetching = { ...plain({ stallMs, headers, token, endpoint }), fetch };
      const file = await quantized(files, { name, onProgress: report, ...plain({ signal, assets }) }, fetching);
      made = { source: file.slice(), keepAs: { source: keep, name } };
      await ask(made);
    });
  } catch (error) {
    throw signal?.aborted ? aborted(signal) : error;
  } finally {
    news.close();
  }
  return made;
}

/** Whether a model is on the device and can be loaded again quickly. */
async function isNear(client: Client, source: string): Promise<boolean> {
  return !/^(https?|hf|folder|blob|data):/.test(source) || (await client.request<Info>({ op: "info" })).kept;
}

/** The address of the built-in model: beside this package, or with `assets` in that folder. */
function builtIn(assets: string | URL | undefined): URL {
  if (assets !== undefined) return new URL("pocket-t5.gguf", folder(assets));
  try {
    // Written so that bundlers find the file; CDNs of packages resolve it as well.
    return new URL("../../pocket-t5-model/pocket-t5.gguf", import.meta.url);
  } catch (error) {
    throw new T5Error("bad-option", "source: expected one, since this script has no address", { cause: error });
  }
}

/** Asks the browser not to delete this origin's data when storage is short. */
function keepForGood(): void {
  void globalThis.navigator?.storage?.persist?.().catch(() => false);
}

interface Readable {
  source: LoadRequest["source"];
  files?: QuantizeRequest["files"];
}

/** A source in a form that a worker can read, with absolute addresses. For a folder, its files and a key for them. */
async function readable(source: Source): Promise<Readable> {
  if (typeof source === "string" || source instanceof URL) return { source: absolute(String(source)) };
  // Not instanceof: buffers may come from another realm, as in jsdom.
  if (source instanceof Blob) return { source };
  if (ArrayBuffer.isView(source))
    return { source: new Uint8Array(source.buffer, source.byteOffset, source.byteLength) };
  if (Object.prototype.toString.call(source) === "[object ArrayBuffer]") return { source: source as ArrayBuffer };
  if (typeof Response === "function" && source instanceof Response) {
    if (!source.ok) throw new T5Error("network", `source: expected a file, found HTTP status ${source.status}`);
    try {
      return { source: await source.blob() };
    } catch (error) {
      throw new T5Error("network", `source: ${(error as Error).message}`, { cause: error });
    }
  }
  const files = filesOf(source);
  if (!files?.length) throw wrong("source", "an address, a file, its bytes, or the files of a folder", source);
  // A single file is taken as a model, whatever its name.
  if (files.length === 1 && !files[0]?.name?.endsWith(".safetensors")) return { source: files[0] as File };
  const chosen = files.filter((file) => CHECKPOINT.test(inside(file)));
  return { source: await nameOf(chosen), files: chosen.map((file) => ({ name: inside(file), blob: file.slice() })) };
}

/** A key for a converted folder, the same for the same files. */
async function nameOf(files: File[]): Promise<string> {
  const list = files.map(({ name, size, lastModified }) => [name, size, lastModified]).sort();
  const folder = files[0]?.webkitRelativePath?.split("/").at(-2) ?? "";
  // Without a secure context there is no `subtle`, and no storage to need the key for.
  const sum = await globalThis.crypto?.subtle?.digest("SHA-256", new TextEncoder().encode(JSON.stringify(list)));
  const digits = Array.from(new Uint8Array(sum ?? new ArrayBuffer(0), 0, sum ? 8 : 0), (byte) =>
    byte.toString(16).padStart(2, "0"),
  );
  return `folder:${folder || "model"}/${digits.join("")}`;
}

/** Checks the options and returns those that the worker needs. */
function loadOptions(options: LoadOptions): Omit<LoadRequest, "source" | "fetch"> {
  const mine = ["onProgress", "signal", "assets", "fetch", "persist"];
  const sent = ["cache", "sha256", "threads", "build", "isa", "endpoint", "stallMs", "headers", "token", "wasm"];
  known(options, [...mine, ...sent]);
  const { onProgress, signal, assets, fetch, persist, ...rest } = options;
  const { sha256, stallMs, cache, endpoint, headers, token, wasm } = rest;
  checkSignal(signal);
  check("onProgress", onProgress, typeof onProgress === "function", "a function");
  check("fetch", fetch, typeof fetch === "function", "a function");
  check("persist", persist, typeof persist === "boolean", "true or false");
  check("sha256", sha256, typeof sha256 === "string" && /^[0-9a-f]{64}$/i.test(sha256), "64 hexadecimal digits");
  const isTime = typeof stallMs === "number" && stallMs > 0 && stallMs < 2 ** 31;
  check("stallMs", stallMs, isTime, "a number of milliseconds above 0");
  check("cache", cache, typeof cache === "boolean", "true or false");
  check("assets", assets, isAddress(assets), "an address");
  check("endpoint", endpoint, isWebAddress(endpoint), "an address");
  check("headers", headers, areHeaders(headers), "names and texts as HTTP has them");
  check("token", token, typeof token === "string" && /^[\x21-\x7e]+$/.test(token), "a text without spaces");
  check("wasm", wasm, wasm instanceof WebAssembly.Module, "a WebAssembly.Module");
  return rest;
}
