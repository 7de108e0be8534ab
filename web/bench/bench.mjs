#!/usr/bin/env node
// Speed in headless Chromium: node web/bench/bench.mjs [SCRATCH] [ROUNDS]
//
// t5-small's shape, 128 source tokens, 64 new tokens, batch 1, greedy search without log-probabilities, key-value
// caches on, all engines in one run and in turns: each build of this package with the vectors it chooses, the native
// program with AVX2 on one thread, and onnxruntime-web (int8, one thread), the engine under transformers.js. For the
// last one SCRATCH is a folder that tests/peers/peers.py has filled: the model as GGUF and as ONNX graphs, so that all
// have the same weights; onnxruntime-web is installed into it. Without SCRATCH there are random weights and no other
// engine.
//
//   ms per token   (time of 64 tokens - time of 1) / 63; onnxruntime-web: time of 64 steps / 64
//   encoder        the time of 1 token less that; it holds cross-attention's keys and values, as onnxruntime-web's does
//   load           from the browser's storage to a model that can answer
//
// Medians of ROUNDS (5) rounds after one that is not counted; least to most. Run it on a machine that does nothing
// else.

import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { launch, missing } from "../test/chromium.mjs";
import { file, site } from "../test/site.mjs";
import { t5Small } from "./model.mjs";
import { onnxRuntime } from "./onnxruntime.mjs";

const SOURCE = 128;
const NEW = 64;
/** Texts that are encoded before time is taken. */
const WARM_UP = 8;
const ONNXRUNTIME_WEB = "1.30.0";
/** What the project wants: times as fast as onnxruntime-web, and seconds. */
const GOALS = { token: 4, encoder: 2.5, loadMs: 600, ofNative: 0.7 };

if (missing) {
  console.error(missing);
  process.exit(1);
}
const [scratch, rounds = "5"] = process.argv.slice(2);
const root = fileURLToPath(new URL("../..", import.meta.url));
const folder = scratch && resolve(scratch, "models/t5-small");
const path = folder ? `${folder}/q8_0.gguf` : await t5Small();
for (const needed of [path, ...(folder ? [`${folder}/onnxruntime-int8/step.onnx`] : [])]) {
  if (existsSync(needed)) continue;
  console.error(`expected ${needed}, found no file: run tests/peers/peers.py ${scratch} --models t5-small first`);
  process.exit(1);
}

const folders = {};
if (folder) {
  const modules = resolve(scratch, "onnxruntime-web");
  if (!existsSync(`${modules}/node_modules/onnxruntime-web`)) {
    mkdirSync(modules, { recursive: true });
    writeFileSync(`${modules}/package.json`, "{}");
    execFileSync("npm", ["install", "--silent", `onnxruntime-web@${ONNXRUNTIME_WEB}`], {
      cwd: modules,
      stdio: "inherit",
    });
  }
  folders["/onnxruntime-web/"] = `${modules}/node_modules/onnxruntime-web/dist`;
  folders["/onnx/"] = `${folder}/onnxruntime-int8`;
}
const server = await site({ routes: { "/model.gguf": file(path) }, folders, isolated: true });
const browser = await launch();
const source = Array.from({ length: SOURCE }, (_, i) => (i === SOURCE - 1 ? 1 : 3 + ((i * 7919) % 31000)));

/** A page of its own for each engine: `round` measures once. */
async function pocket(build, threads) {
  const page = await (await browser.newContext()).newPage();
  await page.goto(`${server.url}/empty.html`);
  const info = await page.evaluate(
    async ([build, threads, source, count, WARM_UP]) => {
      const { T5 } = await import("/dist/index.js");
      const load = () => T5.load("/model.gguf", { build, ...(threads && { threads }) });
      (await load()).dispose();
      let t5;
      const time = async (n) => {
        const begin = performance.now();
        const options = { maxNewTokens: n, minNewTokens: n, beams: 1, temperature: 0, logprobs: false };
        const [{ ids }] = await t5.generate(source, options).outputs;
        return { ms: performance.now() - begin, ids };
      };
      globalThis.round = async () => {
        t5?.dispose();
        const begin = performance.now();
        t5 = await load();
        const loadMs = performance.now() - begin;
        // A module that was just loaded runs on code that was compiled in haste; hot functions are compiled anew beside
        // it, which takes its time where processors are busy. onnxruntime-web keeps its module from round to round.
        const { ids } = await time(count);
        for (let i = 0; i < WARM_UP; i++) await time(1);
        const one = await time(1);
        const all = await time(count);
        const token = (all.ms - one.ms) / (count - 1);
        return { token, encoder: one.ms - token, loadMs, ids };
      };
      t5 = await load();
      return t5.info();
    },
    [build, threads, source, NEW, WARM_UP],
  );
  const module = readFileSync(`${root}/web/wasm/${build}/t5_wasm_bg.wasm`);
  const size = `${(gzipSync(module, { level: 9 }).length / 1e3).toFixed(0)} kB`;
  const threaded = build === "threads" ? `, ${info.threads} threads` : "";
  const name = `${build} (${info.isa}${threaded})`;
  return { name, size, round: () => page.evaluate(() => globalThis.round()) };
}

