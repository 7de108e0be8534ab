// Models from servers as they are: what breaks off, refuses, hides, stalls or changes must never lock a model out.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { launch, missing } from "./chromium.mjs";
import { pocket as builtIn } from "./models.mjs";
import { file, site } from "./site.mjs";

if (missing) console.error(`skipped: ${missing}`);
const inChromium = (name, run) => test(name, { skip: missing }, run);

const bytes = readFileSync(builtIn.path);
const size = bytes.length;
const sha256 = createHash("sha256").update(bytes).digest("hex");
const half = Math.floor(size / 2);

let browser;
before(async () => {
  if (!missing) browser = await launch();
});
after(() => browser?.close());

/**
 * A page, and a model on a host of its own (another origin, unless `same`) that answers by `route`. `page.stored(...)`
 * leaves a file on the device as a tab does that ended at any moment.
 */
async function visit(route, { same = false, routes = {} } = {}) {
  const host = await site({ routes: { "/model.gguf": route, ...routes } });
  const own = same ? host : await site();
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.goto(`${own.url}/empty.html`);
  await page.evaluate(async () => {
    globalThis.pocket = await import("/dist/index.js");
    globalThis.load = async (url, { parts, ...options }) => {
      const progress = [];
      let had = -1;
      const onProgress = (event) => {
        progress.push(event);
        const { phase, loaded } = event;
        if (!parts || phase !== "download" || loaded <= had || loaded % parts.bytes !== 0) return;
        had = loaded;
        void fetch(parts.further);
      };
      try {
        const t5 = await pocket.T5.load(url, { onProgress, ...options });
        const { fileBytes } = await t5.info();
        const text = await t5.generate("translate English to German: Where is the station?").text();
        t5.dispose();
        return { fileBytes, text, progress, kept: await pocket.cache.list() };
      } catch (error) {
        return { code: error.code, message: error.message, kept: await pocket.cache.list() };
      }
    };
    globalThis.leave = async (meta, content) => {
      const sum = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(meta.source)));
      const name = Array.from(sum.subarray(0, 16), (byte) => byte.toString(16).padStart(2, "0")).join("");
      const root = await navigator.storage.getDirectory();
      const folder = await root.getDirectoryHandle("pocket-t5", { create: true });
      for (const [end, data] of [
        ["json", JSON.stringify(meta)],
        ["gguf", content],
      ]) {
        const file = await (await folder.getFileHandle(`${name}.${end}`, { create: true })).createWritable();
        await file.write(data);
        await file.close();
      }
    };
  });
  const url = `${host.url}/model.gguf`;
  const asked = () => host.requests.filter((one) => one.path === "/model.gguf");
  return {
    url,
    asked,
    ranges: () => asked().map((one) => `${one.method} ${one.range ?? "all"}`),
    load: (options = {}) => page.evaluate(([url, options]) => load(url, options), [url, options]),
    /** The first `count` bytes of `content` are on the device. */
    async stored(count, { version = '"1"', complete = false, content = bytes, sum = null } = {}) {
      const meta = { source: url, name: "model.gguf", size, version, sha256: sum, complete };
      const base64 = content.subarray(0, count).toString("base64");
      await page.evaluate(
        async ([meta, base64]) =>
          leave(meta, await (await fetch(`data:application/octet-stream;base64,${base64}`)).blob()),
        [meta, base64],
      );
    },
    async close() {
      await context.close();
      host.close();
      own.close();
    },
  };
}

/** The model runs, and is kept whole. */
function runs(found, { kept = true } = {}) {
  assert.deepEqual([found.code, found.message], [undefined, undefined]);
  assert.equal(found.text, "Wo ist der Bahnhof?");
  assert.equal(found.fileBytes, size);
  if (kept)
    assert.deepEqual(
      found.kept.map((one) => [one.bytes, one.complete]),
      [[size, true]],
    );
}

const EXPOSED = ["content-range", "etag"];

