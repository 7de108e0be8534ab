// The worker's side: one model, requests one after the other, abort between two tokens.

import { choose, load } from "./builds.js";
import type { Engine } from "../wasm/simd128/t5_wasm.js";
import { aborted, asT5Error, T5Error, throwIfAborted } from "./errors.js";
import { turn } from "./platform.js";
import type { Call, FromWorker, LoadRequest, Port, ToWorker } from "./protocol.js";
import { open } from "./source.js";
import type { Info } from "./types.js";

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
  private loaded: Pick<Info, "build" | "buildReason" | "threads" | "loadMs"> | undefined;

  constructor(private readonly port: Port<FromWorker, ToWorker>) {}

  async run(id: number, call: Call, signal: AbortSignal): Promise<unknown> {
    if (call.op === "load") return this.load(id, call.request, signal);
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
    const { build, reason } = choose(request.build);
    // The module compiles while the first bytes are on their way.
    const [module, file] = await Promise.all([load(build), open(request.source, { ...request, signal })]);
    throwIfAborted(signal);
    // The whole file's memory, before anything is transferred.
    const buffer = new module.Buffer(file.size);
    try {
      let reported = 0;
      for await (const chunk of file.chunks()) {
        throwIfAborted(signal);
        buffer.append(chunk);
        if (buffer.filled - reported >= REPORT_EVERY || buffer.filled === file.size) {
          reported = buffer.filled;
          this.port.post({ id, kind: "progress", progress: { loaded: reported, total: file.size } });
        }
      }
      if (request.sha256 !== undefined) {
        const found = buffer.sha256();
        if (found !== request.sha256.toLowerCase()) {
          throw new T5Error("checksum", `${file.name}: expected SHA-256 ${request.sha256}, found ${found}`);
        }
      }
    } catch (error) {
      buffer.free();
      throw error;
    }
    // Takes the buffer over, also where it fails.
    this.engine = module.Engine.open(file.name, buffer);
    this.loaded = { build, buildReason: reason, threads: 1, loadMs: performance.now() - begin };
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
