#!/usr/bin/env node
// Calls of the WebAssembly module made at random: node web/test/mutation.mjs [EXECUTIONS] [SEED]
//
// Options of every kind of value, texts and ids that no model knows, calls in any order, and model files with bytes
// changed. Each must answer or fail with an error that has a code; a trap, another error, or an engine that answers
// otherwise afterwards ends the run with the calls that led there. Needed: wasm/build simd128 convert.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { model } from "./models.mjs";

const [executions = 200_000, seed = 1] = process.argv.slice(2).map(Number);
const t5 = await import("../wasm/simd128/t5_wasm.js");
t5.initSync({ module: readFileSync(new URL("../wasm/simd128/t5_wasm_bg.wasm", import.meta.url)) });
const converter = await import("../wasm/convert/t5_wasm.js");
converter.initSync({ module: readFileSync(new URL("../wasm/convert/t5_wasm_bg.wasm", import.meta.url)) });

/** mulberry32: the same numbers on every machine. */
let state = seed >>> 0;
function random() {
  state = (state + 0x6d2b79f5) >>> 0;
  let t = Math.imul(state ^ (state >>> 15), state | 1);
  t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
}
const below = (n) => Math.floor(random() * n);
const one = (list) => list[below(list.length)];
const some = (most, make) => Array.from({ length: below(most + 1) }, make);

const NAMES =
  "maxNewTokens minNewTokens beams nBest lengthPenalty lengthPenaltyKind earlyStopping temperature " +
  "topK topP minP seed repetitionPenalty noRepeatNgram prefix prefixIds suppress allowed stop logprobs lookup task " +
  "typicalP beamGroups diversityPenalty epsilonCutoff etaCutoff topH encoderRepetitionPenalty encoderNoRepeatNgram " +
  "exponentialDecay forcedBos forcedEos beginSuppress badWords sequenceBias renormalize removeInvalid splitSentences " +
  "maxInputTokens truncate nothing";
const OPTIONS = [...NAMES.split(" "), ""];
const NUMBERS = [0, 1, 2, 3, 7, -1, 0.5, 1.5, -0.0, 0.999, 1e-45, 1e30, 1e300, -1e300];
const LARGE = [2 ** 31, 2 ** 32, 2 ** 53 - 1, 2 ** 53];
const WORDS = ["", "a", "a text", " ", "<", "a <b> c", "x".repeat(300), "\0", "\ud800", "\u{10ffff}", "e\u0301\u0323"];
WORDS.push(..."</s> <pad> <unk> <extra_id_0> <extra_id_99> ▁ 日本語 t5 huggingFace never auto on off".split(" "));
const ids = () => some(6, () => one([0, 1, 2, 3, 50, 259, 383, 32_099, 2 ** 31, 2 ** 32 - 1]));

/** A value of any JSON type, most often of one that some option has. */
function value() {
  switch (below(10)) {
    case 0:
    case 1:
    case 2:
      return one([...NUMBERS, ...LARGE]);
    case 3:
      return below(6);
    case 4:
      return random() * 2;
    case 5:
      return one(WORDS);
    case 6:
      return random() < 0.5;
    case 7:
      return ids();
    case 8:
      return some(3, () => one(WORDS));
    default:
      return one([null, {}, [], [null], { a: 1 }, [[1]]]);
  }
}

function options() {
  if (random() < 0.01) return one(["", "[", "{}x", "null", "3", "[]", '{"beams":1,"beams":2}', "[".repeat(5_000)]);
  const request = {};
  for (const _ of some(4, () => 0)) request[one(OPTIONS)] = value();
  // Most of them end soon; the others are cancelled.
  if (random() < 0.9) request.maxNewTokens = below(8);
  // A thousand beams are allowed, and slow.
  if (request.beams > 16 && random() < 0.99) request.beams = 1 + below(16);
  return JSON.stringify(request);
}

const good = readFileSync(model("unigram"));
const others = ["byt5", "encoder-only"].map((family) => readFileSync(model(family)));

function open(file, isa) {
  const download = new t5.Download("model.gguf", file.length, random() < 0.5, isa);
  let at = 0;
  while (at < file.length) {
    const end = random() < 0.8 ? file.length : at + 1 + below(file.length - at);
    download.append(file.subarray(at, end));
    at = end;
  }
  return t5.Engine.open(download, 1);
}

/** A model's file with some bytes changed, most of them in its header. */
function damaged() {
  const file = Uint8Array.from(one([good, good, ...others]));
  for (let i = 1 + below(4); i > 0; i--) {
    const at = below(random() < 0.8 ? Math.min(file.length, 4_000) : file.length);
    file[at] = one([0, 1, 0xff, 0x7f, 0x80, below(256), file[at] + 1, file[at] ^ (1 << below(8))]);
  }
  return random() < 0.2 ? file.subarray(0, below(file.length + 1)) : file;
}