inChromium("a transfer that ended before it could say so is whole, without asking anybody", async () => {
  for (const sum of [undefined, sha256]) {
    const { load, stored, asked, close } = await visit(file(bytes, { cors: true }));
    await stored(size);
    const found = await load(sum ? { sha256: sum } : {});
    runs(found);
    assert.deepEqual(asked(), []);
    assert.ok(found.progress.every(({ phase }) => phase === "read" || phase === "prepare"));
    await close();
  }
});

inChromium("what is kept but damaged, or not what is asked for now, is fetched again", async () => {
  const damaged = Buffer.from(bytes);
  damaged[size - 100] ^= 1;
  const other = Buffer.from("GGUF and nothing that follows");
  for (const [content, count, options, complete] of [
    [damaged, size, { sha256 }, false],
    [damaged, size, { sha256 }, true],
    [Buffer.concat([other, Buffer.alloc(size - other.length)]), size, {}, false],
    [Buffer.concat([other, Buffer.alloc(size - other.length)]), size, {}, true],
    // Longer than it should be.
    [Buffer.concat([bytes, other]), size + 10, {}, true],
  ]) {
    const { load, stored, ranges, close } = await visit(file(bytes, { cors: true }));
    await stored(count, { content, complete, sum: complete ? "0".repeat(64) : null });
    runs(await load(options));
    assert.deepEqual(ranges(), ["GET all"]);
    await close();
  }
});

/** How servers answer a request for the rest, and what is asked of them then. */
const RESUMING = {
  "goes on where its headers can be read": [{ expose: EXPOSED }, [`GET bytes=${half}-`]],
  "hides which part it sends": [{}, [`GET bytes=${half}-`, "GET all"]],
  "hides its version": [{ expose: ["content-range"] }, [`GET bytes=${half}-`, "GET all"]],
  "knows no ranges": [{ ranges: false, expose: EXPOSED }, [`GET bytes=${half}-`]],
  "sends another part": [
    {
      expose: EXPOSED,
      change: (head, status) => status === 206 && { ...head, "content-range": `bytes 0-${half}/${size}` },
    },
    [`GET bytes=${half}-`, "GET all"],
  ],
  "has another version": [{ expose: EXPOSED, etag: '"2"' }, [`GET bytes=${half}-`, "GET all"]],
  "has a version of no use": [{ expose: EXPOSED, etag: 'W/"1"' }, [`GET bytes=${half}-`, "GET all"]],
};

for (const [name, [options, expected]] of Object.entries(RESUMING)) {
  inChromium(`the rest of a file across origins: the server ${name}`, async () => {
    const { load, stored, ranges, asked, close } = await visit(file(bytes, { cors: true, ...options }));
    await stored(half);
    runs(await load());
    // No preflight, which hosts refuse: `If-Range` would make one.
    assert.deepEqual(ranges(), expected);
    assert.ok(asked().every((one) => one.headers["if-range"] === undefined));
    await close();
  });
}

inChromium("the rest of a file: refused in whatever way, it starts again from its first byte", async () => {
  for (const refuse of [
    (response) => response.writeHead(416, { "content-range": `bytes */${half}` }).end(),
    (response) => response.writeHead(403).end(),
    (response) => response.writeHead(501).end(),
    (response) => response.writeHead(500).end(),
    // As a preflight that is refused, to the page.
    (response) => response.destroy(),
  ]) {
    const whole = file(bytes, { cors: true, expose: EXPOSED });
    const route = (request, response, count) => {
      response.setHeader("access-control-allow-origin", "*");
      return request.headers.range ? refuse(response) : whole(request, response, count);
    };
    const { load, stored, ranges, close } = await visit(route);
    await stored(half);
    runs(await load());
    assert.equal(ranges().at(-1), "GET all");
    await close();
  }
});

inChromium("the rest of a file: a busy server is asked for it again, and what has arrived stays", async () => {
  const whole = file(bytes, { cors: true, expose: EXPOSED });
  const busy = (times) => (request, response, count) => {
    response.setHeader("access-control-allow-origin", "*");
    return count <= times ? response.writeHead(503).end() : whole(request, response, count);
  };
  const once = await visit(busy(1));
  await once.stored(half);
  runs(await once.load());
  assert.deepEqual(once.ranges(), Array(2).fill(`GET bytes=${half}-`));
  await once.close();
  const always = await visit(busy(Infinity));
  await always.stored(half);
  const found = await always.load();
  assert.equal(found.code, "network");
  assert.match(found.message, /found HTTP status 503$/);
  assert.deepEqual(always.ranges(), [...Array(4).fill(`GET bytes=${half}-`), ...Array(4).fill("GET all")]);
  assert.deepEqual(
    found.kept.map((one) => [one.bytes, one.complete]),
    [[half, false]],
  );
  await always.close();
});

