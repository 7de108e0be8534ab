// The page's side of the line: starts the worker, numbers requests, hands out answers.

import { aborted, T5Error } from "./errors.js";
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
  /** Whether an abort waits for the worker, which has something to put in order first. */
  orderly?: boolean;
}

export class Client {
  private readonly pending = new Map<number, Pending>();
  private next = 1;
  private closed: T5Error | undefined;

  private constructor(
    private readonly post: (message: ToWorker) => void,
    private readonly terminate: () => void,
  ) {}

  /** Starts a worker; `assets` is where the package's folders lie if not where this script is. */
  static async start(assets?: string | URL): Promise<Client> {
    let client: Client | undefined;
    const receive = (message: FromWorker): void => client?.receive(message);
    const broken = (code: "failed" | "lost", what: string): void => client?.close(new T5Error(code, what));
    const copied = assets === undefined ? undefined : new URL("dist/worker.js", folder(assets));
    if (inNode) {
      const { Worker } = await nodeModule<typeof import("node:worker_threads")>("worker_threads");
      const worker = new Worker(copied ?? new URL("./worker.js", here));
      worker.on("message", receive);
      worker.on("error", (error) => broken("failed", `the worker failed: ${error.message}`));
      worker.on("exit", () => broken("lost", "the worker was ended: the model must be loaded again"));
      // A program ends although a model is loaded; while a request runs, it does not.
      worker.unref();
      client = new Client(
        (message) => worker.postMessage(message),
        () => void worker.terminate(),
      );
      client.busy = (busy) => (busy ? worker.ref() : worker.unref());
    } else {
      const worker = browserWorker(copied);
      worker.onmessage = (event: MessageEvent<FromWorker>) => receive(event.data);
      worker.onerror = (event) => broken("failed", `the worker failed: ${event.message ?? "its script did not load"}`);
      client = new Client(
        (message) => worker.postMessage(message),
        () => worker.terminate(),
      );
    }
    return client;
  }

  private busy: (busy: boolean) => void = () => {};

  /** Sends a request; resolves with its result. */
  request<T>(call: Call, { signal, piece, progress, orderly }: Listeners = {}): Promise<T> {
    if (this.closed) return Promise.reject(this.closed);
    if (signal?.aborted) return Promise.reject(aborted(signal));
    const id = this.next++;
    return new Promise<T>((resolve, reject) => {
      const abort = (): void => {
        this.post({ id, op: "abort" });
        // The worker may hear of it only when a long step is over.
        if (!orderly) this.settle(id)?.reject(aborted(signal));
      };
      const done = (): void => {
        signal?.removeEventListener("abort", abort);
        if (this.pending.size === 0) this.busy(false);
      };
      this.pending.set(id, {
        resolve: (result) => (done(), resolve(result as T)),
        reject: (error) => (done(), reject(error.code === "aborted" ? aborted(signal) : error)),
        piece,
        progress,
      });
      this.busy(true);
      signal?.addEventListener("abort", abort);
      try {
        this.post({ id, ...call });
      } catch (error) {
        // What cannot be copied to a worker, such as a function.
        this.settle(id)?.reject(new T5Error("bad-option", (error as Error).message, { cause: error }));
      }
    });
  }

  /** Takes a request out, which is answered now. */
  private settle(id: number): Pending | undefined {
    const request = this.pending.get(id);
    this.pending.delete(id);
    return request;
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
    switch (message.kind) {
      case "piece":
        return this.pending.get(message.id)?.piece?.(message.piece);
      case "progress":
        return this.pending.get(message.id)?.progress?.(message.progress);
      case "result":
        return this.settle(message.id)?.resolve(message.result);
      case "error":
        this.settle(message.id)?.reject(new T5Error(message.code, message.message));
        // Nothing runs there any more; its memory is given back.
        if (message.fatal) this.close(new T5Error("lost", `${LOST}: ${message.message}`));
    }
  }
}

const LOST = "the model ended in an earlier request and must be loaded again";

/** Bundlers do not follow addresses that are relative to a variable, and need not follow Node's. */
const here = import.meta.url;

/** A folder's address, with the slash at the end that relative addresses need. */
function folder(address: string | URL): URL {
  const base = inNode ? here : (globalThis.document?.baseURI ?? location.href);
  try {
    return new URL(String(address).replace(/\/?$/, "/"), base);
  } catch (error) {
    throw new T5Error("bad-option", `assets: expected an address, found ${JSON.stringify(address)}`, { cause: error });
  }
}

function browserWorker(copied: URL | undefined): Worker {
  if (copied) return scriptWorker(() => new Worker(copied, { type: "module" }), () => copied);
  return scriptWorker(
    () => new Worker(new URL("./worker.js", import.meta.url), { type: "module" }),
    () => new URL("./worker.js", here),
  );
}
