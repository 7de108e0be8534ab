/**
 * The interface of the web's Translator API on top of a model with translation tasks, for browsers that lack it:
 *
 * ```js
 * const { Translator } = "Translator" in self ? self : await import("pocket-t5/translator");
 * const translator = await Translator.create({ sourceLanguage: "en", targetLanguage: "de" });
 * console.log(await translator.translate("Where is the station?"));
 * ```
 *
 * As there, what goes wrong is a `DOMException`: `NotSupportedError` for languages that the model does not have,
 * `AbortError` or the signal's reason, `InvalidStateError` after `destroy()`, `QuotaExceededError` for inputs that are
 * too long, `NetworkError`, and `OperationError` for the rest, with the `T5Error` as `cause`.
 */

import { unlessAborted } from "./errors.js";
import { T5, T5Error, cache } from "./index.js";
import { absolute, inNode } from "./platform.js";
import { keyOf } from "./store.js";
import type { LoadOptions, Source } from "./types.js";

/** As in the Translator API. */
export type Availability = "unavailable" | "downloadable" | "downloading" | "available";

export interface TranslatorLanguages {
  /** A language tag, such as `en` or `en-GB`: its first part counts. */
  sourceLanguage: string;
  targetLanguage: string;
}

export interface TranslatorCreateOptions extends TranslatorLanguages {
  signal?: AbortSignal;
  /** Called with the target of `downloadprogress` events, whose `loaded` goes from 0 to 1. */
  monitor?: (monitor: EventTarget) => void;
}

export interface TranslateOptions {
  signal?: AbortSignal;
}

/** Limit of an input's tokens: longer ones take a small model long and are translated badly. */
const INPUT_QUOTA = 4096;

/** The language in a tag, without region and script. */
function primary(tag: unknown): string {
  try {
    return new Intl.Locale(String(tag)).language;
  } catch {
    throw new RangeError(`expected a language tag, found ${String(tag)}`);
  }
}

const taskOf = (from: string, to: string): string => `translation_${from}_to_${to}`;

/** Turns an error into the exception that the Translator API specifies. */
function domException(error: unknown, signal?: AbortSignal): unknown {
  if (signal?.aborted) return signal.reason;
  if (!(error instanceof T5Error)) return error;
  const names: Partial<Record<T5Error["code"], string>> = {
    aborted: "AbortError",
    disposed: "InvalidStateError",
    lost: "InvalidStateError",
    network: "NetworkError",
    "not-found": "NetworkError",
    unsupported: "NotSupportedError",
  };
  const exception = new DOMException(error.message, names[error.code] ?? "OperationError");
  return Object.defineProperty(exception, "cause", { value: error });
}

/** A `downloadprogress` event, also where there is no `ProgressEvent` (outside browsers). */
class DownloadProgress extends Event {
  readonly lengthComputable = true;
  readonly total = 1;

  constructor(readonly loaded: number) {
    super("downloadprogress");
  }
}

/** Tells those who wait for a model how much of it has come: at first 0, at last 1, and never less than before. */
class Monitors {
  private readonly told = new Map<EventTarget, number>();

  add(events: EventTarget): void {
    this.told.set(events, -1);
    this.tell(0, [events]);
  }

  delete(events: EventTarget): void {
    this.told.delete(events);
  }

  /** Tells all of them, or some. */
  tell(loaded: number, to: Iterable<EventTarget> = this.told.keys()): void {
    for (const events of to) {
      if (loaded <= (this.told.get(events) ?? 1)) continue;
      this.told.set(events, loaded);
      events.dispatchEvent(new DownloadProgress(loaded));
    }
  }
}

/** A loaded model, shared by all translators that use it. */
interface Shared {
  t5: Promise<T5>;
  users: number;
  monitors: Monitors;
}

/** Which model a class of translators uses. */
export interface TranslatorModel extends Omit<LoadOptions, "signal" | "onProgress"> {
  /** What `T5.load` takes; the built-in model if not given. */
  source?: Source;
  /**
   * The pairs that it translates, such as `["en", "de"]`, so that `availability` can answer before the model is loaded.
   * Known for the built-in model; for another source without `pairs` the model is loaded to find out.
   */
  pairs?: readonly (readonly [string, string])[];
}

