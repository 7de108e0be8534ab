// The demo page as a visitor meets it, in a real browser: every state, with a screenshot, checked by axe-core.
//
// Screenshots go to target/web-screenshots. The model is the default one, or a tiny one where that is absent.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { launch, missing } from "./chromium.mjs";
import { described, folder, model } from "./models.mjs";
import { file, site } from "./site.mjs";

if (missing) console.error(`skipped: ${missing}`);
const inChromium = (name, run) => test(name, { skip: missing }, run);

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const screenshots = here("../../target/web-screenshots");
const axe = readFileSync(here("../node_modules/axe-core/axe.min.js"), "utf8");
const shipped = here("../../runtime/model/pocket-t5.gguf");

let browser;
before(async () => {
  if (missing) return;
  mkdirSync(screenshots, { recursive: true });
  build(existsSync(shipped) ? shipped : model("unigram"));
  browser = await launch();
});

/** Builds the page with a default model, by itself into demo/dist. */
function build(POCKET_T5_MODEL, ...options) {
  const vite = here("../node_modules/vite/bin/vite.js");
  const command = [vite, "build", "--config", "demo/vite.config.ts", "--logLevel", "warn", ...options];
  execFileSync(process.execPath, command, {
    cwd: here(".."),
    env: { ...process.env, POCKET_T5_MODEL },
    stdio: "inherit",
  });
}
after(() => browser?.close());

/** Waits for what happens sooner or later. */
async function until(holds, what) {
  for (const end = Date.now() + 10_000; !(await holds()); await new Promise((resolve) => setTimeout(resolve, 100))) {
    assert.ok(Date.now() < end, `${what}: not after 10 s`);
  }
}

/** The page in a fresh profile. */
async function visit({ routes = {}, isolated = false, wait = true } = {}) {
  const server = await site({ base: "demo/dist", routes, isolated });
  const context = await browser.newContext({ viewport: { width: 1100, height: 900 } });
  const page = await context.newPage();
  const faults = [];
  page.on("pageerror", (error) => faults.push(String(error)));
  await page.goto(`${server.url}/`);
  if (wait) await page.locator("#run:enabled").waitFor();
  return {
    server,
    context,
    page,
    async close() {
      assert.deepEqual(faults, []);
      await context.close();
      server.close();
    },
  };
}

/** No part of the page is wider than the screen: from small phones to desks. */
async function fits(page, state) {
  const { width, height } = page.viewportSize();
  for (const width of [320, 390, 768, 1280]) {
    await page.setViewportSize({ width, height: 844 });
    const found = await page.evaluate(() => document.documentElement.scrollWidth);
    assert.ok(found <= width, `${state}: ${found} pixels wide on a screen of ${width}`);
  }
  await page.setViewportSize({ width, height });
}

/** Waits until the page's service worker keeps its files, the module that runs among them. */
const kept = (page) =>
  until(
    () =>
      page.evaluate(async () => {
        if (!(await navigator.serviceWorker.ready).active) return false;
        for (const name of await caches.keys()) {
          const urls = (await (await caches.open(name)).keys()).map((request) => request.url);
          if (name.startsWith("pocket-t5 page") && urls.some((url) => url.endsWith(".wasm"))) return true;
        }
        return false;
      }),
    "the module is kept",
  );

/** Light and dark, wide and narrow; and no serious fault of accessibility in any of them. */
async function look(page, state) {
  for (const colorScheme of ["light", "dark"]) {
    for (const [width, name] of [
      [1100, "wide"],
      [375, "narrow"],
    ]) {
      await page.emulateMedia({ colorScheme });
      await page.setViewportSize({ width, height: 900 });
      await page.screenshot({ path: `${screenshots}/${state}-${colorScheme}-${name}.png`, fullPage: true });
    }
    await fits(page, state);
    await page.evaluate(axe);
    const { violations } = await page.evaluate(() => globalThis.axe.run());
    const found = violations.flatMap((one) => one.nodes.map((node) => `${one.id}: ${node.html}`));
    assert.deepEqual(found, [], `${state}, ${colorScheme}`);
  }
  await page.setViewportSize({ width: 1100, height: 900 });
}

inChromium("the default model loads and answers", async () => {
  const { page, close } = await visit();
  await page.click("summary");
  assert.equal(await page.isVisible("#save"), false);
  await look(page, "ready");
  await page.click("summary");
  await page.fill("#limit", "24");
  await page.click("#run");
  await page.locator("#speed", { hasText: "tokens in" }).waitFor();
  assert.notEqual(await page.textContent("#output"), "");
  assert.match(await page.textContent("#build"), /^(relaxed|simd128), \d+ threads?$/);
  assert.match(await page.textContent("#memory"), /^[\d.]+ MB of memory$/);
  await page.locator("#attention:visible").waitFor();
  // By keyboard: focus on an output word says where it looked.
  await page.locator("#heat tbody th").first().focus();
  assert.match(await page.textContent("#attention-hint"), /comes from/);
  await look(page, "answered");
  await close();
});

