// What the package promises about requests: streaming, order, abort, errors.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import { runInNewContext } from "node:vm";
import { gzipSync } from "node:zlib";
import { choose } from "../dist/builds.js";
import { quantize, T5, T5Error } from "../dist/index.js";
import { keyOf } from "../dist/store.js";
import { folder, model, pocket } from "./models.mjs";
import { patched } from "./patched.mjs";

let path;
let t5;
before(async () => {
  path = model("unigram");
  t5 = await T5.load(path);
});
after(() => t5?.dispose());

const LONG = { maxNewTokens: 400, minNewTokens: 400 };
/** For what must not be done before something else happens, however busy the machine is. */
const ENDLESS = { maxNewTokens: 1_000_000, minNewTokens: 1_000_000 };

/** The error that a promise fails with. */
async function failure(promise) {
  const error = await promise.then(
    () => assert.fail("expected an error"),
    (error) => error,
  );
  assert.ok(error instanceof T5Error, String(error));
  return error;
}

test("pieces add up to the text", async () => {
  const generation = t5.generate("a text", { maxNewTokens: 20, minNewTokens: 20 });
  const pieces = [];
  for await (const piece of generation) pieces.push(piece);
  const [best] = await generation.outputs;
  assert.equal(pieces.join(""), best.text);
  assert.ok(pieces.length > 3, `${pieces.length} pieces`);
  assert.equal(best.ids.length, 20);
  assert.equal(await t5.detokenize(best.ids), best.text);
});

test("every loop over the pieces has all of them", async () => {
  const generation = t5.generate("a text", { maxNewTokens: 20, minNewTokens: 20 });
  const all = async () => {
    const pieces = [];
    for await (const piece of generation) pieces.push(piece);
    return pieces;
  };
  const [one, two] = await Promise.all([all(), all()]);
  assert.equal(one.join(""), await generation.text());
  // Also one that begins when all is done.
  assert.deepEqual([two, await all()], [one, one]);
});

test("requests run in their order", async () => {
  const finished = [];
  const all = [1, 2, 3, 4, 5].map((n) =>
    t5.generate("x ".repeat(n), { maxNewTokens: 30 - 5 * n, minNewTokens: 30 - 5 * n }).outputs.then((outputs) => {
      finished.push(n);
      return outputs[0].ids.length;
    }),
  );
  assert.deepEqual(await Promise.all(all), [25, 20, 15, 10, 5]);
  assert.deepEqual(finished, [1, 2, 3, 4, 5]);
});

test("abort ends a generation between tokens, and the next one runs", async () => {
  const abort = new AbortController();
  let pieces = 0;
  const generation = t5.generate("a text", { ...ENDLESS, signal: abort.signal });
  const error = await failure(
    (async () => {
      for await (const _ of generation) if (++pieces === 3) abort.abort();
    })(),
  );
  assert.equal(error.code, "aborted");
  assert.equal(error.name, "AbortError");
  assert.equal((await t5.generate("a text", { maxNewTokens: 2 }).outputs).length, 1);
});

test("abort drops one that waits", async () => {
  const abort = new AbortController();
  const first = t5.generate("a text", LONG);
  const second = t5.generate("another", { ...LONG, signal: abort.signal });
  const third = t5.generate("a third", { maxNewTokens: 3 });
  let ended = false;
  first.outputs.then(() => (ended = true));
  abort.abort();
  assert.equal((await failure(second.outputs)).code, "aborted");
  assert.equal(ended, false);
  assert.equal((await third.outputs).length, 1);
  assert.equal((await first.outputs)[0].ids.length, 400);
});

/** What a patched worker begins with to be held in the midst of its work. */
const HOLDING = `
  import { existsSync, writeFileSync } from "node:fs";
  const at = (name) => new URL(name, import.meta.url);
  const sleep = () => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5);
  const { step, info, cancel } = Engine.prototype;
`;

/** Waits for what happens sooner or later, also where a test holds the timers. */
async function until(holds) {
  while (!holds()) await new Promise((resolve) => setImmediate(resolve));
}

test("abort ends every kind of request between two pieces of its work, and the next one runs", async ({ mock }) => {
  const { assets, folder, end } = patched(
    "pieces",
    `${HOLDING}
    let [steps, cancelled] = [0, 0];
    for (const name of Object.getOwnPropertyNames(Engine.prototype).filter((name) => name.startsWith("start"))) {
      const start = Engine.prototype[name];
      Engine.prototype[name] = function (...given) { steps = 0; return start.apply(this, given); };
    }
    Engine.prototype.step = function () {
      steps += 1;
      if (steps === 2 && existsSync(at("hold"))) {
        writeFileSync(at("held"), "");
        while (existsSync(at("hold"))) sleep();
      }
      return step.call(this);
    };
    Engine.prototype.cancel = function () { cancelled = steps; cancel.call(this); };
    Engine.prototype.info = function () {
      return JSON.stringify({ ...JSON.parse(info.call(this)), steps, cancelled });
    };`,
  );
  const other = await T5.load(pocket.path, { assets });
  // More than the tokens that go through all blocks of the encoder as one piece.
  const text = "a word and another one, ".repeat(150);
  const blocks = (await other.info()).config.num_layers;
  const kinds = {
    generate: [blocks, (signal) => other.generate(text, { maxNewTokens: 1, signal }).outputs],
    embed: [blocks, (signal) => other.embed(text, { signal })],
    encode: [blocks, (signal) => other.encode(text, { signal })],
    score: [blocks + 4, (signal) => other.score(text, "another text, ".repeat(30), { signal })],
    alignment: [blocks, (signal) => other.alignment(text, "another text", { signal })],
    batch: [8, (signal) => other.generate(["x", "y"], { maxNewTokens: 8, minNewTokens: 8, signal }).outputs],
  };
  // A worker is given two seconds, counted from its own abort and not from those before, however fast the machine is.
  mock.timers.enable({ apis: ["setTimeout"] });
  for (const [kind, [least, ask]] of Object.entries(kinds)) {
    await ask();
    const { steps } = await other.info();
    assert.ok(steps >= least, `${kind}: ${steps} pieces`);
    writeFileSync(`${folder}/dist/hold`, "");
    const abort = new AbortController();
    const answer = failure(ask(abort.signal));
    await until(() => existsSync(`${folder}/dist/held`));
    abort.abort();
    // At once for who aborted: the worker is still held.
    assert.equal((await answer).code, "aborted", kind);
    mock.timers.tick(1000);
    rmSync(`${folder}/dist/held`);
    rmSync(`${folder}/dist/hold`);
    await other.embed("x");
    assert.equal((await other.info()).cancelled, 2, kind);
  }
  other.dispose();
  end();
});

