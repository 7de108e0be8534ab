// The package in a real browser, without a bundler: what Node cannot show (storage, tabs, workers of pages).

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { launch, missing } from "./chromium.mjs";
import { binary, families, folder, golden, model, options, pocket, quantized, shared, vectors } from "./models.mjs";
import { file, site } from "./site.mjs";

if (missing) console.error(`skipped: ${missing}`);
const inChromium = (name, run) => test(name, { skip: missing }, run);

let browser;
let path;
before(async () => {
  if (missing) return;
  path = model("unigram", "q8_0");
  browser = await launch();
});
after(() => browser?.close());

/** A fresh profile on an empty page with the package as `pocket` and some helpers; `run` evaluates in a page. */
async function open(routes = {}, { isolated = false } = {}) {
  const server = await site({ routes: { "/model.gguf": file(path), ...routes }, isolated });
  const context = await browser.newContext();
  // A busy machine is no fault.
  context.setDefaultTimeout(120_000);
  const tab = async () => {
    const page = await context.newPage();
    await page.goto(`${server.url}/empty.html`);
    await page.evaluate(async () => {
      globalThis.pocket = await import("/dist/index.js");
      globalThis.failure = (promise) =>
        promise.then(
          () => "no error",
          (error) => ({ code: error.code, message: error.message, ours: error instanceof pocket.T5Error }),
        );
    });
    return page;
  };
  const close = async () => {
    await context.close();
    server.close();
  };
  return { server, context, tab, close };
}

inChromium("a model loads, streams, and is aborted; five requests wait their turn", async () => {
  const { tab, close } = await open();
  const page = await tab();
  const found = await page.evaluate(async () => {
    const progress = [];
    const t5 = await pocket.T5.load("/model.gguf", { onProgress: (event) => progress.push(event) });
    const generation = t5.generate("a text", { maxNewTokens: 20, minNewTokens: 20 });
    const pieces = [];
    for await (const piece of generation) pieces.push(piece);
    const [best] = await generation.outputs;
    const abort = new AbortController();
    let count = 0;
    const aborted = await failure(
      (async () => {
        for await (const _ of t5.generate("x", { maxNewTokens: 400, minNewTokens: 400, signal: abort.signal })) {
          if (++count === 3) abort.abort();
        }
      })(),
    );
    const five = [1, 2, 3, 4, 5].map((n) => t5.generate("x ".repeat(n), { maxNewTokens: 4 + n, minNewTokens: 4 + n }));
    const lengths = (await Promise.all(five.map((one) => one.outputs))).map(([best]) => best.ids.length);
    const info = await t5.info();
    t5.dispose();
    return { last: progress.at(-1), pieces, text: best.text, aborted, lengths, info };
  });
  const size = readFileSync(path).length;
  assert.deepEqual(found.last, { phase: "prepare", loaded: size, total: size, bytesPerSecond: null });
  assert.ok(found.pieces.length > 3);
  assert.equal(found.pieces.join(""), found.text);
  assert.equal(found.aborted.code, "aborted");
  assert.deepEqual(found.lengths, [5, 6, 7, 8, 9]);
  assert.equal(found.info.build, "relaxed");
  assert.match(found.info.isa, /^(simd128|relaxed)$/);
  await close();
});

/** The pages' own figures of a loaded model, and what it generates. */
const run = (page, options, source = "a text") =>
  page.evaluate(
    async ([options, source]) => {
      const t5 = await pocket.T5.load("/model.gguf", { cache: false, ...options });
      const [best] = await t5.generate(source, { maxNewTokens: 20, minNewTokens: 20 }).outputs;
      const info = await t5.info();
      t5.dispose();
      return {
        ids: best.ids,
        logprobs: best.logprobs,
        build: info.build,
        threads: info.threads,
        why: info.buildReason,
      };
    },
    [options, source],
  );