inChromium("a file that became shorter or longer meanwhile is fetched anew", async () => {
  const { load, stored, close } = await visit(file(bytes), { same: true });
  // Of a file that was a little longer than the server's now.
  await stored(size, { content: bytes });
  runs(await load());
  await close();
  const shorter = await visit(file(bytes, { etag: '"2"' }), { same: true });
  await shorter.stored(size - 1, { content: Buffer.alloc(size) });
  runs(await shorter.load());
  await shorter.close();
});

inChromium("without the network what has arrived is kept", async () => {
  const { load, stored, close } = await visit((_request, response) => response.destroy());
  await stored(half);
  const found = await load();
  assert.equal(found.code, "network");
  assert.deepEqual(
    found.kept.map((one) => [one.bytes, one.complete]),
    [[half, false]],
  );
  await close();
});

inChromium("without the network a whole model stays, whatever checksum is asked for", async () => {
  const { load, stored, asked, close } = await visit((_request, response) => response.destroy());
  await stored(size, { complete: true, sum: sha256 });
  const found = await load({ sha256: "0".repeat(64) });
  assert.equal(found.code, "network");
  const before = asked().length;
  runs(await load());
  assert.equal(asked().length, before);
  await close();
});

inChromium("a tab that ends before it writes leaves what is there as it was described", async () => {
  // The first worker cannot write the model's bytes.
  const fails = `
    const { createSyncAccessHandle } = FileSystemFileHandle.prototype;
    FileSystemFileHandle.prototype.createSyncAccessHandle = function () {
      if (this.name.endsWith(".gguf")) return Promise.reject(new Error("the tab ends"));
      return createSyncAccessHandle.call(this);
    };`;
  const script = (text) => (_request, response, count) =>
    response.writeHead(200, { "content-type": "text/javascript", "cache-control": "no-store" }).end(text(count));
  const worker = readFileSync(new URL("../dist/worker.js", import.meta.url), "utf8");
  const routes = {
    "/dist/worker.js": script(() => `import "/before.js";\n${worker}`),
    "/before.js": script((count) => (count === 1 ? fails : "")),
  };
  const { load, stored, ranges, close } = await visit(file(bytes, { etag: '"2"' }), { same: true, routes });
  await stored(half, { content: Buffer.alloc(size) });
  runs(await load(), { kept: false });
  runs(await load());
  assert.deepEqual(ranges(), [`GET bytes=${half}-`, "GET all", `GET bytes=${half}-`, "GET all"]);
  await close();
});

inChromium("a transfer that breaks off goes on, on every kind of server", async () => {
  const broken = { stopAfter: (count) => (count === 1 ? half : Infinity) };
  for (const options of [
    { expose: EXPOSED },
    {},
    { ranges: false },
    { ranges: false, expose: EXPOSED },
    { etag: null },
  ]) {
    const { load, close } = await visit(file(bytes, { cors: true, ...broken, ...options }));
    runs(await load());
    await close();
  }
});

inChromium("a file that changes between two parts of its transfer is fetched anew", async () => {
  const change = (head, _status, count) => ({ ...head, etag: count === 1 ? '"1"' : '"2"' });
  const { load, close } = await visit(file(bytes, { change, stopAfter: (count) => (count === 1 ? half : Infinity) }), {
    same: true,
  });
  runs(await load());
  await close();
});

inChromium("a server that falls silent is asked again", async () => {
  for (const hang of [half, 0]) {
    const { load, ranges, close } = await visit(file(bytes, { cors: true, expose: EXPOSED, hang }));
    runs(await load({ stallMs: 700 }));
    assert.equal(ranges().length, 2);
    await close();
  }
  // Not even an answer.
  const whole = file(bytes, { cors: true });
  const never = (request, response, count) => (count === 1 ? undefined : whole(request, response, count));
  const { load, ranges, close } = await visit(never);
  runs(await load({ stallMs: 700 }));
  assert.deepEqual(ranges(), ["GET all", "GET all"]);
  await close();
});