test("a piece of work without an end that is aborted does not block the queue", { timeout: 300_000 }, async () => {
  // As long as a block of the encoder takes for a text of 20,000 words, and longer.
  const { assets, folder, end } = patched(
    "endless",
    `${HOLDING}
    let long;
    const { start } = Engine.prototype;
    Engine.prototype.start = function (text, options) {
      long = text.startsWith("long");
      start.call(this, text, options);
    };
    Engine.prototype.step = function () {
      if (long) writeFileSync(at("held"), "");
      while (long) sleep();
      return step.call(this);
    };`,
  );
  const other = await T5.load(pocket.path, { assets });
  const abort = new AbortController();
  const generation = other.generate("long", { signal: abort.signal });
  // One that waits is answered all the same.
  const behind = other.generate("translate English to German: Where is the station?").text();
  await until(() => existsSync(`${folder}/dist/held`));
  abort.abort();
  assert.equal((await failure(generation.outputs)).code, "aborted");
  assert.equal(await behind, "Wo ist der Bahnhof?");
  assert.equal((await other.info()).fileBytes, readFileSync(pocket.path).length);
  other.dispose();
  end();
});

test("tokens and info do not wait behind what takes long", async () => {
  for (const ask of [
    (signal) => t5.generate("a text", { ...ENDLESS, signal }).outputs,
    (signal) => t5.generate(["a text", "another"], { ...ENDLESS, signal }).outputs,
  ]) {
    const abort = new AbortController();
    const long = failure(ask(abort.signal));
    const ids = await t5.tokenize("a text");
    assert.equal(await t5.detokenize(ids), "a text");
    assert.ok((await t5.info()).memoryBytes > 0);
    abort.abort();
    assert.equal((await long).code, "aborted");
  }
  // Asked for later, answered before.
  const answered = [];
  const text = "a word and another one, ".repeat(300);
  const asked = [
    t5.embed(text).then(() => answered.push("embed")),
    t5.score(text, "a text").then(() => answered.push("score")),
    t5.tokenize("a text").then(() => answered.push("tokenize")),
  ];
  await Promise.all(asked);
  assert.deepEqual(answered, ["tokenize", "embed", "score"]);
});

test("500 aborts and 100 requests in the queue", async () => {
  const aborts = Array.from({ length: 500 }, (_, i) => {
    const abort = new AbortController();
    const { outputs } = t5.generate("a text", { ...ENDLESS, signal: abort.signal });
    setTimeout(() => abort.abort(), i % 7);
    return failure(outputs);
  });
  for (const error of await Promise.all(aborts)) assert.equal(error.code, "aborted");
  const finished = [];
  const queue = Array.from({ length: 100 }, (_, i) =>
    t5.generate("a text", { maxNewTokens: 1 + (i % 5), minNewTokens: 1 + (i % 5) }).outputs.then(([best]) => {
      finished.push(i);
      return best.ids.length;
    }),
  );
  assert.deepEqual(
    await Promise.all(queue),
    queue.map((_, i) => 1 + (i % 5)),
  );
  assert.deepEqual(
    finished,
    queue.map((_, i) => i),
  );
});

test("leaving the loop aborts", async () => {
  const generation = t5.generate("a text", ENDLESS);
  for await (const _ of generation) break;
  assert.equal((await failure(generation.outputs)).code, "aborted");
});

test("pieces come as a stream, which ends the request where it is cancelled", async () => {
  const options = { maxNewTokens: 20, minNewTokens: 20 };
  const whole = await t5.generate("a text", options).text();
  const stream = t5.generate("a text", options).stream().pipeThrough(new TextEncoderStream());
  assert.equal(await new Response(stream).text(), whole);
  const generation = t5.generate("a text", LONG);
  const reader = generation.stream().getReader();
  await reader.read();
  await reader.cancel();
  assert.equal((await failure(generation.outputs)).code, "aborted");
  const wrong = t5.generate("a text", { beam: 2 }).stream().getReader();
  assert.equal((await failure(wrong.read())).code, "bad-option");
});

test("a model ends with its scope", async () => {
  const other = await T5.load(path);
  await other[Symbol.asyncDispose]();
  assert.equal((await failure(other.info())).code, "disposed");
});

test("a text of several sentences gives what its sentences give", async () => {
  const other = await T5.load(pocket.path);
  const prefix = "translate English to German: ";
  const [first, second, third] = ["The cat sleeps.", "Where is the station?", "Good morning!"];
  const alone = await Promise.all([first, second, third].map((one) => other.generate(prefix + one).text()));
  assert.deepEqual(alone, ["Die Katze schläft.", "Wo ist der Bahnhof?", "Guten Morgen!"]);
  const text = `${first}  ${second}\n\n- ${third}\n`;
  const expected = `${alone[0]}  ${alone[1]}\n\n- ${alone[2]}\n`;
  const generation = other.generate(prefix + text);
  const pieces = [];
  for await (const piece of generation) pieces.push(piece);
  assert.equal(pieces.join(""), expected);
  assert.equal(await other.generate(text, { task: "translation_en_to_de" }).text(), expected);
  assert.deepEqual(await other.generate([prefix + text, prefix + first]).texts(), [expected, alone[0]]);
  const whole = await other.generate(prefix + text, { splitSentences: false }).text();
  assert.notEqual(whole.replace(/\s+/g, " "), expected.replace(/\s+/g, " "));
  other.dispose();
});

test("long texts are refused or cut off where that is asked for", async () => {
  const text = "word ".repeat(50);
  const ids = await t5.tokenize(text);
  const message = `maxInputTokens: expected at most 20 tokens, found ${ids.length}`;
  for (const promise of [
    t5.generate(text, { maxInputTokens: 20 }).outputs,
    t5.generate(ids, { maxInputTokens: 20 }).outputs,
    t5.generate(["a", text], { maxInputTokens: 20 }).outputs,
    t5.embed(text, { maxInputTokens: 20 }),
    t5.encode(text, { maxInputTokens: 20 }),
  ]) {
    const error = await failure(promise);
    assert.deepEqual([error.code, error.message], ["bad-option", message]);
  }
  const options = { maxInputTokens: 20, truncate: true };
  const cut = [...ids.slice(0, 19), ids.at(-1)];
  const expected = await t5.generate(cut, { maxNewTokens: 9 }).outputs;
  assert.deepEqual(await t5.generate(text, { ...options, maxNewTokens: 9 }).outputs, expected);
  assert.deepEqual((await t5.encode(text, options)).ids, cut);
  assert.match((await failure(t5.generate("x", { truncate: true }).outputs)).message, /^truncate: expected a limit/);
  assert.match((await failure(t5.embed("x", { maxInputTokens: 0 }))).message, /^maxInputTokens: expected a whole/);
  assert.match((await failure(t5.encode("x", { truncated: true }))).message, /^truncated: there is no option/);
});

