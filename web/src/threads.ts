// Workers that share the memory of the worker that starts them, as its additional threads.

import { inNode, nodeModule, scriptWorker } from "./platform.js";

/** What a thread needs to start. It answers once, with true, when it is ready. */
export interface Beginning {
  module: WebAssembly.Module;
  memory: WebAssembly.Memory;
}

/** In a variable, so that bundlers do not follow addresses that are only used in Node. */
const here = import.meta.url;

/** How long to wait for a thread to start. */
const PATIENCE_MS = 5000;

/** Starts `count` threads and resolves with how many are running. They end with the worker that calls this. */
export async function startThreads(
  count: number,
  module: WebAssembly.Module,
  memory: WebAssembly.Memory,
): Promise<number> {
  const threads = Array.from({ length: count }, () => startThread({ module, memory }).catch(() => false));
  return (await Promise.all(threads)).filter(Boolean).length;
}

async function startThread(beginning: Beginning): Promise<boolean> {
  const late = new Promise<boolean>((resolve) => {
    const timer = setTimeout(() => resolve(false), PATIENCE_MS);
    if (inNode) (timer as unknown as { unref(): void }).unref();
  });
  if (inNode) {
    const { Worker } = await nodeModule<typeof import("node:worker_threads")>("worker_threads");
    const worker = new Worker(new URL("./thread.js", here));
    const answer = new Promise<boolean>((resolve) => {
      worker.once("message", () => resolve(true));
      worker.once("error", () => resolve(false));
    });
    worker.postMessage(beginning);
    const there = await Promise.race([answer, late]);
    // It never returns, but must not keep the program running.
    worker.unref();
    return there;
  }
  const worker = scriptWorker(
    () => new Worker(new URL("./thread.js", import.meta.url), { type: "module" }),
    () => new URL("./thread.js", here),
  );
  const answer = new Promise<boolean>((resolve) => {
    worker.onmessage = () => resolve(true);
    worker.onerror = () => resolve(false);
  });
  worker.postMessage(beginning);
  return Promise.race([answer, late]);
}
