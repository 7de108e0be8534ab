import { T5Error } from "./errors.js";

/**
 * Whether this is Node, Deno or Bun, not a browser. The presence of `window` says nothing, since jsdom defines it in
 * Node. Electron's pages have Node's `process.versions` but a browser's workers.
 */
export const inNode: boolean =
  typeof process === "object" &&
  typeof process.versions?.node === "string" &&
  (process as { type?: string }).type !== "renderer" &&
  // Has some of Node's modules, but neither its files nor its workers.
  globalThis.navigator?.userAgent !== "Cloudflare-Workers";

/** Whether workers can be started here. */
export const hasWorkers: boolean = inNode || typeof Worker === "function";

let ports: MessageChannel | undefined;
const waiting: (() => void)[] = [];

/** Waits for one turn of the event loop, so that pending messages are received (promises alone do not allow that). */
export function turn(): Promise<void> {
  return new Promise<void>((resolve) => {
    if (inNode) return void setImmediate(resolve);
    // Some runtimes have no MessageChannel.
    if (typeof MessageChannel !== "function") return void setTimeout(resolve, 0);
    // In a browser a timer would wait 4 ms, as long as a token takes.
    if (!ports) {
      ports = new MessageChannel();
      ports.port1.onmessage = () => waiting.shift()?.();
    }
    waiting.push(resolve);
    ports.port2.postMessage(0);
  });
}

/** Imports one of Node's modules by a name that bundlers do not see, so that pages never request it. */
export function nodeModule<T>(name: string): Promise<T> {
  return import(/* @vite-ignore */ /* webpackIgnore: true */ `node:${name}`) as Promise<T>;
}

/**
 * Resolves an address against the page's, since a worker's own base differs. `hf:` and `folder:` names stay, and paths
 * in Node.
 */
export function absolute(source: string): string {
  if (/^(hf|folder):/.test(source) || (inNode && !/^https?:/.test(source))) return source;
  try {
    return new URL(source, globalThis.document?.baseURI ?? globalThis.location?.href).href;
  } catch (error) {
    throw new T5Error("bad-option", `source: expected an address, found ${source}`, { cause: error });
  }
}

/** Starts a worker. A script on another origin (a CDN) is imported by a small script of this origin. */
export function scriptWorker(start: () => Worker, address: () => URL): Worker {
  try {
    return start();
  } catch {
    // Browsers refuse to start a worker from another origin, but a worker of this origin may import such a script.
    // Bundled packages never come from another origin, so bundlers need not follow this address.
    const script = new Blob([`import ${JSON.stringify(address().href)};`], { type: "text/javascript" });
    return new Worker(URL.createObjectURL(script), { type: "module" });
  }
}