/** As `task_specific_params` of `runtime/model/settings.json` has them; a test compares. */
const BUILT_IN: readonly (readonly [string, string])[] = [
  ["en", "de"],
  ["en", "fr"],
  ["de", "en"],
  ["fr", "en"],
];

/** Makes a `Translator` class over a model whose tasks are named as in T5's configurations: `translation_en_to_de`. */
export function translatorFor(model: TranslatorModel = {}): typeof Translator {
  return class extends Translator {
    protected static override readonly model = model;
    protected static override shared: Shared | undefined;
    protected static override loading = false;
  };
}

export class Translator {
  /** @internal */
  protected static readonly model: TranslatorModel = {};
  /** @internal */
  protected static shared: Shared | undefined;
  /** @internal Whether bytes come from the network. */
  protected static loading = false;

  readonly inputQuota: number = INPUT_QUOTA;
  private readonly end = new AbortController();

  /** @internal */
  protected constructor(
    private readonly t5: T5,
    readonly sourceLanguage: string,
    readonly targetLanguage: string,
    private readonly prefix: string,
    private readonly release: () => void,
  ) {}

  /** Whether these languages can be translated, and whether the model is here. */
  static async availability({ sourceLanguage, targetLanguage }: TranslatorLanguages): Promise<Availability> {
    const [from, to] = [primary(sourceLanguage), primary(targetLanguage)];
    const { source, pairs = source === undefined ? BUILT_IN : undefined } = this.model;
    if (pairs && !pairs.some(([one, other]) => one === from && other === to)) return "unavailable";
    const { shared } = this;
    if (shared && !this.loading) {
      try {
        return (await prefixOf(await shared.t5, from, to)) === undefined ? "unavailable" : "available";
      } catch {
        // It was lost, or never came: the next translator loads it anew, whoever still holds this one.
        if (this.shared === shared) this.shared = undefined;
      }
    }
    if (this.loading) return "downloading";
    return (await isHere(source, this.model.endpoint)) ? "available" : "downloadable";
  }

  /** Loads the model, if no other translator has it, and makes a translator. */
  static async create(options: TranslatorCreateOptions): Promise<Translator> {
    const { sourceLanguage, targetLanguage, signal, monitor } = options;
    const [from, to] = [primary(sourceLanguage), primary(targetLanguage)];
    if ((await this.availability({ sourceLanguage, targetLanguage })) === "unavailable") throw unknown(from, to);
    if (signal?.aborted) throw signal.reason;
    const events = new EventTarget();
    monitor?.(events);
    const shared = (this.shared ??= this.load());
    shared.users += 1;
    shared.monitors.add(events);
    let released = false;
    const release = (): void => {
      if (released) return;
      released = true;
      shared.users -= 1;
      if (shared.users > 0) return;
      if (this.shared === shared) this.shared = undefined;
      void shared.t5.then((t5) => t5.dispose()).catch(() => {});
    };
    try {
      const t5 = await unlessAborted(shared.t5, signal);
      shared.monitors.tell(1, [events]);
      const prefix = await prefixOf(t5, from, to);
      if (prefix === undefined) throw unknown(from, to);
      const translator = new this(t5, sourceLanguage, targetLanguage, prefix, release);
      signal?.addEventListener("abort", () => translator.destroy(signal.reason), {
        once: true,
        signal: translator.end.signal,
      });
      return translator;
    } catch (error) {
      release();
      throw domException(error, signal);
    } finally {
      shared.monitors.delete(events);
    }
  }

  /** @internal */
  protected static load(): Shared {
    const { source, pairs: _, ...options } = this.model;
    const monitors = new Monitors();
    const onProgress: LoadOptions["onProgress"] = ({ phase, loaded, total }) => {
      if (phase === "download") this.loading = true;
      if (total > 0) monitors.tell(phase === "prepare" ? 1 : Math.min(1, loaded / total));
    };
    const t5 = T5.load(source, { ...options, onProgress }).finally(() => (this.loading = false));
    const shared: Shared = { t5, users: 0, monitors };
    t5.catch(() => this.shared === shared && (this.shared = undefined));
    return shared;
  }

