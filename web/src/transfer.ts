// Brings a model into the module, from the store or from the network (and then into the store).

import { load, simpler, type Loaded } from "./builds.js";
import type { Engine } from "../wasm/simd128/t5_wasm.js";
import { fetching, type Fetch } from "./fetch.js";
import { asT5Error, isTrap, T5Error, throwIfAborted, unlessAborted } from "./errors.js";
import type { FromWorker, LoadRequest, Port, ToWorker } from "./protocol.js";
import {
  ATTEMPTS,
  HUB,
  open,
  openBlob,
  StartAgain,
  startingAgain,
  type CheckpointFile,
  type OpenFile,
} from "./source.js";
import { exclusively, keyOf, NewsOf, roomFor, store, type Found } from "./store.js";
import type { Progress } from "./types.js";

/** Progress reports at most this often. */
const REPORT_EVERY_MS = 100;

/**
 * Persistent storage is requested for files of this size and more only, since some browsers ask the user for it.
 */
const LARGE = 50_000_000;

/** Whether a model is kept on the device, and why. */
export interface Keeping {
  kept: boolean;
  keptReason: string;
}

/** Thrown for a hub's repository without a GGUF file, whose files must be converted first. */
export class Unquantized {
  constructor(readonly files: CheckpointFile[]) {}
}