inChromium("threads run on an isolated page, one thread elsewhere, and all give the same", async () => {
  const apart = await open({}, { isolated: true });
  const page = await apart.tab();
  const processors = await page.evaluate(() => navigator.hardwareConcurrency);
  const one = await run(page, { threads: 1 });
  assert.deepEqual([one.build, one.threads], ["relaxed", 1]);
  assert.match(one.why, /one thread because one was asked for$/);
  const four = await run(page, { build: "threads", threads: 4 });
  assert.deepEqual([four.build, four.threads, four.why], ["threads", 4, "asked for"]);
  assert.deepEqual([four.ids, four.logprobs], [one.ids, one.logprobs]);
  const own = await run(page, {});
  assert.deepEqual([own.ids, own.logprobs], [one.ids, one.logprobs]);
  if (processors > 1) {
    assert.equal(own.build, "threads");
    assert.ok(own.threads > 1 && own.threads <= processors, `${own.threads} threads, ${processors} processors`);
    assert.match(own.why, /cross-origin isolated, and there are \d+ processors$/);
  } else {
    assert.equal(own.build, "relaxed");
  }
  await apart.close();

  const plain = await open();
  const other = await plain.tab();
  const found = await run(other, { threads: 4 });
  assert.deepEqual([found.build, found.threads], ["relaxed", 1]);
  assert.match(found.why, /one thread because the page is not cross-origin isolated$/);
  assert.deepEqual([found.ids, found.logprobs], [one.ids, one.logprobs]);
  const forced = await other.evaluate(() => failure(pocket.T5.load("/model.gguf", { build: "threads" })));
  assert.equal(forced.code, "unsupported");
  for (const threads of [-1, 1.5, 65, "2"]) {
    const error = await other.evaluate((threads) => failure(pocket.T5.load("/model.gguf", { threads })), threads);
    assert.equal(error.code, "bad-option");
  }
  await plain.close();
});

/** A worker script with a line before the package's own. */
const preceded = (line) => ({
  "/dist/worker.js": (_request, response) => {
    response.setHeader("content-type", "text/javascript");
    response.end(`import "/before.js";\n${readFileSync(new URL("../dist/worker.js", import.meta.url), "utf8")}`);
  },
  "/before.js": (_request, response) => {
    response.setHeader("content-type", "text/javascript");
    response.end(line);
  },
});

/** A browser that shares memories of at most so many pages of 64 KiB. */
const sharing = (pages) => `
  const { Memory } = WebAssembly;
  WebAssembly.Memory = class extends Memory {
    constructor(description) {
      if (description.shared && description.maximum > ${pages}) throw new RangeError("could not allocate memory");
      super(description);
    }
  };`;

inChromium("where little memory can be shared, less is tried, then builds with memories of their own", async () => {
  for (const [pages, build, why] of [
    [65536, "threads", /there are \d+ processors$/],
    [20000, "threads", /processors; the browser shares 1024 MiB at most$/],
    [8192, "threads", /the browser shares 512 MiB at most$/],
    [0, "relaxed", /processors; threads could not be started: could not allocate memory$/],
  ]) {
    const { tab, close } = await open(preceded(sharing(pages)), { isolated: true });
    const page = await tab();
    if ((await page.evaluate(() => navigator.hardwareConcurrency)) < 2) return close();
    const found = await run(page, {});
    assert.deepEqual([found.build, why.test(found.why)], [build, true], found.why);
    await close();
  }
  // A model that the shared memory has no room for.
  const huge = (_request, response) => {
    response.writeHead(200, { "content-length": 700_000_000 });
    response.end("no model at all".repeat(10_000));
  };
  const { tab, close } = await open({ ...preceded(sharing(8192)), "/huge.gguf": huge }, { isolated: true });
  const page = await tab();
  const error = await page.evaluate(() => failure(pocket.T5.load("/huge.gguf", { cache: false })));
  assert.equal(error.code, "bad-model", error.message);
  await close();
});

inChromium("a module that is not there is done without, and info says so", async () => {
  const absent = (_request, response) => response.writeHead(404).end();
  const { tab, close } = await open({ "/wasm/relaxed/t5_wasm_bg.wasm": absent });
  const page = await tab();
  const found = await run(page, {});
  assert.equal(found.build, "simd128");
  assert.match(found.why, /; relaxed could not be started: .*expected a module, found HTTP status 404$/);
  const asked = await page.evaluate(() => failure(pocket.T5.load("/model.gguf", { build: "relaxed" })));
  assert.equal(asked.code, "unsupported");
  await close();
});

inChromium("a page that cannot start threads runs on one, and says so", async () => {
  const refuse = (_request, response) => response.writeHead(500).end();
  const { tab, close } = await open({ "/dist/thread.js": refuse }, { isolated: true });
  const page = await tab();
  const found = await run(page, { build: "threads", threads: 3 });
  assert.deepEqual([found.build, found.threads], ["threads", 1]);
  assert.equal(found.why, "asked for; 2 of 2 workers could not be started");
  await close();
});