  /** The translation of a text, which may have several sentences and lines. */
  async translate(input: string, { signal }: TranslateOptions = {}): Promise<string> {
    const text = String(input);
    const both = this.signals(signal);
    if (text.trim() === "") return text;
    try {
      await this.check(text, both);
      return await this.t5.generate(this.prefix + text, { signal: both }).text();
    } catch (error) {
      throw domException(error, both);
    }
  }

  /** The translation as it comes. */
  translateStreaming(input: string, { signal }: TranslateOptions = {}): ReadableStream<string> {
    const text = String(input);
    const both = this.signals(signal);
    let reader: ReadableStreamDefaultReader<string> | undefined;
    return new ReadableStream<string>(
      {
        pull: async (controller) => {
          try {
            if (text.trim() === "") {
              if (text) controller.enqueue(text);
              return controller.close();
            }
            if (!reader) await this.check(text, both);
            reader ??= this.t5
              .generate(this.prefix + text, { signal: both })
              .stream()
              .getReader();
            const { done, value } = await reader.read();
            if (done) controller.close();
            else controller.enqueue(value);
          } catch (error) {
            controller.error(domException(error, both));
          }
        },
        cancel: (reason) => reader?.cancel(reason),
      },
      { highWaterMark: 0 },
    );
  }

  /** How many tokens a text has; `inputQuota` limits it. */
  async measureInputUsage(input: string, { signal }: TranslateOptions = {}): Promise<number> {
    const both = this.signals(signal);
    try {
      return (await unlessAborted(this.t5.tokenize(String(input)), both)).length;
    } catch (error) {
      throw domException(error, both);
    }
  }

  /** Ends this translator's work, and frees the model with the last translator that uses it. */
  destroy(reason?: unknown): void {
    this.end.abort(reason ?? new DOMException("the translator was destroyed", "AbortError"));
    this.release();
  }

  private async check(text: string, signal: AbortSignal): Promise<void> {
    const usage = await this.measureInputUsage(text, { signal });
    if (usage <= this.inputQuota) return;
    const what = `expected at most ${this.inputQuota} tokens, found ${usage}`;
    throw Object.assign(new DOMException(what, "QuotaExceededError"), { quota: this.inputQuota, requested: usage });
  }

  /** A signal that combines the caller's with the end of this translator. */
  private signals(signal: AbortSignal | undefined): AbortSignal {
    if (this.end.signal.aborted) throw new DOMException("the translator was destroyed", "InvalidStateError");
    if (!signal) return this.end.signal;
    if (typeof AbortSignal.any === "function") return AbortSignal.any([signal, this.end.signal]);
    const both = new AbortController();
    for (const one of [signal, this.end.signal]) {
      if (one.aborted) both.abort(one.reason);
      one.addEventListener("abort", () => both.abort(one.reason), { once: true, signal: both.signal });
    }
    return both.signal;
  }
}

function unknown(from: string, to: string): DOMException {
  return new DOMException(`the model does not translate from ${from} to ${to}`, "NotSupportedError");
}

/** The prefix of the model's task for these languages; undefined if it has none. */
async function prefixOf(t5: T5, from: string, to: string): Promise<string | undefined> {
  const tasks = (await t5.info()).generation["task_specific_params"] as Record<string, { prefix?: string }> | undefined;
  return tasks?.[taskOf(from, to)]?.prefix;
}

/** Whether a model is on the device already. */
async function isHere(source: Source | undefined, endpoint: string | undefined): Promise<boolean> {
  if (source !== undefined && typeof source !== "string" && !(source instanceof URL)) return true;
  if (inNode && !/^(https?|hf):/.test(String(source))) return true;
  const kept = (await cache.list()).filter(({ complete }) => complete).map(({ source }) => source);
  // Bundlers put a hash into the built-in model's name.
  if (source === undefined) return kept.some((address) => /\/pocket-t5[^/]*\.gguf$/.test(address));
  return kept.includes(keyOf(absolute(String(source)), endpoint));
}
