#!/usr/bin/env node
// Speed in headless Chromium, one thread: node web/bench/bench.mjs [MODEL.gguf] [REPEATS]
//
// Without a model: t5-small's shape in Q8_0, random weights. 128 source tokens, 64 new tokens, batch 1, key-value
// caches on. Per token: (time of 64 tokens - time of 1) / 63. Encoder: the time of 1 token less that; it holds
// cross-attention's keys and values. Median (minimum to maximum). Run it on a machine that does nothing else.

import { statSync } from "node:fs";
import { gzipSync } from "node:zlib";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { launch, missing } from "../test/chromium.mjs";
import { file, site } from "../test/site.mjs";
import { t5Small } from "./model.mjs";

if (missing) {
  console.error(missing);
  process.exit(1);
}
const [given, repeats = "7"] = process.argv.slice(2);
const path = given ?? (await t5Small());
const server = await site({ routes: { "/model.gguf": file(path) } });
const browser = await launch();
console.log(`${path.split("/").pop()}, ${(statSync(path).size / 1e6).toFixed(1)} MB; Chromium ${browser.version()}`);
console.log("build     ms per token          encoder, ms          load from cache, ms   module, kB gzipped");

for (const build of ["simd128", "relaxed"]) {
  const page = await (await browser.newContext()).newPage();
  await page.goto(`${server.url}/empty.html`);
  const times = await page.evaluate(
    async ([build, repeats]) => {
      const { T5 } = await import("/dist/index.js");
      (await T5.load("/model.gguf", { build })).dispose();
      const loads = [];
      let t5;
      for (let i = 0; i < 5; i++) {
        t5?.dispose();
        const begin = performance.now();
        t5 = await T5.load("/model.gguf", { build });
        loads.push(performance.now() - begin);
      }
      const { vocab_size } = (await t5.info()).config;
      const source = Array.from({ length: 128 }, (_, i) => (i === 127 ? 1 : 3 + ((i * 7919) % (vocab_size - 200))));
      const time = async (n) => {
        const begin = performance.now();
        const [best] = await t5.generate(source, { maxNewTokens: n, minNewTokens: n, beams: 1, temperature: 0 }).outputs;
        if (best.ids.length !== n) throw new Error(`expected ${n} tokens, found ${best.ids.length}`);
        return performance.now() - begin;
      };
      await time(64); // the engine compiles hot functions anew
      const [tokens, encoders] = [[], []];
      for (let i = 0; i < repeats; i++) {
        const [one, all] = [await time(1), await time(64)];
        tokens.push((all - one) / 63);
        encoders.push(one - (all - one) / 63);
      }
      t5.dispose();
      return { tokens, encoders, loads };
    },
    [build, Number(repeats)],
  );
  const module = readFileSync(fileURLToPath(new URL(`../wasm/${build}/t5_wasm_bg.wasm`, import.meta.url)));
  const size = (gzipSync(module, { level: 9 }).length / 1e3).toFixed(0);
  const columns = [show(times.tokens, 2), show(times.encoders, 1), show(times.loads, 0), size];
  console.log(`${build.padEnd(9)} ${columns.map((text) => text.padEnd(21)).join(" ")}`);
}
console.log("onnxruntime-web 1.31 int8, t5-small, on the project's machine: 8.87, 84.4, 3248 (2026-11)");
await browser.close();
server.close();

function show(values, digits) {
  const sorted = values.toSorted((a, b) => a - b);
  const [least, middle, most] = [sorted[0], sorted[sorted.length >> 1], sorted.at(-1)].map((x) => x.toFixed(digits));
  return `${middle} (${least} to ${most})`;
}
