// The page's side: starts the worker, numbers requests, and matches answers to them.

import { aborted, T5Error } from "./errors.js";
import { hasWorkers, inNode, nodeModule, scriptWorker } from "./platform.js";
import type { Call, FromWorker, ToWorker } from "./protocol.js";
import type { Progress } from "./types.js";

interface Pending {
  call: Call;
  resolve(result: unknown): void;
  reject(error: T5Error): void;
  piece?: ((piece: string) => void) | undefined;
  progress?: ((progress: Progress) => void) | undefined;
  persist?: (() => void) | undefined;
}

/** What a request listens for besides its result. */
export interface Listeners {
  signal?: AbortSignal | undefined;
  piece?: (piece: string) => void;
  progress?: ((progress: Progress) => void) | undefined;
  /** A large file is about to be kept. */
  persist?: (() => void) | undefined;
  /** Whether an abort waits until the worker has cleaned up. */
  orderly?: boolean;
  /** Objects that are transferred to the worker rather than copied. */
  transfer?: Transferable[];
}

/** How a client starts. */
export interface Start {
  /** Where the package's folders are, if not beside this script. */
  assets?: string | URL | undefined;
  /** Run in the calling thread, without a worker. */
  inline?: boolean;
}

/** The connection to a worker, or to the worker's code in this thread. */
interface Line {
  post(message: ToWorker, transfer?: Transferable[]): void;
  terminate(): void;
  /** In Node: keeps the program running while requests are pending. */
  busy(busy: boolean): void;
}

/** Receives the worker's messages, and learns of its end. */
interface Ear {
  receive(message: FromWorker): void;
  broken(code: "failed" | "lost" | "unsupported", what: string): void;
}

/** A worker that has not reacted to an abort by then is in the middle of a long step. */
const PATIENCE_MS = 2000;

const ENDED = "the worker was ended: the model must be loaded again";
const LOST = "the model ended in an earlier request and must be loaded again";

export class Client {
  private readonly pending = new Map<number, Pending>();
  /** Requests that the worker has not answered yet, in order; true for aborted ones. */
  private readonly unanswered = new Map<number, boolean>();
  private next = 1;
  private line: Line | undefined;
  private closed: T5Error | undefined;
  /** What a replacement worker must do first: load the same model. */
  private again: Call | undefined;
  private watch: ReturnType<typeof setTimeout> | undefined;

  private constructor(private readonly options: Start) {}

  static async start(options: Start = {}): Promise<Client> {
    const client = new Client(options);
    client.line = await client.connect();
    return client;
  }

  private connect(): Promise<Line> {
    let there = true;
    // Ignores messages of a worker that was ended and replaced.
    const ear: Ear = {
      receive: (message) => there && this.receive(message),
      broken: (code, what) => there && this.close(new T5Error(code, what)),
    };
    const { assets, inline = !hasWorkers } = this.options;
    const lines = inline ? inlineLine(ear, assets) : workerLine(ear, assets);
    return lines.then(({ post, busy, terminate }) => ({ post, busy, terminate: () => ((there = false), terminate()) }));
  }

  /**
   * From now on a worker that does not react to an abort is ended and replaced by a new one that starts with this call.
   * Nothing else can stop a long step: one block of the encoder takes most of a minute for a text of 20,000 words.
   */
  replaceable(call: Call): void {
    if (!(this.options.inline ?? !hasWorkers)) this.again = call;
  }