for (const family of families()) {
  inChromium(`${family} gives the reference's ids, built with relaxed vectors`, async () => {
    const { tab, close } = await open({ "/family.gguf": file(model(family)) });
    const page = await tab();
    const cases = golden(family).filter((one) => ["greedy", "beam", "gnmt_beam"].includes(one.kind) && one.input_ids);
    const requests = cases.map((one) => [one.input_ids, options(one)]);
    const found = await page.evaluate(
      async ([requests, isa]) => {
        const t5 = await pocket.T5.load("/family.gguf", { build: "relaxed", isa, cache: false });
        const all = await Promise.all(requests.map(([ids, options]) => t5.generate(ids, options).outputs));
        return all.map((outputs) => outputs.map((output) => output.ids));
      },
      [requests, vectors],
    );
    assert.ok(cases.length > 10);
    assert.deepEqual(
      found,
      cases.map((one) => one.n_best?.map((entry) => entry.ids) ?? [one.ids]),
    );
    await close();
  });
}

inChromium("real weights in Q8_0 give what the native program gives, to the last bit", async (context) => {
  const source = shared("models/flan-t5-small-titler");
  if (!source) return context.skip("no shared folder with flan-t5-small-titler");
  const real = quantized(source, "flan-t5-small-titler", "q8_0");
  const lines = readFileSync(`${source}/golden.jsonl`, "utf8").trim().split("\n").slice(1, 9);
  const texts = lines.map((line) => JSON.parse(line).text);
  const native = texts.map((text) => {
    const command = ["generate", "--model", real, "--json", "--max-new-tokens", "48", text];
    const { ids, logprobs } = JSON.parse(execFileSync(binary("t5"), command, { encoding: "utf8" }));
    return { ids, logprobs };
  });
  const { tab, close } = await open({ "/real.gguf": file(real) });
  const page = await tab();
  for (const [build, isa] of [["relaxed", vectors], ["simd128", "simd128"]]) {
    const found = await page.evaluate(
      async ([texts, build, isa]) => {
        const t5 = await pocket.T5.load("/real.gguf", { build, isa, cache: false });
        const all = await Promise.all(texts.map((text) => t5.generate(text, { maxNewTokens: 48 }).outputs));
        t5.dispose();
        return all.map(([{ ids, logprobs }]) => ({ ids, logprobs }));
      },
      [texts, build, isa],
    );
    assert.deepEqual(found, native, build);
  }
  await close();
});

inChromium("every build answers the built-in model's goldens as the native program does, to the last bit", async () => {
  const cases = pocket.answers();
  assert.ok(cases.length > 10);
  const { tab, close } = await open({ "/pocket.gguf": file(pocket.path) }, { isolated: true });
  const page = await tab();
  const all = [["threads"], ["threads", vectors], ["relaxed", vectors], ["simd128", "simd128"]];
  for (const [build, isa] of all) {
    const found = await page.evaluate(
      async ([texts, build, isa]) => {
        const t5 = await pocket.T5.load("/pocket.gguf", { build, ...(isa && { isa }), threads: 2, cache: false });
        const inputs = await Promise.all(texts.map((text) => t5.tokenize(text)));
        const all = await Promise.all(texts.map((text) => t5.generate(text).outputs));
        t5.dispose();
        return all.map(([{ text: answer, ids, logprobs }], i) => ({
          text: texts[i],
          inputs: inputs[i],
          answer,
          ids,
          logprobs,
        }));
      },
      [cases.map((one) => one.text), build, isa],
    );
    assert.deepEqual(found, cases, `${build}, ${isa}`);
  }
  await close();
});

/** The most memory that a model may take while it loads, of its file's bytes. Sessions' caches come later. */
const MOST_MEMORY = 1.2;

