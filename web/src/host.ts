// The worker's side: one model, requests one after the other, abort between two tokens.

import { checkIsa, choose, load, type Loaded } from "./builds.js";
import type { Engine } from "../wasm/simd128/t5_wasm.js";
import { aborted, asT5Error, T5Error, throwIfAborted } from "./errors.js";
import { turn } from "./platform.js";
import type { Call, FromWorker, LoadRequest, Port, QuantizeRequest, ToWorker } from "./protocol.js";
import { open, openBlob, type OpenFile } from "./source.js";
import { exclusively, store } from "./store.js";
import type { Info, Isa } from "./types.js";

/** Progress reports at most this often, in bytes. */
const REPORT_EVERY = 1 << 20;

/** Answers requests that come through a port, in their order. */
export function serve(port: Port<FromWorker, ToWorker>): void {
  const host = new Host(port);
  const aborts = new Map<number, AbortController>();
  let last: Promise<void> = Promise.resolve();
  port.receive((message) => {
    if (message.op === "abort") {
      aborts.get(message.id)?.abort();
      return;
    }
    const { id } = message;
    const abort = new AbortController();
    aborts.set(id, abort);
    const answered = (answer: FromWorker): void => {
      if (aborts.delete(id)) port.post(answer, transferable(answer));
    };
    const failed = (error: unknown): void => {
      const { code, message } = asT5Error(error);
      answered({ id, kind: "error", code, message });
    };
    // One that waits in the queue is dropped at once.
    abort.signal.addEventListener("abort", () => failed(aborted()));
    last = last.then(async () => {
      if (abort.signal.aborted) return;
      try {
        answered({ id, kind: "result", result: await host.run(id, message, abort.signal) });
      } catch (error) {
        failed(error);
      }
    });
  });
}

function transferable(answer: FromWorker): ArrayBuffer[] {
  const result = answer.kind === "result" ? answer.result : undefined;
  return result instanceof Float32Array ? [result.buffer as ArrayBuffer] : [];
}

class Host {
  private engine: Engine | undefined;
  private loaded: Pick<Info, "build" | "buildReason" | "loadMs"> | undefined;

  constructor(private readonly port: Port<FromWorker, ToWorker>) {}

  async run(id: number, call: Call, signal: AbortSignal): Promise<unknown> {
    if (call.op === "load") return this.load(id, call.request, signal);
    if (call.op === "quantize") return this.quantize(id, call.request, signal);
    const engine = this.engine;
    if (!engine) throw new T5Error("failed", "expected a loaded model, found none");
    switch (call.op) {
      case "generate":
        return this.generate(engine, id, call, signal);
      case "score":
        return JSON.parse(engine.score(call.source, call.target));
      case "alignment":
        return JSON.parse(engine.alignment(call.source, call.target));
      case "embed":
        return engine.embed(call.text);
      case "tokenize":
        return Array.from(engine.tokenize(call.text));
      case "detokenize":
        return engine.detokenize(Uint32Array.from(call.ids));
      case "info":
        return { ...(JSON.parse(engine.info()) as Info), ...this.loaded };
    }
  }

  private async load(id: number, request: LoadRequest, signal: AbortSignal): Promise<void> {
    const begin = performance.now();
    const { build, threads, reason } = choose(request.build, request.threads);
    checkIsa(build, request.isa);
    // The module compiles while the first bytes are on their way.
    const module = load({ build, threads, reason });
    const { source } = request;
    const fetched = typeof source === "string" && request.cache !== false ? await store() : undefined;
    const opened = fetched
      ? exclusively(String(source), signal, () => this.fetch(id, String(source), request, module, signal))
      : open(source, { ...request, signal }).then((file) => this.read(id, file, request, module, signal));
    this.engine = await opened.catch((error: unknown) => {
      throw signal.aborted ? aborted() : error;
    });
    const missing = threads - 1 - (await (await module).workers);
    const buildReason = missing > 0 ? `${reason}; ${missing} of ${threads - 1} workers could not be started` : reason;
    this.loaded = { build, buildReason, loadMs: performance.now() - begin };
  }

