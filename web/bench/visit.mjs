// What a visitor with a slow phone waits for: `node bench/visit.mjs [ROUNDS]` after `npm run demo:build`.
//
// The host sends 200 kB/s in all, to all connections together, and each answer begins 150 ms late; the page gets a
// quarter of a processor (CDP). Medians, and an error beyond the bounds:
//
//   first progress   from the first request to a number of bytes on the page; at most 2 s
//   text             to the whole answer to a link's text; at most 5 % over what the bytes of model and module take
//   reload           from a reload to the same answer; at most 2.5 s

import { readdirSync, readFileSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { launch, missing } from "../test/chromium.mjs";

const RATE = 200_000;
const LATENCY_MS = 150;
const CPU = 4;
/** How often something is sent, per second. */
const TICKS = 50;

if (missing) throw new Error(missing);
const rounds = Number(process.argv[2] ?? 3);
const dist = fileURLToPath(new URL("../demo/dist", import.meta.url));
const TYPES = {
  ".css": "text/css",
  ".html": "text/html",
  ".js": "text/javascript",
  ".json": "application/json",
  ".svg": "image/svg+xml",
  ".wasm": "application/wasm",
};

/** A host with one slow line: its connections share the rate evenly. */
async function slowHost() {
  const sending = new Set();
  let sent = 0;
  let before = performance.now();
  const line = setInterval(() => {
    // By the clock, since timers are late on a busy machine.
    const now = performance.now();
    const left = ((now - before) / 1000) * RATE;
    before = now;
    for (const one of [...sending]) {
      const part = Math.min(Math.ceil(left / sending.size), one.body.length - one.at);
      one.response.write(one.body.subarray(one.at, one.at + part));
      one.at += part;
      sent += part;
      if (one.at === one.body.length) {
        one.response.end();
        sending.delete(one);
      }
    }
  }, 1000 / TICKS);
  const server = createServer((request, response) => {
    const path = decodeURIComponent(new URL(request.url, "http://x").pathname);
    const file = join(dist, normalize(path.endsWith("/") ? `${path}index.html` : path));
    const found = statSync(file, { throwIfNoEntry: false })?.isFile();
    setTimeout(() => {
      if (!found) return response.writeHead(404).end();
      const type = TYPES[extname(file)] ?? "application/octet-stream";
      // As hosts do with texts.
      const packed = /^text|json|svg/.test(type);
      const body = packed ? gzipSync(readFileSync(file)) : readFileSync(file);
      response.writeHead(200, {
        "content-type": type,
        "content-length": body.length,
        ...(packed && { "content-encoding": "gzip" }),
      });
      const one = { response, body, at: 0 };
      sending.add(one);
      response.on("close", () => sending.delete(one));
    }, LATENCY_MS);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    sent: () => sent,
    close() {
      clearInterval(line);
      server.closeAllConnections();
      server.close();
    },
  };
}

const WANTED = "Wo ist der Bahnhof?";
const answered = (page, timeout) =>
  page.waitForFunction((text) => document.querySelector("#answer")?.textContent === text, WANTED, { timeout });

async function round(browser) {
  const host = await slowHost();
  const context = await browser.newContext({ viewport: { width: 390, height: 664 } });
  const page = await context.newPage();
  await (await context.newCDPSession(page)).send("Emulation.setCPUThrottlingRate", { rate: CPU });
  const link = new URLSearchParams({ task: "translation_en_to_de", text: "Where is the station?" });
  const address = `${host.url}/#${link}`;
  const begin = performance.now();
  const since = () => (performance.now() - begin) / 1000;
  await page.goto(address, { waitUntil: "commit" });
  await page.waitForFunction(() => / of |so far/.test(document.querySelector("#progress-text")?.textContent ?? ""));
  const progress = since();
  await answered(page, 180_000);
  const text = since();
  const bytes = host.sent();
  // What is kept for the next visit is there.
  const kept = () =>
    page.evaluate(async () => {
      const all = [];
      for (const name of await caches.keys()) all.push(...(await (await caches.open(name)).keys()));
      const modules = all.filter(({ url }) => url.endsWith(".wasm")).length;
      return modules >= (navigator.hardwareConcurrency > 1 ? 2 : 1);
    });
  while (!(await kept())) await new Promise((resolve) => setTimeout(resolve, 500));
  const again = performance.now();
  await page.reload({ waitUntil: "commit" });
  await answered(page, 60_000);
  const reload = (performance.now() - again) / 1000;
  await context.close();
  host.close();
  return { progress, text, bytes, reload };
}

const size = (name) => statSync(join(dist, "assets", name)).size;
const assets = readdirSync(join(dist, "assets"));
const next = JSON.parse(readFileSync(join(dist, "next.json"), "utf8"));
const modules = assets.filter((name) => name.endsWith(".wasm") && !next.includes(`assets/${name}`));
// Chromium runs the larger one of the two for a single thread.
const needed = size(assets.find((name) => name.endsWith(".gguf"))) + Math.max(...modules.map(size));

const browser = await launch();
const results = [];
for (let i = 0; i < rounds; i++) {
  results.push(await round(browser));
  console.error(JSON.stringify(results.at(-1)));
}
await browser.close();
const median = (values) => values.sort((a, b) => a - b)[values.length >> 1];
const [progress, text, bytes, reload] = ["progress", "text", "bytes", "reload"].map((name) =>
  median(results.map((one) => one[name])),
);
const least = needed / RATE;
const over = 100 * (text / least - 1);
console.log(`first progress  ${progress.toFixed(2)} s`);
const bound = `${over.toFixed(1)} % over the ${least.toFixed(2)} s of ${needed} bytes`;
console.log(`text            ${text.toFixed(2)} s, ${bound}`);
console.log(`                (${bytes} bytes were sent until then)`);
console.log(`reload          ${reload.toFixed(2)} s`);
if (progress > 2 || over > 5 || reload > 2.5) {
  console.error("expected at most 2 s, 5 % and 2.5 s");
  process.exitCode = 1;
}