inChromium("a model takes little more memory than its file has bytes", async (context) => {
  const source = shared("models/flan-t5-small-titler");
  const files = { "built-in": pocket.path };
  if (source) files["flan-t5-small-titler"] = quantized(source, "flan-t5-small-titler", "q8_0");
  else context.diagnostic("skipped: no shared folder with flan-t5-small-titler");
  for (const [name, path] of Object.entries(files)) {
    const { tab, close } = await open({ "/large.gguf": file(path) }, { isolated: true });
    const page = await tab();
    for (const build of ["simd128", "relaxed", "threads"]) {
      const { memoryBytes, fileBytes } = await page.evaluate(async (build) => {
        const t5 = await pocket.T5.load("/large.gguf", { build, threads: 2 });
        const info = await t5.info();
        t5.dispose();
        return info;
      }, build);
      assert.equal(fileBytes, readFileSync(path).length);
      const times = memoryBytes / fileBytes;
      context.diagnostic(`${name}, ${build}: ${memoryBytes} bytes of memory, ${times.toFixed(3)} times the file`);
      // The module's memory never shrinks: what it has now is the most that it had.
      assert.ok(times <= MOST_MEMORY, `${name}, ${build}: ${times} times the file`);
    }
    await close();
  }
});

/** Two ways of storing: without the first, workers fall back to the second. */
const STORES = {
  "file system": {},
  "Cache API": preceded("delete FileSystemFileHandle.prototype.createSyncAccessHandle;"),
};

for (const [name, routes] of Object.entries(STORES)) {
  inChromium(`${name}: a model is kept, listed, used without the network, deleted`, async () => {
    let online = true;
    const serve = file(path);
    const model = (request, response, count) => (online ? serve(request, response, count) : response.destroy());
    const { server, tab, close } = await open({ ...routes, "/model.gguf": model });
    const page = await tab();
    const load = () =>
      page.evaluate(async () => {
        const t5 = await pocket.T5.load("/model.gguf");
        const text = await t5.generate("a text", { maxNewTokens: 8 }).text();
        t5.dispose();
        return text;
      });
    const first = await load();
    online = false;
    assert.equal(await load(), first);
    assert.equal(server.asked("/model.gguf"), 1);
    const size = readFileSync(path).length;
    const kept = await page.evaluate(async () => [await pocket.cache.list(), await pocket.cache.size()]);
    assert.deepEqual(kept, [
      [{ source: `${server.url}/model.gguf`, name: "model.gguf", bytes: size, complete: true }],
      size,
    ]);
    assert.equal(await page.evaluate(() => pocket.cache.delete("/model.gguf")), true);
    assert.equal(await page.evaluate(() => pocket.cache.delete("/model.gguf")), false);
    assert.deepEqual(await page.evaluate(() => pocket.cache.list()), []);
    const error = await page.evaluate(() => failure(pocket.T5.load("/model.gguf")));
    assert.deepEqual([error.code, error.ours], ["network", true]);
    await close();
  });

  inChromium(`${name}: two tabs transfer a model once`, async () => {
    const { server, tab, close } = await open(routes);
    const pages = await Promise.all([tab(), tab()]);
    const texts = await Promise.all(
      pages.map((page) =>
        page.evaluate(async () => (await pocket.T5.load("/model.gguf")).generate("x", { maxNewTokens: 5 }).text()),
      ),
    );
    assert.equal(texts[0], texts[1]);
    assert.equal(server.asked("/model.gguf"), 1);
    await close();
  });

  inChromium(`${name}: a file that is wrong is refused and not kept`, async () => {
    const bytes = readFileSync(path);
    const sha256 = createHash("sha256").update(bytes).digest("hex");
    const damaged = Buffer.from(bytes);
    damaged[damaged.length - 100] ^= 1;
    const { tab, close } = await open({
      ...routes,
      "/damaged.gguf": file(damaged),
      "/page.gguf": file(Buffer.from("<html>")),
    });
    const page = await tab();
    const damage = await page.evaluate((sha256) => failure(pocket.T5.load("/damaged.gguf", { sha256 })), sha256);
    assert.equal(damage.code, "checksum");
    assert.match(damage.message, new RegExp(`^damaged.gguf: expected SHA-256 ${sha256}, found [0-9a-f]{64}$`));
    const other = await page.evaluate(() => failure(pocket.T5.load("/page.gguf")));
    assert.equal(other.code, "bad-model");
    const absent = await page.evaluate(() => failure(pocket.T5.load("/absent.gguf")));
    assert.equal(absent.code, "not-found");
    assert.deepEqual(await page.evaluate(() => pocket.cache.list()), []);
    // The right one passes, now and from the store.
    for (let i = 0; i < 2; i++) {
      await page.evaluate(async (sha256) => (await pocket.T5.load("/model.gguf", { sha256 })).dispose(), sha256);
    }
    await close();
  });
}