let engine = open(good);
let expected;
/** What the engine answers to one text, which nothing before it may change. */
function canary() {
  engine.start("a text of some words", '{"maxNewTokens":12,"logprobs":true}');
  const answer = engine.finish();
  expected ??= answer;
  assert.equal(answer, expected, "the engine answers otherwise than at first");
}

const CALLS = {
  start: (text, options) => engine.start(text, options),
  startIds: (ids, options) => engine.startIds(Uint32Array.from(ids), options),
  startBatch: (texts, options) => engine.startBatch(texts, options),
  startScore: (source, target) => engine.startScore(source, target),
  startAlignment: (source, target) => engine.startAlignment(source, target),
  startEmbed: (text, most, cut) => engine.startEmbed(text, most, cut),
  startEncode: (text, most, cut) => engine.startEncode(text, most, cut),
  steps: (count) => {
    for (let i = 0; i < count; i++) if (!engine.step()) break;
    return engine.take();
  },
  finish: () => engine.finish(),
  finishStates: () => engine.finishStates(),
  cancel: () => engine.cancel(),
  tokenize: (text) => engine.tokenize(text),
  sentences: (text) => engine.sentences(text),
  detokenize: (ids) => engine.detokenize(Uint32Array.from(ids)),
  info: () => engine.info(),
  reopen: () => {
    engine.free();
    engine = open(good);
  },
  damaged: (file, text) => {
    const other = open(file);
    try {
      other.start(text, '{"maxNewTokens":4}');
      return other.finish();
    } finally {
      other.free();
    }
  },
  quantized: (file, dtype) => {
    const folder = new converter.Folder();
    const buffer = new converter.Buffer(file.length);
    buffer.append(file);
    folder.add(one(["model.gguf", "model.safetensors", "config.json", "x"]), buffer);
    return folder.quantize("model", dtype, () => {}, () => {});
  },
};

function call() {
  const kind = below(1_000);
  if (kind < 400) return ["start", one(WORDS), options()];
  if (kind < 450) return ["startBatch", some(5, () => one(WORDS)), options()];
  if (kind < 550) return ["startIds", ids(), options()];
  if (kind < 730) return ["steps", below(6)];
  if (kind < 780) return ["finish"];
  if (kind < 800) return ["finishStates"];
  if (kind < 830) return ["cancel"];
  if (kind < 860) return ["startScore", one(WORDS), one(WORDS)];
  if (kind < 880) return ["startAlignment", one(WORDS), one(WORDS)];
  if (kind < 900) return [one(["startEmbed", "startEncode"]), one(WORDS), ...some(2, value)];
  if (kind < 920) return ["sentences", one(WORDS)];
  if (kind < 940) return ["tokenize", one(WORDS)];
  if (kind < 960) return ["detokenize", ids()];
  if (kind < 965) return ["info"];
  if (kind < 966) return ["reopen"];
  if (kind < 990) return ["damaged", damaged(), one(WORDS)];
  return ["quantized", damaged(), one(["q8_0", "f16", "q4_0", "x"])];
}

const counts = { answered: 0, refused: 0 };
const recent = [];
const begun = Date.now();
try {
  for (let i = 0; i < executions; i++) {
    const [name, ...given] = call();
    // A generation without an end is not finished but cancelled.
    const made =
      name === "finish" && /"maxNewTokens":\d{3}|"minNewTokens":\d{2}/.test(recent.join())
        ? ["cancel"]
        : [name, ...given];
    recent.push(
      JSON.stringify([made[0], ...made.slice(1).map((x) => (ArrayBuffer.isView(x) ? `${x.length} bytes` : x))]),
    );
    if (recent.length > 8) recent.shift();
    try {
      CALLS[made[0]](...made.slice(1));
      counts.answered++;
    } catch (error) {
      if (!(error instanceof Error) || typeof error.code !== "string") throw error;
      counts.refused++;
    }
    if (i % 1_000 === 0) canary();
  }
  canary();
} catch (error) {
  console.error(`seed ${seed}: after these calls\n${recent.join("\n")}\n`, error);
  process.exit(1);
}
assert.ok(counts.answered > executions / 10 && counts.refused > executions / 10, JSON.stringify(counts));
console.log(`${executions} calls from seed ${seed}: ${counts.answered} answered, ${counts.refused} refused, ` +
  `no finding, ${Math.round((Date.now() - begun) / 1000)} s`);
