// The entry of a thread's worker, in browsers and in Node: it serves the module and does not return.

import * as t5 from "../wasm/threads/t5_wasm.js";
import { inNode, nodeModule } from "./platform.js";
import type { Beginning } from "./threads.js";

/** Size of its stack in bytes, a multiple of 64 KiB; kernels need little. */
const STACK = 4 << 16;

function lend({ module, memory }: Beginning, ready: () => void): void {
  t5.initSync({ module, memory, thread_stack_size: STACK });
  t5.enterWorker();
  ready();
  try {
    t5.serveWorker();
  } catch (error) {
    // A trap: those who wait for this thread must be told.
    t5.loseWorker();
    throw error;
  }
}

// Without an await at the top: see worker.ts.
if (inNode) {
  void nodeModule<typeof import("node:worker_threads")>("worker_threads").then(({ parentPort }) =>
    parentPort?.once("message", (beginning: Beginning) => lend(beginning, () => parentPort.postMessage(true))),
  );
} else {
  const scope = self as unknown as {
    postMessage(message: boolean): void;
    onmessage: (event: MessageEvent<Beginning>) => void;
  };
  scope.onmessage = (event) => lend(event.data, () => scope.postMessage(true));
}
