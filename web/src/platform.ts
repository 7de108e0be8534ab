import { T5Error } from "./errors.js";

/**
 * Whether this is Node, Deno or Bun, not a browser. A `window` says nothing: jsdom makes one in Node. Electron's pages
 * have Node's versions, but a browser's workers.
 */
export const inNode: boolean =
  typeof process === "object" &&
  typeof process.versions?.node === "string" &&
  (process as { type?: string }).type !== "renderer" &&
  // They have some of Node's modules, but neither its files nor its workers.
  globalThis.navigator?.userAgent !== "Cloudflare-Workers";

/** Whether this place can start workers. */
export const hasWorkers: boolean = inNode || typeof Worker === "function";

let ports: MessageChannel | undefined;
const waiting: (() => void)[] = [];

/** Lets the messages that wait be read: a whole turn of the event loop, not only of promises. */
export function turn(): Promise<void> {
  return new Promise<void>((resolve) => {
    if (inNode) return void setImmediate(resolve);
    // Some places outside browsers have no channels.
    if (typeof MessageChannel !== "function") return void setTimeout(resolve, 0);
    // A timer would wait 4 ms in a browser, as long as a token takes.
    if (!ports) {
      ports = new MessageChannel();
      ports.port1.onmessage = () => waiting.shift()?.();
    }
    waiting.push(resolve);
    ports.port2.postMessage(0);
  });
}

/** One of Node's own modules, by a name that bundlers do not follow: pages never ask for it. */
export function nodeModule<T>(name: string): Promise<T> {
  return import(/* @vite-ignore */ /* webpackIgnore: true */ `node:${name}`) as Promise<T>;
}

/** An address as the page means it: its workers lie elsewhere. Names that are none stay as they are. */
export function absolute(source: string): string {
  if (inNode || /^(hf|folder):/.test(source)) return source;
  try {
    return new URL(source, globalThis.document?.baseURI ?? globalThis.location?.href).href;
  } catch (error) {
    throw new T5Error("bad-option", `source: expected an address, found ${source}`, { cause: error });
  }
}

/** Starts a worker; where its script lies on another origin (a CDN), through a small script of this one. */
export function scriptWorker(start: () => Worker, address: () => URL): Worker {
  try {
    return start();
  } catch {
    // No worker may be started from another origin, but one of our own may import the script.
    // A package that a bundler took apart is never from another origin, so it need not see this address.
    const script = new Blob([`import ${JSON.stringify(address().href)};`], { type: "text/javascript" });
    return new Worker(URL.createObjectURL(script), { type: "module" });
  }
}