test("encode gives the state of each token, embed their mean", async () => {
  const { config } = await t5.info();
  const [one, two] = await t5.encode(["a text", "another text"]);
  assert.deepEqual(one, await t5.encode("a text"));
  assert.deepEqual(one.ids, await t5.tokenize("a text"));
  assert.deepEqual([one.width, one.states.length], [config.d_model, one.ids.length * config.d_model]);
  assert.notDeepEqual(one.states.slice(0, 8), two.states.slice(0, 8));
  const mean = await t5.embed("a text");
  for (let i = 0; i < one.width; i++) {
    const sum = one.ids.reduce((sum, _, row) => sum + one.states[row * one.width + i], 0);
    assert.ok(Math.abs(sum / one.ids.length - mean[i]) < 1e-5);
  }
});

test("where one text of a list is refused, those behind it are not read", async ({ mock }) => {
  const { assets, folder, end } = patched(
    "list",
    `${HOLDING}
    let started = 0;
    const { startEmbed } = Engine.prototype;
    Engine.prototype.startEmbed = function (text, ...limits) {
      started += 1;
      if (text === "held") while (existsSync(at("hold"))) sleep();
      return startEmbed.call(this, text, ...limits);
    };
    Engine.prototype.info = function () {
      return JSON.stringify({ ...JSON.parse(info.call(this)), started });
    };`,
  );
  const other = await T5.load(path, { assets });
  writeFileSync(`${folder}/dist/hold`, "");
  // As above: the worker is not given up, however slow the machine is.
  mock.timers.enable({ apis: ["setTimeout"] });
  const texts = ["word ".repeat(50), "held", ...Array(20).fill("a text")];
  const error = await failure(other.embed(texts, { maxInputTokens: 20 }));
  assert.match(error.message, /^maxInputTokens: expected at most 20 tokens/);
  rmSync(`${folder}/dist/hold`);
  await other.embed("x");
  // The one that is refused, the one that is held, and the one after them.
  assert.equal((await other.info()).started, 3);
  other.dispose();
  end();
});

test("sampling repeats itself by seed", async () => {
  const options = { temperature: 1, seed: 7, maxNewTokens: 12, minNewTokens: 12 };
  const texts = await Promise.all([t5.generate("x", options).text(), t5.generate("x", options).text()]);
  const other = await t5.generate("x", { ...options, seed: 8 }).text();
  assert.equal(texts[0], texts[1]);
  assert.notEqual(texts[0], other);
});

test("scores, states and alignments agree with each other", async () => {
  const [best] = await t5.generate("a text", { maxNewTokens: 8 }).outputs;
  const score = await t5.score("a text", "a target");
  assert.equal(score.ids.at(-1), (await t5.info()).tokenizer.eosId);
  assert.ok(Math.abs(score.logprobs.reduce((a, b) => a + b) - score.sum) < 1e-4);
  assert.ok(best.score <= 0 && score.sum < 0);
  const { config } = await t5.info();
  const embedding = await t5.embed("a text");
  assert.ok(embedding instanceof Float32Array);
  assert.equal(embedding.length, config.d_model);
  const alignment = await t5.alignment("a text", "a target");
  assert.equal(alignment.weights.length, alignment.target.length);
  assert.ok(alignment.target.length > 0 && alignment.source.length > 0);
  for (const row of alignment.weights) {
    assert.equal(row.length, alignment.source.length);
    const sum = row.reduce((a, b) => a + b);
    // What is left went to the end mark.
    assert.ok(sum > 0 && sum < 1 + 1e-4);
  }
});

test("sentences are where they stand in a text of any characters", async () => {
  const text = "  Zwölf 👩‍👩‍👧 schlafen. \u{1d53d}ünf nicht! \n\n- Dr. Hu bleibt.\r\n 3.\n何？はい。";
  const found = (await t5.sentences(text)).map(({ begin, end }) => text.slice(begin, end));
  assert.deepEqual(found, ["Zwölf 👩‍👩‍👧 schlafen.", "\u{1d53d}ünf nicht!", "Dr. Hu bleibt.", "何？", "はい。"]);
  assert.deepEqual(await t5.sentences(" \n"), []);
});

test("without log-probabilities the text is the same", async () => {
  const options = { maxNewTokens: 40, minNewTokens: 40 };
  const [first] = await t5.generate("a text", options).outputs;
  assert.equal(first.logprobs.length, 40);
  assert.ok(Number.isFinite(first.score));
  assert.deepEqual((await t5.generate("a text", { ...options, logprobs: true }).outputs)[0], first);
  const generation = t5.generate("a text", { ...options, logprobs: false });
  const pieces = [];
  for await (const piece of generation) pieces.push(piece);
  assert.equal(pieces.join(""), first.text);
  assert.deepEqual(await generation.outputs, [{ ...first, logprobs: [], score: null }]);
  // Beams are compared by them.
  const beams = await t5.generate("a text", { beams: 2, nBest: 2, maxNewTokens: 8, logprobs: false }).outputs;
  assert.ok(beams.every(({ logprobs, score, ids }) => logprobs.length === ids.length && Number.isFinite(score)));
});

test("tokens looked up in the source change nothing", async () => {
  const { config } = await t5.info();
  // Its own answer as the source, so that there is something to find.
  const options = { maxNewTokens: 60, minNewTokens: 60 };
  const [{ ids }] = await t5.generate("a text", options).outputs;
  const source = [...ids, config.eos_token_id];
  const expected = await t5.generate(source, { ...options, lookup: "off" }).outputs;
  for (const lookup of ["auto", "on"])
    assert.deepEqual(await t5.generate(source, { ...options, lookup }).outputs, expected);
  const [{ ids: same }] = await t5.generate(source, { ...options, lookup: "on", logprobs: false }).outputs;
  assert.deepEqual(same, expected[0].ids);
});

test("seeds have 64 bits", async () => {
  const draw = async (seed) => (await t5.generate("a text", { temperature: 1, seed, maxNewTokens: 8 }).outputs)[0].ids;
  assert.deepEqual(await draw(7n), await draw(7));
  assert.deepEqual(await draw(2n ** 53n - 1n), await draw(Number.MAX_SAFE_INTEGER));
  assert.notDeepEqual(await draw(2n ** 64n - 1n), await draw(0));
  assert.equal((await failure(draw(2n ** 64n))).code, "bad-option");
  assert.equal((await failure(draw(2 ** 53))).code, "bad-option");
  // In lists as well, where every text draws from a seed of its own.
  const all = async (seed) => {
    const outputs = await t5.generate(["a text", "another"], { temperature: 1, seed, maxNewTokens: 8 }).outputs;
    return outputs.map(([best]) => best.ids);
  };
  assert.deepEqual(await all(7n), await all(7));
  assert.notDeepEqual(await all(2n ** 64n - 1n), await all(0));
});

test("a prefix that the vocabulary does not have is remarked upon", async (context) => {
  const warn = context.mock.method(console, "warn", () => {});
  await t5.generate("a text", { prefix: "日", maxNewTokens: 2 }).outputs;
  await t5.generate(["a text"], { prefix: "日", maxNewTokens: 2 }).outputs;
  const said = warn.mock.calls.map(({ arguments: [text] }) => text);
  assert.equal(said.length, 2);
  const remark = /^pocket-t5: prefix: the vocabulary does not have what stands in one place/;
  for (const text of said) assert.match(text, remark);
  await t5.generate("a text", { prefix: "a", maxNewTokens: 2 }).outputs;
  assert.equal(warn.mock.callCount(), 2);
});

