// The worker's side: one model, requests one after the other, abort between two pieces of work.

import { checkIsa, choose, load, loadConverter, type Loaded } from "./builds.js";
import type { Engine } from "../wasm/simd128/t5_wasm.js";
import { aborted, asT5Error, isTrap, T5Error, throwIfAborted } from "./errors.js";
import { fetching } from "./fetch.js";
import { turn } from "./platform.js";
import type { Call, FromWorker, LoadRequest, Port, QuantizeRequest, ToWorker, Unquantized } from "./protocol.js";
import { HUB, openAddress, openBlob, startingAgain, type OpenFile } from "./source.js";
import { Transfer, Unquantized as Files } from "./transfer.js";
import type { GenerateOptions, Info, Progress, Sentence } from "./types.js";

/** Short requests, which do not wait behind long ones. */
const QUICK: ReadonlySet<Call["op"]> = new Set(["sentences", "tokenize", "detokenize", "info"] as const);

/** Answers requests from a port in order. The function returned stops that and frees the model. */
export function serve(port: Port<FromWorker, ToWorker>): () => void {
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
      answered({ id, kind: "error", code, message, fatal: isTrap(error) });
    };
    let running = false;
    // At once, also where it waits in the queue; but a load that runs first closes the file that it writes.
    abort.signal.addEventListener("abort", () => {
      if (!running || message.op !== "load") failed(aborted());
    });
    const answer = async (): Promise<void> => {
      if (abort.signal.aborted) return;
      running = true;
      try {
        answered({ id, kind: "result", result: await host.run(id, message, abort.signal) });
      } catch (error) {
        // After a trap the engine is abandoned; freeing it could trap again.
        if (isTrap(error)) host.lose();
        failed(error);
      }
    };
    // Safe while another request runs: between two of its steps the module is not in use.
    if (QUICK.has(message.op) && host.ready) void answer();
    else last = last.then(answer);
  });
  return () => {
    aborts.forEach((abort) => abort.abort());
    // After the running request, which ends at its next step.
    last = last.then(() => host.free());
  };
}

function transferable(answer: FromWorker): ArrayBuffer[] {
  const result = answer.kind === "result" ? answer.result : undefined;
  return result instanceof Float32Array ? [result.buffer as ArrayBuffer] : [];
}

class Host {
  private engine: Engine | undefined;
  private loaded: Pick<Info, "build" | "buildReason" | "moduleUrl" | "kept" | "keptReason" | "loadMs"> | undefined;
  private lost = false;
  /** Loaded once, though a folder's model is asked for before it is made: threads, once started, live on. */
  private module: Promise<Loaded> | undefined;

  /** Whether there is a model to ask. */
  get ready(): boolean {
    return this.engine !== undefined;
  }

  constructor(private readonly port: Port<FromWorker, ToWorker>) {}

  async run(id: number, call: Call, signal: AbortSignal): Promise<unknown> {
    if (call.op === "load") return this.load(id, call.request, signal);
    if (call.op === "quantize") return this.quantize(id, call.request, signal);
    const engine = this.engine;
    if (!engine) {
      throw this.lost
        ? new T5Error("lost", "the model ended in an earlier request and must be loaded again")
        : new T5Error("failed", "expected a loaded model, found none");
    }
    switch (call.op) {
      case "generate":
        return this.generate(engine, id, call, signal);
      case "batch":
        return this.batch(id, engine, call, signal);
      case "score":
        engine.startScore(call.source, call.target);
        await toEnd(engine, signal);
        return JSON.parse(engine.finish());
      case "alignment":
        engine.startAlignment(call.source, call.target);
        await toEnd(engine, signal);
        return JSON.parse(engine.finish());
      case "embed":
        engine.startEmbed(call.text, call.limits.maxInputTokens, call.limits.truncate);
        await toEnd(engine, signal);
        return engine.finishStates();
      case "encode": {
        const { maxInputTokens: most, truncate } = call.limits;
        engine.startEncode(call.text, most, truncate);
        await toEnd(engine, signal);
        const states = engine.finishStates();
        const all = Array.from(engine.tokenize(call.text));
        const width = (JSON.parse(engine.info()) as { config: { d_model: number } }).config.d_model;
        const count = states.length / width;
        // A text that was cut off still ends with `</s>`.
        const ids = count < all.length ? [...all.slice(0, count - 1), ...all.slice(-1)] : all;
        return { ids, width, states };
      }
      case "sentences":
        return sentences(engine.sentences(call.text));
      case "tokenize":
        return Array.from(engine.tokenize(call.text));
      case "detokenize":
        return engine.detokenize(Uint32Array.from(call.ids));
      case "info":
        return { ...(JSON.parse(engine.info()) as Info), ...this.loaded };
    }
  }

  free(): void {
    this.engine?.free();
    this.engine = undefined;
  }

  lose(): void {
    this.engine = undefined;
    this.lost = true;
  }

