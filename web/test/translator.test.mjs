// The interface of the web's Translator API over a model.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { test } from "node:test";
import { T5Error } from "../dist/index.js";
import { Translator, translatorFor } from "../dist/translator.js";
import { pocket } from "./models.mjs";
import { patched } from "./patched.mjs";

const BuiltIn = translatorFor({ source: pocket.path });
const german = { sourceLanguage: "en", targetLanguage: "de" };

/** The exception that a promise fails with. */
async function failure(promise) {
  const error = await promise.then(
    () => assert.fail("expected an error"),
    (error) => error,
  );
  return error;
}

test("languages of the model are there, others are not", async () => {
  assert.equal(await Translator.availability({ sourceLanguage: "en", targetLanguage: "ja" }), "unavailable");
  assert.equal(await BuiltIn.availability({ ...german, sourceLanguage: "en-GB" }), "available");
  await assert.rejects(BuiltIn.availability({ ...german, sourceLanguage: "no tag" }), RangeError);
  const error = await failure(BuiltIn.create({ sourceLanguage: "de", targetLanguage: "fr" }));
  assert.ok(error instanceof DOMException);
  assert.deepEqual([error.name, error.message], ["NotSupportedError", "the model does not translate from de to fr"]);
});

test("what is known of the built-in model before it is loaded are its tasks", async () => {
  const settings = JSON.parse(readFileSync(new URL("../../runtime/model/settings.json", import.meta.url), "utf8"));
  const has = (from, to) => `translation_${from}_to_${to}` in settings.task_specific_params;
  const languages = ["en", "de", "fr", "ja"];
  const directions = languages.flatMap((from) => languages.map((to) => [from, to]));
  assert.equal(directions.filter(([from, to]) => has(from, to)).length, 4);
  for (const [sourceLanguage, targetLanguage] of directions) {
    const answer = await Translator.availability({ sourceLanguage, targetLanguage });
    assert.equal(answer !== "unavailable", has(sourceLanguage, targetLanguage), `${sourceLanguage}-${targetLanguage}`);
  }
});

test("texts are translated, at once and as they come", async () => {
  const translator = await BuiltIn.create(german);
  assert.deepEqual([translator.sourceLanguage, translator.targetLanguage], ["en", "de"]);
  const text = "The cat sleeps. Where is the station?\n";
  const expected = "Die Katze schläft. Wo ist der Bahnhof?\n";
  assert.equal(await translator.translate(text), expected);
  const pieces = [];
  for await (const piece of translator.translateStreaming(text)) pieces.push(piece);
  assert.ok(pieces.length > 3);
  assert.equal(pieces.join(""), expected);
  assert.equal(await translator.translate(" \n"), " \n");
  // Another language shares the model.
  const french = await BuiltIn.create({ sourceLanguage: "en", targetLanguage: "fr-CA" });
  assert.equal(await french.translate("The cat sleeps."), "Le chat dort.");
  translator.destroy();
  assert.equal(await french.translate("The cat sleeps."), "Le chat dort.");
  assert.equal((await failure(translator.translate("x"))).name, "InvalidStateError");
  french.destroy();
});

test("input is measured, and what is too long is refused", async () => {
  const translator = await BuiltIn.create(german);
  const usage = await translator.measureInputUsage("The cat sleeps.");
  assert.ok(usage > 3 && usage < 10, `${usage} tokens`);
  const error = await failure(translator.translate("word ".repeat(5000)));
  assert.equal(error.name, "QuotaExceededError");
  assert.ok(error.requested > error.quota && error.quota === translator.inputQuota);
  const reader = translator.translateStreaming("word ".repeat(5000)).getReader();
  assert.equal((await failure(reader.read())).name, "QuotaExceededError");
  translator.destroy();
});