test("every option that the module knows is declared, with its own name", async () => {
  const read = (path) => readFileSync(new URL(path, import.meta.url), "utf8");
  const request = /fn every_option_arrives\(\) \{\s+let request = r#"([^#]*)"#;/;
  const [, known] = request.exec(read("../../wasm/src/request.rs"));
  const [, declared] = /interface GenerateOptions \{\n([^]*?)\n\}/.exec(read("../dist/types.d.ts"));
  const names = [...declared.matchAll(/^ {4}(\w+)\?:/gm)].map(([, name]) => name);
  // The package's own two are not sent.
  const sent = names.filter((name) => name !== "signal" && name !== "batch");
  assert.deepEqual(sent.toSorted(), Object.keys(JSON.parse(known)).toSorted());
});

test("every end that a result may have is declared", () => {
  const read = (path) => readFileSync(new URL(path, import.meta.url), "utf8");
  const known = read("../../runtime/src/generate/mod.rs").matchAll(/Finish::\w+ => "(\w+)"/g);
  const names = Array.from(known, ([, name]) => name);
  const [, declared] = /\bfinish: ([^;]+);/.exec(read("../dist/types.d.ts"));
  // One that was aborted has no result.
  const expected = names.filter((name) => name !== "cancelled").map((name) => `"${name}"`);
  assert.deepEqual(declared.split(" | ").toSorted(), expected.toSorted());
});

test("the result can be one of given texts", async () => {
  const choices = ["b", "a longer one"];
  const outputs = await t5.generate("a text", { choices, beams: 2, nBest: 2 }).outputs;
  assert.deepEqual(outputs.map(({ text }) => text).toSorted(), choices.toSorted());
  const both = await failure(t5.generate("a text", { choices, prefix: "a" }).outputs);
  assert.match(both.message, /^choices: texts to choose from and a forced prefix exclude each other/);
});

test("what is no options is refused by every call", async () => {
  const calls = {
    generate: (options) => t5.generate("x", options).outputs,
    text: (options) => t5.generate("x", options).text(),
    batch: (options) => t5.generate(["x"], options).texts(),
    score: (options) => t5.score("x", "y", options),
    alignment: (options) => t5.alignment("x", "y", options),
    embed: (options) => t5.embed("x", options),
    quantize: (options) => quantize([], options),
  };
  for (const [name, call] of Object.entries(calls)) {
    for (const options of [null, 5]) {
      const { code, message } = await failure(call(options));
      assert.deepEqual([code, message], ["bad-option", `options: expected an object, found ${options}`], name);
    }
    assert.equal((await failure(call({ beam: 2 }))).message, "beam: there is no option of this name", name);
  }
  for (const files of [null, 5, [5], "model"]) {
    const error = await failure(quantize(files));
    assert.deepEqual([error.code, /^files: expected the files of/.test(error.message)], ["bad-option", true]);
  }
});

test("wrong options are refused by name", async () => {
  for (const [options, message] of [
    [{ beam: 2 }, /^beam: there is no option/],
    [{ beams: 0 }, /^beams: expected 1 to 1024, found 0/],
    [{ beams: 2, temperature: 1 }, /exclude each other/],
    [{ lookup: true }, /^lookup: expected "auto", "on" or "off", found true/],
    [{ logprobs: "no" }, /^logprobs: expected true or false, found "no"/],
    [{ suppress: [99999] }, /^suppress: expected ids below/],
    // As callers write them, not as the runtime does.
    [{ topP: 2 }, /^topP: expected above 0 and at most 1, found 2/],
    [{ nBest: 0 }, /^nBest: expected at least 1, found 0/],
    [{ repetitionPenalty: 0 }, /^repetitionPenalty: expected above 0/],
    [{ temperature: NaN }, /^temperature: expected a finite number, found NaN/],
    [{ stop: () => {} }, /^stop: expected a value, found a function/],
    [{ signal: true }, /^signal: expected an AbortSignal, found true/],
  ]) {
    const error = await failure(t5.generate("x", options).outputs);
    assert.equal(error.code, "bad-option");
    assert.match(error.message, message);
  }
});

test("what is no text is refused, whatever it is", async () => {
  const texts = [undefined, null, 5, {}, true, Symbol("x"), () => {}, new Date(0), [1, "x"], ["a", 5], [-1], [0.5]];
  for (const [i, text] of texts.entries()) {
    const error = await failure(t5.generate(text).outputs);
    assert.equal(error.code, "bad-option", String(i));
    assert.match(error.message, /^source(\[\d\])?: expected /);
    if (Array.isArray(text)) continue;
    for (const call of [
      () => t5.embed(text),
      () => t5.tokenize(text),
      () => t5.sentences(text),
      () => t5.score(text, "x"),
      () => t5.score("x", text),
    ]) {
      assert.match((await failure(call())).message, /^(text|source|target): expected a text, found /);
    }
    assert.match((await failure(t5.alignment("x", text))).message, /^target: expected a text, found /);
    assert.match((await failure(t5.detokenize(text))).message, /^ids: expected a list of ids, found /);
  }
  assert.match((await failure(t5.embed(["x", 5]))).message, /^text\[1\]: expected a text, found 5/);
  // The model answers as before.
  assert.equal((await t5.generate("a text", { maxNewTokens: 2 }).outputs).length, 1);
});

test("wrong options of load are refused by name, before anything is transferred", async () => {
  for (const [options, message] of [
    [{ onprogress: () => {} }, /^onprogress: there is no option of this name/],
    [{ sha256: "abc" }, /^sha256: expected 64 hexadecimal digits, found "abc"/],
    [{ stallMs: -1 }, /^stallMs: expected a number of milliseconds above 0, found -1/],
    [{ cache: "no" }, /^cache: expected true or false, found "no"/],
    [{ signal: {} }, /^signal: expected an AbortSignal, found an object/],
    [{ headers: { a: 1 } }, /^headers: expected names and texts as HTTP has them, found an object/],
    [{ headers: { "a b": "c" } }, /^headers: expected names and texts as HTTP has them, found an object/],
    [{ headers: { a: "b\nc" } }, /^headers: expected names and texts as HTTP has them, found an object/],
    [{ headers: new Headers({ a: "b" }) }, /^headers: expected names and texts .*, found an object \(Headers\)/],
    [{ headers: new Map([["a", "b"]]) }, /^headers: expected names and texts .*, found an object \(Map\)/],
    [{ token: "a b" }, /^token: expected a text without spaces, found "a b"/],
    [{ token: "abc" }, /^token: expected an hf: name or an address at https:\/\/huggingface.co, found http:\/\/127/],
    [{ fetch: "x" }, /^fetch: expected a function, found "x"/],
    [{ persist: 1 }, /^persist: expected true or false, found 1/],
    [{ wasm: new ArrayBuffer(8) }, /^wasm: expected a WebAssembly.Module, found an object/],
    [{ endpoint: "huggingface.co" }, /^endpoint: expected an address, found "huggingface.co"/],
    [{ endpoint: "http://bad host" }, /^endpoint: expected an address, found "http:\/\/bad host"/],
    [{ threads: 65 }, /^threads: expected 0 to 64, found 65/],
    [{ threads: 0, build: "threads" }, /^threads: expected 1 or more with the build "threads", found 0/],
    [{ assets: "http://" }, /^assets: expected an address, found "http:\/\/"/],
    [{ assets: 5 }, /^assets: expected an address, found 5/],
    [null, /^options: expected an object, found null/],
  ]) {
    const error = await failure(T5.load("http://127.0.0.1:1/never", options));
    assert.deepEqual([error.code, message.test(error.message)], ["bad-option", true], error.message);
  }
  for (const source of [null, 5, {}, [], ["a.gguf"], () => {}]) {
    assert.match((await failure(T5.load(source))).message, /^source: expected an address, a file, its bytes/);
  }
  for (const source of ["http://", "http://[bad"]) {
    for (const options of [{}, { token: "x" }]) {
      const { code, message } = await failure(T5.load(source, options));
      assert.deepEqual([code, message], ["bad-option", `source: expected an address, found ${source}`]);
    }
  }
});

test("wrong options of quantize are refused by name, before anything is read", async () => {
  const types = /FILE_TYPES: \[DType; \d+\] = \[([^\]]+)\]/.exec(
    readFileSync(new URL("../../quantize/src/policy.rs", import.meta.url), "utf8"),
  );
  const names = types[1].replaceAll("DType::", "").toLowerCase();
  for (const [options, expected] of [
    [{ type: "q2_k" }, `type: expected one of ${names}, found "q2_k"`],
    [{ name: 5 }, "name: expected a text, found 5"],
    [{ onProgress: 5 }, "onProgress: expected a function, found 5"],
    [{ assets: 5 }, "assets: expected an address, found 5"],
  ]) {
    const { code, message } = await failure(quantize([new File(["a"], "config.json")], options));
    assert.deepEqual([code, message], ["bad-option", expected]);
  }
});

