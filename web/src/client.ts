// The page's side of the line: starts the worker, numbers requests, hands out answers.

import { aborted, asT5Error, T5Error } from "./errors.js";
import { inNode, nodeModule, scriptWorker } from "./platform.js";
import type { Call, FromWorker, ToWorker } from "./protocol.js";
import type { Progress } from "./types.js";

interface Pending {
  resolve(result: unknown): void;
  reject(error: T5Error): void;
  piece?: ((piece: string) => void) | undefined;
  progress?: ((progress: Progress) => void) | undefined;
}

/** What a request wants to hear of before its result. */
export interface Listeners {
  signal?: AbortSignal | undefined;
  piece?: (piece: string) => void;
  progress?: ((progress: Progress) => void) | undefined;
  transfer?: ArrayBuffer[];
}

export class Client {
  private readonly pending = new Map<number, Pending>();
  private next = 1;
  private closed: T5Error | undefined;

  private constructor(
    private readonly post: (message: ToWorker, transfer: ArrayBuffer[]) => void,
    private readonly terminate: () => void,
  ) {}

  static async start(): Promise<Client> {
    let client: Client | undefined;
    const receive = (message: FromWorker): void => client?.receive(message);
    const broken = (what: string): void => client?.close(new T5Error("failed", what));
    if (inNode) {
      const { Worker } = await nodeModule<typeof import("node:worker_threads")>("worker_threads");
      const worker = new Worker(new URL("./worker.js", import.meta.url));
      worker.on("message", receive);
      worker.on("error", (error) => broken(`the worker failed: ${error.message}`));
      // A program ends although a model is loaded; while a request runs, it does not.
      worker.unref();
      client = new Client(
        (message, transfer) => worker.postMessage(message, transfer),
        () => void worker.terminate(),
      );
      client.busy = (busy) => (busy ? worker.ref() : worker.unref());
    } else {
      const worker = browserWorker();
      worker.onmessage = (event: MessageEvent<FromWorker>) => receive(event.data);
      worker.onerror = (event) => broken(`the worker failed: ${event.message ?? "its script did not load"}`);
      client = new Client(
        (message, transfer) => worker.postMessage(message, transfer),
        () => worker.terminate(),
      );
    }
    return client;
  }

  private busy: (busy: boolean) => void = () => {};

  /** Sends a request; resolves with its result. */
  request<T>(call: Call, { signal, piece, progress, transfer = [] }: Listeners = {}): Promise<T> {
    if (this.closed) return Promise.reject(this.closed);
    if (signal?.aborted) return Promise.reject(aborted());
    const id = this.next++;
    return new Promise<T>((resolve, reject) => {
      const abort = (): void => this.post({ id, op: "abort" }, []);
      const done = (): void => {
        signal?.removeEventListener("abort", abort);
        if (this.pending.size === 0) this.busy(false);
      };
      this.pending.set(id, {
        resolve: (result) => (done(), resolve(result as T)),
        reject: (error) => (done(), reject(error)),
        piece,
        progress,
      });
      this.busy(true);
      signal?.addEventListener("abort", abort);
      this.post({ id, ...call }, transfer);
    });
  }

  /** Ends the worker; requests under way fail with `error`. */
  close(error: T5Error): void {
    if (this.closed) return;
    this.closed = error;
    this.terminate();
    const pending = [...this.pending.values()];
    this.pending.clear();
    pending.forEach((request) => request.reject(error));
  }

  private receive(message: FromWorker): void {
    const request = this.pending.get(message.id);
    if (!request) return;
    switch (message.kind) {
      case "piece":
        request.piece?.(message.piece);
        return;
      case "progress":
        request.progress?.(message.progress);
        return;
      case "result":
        this.pending.delete(message.id);
        request.resolve(message.result);
        return;
      case "error":
        this.pending.delete(message.id);
        request.reject(asT5Error(new T5Error(message.code, message.message)));
    }
  }
}

function browserWorker(): Worker {
  const here = import.meta.url;
  return scriptWorker(
    () => new Worker(new URL("./worker.js", import.meta.url), { type: "module" }),
    () => new URL("./worker.js", here),
  );
}