export class Transfer {
  private readonly begin = performance.now();
  private reported = -Infinity;
  private late: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly port: Port<FromWorker, ToWorker>,
    private readonly id: number,
    private readonly request: LoadRequest,
    /** The module; replaced by another build if the model does not fit into its memory. */
    public loading: Promise<Loaded>,
    private readonly signal: AbortSignal,
  ) {
    // Its failure is reported where it is awaited; it must not count as unhandled before.
    loading.catch(() => {});
  }

  /** Whether the model is kept; final once `run` has resolved. */
  keeping: Keeping = { kept: false, keptReason: "it has no address" };
  private ask: Fetch | undefined;
  /** Reports progress to other tabs that wait for the same model. */
  private news: NewsOf | undefined;

  async run(): Promise<Engine> {
    const { source, endpoint, keepAs } = this.request;
    if (typeof source !== "string") {
      const opened = (await open(source, { signal: this.signal })) as OpenFile;
      const file = keepAs ? { ...opened, name: keepAs.name } : opened;
      if (keepAs === undefined || !(await this.models())) return this.read(file, "read");
      return exclusively(keepAs.source, this.signal, () => this.keep(keepAs.source, file, "read"));
    }
    const key = keyOf(source, endpoint);
    if (!(await this.models())) return this.fetch(source, key);
    const news = new NewsOf(key);
    // While another tab transfers the model, its progress is shown.
    news.listen((progress) => this.port.post({ id: this.id, kind: "progress", progress }));
    try {
      return await exclusively(key, this.signal, () => {
        news.listen(undefined);
        this.news = news;
        return this.stored(source, key);
      });
    } finally {
      news.close();
    }
  }

  /** The store, if this model is to be kept; says why if not. */
  private async models(): Promise<Awaited<ReturnType<typeof store>>> {
    const { source, cache } = this.request;
    // Nobody asks for them a second time: a page gives the next blob another address.
    const passing = typeof source === "string" && /^(blob|data):/.test(source);
    const models = cache === false || passing ? undefined : await store();
    if (!models && typeof source === "string") {
      const own = passing ? "its address does not last" : "there is no storage here";
      this.keeping = { kept: false, keptReason: cache === false ? "cache is false" : own };
    }
    return models;
  }

  /** Loads from the store, or from the network if the stored file is incomplete or not the one wanted. */
  private async stored(source: string, key: string): Promise<Engine> {
    const models = await this.models();
    const found = await models?.find(key);
    // The size decides, not `complete`: a transfer may have been interrupted just before it was recorded.
    if (!models || !found || found.file.size !== found.size) return this.fetch(source, key, found);
    const sha256 = this.request.sha256?.toLowerCase() ?? null;
    // A file that was verified against this checksum before is not verified again.
    const checked = found.complete && (sha256 === null || found.sha256 === sha256);
    try {
      const engine = await this.read(openBlob(found.file, found.name), "read", undefined, !checked);
      if (!checked) await models.finished(found, sha256).catch(() => {});
      this.keeping = { kept: true, keptReason: "it was kept before" };
      return engine;
    } catch (error) {
      // The file is damaged, or its checksum is not the one wanted now.
      if (this.signal.aborted || !isWrong(error)) throw error;
      return this.fetch(source, key, undefined, true);
    }
  }

  /** Loads from the network, continuing after the stored beginning if possible, or in the place of a wrong file. */
  private async fetch(source: string, key: string, beginning?: Found, wrong = false): Promise<Engine> {
    let have = beginning;
    let sized = true;
    for (let attempt = 1; ; attempt++) {
      const file = await this.open(source, sized, have);
      // Not before a server has another: it may be right but for a checksum with a slip in it.
      if (wrong) await (await this.models())?.delete(key);
      try {
        return await this.keep(key, file, "download");
      } catch (error) {
        const again = error instanceof StartAgain || (asT5Error(error).code === "bad-model" && file.doubtful?.());
        if (!again || attempt >= ATTEMPTS || this.signal.aborted) throw error;
        have = undefined;
        if (!(error instanceof StartAgain) || !error.sized) sized = false;
      }
    }
  }

  private async open(source: string, sized: boolean, have: Found | undefined): Promise<OpenFile> {
    const { endpoint, stallMs } = this.request;
    this.ask ??= fetching(this.request, HUB);
    const { ask, signal } = this;
    const collected = (bytes: number): void => this.report("download", bytes, 0, bytes);
    const options = { ask, endpoint, stallMs, signal, have, sized, collected };
    const opened = await startingAgain(() => open(source, options));
    if (Array.isArray(opened)) throw new Unquantized(opened);
    return opened;
  }

  /** Reads a file into the module and, if possible, into the store under `key`. */
  private async keep(key: string, file: OpenFile, phase: "download" | "read"): Promise<Engine> {
    const models = await this.models();
    const { name, size, version } = file;
    // Without a store, or without space, the model still runs.
    const room = models ? await roomFor(size - file.resumed) : undefined;
    if (models && size >= LARGE && room !== false) this.port.post({ id: this.id, kind: "persist" });
    let writer =
      room === false
        ? undefined
        : await models?.writer({ source: key, name, size, version }, file.resumed).catch(() => undefined);
    if (models) {
      const full = `expected ${Math.ceil(size / 1e6)} MB of storage, found less`;
      const why = writer ? "it is kept from now on" : room === false ? full : "nothing can be written here";
      this.keeping = { kept: writer !== undefined, keptReason: why };
    }
    let arrived = 0;
    const write = async (chunk: Uint8Array): Promise<void> => {
      const known = Math.max(0, Math.min(chunk.length, file.resumed - arrived));
      arrived += chunk.length;
      try {
        await writer?.write(chunk.subarray(known));
      } catch (error) {
        this.keeping = { kept: false, keptReason: `it could not be written: ${(error as Error).message}` };
        await writer?.stop();
        writer = undefined;
        await models?.delete(key);
      }
    };
    try {
      const engine = await this.read(file, phase, write);
      await writer?.finish(this.request.sha256?.toLowerCase() ?? null).catch((error: Error) => {
        this.keeping = { kept: false, keptReason: `it could not be written: ${error.message}` };
        return models?.delete(key);
      });
      return engine;
    } catch (error) {
      await writer?.stop();
      // An interrupted transfer is continued next time; a wrong file is deleted.
      if (isWrong(error)) await models?.delete(key);
      throw error;
    }
  }

  /** Reads a stream of bytes and opens it as a model. */
  private async read(
    file: OpenFile,
    phase: "download" | "read",
    keep?: (chunk: Uint8Array) => Promise<void>,
    checked = true,
  ): Promise<Engine> {
    const sha256 = checked ? this.request.sha256 : undefined;
    this.report(phase, 0, file.size, 0, true);
    const download = await this.download(file, sha256 !== undefined);
    const { module, workers } = await this.loading;
    try {
      for await (const chunk of file.chunks()) {
        throwIfAborted(this.signal);
        download.append(chunk);
        await keep?.(chunk);
        const { filled } = download;
        this.report(filled > file.resumed ? phase : "read", filled, file.size, filled - file.resumed);
      }
      const found = download.sha256();
      if (found !== sha256?.toLowerCase()) {
        throw new T5Error("checksum", `${file.name}: expected SHA-256 ${sha256}, found ${found}`);
      }
    } catch (error) {
      if (!isTrap(error)) download.free();
      throw error;
    }
    const threads = await workers;
    this.report("prepare", file.size, file.size, 0, true);
    // Consumes the download, even on failure.
    return module.Engine.open(download, 1 + threads);
  }

  /** Reserves the memory for the whole model before anything is transferred. */
  private async download(file: OpenFile, checked: boolean): Promise<InstanceType<Loaded["module"]["Download"]>> {
    const loaded = await unlessAborted(this.loading, this.signal);
    try {
      return new loaded.module.Download(file.name, file.size, checked, this.request.isa);
    } catch (error) {
      if (asT5Error(error).code !== "out-of-memory" || !loaded.small || loaded.asked) throw error;
      const next = simpler(loaded, `has too little memory for ${Math.ceil(file.size / 1e6)} MB`);
      this.loading = load(next, this.request.assets);
      return new (await this.loading).module.Download(file.name, file.size, checked, this.request.isa);
    }
  }

  /** `downloaded`: how many bytes of `loaded` came from the network during this load. */
  private report(phase: Progress["phase"], loaded: number, total: number, downloaded: number, now = false): void {
    const time = performance.now();
    clearTimeout(this.late);
    if (!now && loaded !== total && time - this.reported < REPORT_EVERY_MS) {
      // Sent later, so that the last report before a stall is not lost.
      this.late = setTimeout(() => this.report(phase, loaded, total, downloaded, true), REPORT_EVERY_MS);
      return;
    }
    this.reported = time;
    const bytesPerSecond = phase === "download" && downloaded > 0 ? (downloaded * 1000) / (time - this.begin) : null;
    const progress: Progress = { phase, loaded, total, bytesPerSecond };
    this.port.post({ id: this.id, kind: "progress", progress });
    if (phase === "download") this.news?.tell(progress);
  }
}

/** Whether an error means that the bytes are not the wanted model. */
function isWrong(error: unknown): boolean {
  const { code } = asT5Error(error);
  return code === "bad-model" || code === "checksum";
}