inChromium("a busy server is asked again, as late as it wants", async () => {
  const whole = file(bytes, { cors: true });
  for (const [status, head, waits] of [
    [503, { "retry-after": "1", "access-control-expose-headers": "retry-after" }, 900],
    [429, {}, 0],
  ]) {
    const times = [];
    const busy = (request, response, count) => {
      times.push(Date.now());
      response.setHeader("access-control-allow-origin", "*");
      return count < 3 ? response.writeHead(status, head).end() : whole(request, response, count);
    };
    const { load, close } = await visit(busy);
    runs(await load());
    assert.equal(times.length, 3);
    assert.ok(times[1] - times[0] >= waits, `${times[1] - times[0]} ms`);
    await close();
  }
  const always = (_request, response) => response.writeHead(503, { "access-control-allow-origin": "*" }).end();
  const { load, asked, close } = await visit(always);
  const found = await load();
  assert.deepEqual([found.code, asked().length], ["network", 4]);
  assert.match(found.message, /expected a file, found HTTP status 503$/);
  await close();
});

inChromium("a compressed answer is the file, also where another origin hides that it is", async () => {
  for (const [same, expose] of [
    [true, []],
    [false, []],
    [false, ["content-encoding"]],
  ]) {
    const { load, ranges, close } = await visit(file(bytes, { gzip: true, cors: true, expose }), { same });
    runs(await load());
    // The announced length is that of fewer bytes: only then a second time.
    assert.equal(ranges().length, !same && expose.length === 0 ? 2 : 1);
    await close();
  }
});

inChromium("redirects to other hosts are followed, also for the rest", async () => {
  const store = await site({
    routes: {
      "/a1b2c3": file(bytes, { cors: true, expose: EXPOSED, stopAfter: (count) => (count === 1 ? half : Infinity) }),
    },
  });
  const away = (_request, response) =>
    response.writeHead(302, { location: `${store.url}/a1b2c3`, "access-control-allow-origin": "*" }).end();
  const { load, close } = await visit(away);
  const found = await load();
  runs(found);
  assert.equal(found.kept[0].name, "model.gguf");
  assert.equal(store.requests.length, 2);
  // On a busy machine the connection ends before a byte reaches the page, and the browser's own cache asks for the
  // rest.
  assert.match(store.requests[1].range, /^bytes=[1-9]\d*-\d*$/);
  await close();
  store.close();
});

inChromium("progress says what happens, from the first answer on", async () => {
  const piece = Math.ceil(size / 6);
  // A part for each time that the page says it has what came before.
  let answer;
  const parts = (_request, response) => {
    answer = response.writeHead(200, { "content-length": size, etag: '"1"' });
    answer.flushHeaders();
  };
  let sent = 0;
  const further = (_request, response) => {
    answer.write(bytes.subarray(sent, sent + piece));
    sent += piece;
    if (sent >= size) answer.end();
    response.end();
  };
  const { load, close } = await visit(parts, { same: true, routes: { "/further": further } });
  const first = await load({ parts: { further: "/further", bytes: piece } });
  runs(first);
  assert.deepEqual(first.progress[0], { phase: "download", loaded: 0, total: size, bytesPerSecond: null });
  const arriving = first.progress.filter(({ phase, loaded }) => phase === "download" && loaded > 0);
  for (let part = 1; part < 6; part++) {
    assert.ok(arriving.some(({ loaded }) => loaded === part * piece), `part ${part}`);
  }
  assert.ok(arriving.every(({ bytesPerSecond }) => Number.isFinite(bytesPerSecond) && bytesPerSecond > 0));
  assert.deepEqual(first.progress.at(-1), { phase: "prepare", loaded: size, total: size, bytesPerSecond: null });
  const again = await load();
  assert.ok(again.progress.every(({ phase }) => phase === "read" || phase === "prepare"));
  await close();
});
