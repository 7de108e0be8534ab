// A thread's entry, in browsers and in Node: it lends itself to the module and does not return.

import * as t5 from "../wasm/threads/t5_wasm.js";
import { inNode, nodeModule } from "./platform.js";
import type { Beginning } from "./threads.js";

/** Bytes of its stack; kernels have shallow ones. A multiple of a page's 64 KiB. */
const STACK = 4 << 16;

function lend({ module, memory }: Beginning, ready: () => void): void {
  t5.initSync({ module, memory, thread_stack_size: STACK });
  t5.enterWorker();
  ready();
  try {
    t5.serveWorker();
  } catch (error) {
    // A trap. Whoever waits for this thread must hear of it.
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