  /** From the store, or from the network and into the store. */
  private async fetch(
    id: number,
    source: string,
    request: LoadRequest,
    module: Promise<Loaded>,
    signal: AbortSignal,
  ): Promise<Engine> {
    const models = await store();
    const found = await models?.find(source);
    if (found?.complete) {
      const file = openBlob(found.file, found.name);
      const checked = found.sha256 === request.sha256?.toLowerCase();
      try {
        return await this.read(id, file, checked ? { isa: request.isa } : request, module, signal);
      } catch (error) {
        // What cannot be used is not kept: the next attempt transfers it anew.
        if (!signal.aborted && asT5Error(error).code !== "out-of-memory") await models?.delete(source);
        throw error;
      }
    }
    const file = await open(source, { ...request, signal, have: found });
    const { name, size, version } = file;
    // Without a store, or space in it, a model still runs.
    let writer = await models?.writer({ source, name, size, version }, file.resumed).catch(() => undefined);
    let arrived = 0;
    const keep = async (chunk: Uint8Array): Promise<void> => {
      const known = Math.max(0, Math.min(chunk.length, file.resumed - arrived));
      arrived += chunk.length;
      try {
        await writer?.write(chunk.subarray(known));
      } catch {
        await writer?.stop();
        writer = undefined;
        await models?.delete(source);
      }
    };
    try {
      const engine = await this.read(id, file, request, module, signal, keep);
      await writer?.finish(request.sha256?.toLowerCase() ?? null).catch(() => models?.delete(source));
      return engine;
    } catch (error) {
      await writer?.stop();
      // A broken transfer goes on next time; a file that is wrong does not.
      if (arrived === size || asT5Error(error).code === "bad-model") await models?.delete(source);
      throw error;
    }
  }

  /** From a stream of bytes to an open model. */
  private async read(
    id: number,
    file: OpenFile,
    { sha256, isa }: { sha256?: string | undefined; isa?: Isa | undefined },
    loading: Promise<Loaded>,
    signal: AbortSignal,
    keep?: (chunk: Uint8Array) => Promise<void>,
  ): Promise<Engine> {
    const { module, workers } = await loading;
    throwIfAborted(signal);
    // The whole model's memory, before anything is transferred.
    const download = new module.Download(file.name, file.size, sha256 !== undefined, isa);
    try {
      let reported = 0;
      for await (const chunk of file.chunks()) {
        throwIfAborted(signal);
        download.append(chunk);
        await keep?.(chunk);
        if (download.filled - reported >= REPORT_EVERY || download.filled === file.size) {
          reported = download.filled;
          this.port.post({ id, kind: "progress", progress: { loaded: reported, total: file.size } });
        }
      }
      const found = download.sha256();
      if (found !== sha256?.toLowerCase()) {
        throw new T5Error("checksum", `${file.name}: expected SHA-256 ${sha256}, found ${found}`);
      }
    } catch (error) {
      download.free();
      throw error;
    }
    const threads = await workers;
    // Takes the download over, also where it fails.
    return module.Engine.open(download, 1 + threads);
  }

  /** A folder's files, read whole, become one file; its parts are collected where the browser keeps blobs. */
  private async quantize(id: number, { files, name, type }: QuantizeRequest, signal: AbortSignal): Promise<Blob> {
    const { module } = await load(choose(undefined, 1));
    const size = files.reduce((sum, { blob }) => sum + blob.size, 0);
    const report = (loaded: number): void =>
      this.port.post({ id, kind: "progress", progress: { loaded: Math.round(loaded), total: 2 * size } });
    const folder = new module.Folder();
    let read = 0;
    for (const { name, blob } of files) {
      const buffer = new module.Buffer(blob.size);
      for await (const chunk of openBlob(blob, name).chunks()) {
        throwIfAborted(signal);
        buffer.append(chunk);
        report((read += chunk.length));
      }
      folder.add(name, buffer);
    }
    const parts: BlobPart[] = [];
    const write = (part: Uint8Array<ArrayBuffer>): void => void parts.push(new Blob([part]));
    folder.quantize(name, type, write, (done: number) => report(size + size * done));
    return new Blob(parts, { type: "application/octet-stream" });
  }

  private async generate(
    engine: Engine,
    id: number,
    call: Extract<Call, { op: "generate" }>,
    signal: AbortSignal,
  ): Promise<unknown> {
    const options = JSON.stringify(call.options);
    if (typeof call.source === "string") engine.start(call.source, options);
    else engine.startIds(Uint32Array.from(call.source), options);
    for (;;) {
      await turn();
      if (signal.aborted) {
        engine.cancel();
        throw aborted();
      }
      const more = engine.step();
      const piece = engine.take();
      if (piece !== undefined) this.port.post({ id, kind: "piece", piece });
      if (!more) return JSON.parse(engine.finish());
    }
  }
}