inChromium("beams give a list with scores", async () => {
  const { page, close } = await visit();
  await page.fill("#limit", "12");
  await page.fill("#beams", "4");
  await page.click("#run");
  await page.locator("#n-best:visible").waitFor();
  const scores = await page.locator("#candidates .quiet").allTextContents();
  assert.equal(scores.length, 4);
  const numbers = scores.map((text) => Number(/^score (-?[\d.]+)$/.exec(text)[1]));
  assert.deepEqual(
    numbers,
    [...numbers].sort((a, b) => b - a),
  );
  await look(page, "beams");
  await close();
});

inChromium("tasks are chosen by keyboard, examples run at a click, stop stops", async () => {
  const { page, close } = await visit();
  await page.locator("#task-0").focus();
  await page.keyboard.press("ArrowRight");
  assert.equal(await page.isChecked("#task-1"), true);
  await page.fill("#limit", "8");
  await page.locator("#examples button").first().click();
  await page.locator("#speed", { hasText: "tokens in" }).waitFor();
  await page.fill("#limit", "512");
  await page.fill("#beams", "16");
  await page.click("#run");
  await page.click("#stop");
  await page.locator("#stop:disabled").waitFor();
  assert.equal(await page.isVisible("#error"), false);
  await close();
});

inChromium("the page works offline from its second visit on", async () => {
  const { server, context, page, close } = await visit();
  await kept(page);
  // Of three builds the one that runs.
  assert.equal(server.requests.filter((one) => one.path.endsWith(".wasm")).length, 1);
  const models = () => server.requests.filter((one) => one.path.endsWith(".gguf")).length;
  assert.equal(models(), 1);
  // Nobody answers any more.
  server.close();
  await page.reload();
  await page.locator("#run:enabled").waitFor();
  await page.fill("#limit", "8");
  await page.click("#run");
  await page.locator("#speed", { hasText: "tokens in" }).waitFor();
  assert.equal(models(), 1);
  await context.setOffline(true);
  await page.locator("#network", { hasText: "offline" }).waitFor();
  await page.click("summary");
  assert.match(await page.textContent("#stored li"), /^pocket-t5-.*\.gguf, [\d.]+ MB/);
  await look(page, "offline");
  await close();
});

inChromium("the service worker isolates the page from its second visit on", async () => {
  const { page, close } = await visit();
  assert.equal(await page.evaluate(() => crossOriginIsolated), false);
  await kept(page);
  await page.reload();
  await page.locator("#run:enabled").waitFor();
  assert.equal(await page.evaluate(() => crossOriginIsolated), true);
  // The bundle's own threads.
  const processors = await page.evaluate(() => navigator.hardwareConcurrency);
  const threads = processors > 1 ? /^(relaxed|simd128), [2-8] threads$/ : /^(relaxed|simd128), 1 thread$/;
  assert.match(await page.textContent("#build"), threads);
  await page.fill("#limit", "8");
  await page.click("#run");
  await page.locator("#speed", { hasText: "tokens in" }).waitFor();
  assert.notEqual(await page.textContent("#output"), "");
  await look(page, "isolated");
  await close();
});

inChromium("the longest texts of each task fit on every screen", async () => {
  const { page, close } = await visit();
  await page.fill("#limit", "64");
  const tasks = await page.locator("#tasks input").count();
  assert.ok(tasks >= 4);
  for (let task = 0; task < tasks; task++) {
    await page.locator(`#task-${task}`).focus();
    await page.keyboard.press("Space");
    const buttons = page.locator("#examples button");
    const lengths = (await buttons.allTextContents()).map((text) => text.length);
    await buttons.nth(lengths.indexOf(Math.max(...lengths))).click();
    await page.locator("#output[aria-busy=false]").waitFor();
    await page.locator("#attention:visible").waitFor();
    await fits(page, `task ${task}`);
  }
  // A word that cannot be broken, and a long text.
  await page.locator("#task-0").focus();
  await page.keyboard.press("Space");
  for (const text of [
    "Donaudampfschifffahrtsgesellschaft".repeat(5),
    "I have never seen such a beautiful house, ".repeat(6),
  ]) {
    await page.fill("#source", text);
    await page.click("#run");
    await page.locator("#output[aria-busy=true]").waitFor();
    await page.locator("#output[aria-busy=false]").waitFor();
    await fits(page, text);
  }
  await close();
});