/** The native program on one thread, with the vectors that most machines have. */
function native() {
  execFileSync("cargo", ["build", "--quiet", "--release", "--locked", "--package", "t5-runtime", "--bin", "t5"], {
    cwd: root,
    stdio: "inherit",
  });
  const isa = process.arch === "x64" ? ["--isa", "avx2"] : [];
  const sizes = ["--input-tokens", SOURCE, "--new-tokens", NEW, "--threads", 1, "--repeats", 1];
  const command = ["bench", "--model", path, "--json", ...isa, ...sizes].map(String);
  const round = async () => {
    const out = JSON.parse(execFileSync(`${root}/target/release/t5`, command, { encoding: "utf8" }));
    return { token: out.ms_per_token.median, encoder: out.encoder_ms.median, loadMs: out.load_ms.median };
  };
  return { name: `native ${isa[1] ?? ""}`.trim(), size: "", round };
}

const engines = [await pocket("simd128"), await pocket("relaxed"), await pocket("threads"), native()];
if (folder) engines.unshift(await onnxRuntime(browser, server.url, { source, count: NEW }));
for (const engine of engines) engine.rounds = [];
for (let i = 0; i <= Number(rounds); i++) {
  for (const engine of engines) {
    const found = await engine.round();
    if (found.ids && found.ids.length !== NEW)
      throw new Error(`${engine.name}: ${found.ids.length} tokens, not ${NEW}`);
    if (i > 0) engine.rounds.push(found);
  }
}
await browser.close();
server.close();

const { token: tokenGoal, encoder: encoderGoal, loadMs: loadGoal, ofNative: nativeGoal } = GOALS;
const date = new Date().toISOString().slice(0, 10);
console.log(`${date}, ${cpus()[0].model}, ${cpus().length} processors, Chromium ${browser.version()}`);
console.log(
  `${path.split("/").pop()}, ${(statSync(path).size / 1e6).toFixed(1)} MB; median of ${rounds} (least to most)\n`,
);
console.log("| engine | ms per token | times as fast | encoder, ms | times as fast | load, ms | module, gzipped |");
console.log("|---|---|---|---|---|---|---|");
const peer = folder && engines[0];
for (const engine of engines) {
  const times = (key) => (peer ? `${(median(peer, key) / median(engine, key)).toFixed(2)} ×` : "");
  const cells = [
    engine.name, show(engine, "token", 2), times("token"), show(engine, "encoder", 1), times("encoder"),
    show(engine, "loadMs", 0), engine.size,
  ];
  console.log(`| ${cells.join(" | ")} |`);
}
const by = (start) => engines.find((engine) => engine.name.startsWith(start));
const relaxed = by("relaxed");
console.log("");
if (peer) {
  console.log(
    `decoding ${(median(peer, "token") / median(relaxed, "token")).toFixed(2)} × onnxruntime-web, ` +
      `wanted ${tokenGoal} ×`,
  );
  console.log(
    `encoding ${(median(peer, "encoder") / median(relaxed, "encoder")).toFixed(2)} ×, wanted ${encoderGoal} ×`,
  );
}
console.log(`load from storage ${median(relaxed, "loadMs").toFixed(0)} ms, wanted at most ${loadGoal} ms`);
const share = median(by("native"), "token") / median(relaxed, "token");
console.log(`decoding at ${(100 * share).toFixed(0)} % of the native speed, wanted ${100 * nativeGoal} %`);
for (const key of ["token", "encoder"]) {
  const faster = median(relaxed, key) / median(by("threads"), key);
  console.log(`${key}: threads ${faster.toFixed(2)} times as fast as one thread, wanted 1 at least`);
}
// The answers: those of this package must be equal, another engine rounds otherwise.
const answers = engines.map((engine) => engine.rounds[0].ids).filter(Boolean);
const own = relaxed.rounds[0].ids;
const same = (ids) => ids.findIndex((id, i) => id !== own[i]);
const differing = answers.map(same).map((at) => (at < 0 ? NEW : at));
console.log(`${NEW} tokens each; as many at the front equal those of relaxed: ${differing.join(", ")}`);
if (differing.slice(peer ? 1 : 0).some((count) => count < NEW)) throw new Error("the builds gave different tokens");

function values(engine, key) {
  return engine.rounds.map((round) => round[key]).toSorted((a, b) => a - b);
}

function median(engine, key) {
  const sorted = values(engine, key);
  return (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;
}

function show(engine, key, digits) {
  const sorted = values(engine, key);
  return `${median(engine, key).toFixed(digits)} (${sorted[0].toFixed(digits)} to ${sorted.at(-1).toFixed(digits)})`;
}
