/**
 * Pocket T5: T5 models in the browser and in Node.
 *
 * ```js
 * const t5 = await T5.load("model.gguf", { onProgress: ({ loaded, total }) => … });
 * for await (const piece of t5.generate("translate English to German: Good morning.")) console.log(piece);
 * ```
 */

import { Client } from "./client.js";
import { aborted, T5Error } from "./errors.js";
import { absolute } from "./platform.js";
import type { LoadRequest } from "./protocol.js";
import type { Alignment, GenerateOptions, Info, LoadOptions, Output, QuantizeOptions, Score, Source } from "./types.js";

export { cache, type StoredModel } from "./store.js";
export { registerServiceWorker, type ServiceWorkerOptions } from "./register.js";
export { T5Error, type ErrorCode } from "./errors.js";
export type {
  Alignment, Build, FileType, GenerateOptions, Info, Isa, LoadOptions, Output, Progress, QuantizeOptions, Score, Source,
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
  constructor(client: Client, source: string | number[], { signal, ...options }: GenerateOptions) {
    const either = signal ? anySignal([signal, this.abort.signal]) : this.abort.signal;
    const piece = (piece: string): void => {
      this.pieces.push(piece);
      this.wake?.();
    };
    this.outputs = client.request<Output[]>({ op: "generate", source, options }, { signal: either, piece });
    const end = (): void => {
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

/** `AbortSignal.any`, which browsers before 2023 lack. */
function anySignal(signals: AbortSignal[]): AbortSignal {
  const controller = new AbortController();
  for (const signal of signals) {
    if (signal.aborted) controller.abort();
    signal.addEventListener("abort", () => controller.abort(), { once: true });
  }
  return controller.signal;
}

/** What a Hugging Face folder's checkpoint consists of; other files in it are not read. */
const CHECKPOINT =
  /^(config\.json|generation_config\.json|tokenizer\.json|tokenizer_config\.json|spiece\.model|tokenizer\.model|sentencepiece\.model|model.*\.safetensors|model\.safetensors\.index\.json)$/;

/**
 * Turns the files of a Hugging Face folder into one GGUF file, in a worker that ends with it. The file can be loaded
 * and saved. Aborting ends the work at once.
 */
export async function quantize(
  files: Iterable<File>,
  { type = "q8_0", name = "model.gguf", onProgress, signal }: QuantizeOptions = {},
): Promise<File> {
  const client = await Client.start();
  const chosen = [...files].filter((file) => CHECKPOINT.test(file.name));
  const request = { files: chosen.map((file) => ({ name: file.name, blob: file.slice() })), name, type };
  const end = (): void => client.close(aborted());
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
  static async load(source: Source, { onProgress, signal, ...options }: LoadOptions = {}): Promise<T5> {
    if (Array.isArray(source)) {
      source = await quantize(source as File[], { ...(signal && { signal }), ...(onProgress && { onProgress }) });
    }
    const client = await Client.start();
    const given = source as Exclude<Source, readonly File[]>;
    const address = typeof given === "string" || given instanceof URL ? absolute(String(given)) : given;
    const request: LoadRequest = { source: address, ...options };
    try {
      await client.request({ op: "load", request }, { signal, progress: onProgress });
    } catch (error) {
      client.close(error as T5Error);
      throw error;
    }
    return new T5(client);
  }

  /** Generates text for a text, or for ids that end with `</s>`. The request is in the queue at once. */
  generate(source: string | number[], options: GenerateOptions = {}): Generation {
    return new Generation(this.client, source, options);
  }

  /** How likely a target text is, given a source text. */
  score(source: string, target: string, { signal }: { signal?: AbortSignal } = {}): Promise<Score> {
    return this.client.request({ op: "score", source, target }, { signal });
  }

  /** Which words of the source each word of the target looked at (cross-attention, averaged over heads and layers). */
  alignment(source: string, target: string, { signal }: { signal?: AbortSignal } = {}): Promise<Alignment> {
    return this.client.request({ op: "alignment", source, target }, { signal });
  }

  /** The mean of the encoder's hidden states, `d_model` numbers. */
  embed(text: string, { signal }: { signal?: AbortSignal } = {}): Promise<Float32Array> {
    return this.client.request({ op: "embed", text }, { signal });
  }

  /** The ids of a text, `</s>` behind them. */
  tokenize(text: string): Promise<number[]> {
    return this.client.request({ op: "tokenize", text });
  }

  /** The text of ids. */
  detokenize(ids: number[]): Promise<string> {
    return this.client.request({ op: "detokenize", ids });
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