inChromium("a second tab sees the progress of the first one's transfer", async () => {
  const bytes = readFileSync(path);
  let answer;
  const slow = (_request, response) => {
    answer = response.writeHead(200, { "content-length": bytes.length, etag: '"1"' });
    answer.flushHeaders();
  };
  const { server, tab, close } = await open({ "/model.gguf": slow });
  const tabs = await Promise.all([tab(), tab()]);
  const load = () => {
    globalThis.progress = [];
    globalThis.loading = pocket.T5.load("/model.gguf", { onProgress: (event) => progress.push(event) });
    loading.catch(() => {});
  };
  await tabs[0].evaluate(load);
  await tabs[0].waitForFunction(() => progress.length > 0);
  await tabs[1].evaluate(load);
  // It waits for the first one's lock.
  const waits = async () =>
    (await navigator.locks.query()).pending.some(({ name }) => name.endsWith("/model.gguf"));
  while (!(await tabs[1].evaluate(waits))) await tabs[1].waitForTimeout(20);
  const piece = Math.ceil(bytes.length / 4);
  for (let at = 0; at < bytes.length; at += piece) {
    answer.write(bytes.subarray(at, at + piece));
    if (at + piece >= bytes.length) break;
    // Each part is seen before the next one is sent.
    await tabs[1].waitForFunction(
      (arrived) => progress.some(({ phase, loaded }) => phase === "download" && loaded === arrived),
      at + piece,
    );
  }
  answer.end();
  const found = await Promise.all(
    tabs.map((one) =>
      one.evaluate(async () => {
        const { kept, keptReason } = await (await loading).info();
        return { kept, keptReason, last: progress.at(-1).phase };
      }),
    ),
  );
  assert.equal(server.asked("/model.gguf"), 1);
  assert.deepEqual(found, [
    { kept: true, keptReason: "it is kept from now on", last: "prepare" },
    { kept: true, keptReason: "it was kept before", last: "prepare" },
  ]);
  await close();
});

inChromium("a worker that ends itself rejects what was pending", async () => {
  const { tab, close } = await open(
    preceded(`
    addEventListener("message", (event) => {
      if (event.data.op !== "embed") return;
      event.stopImmediatePropagation();
      close();
    });`),
  );
  const page = await tab();
  const found = await page.evaluate(async () => {
    const t5 = await pocket.T5.load("/model.gguf");
    const pending = [t5.embed("x"), t5.generate("a text").outputs];
    return [...(await Promise.all(pending.map(failure))), await failure(t5.info())];
  });
  for (const error of found) assert.equal(error.code, "lost", error.message);
  await close();
});

inChromium("the browser is asked to keep large models, and not to keep what it has no room for", async () => {
  // What stands behind the last tensor is not read.
  const bytes = readFileSync(path);
  const padded = Buffer.concat([bytes, Buffer.alloc(60_000_000 - bytes.length)]);
  const { tab, close } = await open({ "/large.gguf": file(padded) });
  const page = await tab();
  const load = (url, options) =>
    page.evaluate(
      async ([url, options]) => {
        globalThis.asked = 0;
        navigator.storage.persist = async () => (globalThis.asked++, true);
        const t5 = await pocket.T5.load(url, options);
        const { kept, keptReason } = await t5.info();
        t5.dispose();
        return { kept, keptReason, asked, models: (await pocket.cache.list()).length };
      },
      [url, options],
    );
  assert.deepEqual(await load("/model.gguf"), {
    kept: true,
    keptReason: "it is kept from now on",
    asked: 0,
    models: 1,
  });
  assert.deepEqual(await load("/large.gguf", { persist: false }), {
    kept: true,
    keptReason: "it is kept from now on",
    asked: 0,
    models: 2,
  });
  await page.evaluate(() => pocket.cache.delete("/large.gguf"));
  assert.equal((await load("/large.gguf")).asked, 1);
  // From the device it is not asked again.
  assert.deepEqual(await load("/large.gguf"), { kept: true, keptReason: "it was kept before", asked: 0, models: 2 });
  assert.deepEqual(await load("/large.gguf", { cache: false }), {
    kept: false,
    keptReason: "cache is false",
    asked: 0,
    models: 2,
  });
  await close();
  const full = await open({
    ...preceded("navigator.storage.estimate = async () => ({ quota: 1_000_000, usage: 999_000 });"),
    "/large.gguf": file(padded),
  });
  const other = await full.tab();
  const found = await other.evaluate(async () => {
    const t5 = await pocket.T5.load("/large.gguf");
    const { kept, keptReason } = await t5.info();
    const text = await t5.generate("a text", { maxNewTokens: 4 }).text();
    t5.dispose();
    return { kept, keptReason, text: typeof text, models: (await pocket.cache.list()).length };
  });
  assert.deepEqual(found, {
    kept: false,
    keptReason: "expected 60 MB of storage, found less",
    text: "string",
    models: 0,
  });
  await full.close();
});