test("aborts and ends have the reasons that were given", async () => {
  const translator = await BuiltIn.create(german);
  const abort = new AbortController();
  const text = "The cat sleeps. ".repeat(40);
  const both = [translator.translate(text, { signal: abort.signal })];
  both.push(translator.translateStreaming(text, { signal: abort.signal }).getReader().read());
  const reason = new Error("typed on");
  abort.abort(reason);
  for (const promise of both) assert.equal(await failure(promise), reason);
  const pending = translator.translate(text);
  translator.destroy();
  assert.equal((await failure(pending)).name, "AbortError");
  const made = new AbortController();
  const other = await BuiltIn.create({ ...german, signal: made.signal });
  const waiting = other.translate(text);
  made.abort(reason);
  assert.equal(await failure(waiting), reason);
  assert.equal(await failure(BuiltIn.create({ ...german, signal: AbortSignal.abort(reason) })), reason);
});

test("a model that was lost is loaded anew for the next translator", async () => {
  const { assets, end } = patched(
    "lost",
    `const { start } = Engine.prototype;
    Engine.prototype.start = function (text, options) {
      if (text.endsWith("trap")) throw new WebAssembly.RuntimeError("unreachable");
      start.call(this, text, options);
    };`,
  );
  const Lost = translatorFor({ source: pocket.path, assets });
  const first = await Lost.create(german);
  assert.equal((await failure(first.translate("trap"))).name, "OperationError");
  // Though the first one was not destroyed.
  assert.equal(await Lost.availability(german), "available");
  const second = await Lost.create(german);
  assert.equal(await second.translate("The cat sleeps."), "Die Katze schläft.");
  assert.equal((await failure(first.translate("The cat sleeps."))).name, "InvalidStateError");
  first.destroy();
  assert.equal(await second.translate("The cat sleeps."), "Die Katze schläft.");
  second.destroy();
  end();
});

test("a monitor hears of the download, from 0 to 1", async () => {
  const bytes = readFileSync(pocket.path);
  const server = createServer((_request, response) =>
    response.writeHead(200, { "content-length": bytes.length }).end(bytes),
  );
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${server.address().port}/model.gguf`;
  const Other = translatorFor({ source: url, pairs: [["en", "de"]] });
  assert.equal(await Other.availability(german), "downloadable");
  const loaded = [];
  const monitor = (events) => events.addEventListener("downloadprogress", (event) => loaded.push(event.loaded));
  const creating = Other.create({ ...german, monitor });
  const translator = await creating;
  assert.equal(await Other.availability(german), "available");
  assert.deepEqual([loaded[0], loaded.at(-1)], [0, 1]);
  assert.deepEqual(
    loaded,
    loaded.toSorted((a, b) => a - b),
  );
  assert.equal(await translator.translate("Where is the station?"), "Wo ist der Bahnhof?");
  translator.destroy();
  server.closeAllConnections();
  server.close();
  const error = await failure(Other.create(german));
  assert.equal(error.name, "NetworkError");
  assert.ok(error.cause instanceof T5Error);
});

test("every monitor hears of the download, also one that comes while it is under way, or later", async () => {
  const bytes = readFileSync(pocket.path);
  const half = bytes.length >> 1;
  let answer;
  const server = createServer((_request, response) => {
    answer = response.writeHead(200, { "content-length": bytes.length });
    answer.write(bytes.subarray(0, half));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const source = `http://127.0.0.1:${server.address().port}/model.gguf`;
  const Other = translatorFor({ source, pairs: [["en", "de"]] });
  const heard = [[], [], []];
  const create = (i) => {
    const monitor = (events) => events.addEventListener("downloadprogress", ({ loaded }) => heard[i].push(loaded));
    return Other.create({ ...german, monitor });
  };
  const until = async (holds) => {
    while (!holds()) await new Promise((resolve) => setImmediate(resolve));
  };
  const first = create(0);
  await until(() => heard[0].at(-1) > 0);
  const second = create(1);
  await until(() => heard[1].length > 0);
  answer.end(bytes.subarray(half));
  const translators = [await first, await second, await create(2)];
  for (const loaded of heard.slice(0, 2)) {
    assert.deepEqual([loaded[0], loaded.at(-1)], [0, 1]);
    assert.ok(loaded.every((one, i) => i === 0 || one > loaded[i - 1]), String(loaded));
  }
  assert.deepEqual(heard[2], [0, 1]);
  translators.forEach((translator) => translator.destroy());
  server.closeAllConnections();
  server.close();
});
