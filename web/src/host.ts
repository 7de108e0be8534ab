// The worker's side: one model, requests one after the other, abort between two tokens.

import { checkIsa, choose, load } from "./builds.js";
import type { Engine } from "../wasm/simd128/t5_wasm.js";
import { aborted, asT5Error, isTrap, T5Error, throwIfAborted } from "./errors.js";
import { turn } from "./platform.js";
import type { Call, FromWorker, LoadRequest, Port, QuantizeRequest, ToWorker } from "./protocol.js";
import { openBlob } from "./source.js";
import { Transfer } from "./transfer.js";
import type { Info, Progress, Sentence } from "./types.js";

/** How many texts of a batch run at once. */
const GROUP = 16;

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
      answered({ id, kind: "error", code, message, fatal: isTrap(error) });
    };
    // One that waits in the queue is dropped at once.
    abort.signal.addEventListener("abort", () => failed(aborted()));
    last = last.then(async () => {
      if (abort.signal.aborted) return;
      try {
        answered({ id, kind: "result", result: await host.run(id, message, abort.signal) });
      } catch (error) {
        // What a trap leaves behind is not used again, nor freed: that would be another trap.
        if (isTrap(error)) host.lose();
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
  private loaded: Pick<Info, "build" | "buildReason" | "moduleUrl" | "loadMs"> | undefined;
  private lost = false;

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
        return this.batch(engine, call, signal);
      case "score":
        return JSON.parse(engine.score(call.source, call.target));
      case "alignment":
        return JSON.parse(engine.alignment(call.source, call.target));
      case "embed":
        return engine.embed(call.text);
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

  lose(): void {
    this.engine = undefined;
    this.lost = true;
  }

  private async load(id: number, request: LoadRequest, signal: AbortSignal): Promise<void> {
    const begin = performance.now();
    const choice = choose(request.build, request.threads);
    checkIsa(choice.build, request.isa);
    // The module compiles while the first bytes are on their way.
    const transfer = new Transfer(this.port, id, request, load(choice), signal);
    try {
      this.engine = await transfer.run();
    } catch (error) {
      throw signal.aborted ? aborted() : error;
    }
    const { build, threads, reason, workers, address } = await transfer.loading;
    const missing = threads - 1 - (await workers);
    const buildReason = missing > 0 ? `${reason}; ${missing} of ${threads - 1} workers could not be started` : reason;
    this.loaded = { build, buildReason, moduleUrl: address.href, loadMs: performance.now() - begin };
  }

  /** A folder's files, read whole, become one file; its parts are collected where the browser keeps blobs. */
  private async quantize(id: number, { files, name, type }: QuantizeRequest, signal: AbortSignal): Promise<Blob> {
    const { module } = await load(choose(undefined, 1));
    const size = files.reduce((sum, { blob }) => sum + blob.size, 0);
    const report = (done: number): void => {
      const phase = done <= size ? "read" : "quantize";
      const progress: Progress = { phase, loaded: Math.round(done), total: 2 * size, bytesPerSecond: null };
      this.port.post({ id, kind: "progress", progress });
    };
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
    // JSON has no whole numbers beyond 2^53: they cross as digits.
    const options = JSON.stringify(call.options, (_, value: unknown) =>
      typeof value === "bigint" ? value.toString() : value,
    );
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
  /** Several texts at once, in groups: between them an abort is heard. */
  private async batch(engine: Engine, call: Extract<Call, { op: "batch" }>, signal: AbortSignal): Promise<unknown> {
    const options = JSON.stringify(call.options);
    const results: unknown[] = [];
    for (let at = 0; at < call.texts.length; at += GROUP) {
      await turn();
      throwIfAborted(signal);
      results.push(...(JSON.parse(engine.generateBatch(call.texts.slice(at, at + GROUP), options)) as unknown[]));
    }
    return results;
  }
}

/** Beginnings and ends in turns as pairs. */
function sentences(units: Uint32Array): Sentence[] {
  return Array.from({ length: units.length / 2 }, (_, i) => ({ begin: units[2 * i]!, end: units[2 * i + 1]! }));
}