inChromium("what has no lasting address is not kept, and clear leaves nothing behind", async () => {
  const { tab, close } = await open();
  const page = await tab();
  const found = await page.evaluate(async () => {
    const root = await navigator.storage.getDirectory();
    const folder = await root.getDirectoryHandle("pocket-t5", { create: true });
    const count = async () => (await Array.fromAsync(folder.keys())).length;
    const blob = await (await fetch("/model.gguf")).blob();
    const reader = new FileReader();
    const read = new Promise((resolve) => (reader.onload = () => resolve(reader.result)));
    reader.readAsDataURL(blob);
    const passing = [];
    for (const address of [URL.createObjectURL(blob), await read]) {
      const t5 = await pocket.T5.load(address);
      const { kept, keptReason } = await t5.info();
      t5.dispose();
      passing.push([kept, keptReason, await count()]);
    }
    (await pocket.T5.load("/model.gguf")).dispose();
    // As a tab leaves them that ended at a bad moment.
    for (const name of ["a.gguf", "b.gguf", "b.json"]) {
      const file = await (await folder.getFileHandle(name, { create: true })).createWritable();
      await file.write("GGUF");
      await file.close();
    }
    const before = await count();
    await pocket.cache.clear();
    return { passing, before, after: await count() };
  });
  const not = [false, "its address does not last", 0];
  assert.deepEqual(found, { passing: [not, not], before: 5, after: 0 });
  await close();
});

inChromium("a service worker that cannot be installed is none", async () => {
  const files = (names) => (_request, response) => response.end(JSON.stringify(names));
  const { tab, close } = await open({
    "/absent.json": files(["./empty.html", "./no-such-file.js"]),
    "/files.json": files(["./empty.html"]),
  });
  const page = await tab();
  const register = (files) =>
    page.evaluate((files) => pocket.registerServiceWorker("/service-worker.js", { files }), files);
  assert.equal(await register("/absent.json"), false);
  assert.equal(await register("/files.json"), true);
  // The one that is there stays where its successor fails.
  assert.equal(await register("/absent.json"), true);
  await close();
});

inChromium("a page is loaded anew once the worker that isolates it has taken the place of another", async () => {
  let answer;
  const held = (_request, response) => void (answer = () => response.end("[]"));
  const { server, tab, close } = await open({ "/held.json": held });
  const page = await tab();
  assert.equal(await page.evaluate(() => pocket.registerServiceWorker("/service-worker.js")), true);
  const registering = () =>
    void pocket.registerServiceWorker("/service-worker.js", { isolate: true, reload: true, files: "/held.json" });
  await page.evaluate(registering);
  // It is being installed, and the page still is what it was.
  while (!answer) await page.waitForTimeout(20);
  assert.equal(server.asked("/empty.html"), 1);
  answer();
  await page.waitForFunction(() => crossOriginIsolated);
  assert.equal(server.asked("/empty.html"), 2);
  await close();
});

inChromium("without a worker a page has the same answers, and workers of a page that is left go with it", async () => {
  const { tab, close } = await open();
  const page = await tab();
  const found = await page.evaluate(async () => {
    const options = { maxNewTokens: 20, minNewTokens: 20 };
    const [inline, usual] = await Promise.all([
      pocket.T5.load("/model.gguf", { threads: 0 }),
      pocket.T5.load("/model.gguf"),
    ]);
    let frames = 0;
    const count = () => (frames++, requestAnimationFrame(count));
    count();
    const texts = [await inline.generate("a text", options).text(), await usual.generate("a text", options).text()];
    const { threads, buildReason } = await inline.info();
    return { texts, frames, threads, buildReason };
  });
  assert.equal(found.texts[0], found.texts[1]);
  assert.equal(found.threads, 1);
  assert.match(found.buildReason, /one thread because it is this one$/);
  await close();
});