  private async load(id: number, request: LoadRequest, signal: AbortSignal): Promise<Unquantized | undefined> {
    const begin = performance.now();
    const choice = choose(request.build, request.threads, request.wasm);
    checkIsa(choice.build, request.isa);
    // The module compiles while the first bytes are on their way.
    this.module ??= load(choice, request.assets);
    const transfer = new Transfer(this.port, id, request, this.module, signal);
    try {
      this.engine = await transfer.run();
      throwIfAborted(signal);
    } catch (error) {
      if (error instanceof Files) return { files: error.files };
      throw signal.aborted ? aborted() : error;
    }
    const { build, threads, reason, workers, address } = await transfer.loading;
    const missing = threads - 1 - (await workers);
    const buildReason = missing > 0 ? `${reason}; ${missing} of ${threads - 1} workers could not be started` : reason;
    const moduleUrl = address?.href ?? "";
    this.loaded = { build, buildReason, moduleUrl, ...transfer.keeping, loadMs: performance.now() - begin };
    return undefined;
  }

  /** Converts a folder's files to one GGUF file, collected in blobs, which the browser may keep on disk. */
  private async quantize(id: number, request: QuantizeRequest, signal: AbortSignal): Promise<Blob> {
    const { files, name, type, stallMs } = request;
    const module = await loadConverter();
    const begin = performance.now();
    const ask = fetching(request, HUB);
    type Source = (typeof files)[number];
    const open = async ({ name, blob, url }: Source, sized: boolean): Promise<OpenFile> =>
      blob ? openBlob(blob, name) : openAddress(url ?? "", { ask, signal, stallMs, sized });
    const opened: [Source, OpenFile][] = [];
    for (const file of files) opened.push([file, await startingAgain((sized) => open(file, sized))]);
    let size = opened.reduce((sum, [, file]) => sum + file.size, 0);
    const fetched = files.some(({ url }) => url !== undefined);
    const report = (done: number): void => {
      const phase = done > size ? "quantize" : fetched ? "download" : "read";
      const bytesPerSecond = phase === "download" && done > 0 ? (done * 1000) / (performance.now() - begin) : null;
      const progress: Progress = { phase, loaded: Math.round(done), total: 2 * size, bytesPerSecond };
      this.port.post({ id, kind: "progress", progress });
    };
    const folder = new module.Folder();
    let read = 0;
    for (const [source, first] of opened) {
      const before = read;
      let file: OpenFile | undefined;
      const buffer = await startingAgain(async (sized) => {
        const next = file ? await open(source, sized) : first;
        size += next.size - (file ?? first).size;
        file = next;
        read = before;
        const buffer = new module.Buffer(file.size);
        try {
          for await (const chunk of file.chunks()) {
            throwIfAborted(signal);
            buffer.append(chunk);
            report((read += chunk.length));
          }
          return buffer;
        } catch (error) {
          if (!isTrap(error)) buffer.free();
          throw error;
        }
      });
      folder.add(source.name, buffer);
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
    const options = written(call.options);
    if (typeof call.source === "string") engine.start(call.source, options);
    else engine.startIds(Uint32Array.from(call.source), options);
    this.remark(id, engine, call.options, options);
    await toEnd(engine, signal, () => {
      const piece = engine.take();
      if (piece !== undefined) this.port.post({ id, kind: "piece", piece });
    });
    return JSON.parse(engine.finish());
  }

  /** Warns if part of a prefix cannot be written with the model's vocabulary. */
  private remark(id: number, engine: Engine, { prefix, prefixIds }: GenerateOptions, options: string): void {
    if (!prefix && !prefixIds) return;
    for (const note of engine.notes(options)) this.port.post({ id, kind: "note", note });
  }

  /** Generates for several texts, in groups of as many as are decoded side by side. */
  private async batch(
    id: number,
    engine: Engine,
    call: Extract<Call, { op: "batch" }>,
    signal: AbortSignal,
  ): Promise<unknown> {
    const options = written(call.options);
    this.remark(id, engine, call.options, options);
    const results: unknown[] = [];
    // Without texts the options are checked all the same.
    if (call.texts.length === 0) engine.notes(options);
    for (let at = 0; at < call.texts.length; at += call.group) {
      engine.startBatch(call.texts.slice(at, at + call.group), options);
      await toEnd(engine, signal);
      results.push(...(JSON.parse(engine.finish()) as unknown[]));
    }
    return results;
  }
}

/**
 * Runs what was started, piece by piece. Messages are read between the pieces, so that aborts take effect and short
 * requests are answered.
 */
async function toEnd(engine: Engine, signal: AbortSignal, each?: () => void): Promise<void> {
  for (let more = true; more; ) {
    await turn();
    if (signal.aborted) {
      engine.cancel();
      throw aborted();
    }
    more = engine.step();
    each?.();
  }
}

/** Turns alternating beginnings and ends into pairs. */
function sentences(units: Uint32Array): Sentence[] {
  return Array.from({ length: units.length / 2 }, (_, i) => ({ begin: units[2 * i]!, end: units[2 * i + 1]! }));
}

/** Options as JSON. Whole numbers beyond 2^53 (`bigint`) become strings of digits, as JSON has none. */
function written(options: object): string {
  return JSON.stringify(options, (_, value: unknown) => (typeof value === "bigint" ? value.toString() : value));
}