test("a list of texts gives what each of them gives", async () => {
  const texts = Array.from({ length: 19 }, (_, i) => `text ${"x ".repeat(i % 5)}`);
  const options = { maxNewTokens: 12, minNewTokens: 3 };
  const batch = t5.generate(texts, options);
  const each = await Promise.all(texts.map((text) => t5.generate(text, options).outputs));
  assert.deepEqual(await batch.outputs, each);
  for (const batch of [1, 5, 256]) assert.deepEqual(await t5.generate(texts, { ...options, batch }).outputs, each);
  assert.match((await failure(t5.generate(texts, { batch: 0 }).outputs)).message, /^batch: expected 1 to 256, found 0/);
  assert.match((await failure(t5.generate("x", { batch: 2 }).outputs)).message, /^batch: expected a list of texts/);
  assert.deepEqual(
    await batch.texts(),
    each.map(([best]) => best.text),
  );
  const none = t5.generate([]);
  assert.deepEqual([await none.outputs, await none.texts()], [[], []]);
  assert.match((await failure(t5.generate([], { beam: 2 }).texts())).message, /^beam: there is no option/);
  const states = await t5.embed(texts.slice(0, 3));
  for (const [i, state] of states.entries()) assert.deepEqual(state, await t5.embed(texts[i]));
  assert.match((await failure(t5.generate(["a"], { topk: 1 }).outputs)).message, /^topk: there is no option/);
  const abort = new AbortController();
  const long = t5.generate(Array(200).fill("a text"), { ...LONG, signal: abort.signal });
  abort.abort();
  assert.equal((await failure(long.outputs)).code, "aborted");
});

test("an abort says why, and leaves no listener behind", async () => {
  const abort = new AbortController();
  let listeners = 0;
  const { signal } = abort;
  const [add, remove] = [signal.addEventListener.bind(signal), signal.removeEventListener.bind(signal)];
  signal.addEventListener = (...args) => (listeners++, add(...args));
  signal.removeEventListener = (...args) => (listeners--, remove(...args));
  for (let i = 0; i < 30; i++) {
    await t5.generate("a text", { maxNewTokens: 2, signal }).outputs;
    await t5.embed("a text", { signal });
    await failure(t5.score(5, "x", { signal }));
    await failure(t5.generate("a text", { beam: 2, signal }).outputs);
    for await (const _ of t5.generate("a text", { ...LONG, signal })) break;
  }
  const texts = t5.generate(["a text"], { maxNewTokens: 2, signal });
  await texts.outputs;
  assert.equal(listeners, 0);
  const waiting = [
    t5.generate("a text", { ...LONG, signal }).outputs,
    t5.embed("x", { signal }),
    t5.generate(["x"], { signal }).outputs,
  ];
  const reason = new Error("the page was left");
  abort.abort(reason);
  for (const error of await Promise.all(waiting.map(failure)))
    assert.deepEqual([error.code, error.cause], ["aborted", reason]);
  const late = await failure(t5.generate("a text", { signal }).outputs);
  assert.deepEqual([late.code, late.cause], ["aborted", reason]);
});

test("after a trap the model is given up, and says so", async () => {
  const { assets, end } = patched(
    "trap",
    'Engine.prototype.startEmbed = () => { throw new WebAssembly.RuntimeError("unreachable"); }',
  );
  const other = await T5.load(path, { assets });
  assert.equal((await other.generate("a text", { maxNewTokens: 2 }).outputs).length, 1);
  const [trap, ...behind] = [other.embed("x"), other.generate("a text").outputs, other.info()];
  const first = await failure(trap);
  assert.deepEqual([first.code, first.message], ["failed", "unreachable"]);
  for (const error of await Promise.all(behind.map(failure))) {
    assert.deepEqual([error.code, /must be loaded again/.test(error.message)], ["lost", true]);
  }
  assert.equal((await failure(other.info())).code, "lost");
  other.dispose();
  end();
});

test("a worker that is ended rejects what was pending", async () => {
  const { assets, end } = patched("exit", "Engine.prototype.startEmbed = () => process.exit(3)");
  const other = await T5.load(path, { assets });
  const pending = [other.embed("x"), other.generate("a text").outputs];
  for (const error of await Promise.all(pending.map(failure))) assert.equal(error.code, "lost");
  assert.equal((await failure(other.info())).code, "lost");
  end();
});