inChromium("a transfer that was broken off goes on after a reload", async () => {
  const whole = readFileSync(path).length;
  const half = Math.floor(whole / 2);
  // The first answer stops and stays open until the page gives up.
  const serve = file(path);
  const stalls = (request, response, count) => {
    if (count > 1) return serve(request, response, count);
    response.writeHead(200, { "content-length": whole, etag: '"1"' });
    response.write(readFileSync(path).subarray(0, half));
  };
  const noticing = preceded(`
    const { createSyncAccessHandle } = FileSystemFileHandle.prototype;
    FileSystemFileHandle.prototype.createSyncAccessHandle = async function () {
      const access = await createSyncAccessHandle.call(this);
      const close = access.close.bind(access);
      access.close = () => (close(), new BroadcastChannel("closed").postMessage(this.name));
      return access;
    };`);
  const { server, tab, close } = await open({ ...noticing, "/model.gguf": stalls });
  const page = await tab();
  const error = await page.evaluate(async () => {
    const closed = new Promise((resolve) => {
      new BroadcastChannel("closed").onmessage = ({ data }) => data.endsWith(".gguf") && resolve();
    });
    const abort = new AbortController();
    const onProgress = ({ loaded }) => loaded > 0 && abort.abort();
    const error = await failure(pocket.T5.load("/model.gguf", { signal: abort.signal, onProgress }));
    // The worker does not end before it has closed the file.
    await closed;
    return error;
  });
  assert.equal(error.code, "aborted");
  const [kept] = await page.evaluate(() => pocket.cache.list());
  assert.equal(kept.complete, false);
  assert.ok(kept.bytes > 0 && kept.bytes <= half, `${kept.bytes} bytes`);
  await page.close();
  const again = await tab();
  await again.evaluate(async () => (await pocket.T5.load("/model.gguf")).dispose());
  assert.equal(server.requests.filter((one) => one.path === "/model.gguf").at(-1).range, `bytes=${kept.bytes}-`);
  await close();
});

inChromium("a model that cannot fit is refused before it is transferred, with its size", async () => {
  const huge = (_request, response) => {
    response.writeHead(200, { "content-length": 5_000_000_000 });
    response.write("GGUF");
  };
  const { tab, close } = await open({ "/huge.gguf": huge });
  const page = await tab();
  const error = await page.evaluate(() => failure(pocket.T5.load("/huge.gguf")));
  assert.equal(error.code, "out-of-memory");
  assert.match(error.message, /5000 MB/);
  await close();
});

inChromium("a folder that is dropped becomes the file that t5-quantize writes, and runs", async () => {
  const source = folder("unigram");
  const names = readdirSync(source);
  const routes = Object.fromEntries(names.map((name) => [`/folder/${name}`, file(`${source}/${name}`)]));
  const { server, tab, close } = await open(routes);
  const page = await tab();
  // What converts is fetched by those who need it, and by them once.
  const converters = () => server.requests.filter((one) => /\/convert\/.*\.wasm$/.test(one.path)).length;
  await page.evaluate(async () => (await pocket.T5.load("/model.gguf", { cache: false })).dispose());
  assert.equal(converters(), 0);
  await page.evaluate(async (names) => {
    const get = async (name) => new File([await (await fetch(`/folder/${name}`)).arrayBuffer()], name);
    const files = await Promise.all(names.map(get));
    (await pocket.T5.load(files, { cache: false })).dispose();
  }, names);
  assert.equal(converters(), 1);
  const found = await page.evaluate(async (names) => {
    const get = async (name) => new File([await (await fetch(`/folder/${name}`)).arrayBuffer()], name);
    const files = await Promise.all(names.map(get));
    const progress = [];
    const made = await pocket.quantize(files, { onProgress: (event) => progress.push(event) });
    const sum = await crypto.subtle.digest("SHA-256", await made.arrayBuffer());
    const t5 = await pocket.T5.load(files);
    const text = await t5.generate("a text", { maxNewTokens: 8 }).text();
    const same = await (await pocket.T5.load(made)).generate("a text", { maxNewTokens: 8 }).text();
    const [kept] = await pocket.cache.list();
    // Chosen again, or by its name: not quantised again.
    const phases = new Set();
    const onProgress = ({ phase }) => phases.add(phase);
    const choice = document.createElement("input");
    choice.type = "file";
    choice.multiple = true;
    const transfer = new DataTransfer();
    files.forEach((file) => transfer.items.add(file));
    choice.files = transfer.files;
    for (const source of [files, choice.files, kept.source]) {
      const again = await pocket.T5.load(source, { onProgress });
      if ((await again.generate("a text", { maxNewTokens: 8 }).text()) !== text) throw new Error("another text");
    }
    const other = await failure(pocket.T5.load("folder:model/0123456789abcdef"));
    const incomplete = await failure(pocket.quantize(files.filter((file) => file.name !== "model.safetensors")));
    return {
      last: progress.at(-1),
      sum: [...new Uint8Array(sum)],
      text,
      same,
      name: made.name,
      incomplete,
      kept,
      phases: [...phases],
      other,
    };
  }, names);
  assert.deepEqual(Buffer.from(found.sum), createHash("sha256").update(readFileSync(path)).digest());
  assert.equal(found.last.loaded, found.last.total);
  assert.equal(found.text, found.same);
  assert.equal(found.name, "model.gguf");
  assert.match(found.kept.source, /^folder:model\/[0-9a-f]{16}$/);
  assert.deepEqual([found.kept.bytes, found.kept.complete], [readFileSync(path).length, true]);
  assert.deepEqual(found.phases, ["read", "prepare"]);
  assert.deepEqual([found.other.code, found.other.ours], ["not-found", true]);
  assert.equal(found.incomplete.code, "bad-model");
  await close();
});