  /** Sends a request; resolves with its result. */
  request<T>(call: Call, { signal, orderly, transfer, ...listeners }: Listeners = {}): Promise<T> {
    if (this.closed) return Promise.reject(this.closed);
    if (signal?.aborted) return Promise.reject(aborted(signal));
    const id = this.next++;
    return new Promise<T>((resolve, reject) => {
      const abort = (): void => {
        this.line?.post({ id, op: "abort" });
        // The worker may react only after a long step, so the caller's promise is rejected now.
        if (orderly) return;
        this.settle(id)?.reject(aborted(signal));
        if (this.unanswered.has(id)) this.unanswered.set(id, true);
        this.listenFor();
      };
      const done = (): void => {
        signal?.removeEventListener("abort", abort);
        if (this.pending.size === 0) this.line?.busy(false);
      };
      this.pending.set(id, {
        call,
        resolve: (result) => (done(), resolve(result as T)),
        reject: (error) => (done(), reject(error.code === "aborted" ? aborted(signal) : error)),
        ...listeners,
      });
      signal?.addEventListener("abort", abort);
      try {
        this.send(id, call, transfer);
      } catch (error) {
        // What cannot be copied to a worker, such as a function.
        this.unanswered.delete(id);
        this.settle(id)?.reject(new T5Error("bad-option", (error as Error).message, { cause: error }));
      }
    });
  }

  private send(id: number, call: Call, transfer?: Transferable[]): void {
    // While a worker is being replaced there is none: the new one will be sent everything that is pending.
    if (!this.line) return;
    this.line.busy(true);
    this.unanswered.set(id, false);
    this.line.post({ id, ...call }, transfer);
  }

  /** Checks later whether the worker has reacted to an abort. */
  private listenFor(): void {
    if (!this.again || this.watch !== undefined) return;
    const suspect = this.abortedAndRunning();
    this.watch = setTimeout(() => {
      this.watch = undefined;
      // One that was aborted since then has not had its time yet.
      if (suspect !== undefined && suspect === this.abortedAndRunning()) void this.replace();
      else if ([...this.unanswered.values()].includes(true)) this.listenFor();
    }, PATIENCE_MS);
    // This timer alone should not keep a program running.
    if (inNode) (this.watch as unknown as { unref(): void }).unref();
  }

  /** The request that runs, if it was aborted: only that one can be stuck, not those waiting behind it. */
  private abortedAndRunning(): number | undefined {
    const [first] = this.unanswered;
    return first?.[1] ? first[0] : undefined;
  }

  /** Ends the worker and sends pending requests to a new one. */
  private async replace(): Promise<void> {
    const { again, line } = this;
    if (!again || !line || this.closed) return;
    this.line = undefined;
    this.unanswered.clear();
    line.terminate();
    try {
      const next = await this.connect();
      if (this.closed) return next.terminate();
      this.line = next;
    } catch (error) {
      return this.close(error as T5Error);
    }
    const waiting = [...this.pending];
    this.request(again).catch((error: T5Error) => this.close(new T5Error("lost", `${LOST}: ${error.message}`)));
    for (const [id, { call }] of waiting) if (this.pending.has(id)) this.send(id, call);
  }

  /** Removes a request that is about to be answered. */
  private settle(id: number): Pending | undefined {
    const request = this.pending.get(id);
    this.pending.delete(id);
    return request;
  }

  /** Ends the worker; requests under way fail with `error`. */
  close(error: T5Error): void {
    if (this.closed) return;
    this.closed = error;
    clearTimeout(this.watch);
    this.line?.terminate();
    const pending = [...this.pending.values()];
    this.pending.clear();
    pending.forEach((request) => request.reject(error));
  }

  private receive(message: FromWorker): void {
    switch (message.kind) {
      case "piece":
        return this.pending.get(message.id)?.piece?.(message.piece);
      case "note":
        return console.warn(`pocket-t5: ${message.note}`);
      case "progress":
        return this.pending.get(message.id)?.progress?.(message.progress);
      case "persist":
        return this.pending.get(message.id)?.persist?.();
      case "alive":
        return this.hold(message.lock);
      case "result":
        this.unanswered.delete(message.id);
        return this.settle(message.id)?.resolve(message.result);
      case "error":
        this.unanswered.delete(message.id);
        this.settle(message.id)?.reject(new T5Error(message.code, message.message));
        // The worker is of no further use: end it to free its memory.
        if (message.fatal) this.close(new T5Error("lost", `${LOST}: ${message.message}`));
    }
  }

  /** Browsers do not report that a worker was ended, but the lock that it held becomes free. */
  private hold(lock: string): void {
    const { line } = this;
    const free = (): void => {
      if (line === this.line) this.close(new T5Error("lost", ENDED));
    };
    navigator.locks.request(lock, free).catch(() => {});
  }
}

