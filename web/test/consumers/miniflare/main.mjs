// The bundle that wrangler would make, in the engine of Cloudflare Workers.
import { readFileSync } from "node:fs";
import { build } from "esbuild";
import { Miniflare } from "miniflare";

await build({
  entryPoints: ["worker.js"],
  outfile: "dist/worker.js",
  bundle: true,
  format: "esm",
  conditions: ["workerd", "worker", "browser"],
  external: ["*.wasm", "*.gguf"],
});
const contents = (path) => readFileSync(`node_modules/${path}`);
const [wasm, model] = ["pocket-t5/wasm/simd128/t5_wasm_bg.wasm", "pocket-t5-model/pocket-t5.gguf"];
const server = new Miniflare({
  compatibilityDate: "2026-03-01",
  modules: [
    { type: "ESModule", path: "worker.js", contents: readFileSync("dist/worker.js", "utf8") },
    { type: "CompiledWasm", path: wasm, contents: contents(wasm) },
    { type: "Data", path: model, contents: contents(model) },
  ],
});
const ask = (query = "") => server.dispatchFetch(`http://x.test/${query}`);
const { text, info } = await (await ask()).json();
const streamed = await (await ask("?text=translate English to German: Where is the station?")).text();
console.log(JSON.stringify({ text: streamed === text ? text : { text, streamed }, info }));
await server.dispose();
