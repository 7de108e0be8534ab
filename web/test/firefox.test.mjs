// The package and the demo page in Firefox: nothing needs Chromium.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { launch, missing } from "./firefox.mjs";
import { pocket } from "./models.mjs";
import { file, site } from "./site.mjs";

if (missing) console.error(`skipped: ${missing}`);
const inFirefox = (name, run) => test(name, { skip: missing }, run);

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

let firefox;
before(async () => {
  if (!missing) firefox = await launch();
});
after(() => firefox?.close());

for (const isolated of [false, true]) {
  inFirefox(`a model streams, is kept, and runs from the store${isolated ? ", on an isolated page" : ""}`, async () => {
    let online = true;
    const serve = file(pocket.path);
    const model = (request, response, count) => (online ? serve(request, response, count) : response.destroy());
    const server = await site({ routes: { "/model.gguf": model }, isolated });
    const cases = pocket.answers(4);
    const ask = async (texts) => {
      const { T5, cache } = await import("/dist/index.js");
      const t5 = await T5.load("/model.gguf");
      const found = [];
      for (const text of texts) {
        const generation = t5.generate(text);
        const pieces = [];
        for await (const piece of generation) pieces.push(piece);
        const [{ text: whole, ids, logprobs }] = await generation.outputs;
        found.push({ pieces, whole, ids, logprobs });
      }
      const info = await t5.info();
      t5.dispose();
      return { found, info, kept: await cache.list(), isolated: crossOriginIsolated };
    };
    const texts = cases.map((one) => one.text);
    await firefox.goto(`${server.url}/empty.html`);
    const first = await firefox.evaluate(ask, texts);
    assert.equal(first.isolated, isolated);
    first.found.forEach(({ pieces, whole, ids, logprobs }, i) => {
      assert.ok(pieces.length > 1);
      assert.equal(pieces.join(""), whole);
      assert.deepEqual([whole, ids, logprobs], [cases[i].answer, cases[i].ids, cases[i].logprobs]);
    });
    assert.equal(first.kept.length, 1);
    assert.equal(first.kept[0].complete, true);
    online = false;
    await firefox.reload();
    const again = await firefox.evaluate(ask, texts);
    assert.deepEqual(again.found, first.found);
    assert.equal(server.asked("/model.gguf"), 1);
    const { build, threads, buildReason } = first.info;
    console.error(`Firefox ${firefox.version}: ${build}, ${threads} threads: ${buildReason}`);
    if (!isolated) assert.equal(threads, 1);
    if (build === "threads") assert.ok(threads > 1);
    server.close();
  });
}

inFirefox("the demo page answers, and works without a network from its second visit on", async () => {
  const out = here("../../target/web-test/demo-firefox");
  const vite = here("../node_modules/vite/bin/vite.js");
  const command = [vite, "build", "--config", "demo/vite.config.ts", "--logLevel", "warn", "--outDir", out];
  execFileSync(process.execPath, command, { cwd: here(".."), stdio: "inherit" });
  const server = await site({ base: "../target/web-test/demo-firefox" });
  const answer = async () => {
    await firefox.until(() => document.body.dataset.model === "ready");
    await firefox.evaluate(() => {
      const source = document.querySelector("#source");
      source.value = "Where is the station?";
      source.dispatchEvent(new InputEvent("input", { bubbles: true }));
    });
    await firefox.until(() => document.querySelector("body.answered #answer[aria-busy=false]") !== null);
    return firefox.evaluate(() => document.querySelector("#answer").innerText);
  };
  await firefox.goto(`${server.url}/`);
  const first = await answer();
  assert.notEqual(first, "");
  await firefox.evaluate(async () => void (await navigator.serviceWorker.ready));
  server.close();
  await firefox.reload();
  assert.equal(await answer(), first);
});