async function workerLine({ receive, broken }: Ear, assets: string | URL | undefined): Promise<Line> {
  const copied = assets === undefined ? undefined : new URL("dist/worker.js", folder(assets));
  if (!inNode) {
    const worker = browserWorker(copied);
    worker.onmessage = (event: MessageEvent<FromWorker>) => receive(event.data);
    worker.onerror = ({ message }) =>
      message ? broken("failed", `the worker failed: ${message}`) : broken("unsupported", notAllowed(copied));
    return {
      post: (message, transfer = []) => worker.postMessage(message, transfer),
      terminate: () => worker.terminate(),
      busy: () => {},
    };
  }
  const { Worker } = await nodeModule<typeof import("node:worker_threads")>("worker_threads");
  const worker = new Worker(copied ?? new URL("./worker.js", here));
  worker.on("message", receive);
  worker.on("error", (error) => broken("failed", `the worker failed: ${error.message}`));
  worker.on("exit", () => broken("lost", ENDED));
  // A loaded model does not keep a program running; a pending request does (see `busy`).
  worker.unref();
  type NodesTransferable = import("node:worker_threads").Transferable;
  return {
    post: (message, transfer = []) => worker.postMessage(message, transfer as NodesTransferable[]),
    terminate: () => void worker.terminate(),
    busy: (busy) => (busy ? worker.ref() : worker.unref()),
  };
}

/** An explanation of why a worker's script may not have loaded, since browsers give none. */
function notAllowed(copied: URL | undefined): string {
  const { origin } = copied ?? new URL(here);
  const own = origin === location.origin;
  const policy = own ? "worker-src 'self'" : `worker-src blob: ${origin}`;
  return `the worker's script did not load: expected it at ${origin}, and a content security policy to allow ${policy}`;
}

type Serve = typeof import("./host.js").serve;
let inlined: Serve | undefined;

/** Gives the worker's side to clients without a worker. */
export function useHost(serve: Serve): void {
  inlined = serve;
}

/** Runs the worker's code in this thread. Messages are passed on without copying. */
async function inlineLine({ receive }: Ear, assets: string | URL | undefined): Promise<Line> {
  const serve = inlined ?? (await importHost(assets));
  let handler: (message: ToWorker) => void = () => {};
  const terminate = serve({
    post: (message) => queueMicrotask(() => receive(message)),
    receive: (one) => (handler = one),
  });
  return { post: (message) => queueMicrotask(() => handler(message)), terminate, busy: () => {} };
}

/** Imports the worker's code by an address that bundlers do not follow; otherwise pages would contain it twice. */
async function importHost(assets: string | URL | undefined): Promise<Serve> {
  const address = assets === undefined ? new URL("./host.js", here) : new URL("dist/host.js", folder(assets));
  try {
    const module = await import(/* @vite-ignore */ /* webpackIgnore: true */ address.href);
    return (module as typeof import("./host.js")).serve;
  } catch (error) {
    const what = `threads: expected "pocket-t5/inline" to be imported, since ${address} cannot be loaded`;
    throw new T5Error("unsupported", what, { cause: error });
  }
}

/** In a variable, so that bundlers do not follow addresses that are only used in Node. */
const here = import.meta.url;

/** A folder's address, ending with a slash so that relative addresses resolve inside it. */
export function folder(address: string | URL): URL {
  const base = inNode ? here : (globalThis.document?.baseURI ?? globalThis.location?.href);
  try {
    return new URL(String(address).replace(/\/?$/, "/"), base);
  } catch (error) {
    throw new T5Error("bad-option", `assets: expected an address, found ${JSON.stringify(address)}`, { cause: error });
  }
}

function browserWorker(copied: URL | undefined): Worker {
  if (copied)
    return scriptWorker(
      () => new Worker(copied, { type: "module" }),
      () => copied,
    );
  return scriptWorker(
    () => new Worker(new URL("./worker.js", import.meta.url), { type: "module" }),
    () => new URL("./worker.js", here),
  );
}