inChromium("who made the model, and under which terms, is said with links", async () => {
  const credits = {
    "general.license": "cc-by-2.0",
    "general.attribution": "Tatoeba (https://tatoeba.org, CC BY 2.0 FR), <b>CMUdict</b> and javascript:alert(1).",
    "general.license.link": "https://creativecommons.org/licenses/by/2.0/",
  };
  const credited = described(readFileSync(model("unigram", "q8_0")), credits);
  const { page, server, close } = await visit({ routes: { "/credited.gguf": file(credited) } });
  const before = await page.evaluate(() => document.querySelector("#credits").textContent);
  assert.ok(before.length > 0);
  await page.click("summary");
  await page.fill("#url", `${server.url}/credited.gguf`);
  await page.keyboard.press("Enter");
  await page.locator("#credits", { hasText: "javascript:alert(1)" }).waitFor();
  const links = await page.locator("#credits a").evaluateAll((all) => all.map((link) => [link.href, link.textContent]));
  assert.deepEqual(links, [
    ["https://creativecommons.org/licenses/by/2.0/", "creativecommons.org/licenses/by/2.0"],
    ["https://tatoeba.org/", "tatoeba.org"],
  ]);
  const text = await page.locator("#credits").innerText();
  assert.match(text, /cc-by-2\.0/);
  assert.match(text, /<b>CMUdict<\/b> and javascript:alert\(1\)/);
  await look(page, "credits");
  await close();
});

inChromium("a new deployment reaches visitors, also those without a network, and old models go", async () => {
  const next = here("../../target/web-test/demo-next");
  build(model("unigram", "q8_0"), "--outDir", next);
  const script = (folder) => readFileSync(`${folder}/service-worker.js`, "utf8");
  assert.notEqual(script(next), script(here("../demo/dist")));
  const { server, page, close } = await visit();
  await kept(page);
  const state = () =>
    page.evaluate(async () => {
      const root = await navigator.storage.getDirectory();
      const models = [];
      for await (const name of (await root.getDirectoryHandle("pocket-t5")).keys()) models.push(name);
      const names = (await caches.keys()).filter((name) => name.startsWith("pocket-t5 page"));
      return {
        models: models.filter((name) => name.endsWith(".gguf")).length,
        names,
        script: document.querySelector("script").src,
      };
    });
  const before = await state();
  server.deploy("../target/web-test/demo-next");
  await page.reload();
  await page.locator("#run:enabled").waitFor();
  const after = await state();
  assert.notEqual(after.script, before.script);
  assert.equal(before.models, 1);
  // The old model goes once the new one runs.
  await until(async () => (await state()).models === 1, "one model is kept");
  // The new service worker takes over by itself.
  await until(async () => !(await state()).names.includes(before.names[0]), "what the old page kept goes");
  await kept(page);
  assert.equal((await state()).names.length, 1);
  server.close();
  await page.reload();
  await page.locator("#run:enabled").waitFor();
  assert.equal((await state()).script, after.script);
  await close();
});

inChromium("files of a folder become a model that can be saved", async () => {
  const { page, close } = await visit();
  await page.click("summary");
  const source = folder("unigram");
  await page.setInputFiles(
    "#files",
    readdirSync(source).map((name) => `${source}/${name}`),
  );
  await page.locator("#model-name", { hasText: "Your checkpoint as int8" }).waitFor();
  await page.locator("#run:enabled").waitFor();
  const saving = page.waitForEvent("download");
  await page.click("#save");
  const saved = await (await saving).path();
  assert.deepEqual(readFileSync(saved), readFileSync(model("unigram", "q8_0")));
  await look(page, "dropped");
  await close();
});

inChromium("errors are said in words, with what to do", async () => {
  const { page, server, close } = await visit({ routes: { "/page.gguf": file(Buffer.from("<html>".repeat(10))) } });
  await page.click("summary");
  for (const [address, expected] of [
    ["/missing.gguf", /found HTTP status 404.*Check the address\.$/],
    ["/page.gguf", /not a GGUF file.*Choose a GGUF file/],
    ["hf:nobody", /Expected hf:owner\/name/],
  ]) {
    await page.fill("#url", address.startsWith("/") ? server.url + address : address);
    await page.keyboard.press("Enter");
    await page.locator("#error", { hasText: expected }).waitFor();
  }
  await look(page, "error");
  await page.click("#default");
  await page.locator("#run:enabled").waitFor();
  assert.equal(await page.isVisible("#error"), false);
  await close();
});

inChromium("a slow download shows its progress and can be cancelled", async () => {
  const stalls = (_request, response) => {
    response.writeHead(200, { "content-length": 10_000_000, etag: '"1"' });
    response.write(Buffer.alloc(4_000_000, "GGUF"));
  };
  const { page, server, close } = await visit({ routes: { "/slow.gguf": stalls } });
  await page.click("summary");
  await page.fill("#url", `${server.url}/slow.gguf`);
  await page.keyboard.press("Enter");
  await page.locator("#progress-text", { hasText: /^[34](\.\d)? MB of (10|10\.0) MB, [\d.]+ MB a second$/ }).waitFor();
  await look(page, "download");
  await page.click("#cancel");
  await page.locator("#download").waitFor({ state: "hidden" });
  assert.equal(await page.isVisible("#error"), false);
  await close();
});