test("the modules refuse values of other types by name, and answer afterwards", async () => {
  const module = await import("../wasm/simd128/t5_wasm.js");
  module.initSync({ module: readFileSync(new URL("../wasm/simd128/t5_wasm_bg.wasm", import.meta.url)) });
  const converter = await import("../wasm/convert/t5_wasm.js");
  converter.initSync({ module: readFileSync(new URL("../wasm/convert/t5_wasm_bg.wasm", import.meta.url)) });
  const bytes = readFileSync(path);
  const download = new module.Download("x", bytes.length, false, undefined);
  const refused = (call, message) =>
    assert.throws(call, (error) => error.code === "bad-option" && message.test(error.message));
  for (const wrong of [undefined, null, 5, {}, [], true, new ArrayBuffer(8), new Date(0)]) {
    refused(() => download.append(wrong), /^chunk: expected a Uint8Array, found /);
    refused(() => new module.Download(wrong, 5, false), /^name: expected a text, found /);
  }
  for (const wrong of [NaN, -1, 0.5, Infinity, "x", undefined, null, {}]) {
    refused(() => new module.Download("x", wrong, false), /^size: expected a whole number of bytes, found /);
    refused(() => new converter.Buffer(wrong), /^size: expected a whole number of bytes, found /);
  }
  refused(() => new module.Download("x", 5, false, 7), /^isa: expected a text, found 7/);
  download.append(bytes);
  const engine = module.Engine.open(download, 1);
  const before = engine.tokenize("a text");
  for (const wrong of [undefined, null, 5, {}, [], true, () => {}]) {
    refused(() => engine.start(wrong, "{}"), /^text: expected a text, found /);
    refused(() => engine.start("x", wrong), /^options: expected a text, found /);
    refused(() => engine.startIds(wrong, "{}"), /^ids: expected a Uint32Array, found /);
    refused(() => engine.startScore("x", wrong), /^target: expected a text, found /);
    refused(() => engine.startAlignment(wrong, "x"), /^source: expected a text, found /);
    refused(() => engine.startEmbed(wrong), /^text: expected a text, found /);
    refused(() => engine.tokenize(wrong), /^text: expected a text, found /);
    refused(() => engine.detokenize(wrong), /^ids: expected a Uint32Array, found /);
    if (!Array.isArray(wrong))
      refused(() => engine.startBatch(wrong, "{}"), /^texts: expected an array of texts, found /);
  }
  refused(() => engine.startBatch(["x", 5], "{}"), /^texts: expected a text, found 5/);
  assert.deepEqual(engine.tokenize("a text"), before);
  engine.startEmbed("a text");
  assert.equal(engine.finishStates().length, JSON.parse(engine.info()).config.d_model);
});

test("a visitor downloads at most 480,000 bytes of module", () => {
  for (const build of ["simd128", "relaxed"]) {
    const module = readFileSync(new URL(`../wasm/${build}/t5_wasm_bg.wasm`, import.meta.url));
    const size = gzipSync(module, { level: 9 }).length;
    assert.ok(size <= 480_000, `${build}: ${size} bytes compressed`);
  }
});

test("info says what runs", async () => {
  const info = await t5.info();
  const { asked: _, ...chosen } = choose();
  assert.deepEqual({ build: info.build, threads: info.threads, reason: info.buildReason }, chosen);
  assert.ok(info.moduleUrl.endsWith(`wasm/${info.build}/t5_wasm_bg.wasm`), info.moduleUrl);
  assert.equal(info.about["general.architecture"], "t5");
  assert.ok(info.isa === "simd128" || (info.isa === "relaxed" && info.build !== "simd128"), info.isa);
  assert.equal(info.fileBytes, readFileSync(path).length);
  assert.ok(info.memoryBytes > info.fileBytes);
});

test("after dispose requests fail", async () => {
  const other = await T5.load(path);
  const pending = other.generate("x", ENDLESS);
  other.dispose();
  assert.equal((await failure(pending.outputs)).code, "disposed");
  assert.equal((await failure(other.info())).code, "disposed");
});

test("files, bytes and answers are sources", async () => {
  const bytes = readFileSync(path);
  const expected = await t5.generate("a text", { maxNewTokens: 8 }).text();
  const within = new Uint8Array(bytes.length + 10);
  within.set(bytes, 5);
  for (const source of [
    new Uint8Array(bytes),
    within.subarray(5, 5 + bytes.length),
    new DataView(within.buffer, 5, bytes.length),
    new Uint8Array(bytes).buffer,
    // Of another realm, as where jsdom or a test runner makes one.
    runInNewContext("Uint8Array.from(bytes)", { bytes: [...bytes] }),
    new Blob([bytes]),
    [new File([bytes], "model.gguf")],
    new Response(bytes),
    new URL(`file://${path}`),
  ]) {
    const other = await T5.load(source);
    assert.equal(await other.generate("a text", { maxNewTokens: 8 }).text(), expected);
    other.dispose();
  }
});