inChromium("a folder's model starts its threads once", async () => {
  const source = folder("unigram");
  const names = readdirSync(source);
  const thread = readFileSync(new URL("../dist/thread.js", import.meta.url), "utf8");
  const routes = Object.fromEntries(names.map((name) => [`/folder/${name}`, file(`${source}/${name}`)]));
  routes["/dist/thread.js"] = (_request, response) =>
    response.writeHead(200, { "content-type": "text/javascript", "cache-control": "no-store" }).end(thread);
  const { server, tab, close } = await open(routes, { isolated: true });
  const page = await tab();
  const threads = await page.evaluate(async (names) => {
    const get = async (name) => new File([await (await fetch(`/folder/${name}`)).arrayBuffer()], name);
    const t5 = await pocket.T5.load(await Promise.all(names.map(get)), { build: "threads", threads: 2 });
    return (await t5.info()).threads;
  }, names);
  assert.deepEqual([threads, server.asked("/dist/thread.js")], [2, 1]);
  await close();
});

inChromium("a hub's repository without a GGUF file is quantised once, and kept", async () => {
  const source = folder("unigram");
  const names = readdirSync(source).filter((name) => name !== "golden.jsonl");
  const listing = (_request, response) =>
    response.end(JSON.stringify({ siblings: names.map((rfilename) => ({ rfilename })) }));
  const routes = { "/api/models/owner/name/revision/main": listing };
  for (const name of names) routes[`/owner/name/resolve/main/${name}`] = file(`${source}/${name}`);
  const { server, tab, close } = await open(routes);
  const pages = await Promise.all([tab(), tab()]);
  const load = (page) =>
    page.evaluate(async () => {
      const progress = [];
      const onProgress = (event) => progress.push(event);
      const t5 = await pocket.T5.load("hf:owner/name", { endpoint: location.origin, onProgress });
      const [best] = await t5.generate("a text", { maxNewTokens: 8 }).outputs;
      const { kept, fileBytes } = await t5.info();
      t5.dispose();
      return { ids: best.ids, kept, fileBytes, phases: [...new Set(progress.map(({ phase }) => phase))] };
    });
  const [one, two] = await Promise.all(pages.map(load));
  const size = readFileSync(path).length;
  assert.deepEqual([one.kept, one.fileBytes, one.ids], [true, size, two.ids]);
  assert.deepEqual([two.kept, two.fileBytes], [true, size]);
  // By one of the two.
  assert.equal(server.asked("/owner/name/resolve/main/model.safetensors"), 1);
  const asked = server.requests.length;
  const again = await load(pages[0]);
  assert.deepEqual([again.ids, again.phases], [one.ids, ["read", "prepare"]]);
  assert.equal(server.requests.slice(asked).filter(({ path }) => path.includes("owner")).length, 0);
  const [kept] = await pages[0].evaluate(() => pocket.cache.list());
  const key = `hf:owner/name from ${server.url}`;
  assert.deepEqual([kept.source, kept.name, kept.bytes], [key, "name-q8_0.gguf", size]);
  await close();
});
