// The model that works, and one that is on its way. The first stays until the second is ready.

import { cache, quantize, T5, type Info, type Progress, type Source } from "pocket-t5";
import { MODEL } from "virtual:model";
import { tasksOf, type Task } from "./tasks.js";

export interface Loaded {
  t5: T5;
  info: Info;
  name: string;
  builtIn: boolean;
  tasks: Task[];
  /** The ids of the marks for gaps, `<extra_id_0>` first; none in a vocabulary without them. */
  marks: number[];
}

/** What is on its way. */
export interface Coming {
  name: string;
  builtIn: boolean;
  /** None until something is known. */
  progress?: Progress;
}

/** Who hears of it. */
export interface Listener {
  coming(coming: Coming | undefined): void;
  loaded(loaded: Loaded): void;
  /** Loading failed; `typed` is the address as it was typed. */
  failed(error: unknown, typed?: string): void;
}

/** The bytes of the built-in model's file. */
export const BUILT_IN_BYTES = MODEL.bytes;

/** As many gaps as a text may have. */
const GAPS = 20;

export class Models {
  current: Loaded | undefined;
  /** The file that dropped files became. */
  made: File | undefined;
  private abort: AbortController | undefined;
  private last: (() => Promise<void>) | undefined;

  constructor(private readonly listener: Listener) {}

  /** The model that the page comes with. */
  async builtIn(): Promise<void> {
    await this.load(MODEL.url, MODEL.name, { builtIn: true, sha256: MODEL.sha256 });
    if (this.current?.builtIn) await dropEarlier();
  }

  address(typed: string): Promise<void> {
    return this.load(typed, typed.split("/").pop() || typed, { typed });
  }

  /** A GGUF file as it is; the files of a folder become one first. */
  async files(files: File[]): Promise<void> {
    const [first] = files;
    if (!first) return;
    if (files.length === 1 && !first.name.endsWith(".safetensors")) return this.load(first, first.name, {});
    const name = "Your checkpoint as int8";
    const { signal, progress } = this.begin(name, false);
    let made: File;
    try {
      made = await quantize(files, { signal, onProgress: progress });
    } catch (error) {
      return this.fail(signal, error);
    }
    await this.load(made, name, { made });
  }

  /** Loads what works, or worked, once more. */
  async again(): Promise<void> {
    await this.last?.();
  }

  cancel(): void {
    this.abort?.abort();
  }

  private begin(name: string, builtIn: boolean): { signal: AbortSignal; progress: (progress: Progress) => void } {
    this.abort?.abort();
    const abort = (this.abort = new AbortController());
    this.listener.coming({ name, builtIn });
    const progress = (progress: Progress): void => {
      if (abort === this.abort) this.listener.coming({ name, builtIn, progress });
    };
    return { signal: abort.signal, progress };
  }

  private async load(
    source: Source,
    name: string,
    how: { builtIn?: boolean; sha256?: string; typed?: string; made?: File },
  ): Promise<void> {
    const { builtIn = false, sha256, typed, made } = how;
    const { signal, progress } = this.begin(name, builtIn);
    let t5: T5 | undefined;
    try {
      t5 = await T5.load(source, { onProgress: progress, signal, ...(sha256 && { sha256 }) });
      const info = await t5.info();
      const marks = await marksOf(t5);
      signal.throwIfAborted();
      this.current?.t5.dispose();
      this.made = made;
      this.last = () => this.load(source, name, how);
      this.current = { t5, info, name, builtIn, tasks: tasksOf(info, marks.length > 0), marks };
      this.listener.coming(undefined);
      this.listener.loaded(this.current);
    } catch (error) {
      t5?.dispose();
      this.fail(signal, error, typed);
    }
  }

  private fail(signal: AbortSignal, error: unknown, typed?: string): void {
    // Another one may be on its way already.
    if (signal !== this.abort?.signal) return;
    this.listener.coming(undefined);
    this.listener.failed(error, typed);
  }
}

/** Vocabularies of T5 have marks for gaps, each one id of its own. */
async function marksOf(t5: T5): Promise<number[]> {
  const marks = Array.from({ length: GAPS + 1 }, (_, i) => `<extra_id_${i}>`);
  const ids = (await t5.tokenize(marks.join(""))).slice(0, -1);
  return ids.length === marks.length && new Set(ids).size === marks.length ? ids : [];
}

/** Deletes what earlier versions of this page kept as their built-in model. */
async function dropEarlier(): Promise<void> {
  const now = new URL(MODEL.url, location.href).href;
  const folder = new URL(".", now).href;
  for (const { source } of await cache.list()) {
    const mine = source.startsWith(folder) && /^pocket-t5-[0-9a-f]{8}\.gguf$/.test(source.slice(folder.length));
    if (mine && source !== now) await cache.delete(source);
  }
}