/** A server of one file; `answer` may do without the usual answer. */
async function serving(answer, use) {
  const bytes = readFileSync(path);
  const requests = [];
  const server = createServer((request, response) => {
    requests.push(request);
    if (answer?.(request, response, requests.length, bytes)) return;
    response.writeHead(200, { "content-length": bytes.length, etag: '"1"' }).end(bytes);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    return await use(`http://127.0.0.1:${server.address().port}`, requests, bytes);
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

test("a download reports its progress and checks the sum", () =>
  serving(undefined, async (url, _requests, bytes) => {
    const progress = [];
    const sha256 = createHash("sha256").update(bytes).digest("hex");
    const other = await T5.load(`${url}/model.gguf`, { sha256, onProgress: (event) => progress.push(event) });
    const [first, ...rest] = progress.map(({ phase, loaded, total }) => ({ phase, loaded, total }));
    assert.deepEqual(first, { phase: "download", loaded: 0, total: bytes.length });
    assert.deepEqual(rest.at(-1), { phase: "prepare", loaded: bytes.length, total: bytes.length });
    other.dispose();
    const error = await failure(T5.load(`${url}/model.gguf`, { sha256: "0".repeat(64) }));
    assert.equal(error.code, "checksum");
    assert.match(error.message, new RegExp(`expected SHA-256 0{64}, found ${sha256}`));
  }));

/** Sends a part and breaks the connection once that is there, twice; then what is asked for. */
function breaking(ranges) {
  let cut = () => {};
  const onProgress = ({ loaded }) => cut(loaded);
  const answer = (request, response, count, bytes) => {
    const from = ranges ? Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? "bytes=0-")[1]) : 0;
    const head = { "content-length": bytes.length - from, etag: '"1"' };
    if (from > 0) head["content-range"] = `bytes ${from}-${bytes.length - 1}/${bytes.length}`;
    response.writeHead(from > 0 ? 206 : 200, head);
    const until = 20_000 * count;
    cut = (loaded) => count <= 2 && loaded >= until && response.destroy();
    if (count > 2) response.end(bytes.subarray(from));
    else response.write(bytes.subarray(from, until));
    return true;
  };
  return { answer, onProgress };
}

for (const ranges of [true, false]) {
  test(`a broken transfer goes on, ${ranges ? "with" : "without"} ranges`, () => {
    const { answer, onProgress } = breaking(ranges);
    return serving(answer, async (url, requests) => {
      const other = await T5.load(`${url}/model.gguf`, { onProgress });
      assert.deepEqual(
        requests.map(({ headers }) => headers.range),
        [undefined, "bytes=20000-", "bytes=40000-"],
      );
      const expected = await t5.generate("a text", { maxNewTokens: 8 }).text();
      assert.equal(await other.generate("a text", { maxNewTokens: 8 }).text(), expected);
      other.dispose();
    });
  });
}

test("a file that changes during its transfer, or cannot go on, is fetched anew", async () => {
  for (const second of [
    (response) => response.writeHead(416).end(),
    (response, bytes) =>
      response
        .writeHead(206, { etag: '"2"', "content-range": `bytes 20000-${bytes.length - 1}/${bytes.length}` })
        .end(bytes.subarray(20_000)),
    (response, bytes) => response.writeHead(200, { etag: '"2"', "content-length": bytes.length }).end(bytes),
    (response) => response.writeHead(400).end(),
  ]) {
    let first;
    const answer = (_request, response, count, bytes) => {
      if (count > 2) return false;
      if (count === 2) second(response, bytes);
      else {
        first = response.writeHead(200, { "content-length": bytes.length, etag: '"1"' });
        response.write(bytes.subarray(0, 20_000));
      }
      return true;
    };
    await serving(answer, async (url, requests) => {
      const onProgress = ({ loaded }) => loaded >= 20_000 && first.destroy();
      (await T5.load(`${url}/model.gguf`, { onProgress })).dispose();
      assert.equal(requests.length, 3);
      assert.equal(requests[2].headers.range, undefined);
    });
  }
});

test("what is no model is refused", () =>
  serving(
    (request, response) => {
      if (request.url === "/missing") response.writeHead(404).end();
      else if (request.url === "/page") response.end("<html>");
      else return false;
      return true;
    },
    async (url, _requests, bytes) => {
      assert.equal((await failure(T5.load(`${url}/missing`))).code, "not-found");
      assert.equal((await failure(T5.load(`${url}/page`))).code, "bad-model");
      assert.equal((await failure(T5.load(bytes.subarray(0, 5000)))).code, "bad-model");
      assert.equal((await failure(T5.load("no/such/file.gguf"))).code, "not-found");
      assert.equal((await failure(T5.load("http://127.0.0.1:1/"))).code, "network");
      assert.equal((await failure(T5.load(path, { build: "x" }))).code, "bad-option");
      const isa = await failure(T5.load(path, { build: "simd128", isa: "relaxed" }));
      assert.deepEqual(
        [isa.code, isa.message],
        ["bad-option", 'isa: expected "simd128" with the build simd128, found "relaxed"'],
      );
    },
  ));

test("hf: names find the file", () =>
  serving(
    (request, response) => {
      if (!request.url.startsWith("/api/")) return false;
      response.end(JSON.stringify({ siblings: [{ rfilename: "a-f16.gguf" }, { rfilename: "a-Q8_0.gguf" }] }));
      return true;
    },
    async (endpoint, requests) => {
      (await T5.load("hf:owner/name", { endpoint })).dispose();
      (await T5.load("hf:owner/name/sub/b.gguf@v1", { endpoint })).dispose();
      assert.deepEqual(
        requests.map((request) => request.url),
        [
          "/api/models/owner/name/revision/main",
          "/owner/name/resolve/main/a-Q8_0.gguf",
          "/owner/name/resolve/v1/sub/b.gguf",
        ],
      );
    },
  ));

test("models of another hub are kept by another name", () => {
  for (const [source, endpoint, expected] of [
    ["hf:owner/name@v1", undefined, "hf:owner/name@v1"],
    ["hf:owner/name", "https://huggingface.co/", "hf:owner/name"],
    ["hf:owner/name", "https://hub.example/", "hf:owner/name from https://hub.example"],
    ["hf:owner/name", "https://hub.example/two", "hf:owner/name from https://hub.example/two"],
    ["https://host.example/a.gguf", "https://hub.example", "https://host.example/a.gguf"],
    // As the list has it.
    ["hf:owner/name from https://hub.example", undefined, "hf:owner/name from https://hub.example"],
  ]) {
    assert.equal(keyOf(source, endpoint), expected);
  }
});

test("headers and a token go where they belong", () =>
  serving(undefined, async (url, requests) => {
    await serving(
      (request, response) => {
        if (request.url.startsWith("/api/")) response.end(JSON.stringify({ siblings: [{ rfilename: "a.gguf" }] }));
        // As hubs do, the file lies elsewhere.
        else response.writeHead(302, { location: `${url}/stored` }).end();
        return true;
      },
      async (endpoint, asked) => {
        const options = { endpoint, token: "hf_secret", headers: { "x-asked-by": "a test" } };
        (await T5.load("hf:owner/name", options)).dispose();
        assert.deepEqual(
          asked.map(({ headers }) => [headers.authorization, headers["x-asked-by"]]),
          [
            ["Bearer hf_secret", "a test"],
            ["Bearer hf_secret", "a test"],
          ],
        );
        assert.equal(requests[0].headers.authorization, undefined);
      },
    );
    (await T5.load(`${url}/model.gguf`, { headers: { authorization: "Basic abc" } })).dispose();
    assert.equal(requests.at(-1).headers.authorization, "Basic abc");
  }));

test("the caller's fetch is asked instead, and what it says counts", () => {
  const { answer, onProgress } = breaking(true);
  return serving(answer, async (url, requests) => {
    const asked = [];
    const options = {
      onProgress,
      headers: { "x-a": "b" },
      fetch: async (address, init) => {
        asked.push([address, new Headers(init.headers).get("x-a"), new Headers(init.headers).get("range")]);
        return fetch(address.replace("http://model.test", url), init);
      },
    };
    const other = await T5.load("http://model.test/model.gguf", options);
    assert.equal(requests.length, 3);
    assert.deepEqual(
      asked.map(([address, header]) => [address, header]),
      Array(3).fill(["http://model.test/model.gguf", "b"]),
    );
    assert.match(asked[2][2], /^bytes=[1-9]\d*-$/);
    const expected = await t5.generate("a text", { maxNewTokens: 8 }).text();
    assert.equal(await other.generate("a text", { maxNewTokens: 8 }).text(), expected);
    other.dispose();
    const absent = await failure(
      T5.load("http://model.test/x", { fetch: async () => new Response("", { status: 404 }) }),
    );
    assert.equal(absent.code, "not-found");
    const broken = () => Promise.reject(new Error("no way there"));
    assert.match((await failure(T5.load("http://model.test/x", { fetch: broken }))).message, /no way there$/);
    // One that never answers is asked as often as one that is busy.
    let unanswered = 0;
    const never = () => (unanswered++, new Promise(() => {}));
    const given = await failure(T5.load("http://model.test/x", { fetch: never, stallMs: 100 }));
    assert.deepEqual([given.code, unanswered], ["network", 4]);
    assert.match(given.message, /nothing came for 0.1 s$/);
    let ended;
    const abort = new AbortController();
    const silent = (_, { signal }) => {
      signal.addEventListener("abort", () => (ended = true));
      setTimeout(() => abort.abort(), 50);
      return new Promise(() => {});
    };
    const error = await failure(T5.load("http://model.test/x", { fetch: silent, signal: abort.signal }));
    assert.deepEqual([error.code, ended], ["aborted", true]);
  });
});

/** A hub with the files of a folder in it. */
const hub = (names) => (request, response) => {
  if (request.url.startsWith("/api/")) {
    response.end(JSON.stringify({ siblings: names.map((rfilename) => ({ rfilename })) }));
  } else {
    const bytes = readFileSync(`${folder("unigram")}/${request.url.split("/").at(-1)}`);
    response.writeHead(200, { "content-length": bytes.length }).end(bytes);
  }
  return true;
};

test("hf: names of repositories without a GGUF file are quantised", async () => {
  const names = ["README.md", "config.json", "model.safetensors", "tokenizer.json", "model.fp16.safetensors"];
  const expected = await T5.load(model("unigram", "q8_0"));
  await serving(hub(names), async (endpoint, requests) => {
    const phases = new Set();
    const progress = [];
    const onProgress = (event) => (phases.add(event.phase), progress.push(event));
    const other = await T5.load("hf:owner/name", { endpoint, onProgress, headers: { "x-a": "b" } });
    assert.deepEqual(await other.encode("a text"), await expected.encode("a text"));
    assert.equal((await other.info()).fileBytes, (await expected.info()).fileBytes);
    assert.deepEqual([...phases], ["download", "quantize", "read", "prepare"]);
    assert.ok(requests.every(({ headers }) => headers["x-a"] === "b"));
    assert.deepEqual(
      new Set(requests.map(({ url }) => url.split("/").at(-1))),
      new Set(["main", "config.json", "model.safetensors", "tokenizer.json"]),
    );
    other.dispose();
  });
  expected.dispose();
  await serving(hub(["pytorch_model.bin", "config.json"]), async (endpoint) => {
    const error = await failure(T5.load("hf:owner/name", { endpoint }));
    assert.equal(error.code, "not-found");
    assert.match(error.message, /expected a GGUF file or model.safetensors, found pytorch_model.bin, config.json$/);
  });
});

test("a file of a checkpoint whose transfer cannot go on is fetched anew", async () => {
  const names = ["config.json", "model.safetensors", "tokenizer.json"];
  const expected = await T5.load(model("unigram", "q8_0"));
  const broken = (bytes) =>
    new ReadableStream({
      start: (controller) => controller.enqueue(bytes.subarray(0, 10)),
      pull: (controller) => controller.error(new Error("it broke")),
    });
  for (const [name, first] of [
    // Compressed without saying so: the length is that of fewer bytes.
    ["config.json", (bytes) => new Response(bytes, { headers: { "content-length": bytes.length - 9 } })],
    ["tokenizer.json", (bytes) => new Response(bytes, { headers: { "content-length": 1 } })],
    // Of unknown length, and it ends too early.
    ["model.safetensors", (bytes) => new Response(broken(bytes))],
  ]) {
    const asked = [];
    const fetch = async (url) => {
      const path = url.split("/").at(-1);
      asked.push(path);
      if (url.includes("/api/")) return Response.json({ siblings: names.map((rfilename) => ({ rfilename })) });
      const bytes = readFileSync(`${folder("unigram")}/${path}`);
      if (path === name && asked.filter((one) => one === name).length === 1) return first(bytes);
      return new Response(bytes, { headers: { "content-length": bytes.length } });
    };
    const last = {};
    const onProgress = ({ phase, loaded, total }) => (last[phase] = { loaded, total });
    const other = await T5.load("hf:owner/name", { endpoint: "http://hub.test", fetch, onProgress });
    assert.deepEqual(await other.encode("a text"), await expected.encode("a text"), name);
    assert.deepEqual(asked.filter((path) => path !== "main").toSorted(), [...names, name].toSorted());
    assert.equal(last.quantize.loaded, last.quantize.total, name);
    other.dispose();
  }
  expected.dispose();
});

test("without a worker: the same answers, in turns with everything else", async () => {
  const other = await T5.load(path, { threads: 0 });
  const info = await other.info();
  assert.deepEqual([info.threads, info.build === "threads"], [1, false]);
  if (info.build === "relaxed") assert.match(info.buildReason, /one thread because it is this one$/);
  // Long enough for several turns on any machine: 40 tokens take as long as one.
  const options = { maxNewTokens: 400, minNewTokens: 400 };
  let turns = 0;
  const timer = setInterval(() => turns++, 1);
  const expected = await t5.generate("a text", options).outputs;
  turns = 0;
  assert.deepEqual(await other.generate("a text", options).outputs, expected);
  clearInterval(timer);
  assert.ok(turns > 1, `${turns} turns of the event loop`);
  const abort = new AbortController();
  const long = other.generate("a text", { ...ENDLESS, signal: abort.signal });
  const waiting = other.embed("x");
  setTimeout(() => abort.abort(), 5);
  assert.equal((await failure(long.outputs)).code, "aborted");
  assert.equal((await waiting).length, info.config.d_model);
  const pending = other.generate("a text", ENDLESS);
  other.dispose();
  assert.equal((await failure(pending.outputs)).code, "disposed");
  assert.equal((await failure(T5.load("no/such/file.gguf", { threads: 0 }))).code, "not-found");
});

test("the module's code can be given", async () => {
  const wasm = await WebAssembly.compile(readFileSync(new URL("../wasm/simd128/t5_wasm_bg.wasm", import.meta.url)));
  const expected = await t5.generate("a text", { maxNewTokens: 8 }).text();
  for (const threads of [undefined, 0]) {
    const other = await T5.load(path, { wasm, ...(threads === 0 && { threads }) });
    const { build, buildReason, moduleUrl } = await other.info();
    assert.deepEqual([build, buildReason, moduleUrl], ["simd128", "its code was given", ""]);
    assert.equal(await other.generate("a text", { maxNewTokens: 8 }).text(), expected);
    other.dispose();
  }
  const error = await failure(T5.load(path, { wasm, build: "threads" }));
  assert.deepEqual([error.code, error.message], ["bad-option", 'build: expected "relaxed" or "simd128" with wasm']);
});

test("without a source and without its package the built-in model is missed by name", async () => {
  const error = await failure(T5.load());
  assert.equal(error.code, "not-found");
  assert.match(error.message, /^expected the package pocket-t5-model beside this one, or a source: /);
});
