// As test runners do it: jsdom's objects take the place of Node's.
import { JSDOM } from "jsdom";

const { window } = new JSDOM("<!doctype html>", { url: "http://page.test/", pretendToBeVisual: true });
for (const name of [
  "window",
  "document",
  "navigator",
  "location",
  "Blob",
  "File",
  "Event",
  "EventTarget",
  "AbortController",
  "AbortSignal",
]) {
  Object.defineProperty(globalThis, name, {
    value: name === "window" ? window : window[name],
    configurable: true,
    writable: true,
  });
}
const { T5 } = await import("pocket-t5");
const abort = new AbortController();
const t5 = await T5.load(undefined, { signal: abort.signal });
let text = "";
const options = { signal: abort.signal };
for await (const piece of t5.generate("translate English to German: Where is the station?", options)) text += piece;
const ended = t5.generate("translate English to German: Where is it?", options).outputs.catch((error) => error.code);
abort.abort();
if ((await ended) !== "aborted") throw new Error(`expected an abort, found ${await ended}`);
console.log(JSON.stringify({ text, info: await t5.info() }));
t5.dispose();
