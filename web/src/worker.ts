// The worker's entry, in browsers and in Node.

import { serve } from "./host.js";
import { inNode, nodeModule } from "./platform.js";
import type { FromWorker, ToWorker } from "./protocol.js";

// No top-level await: some bundlers turn this into a classic script, which cannot have one.
if (inNode) {
  void nodeModule<typeof import("node:worker_threads")>("worker_threads").then(({ parentPort }) => {
    if (!parentPort) throw new Error("expected to run in a worker, found the main thread");
    serve({
      post: (message, transfer) => parentPort.postMessage(message, transfer),
      receive: (handler) => parentPort.on("message", handler),
    });
  });
} else {
  const scope = self as unknown as {
    postMessage(message: FromWorker, transfer: Transferable[]): void;
    addEventListener(type: "message", handler: (event: MessageEvent<ToWorker>) => void): void;
  };
  serve({
    post: (message, transfer) => scope.postMessage(message, transfer ?? []),
    receive: (handler) => scope.addEventListener("message", (event) => handler(event.data)),
  });
  // Held while this worker lives, so that whoever waits for the lock learns of its end.
  const lock = `pocket-t5: a worker ${Math.random()}`;
  const forever = (): Promise<never> => {
    scope.postMessage({ id: 0, kind: "alive", lock }, []);
    return new Promise(() => {});
  };
  navigator.locks?.request(lock, forever).catch(() => {});
}
