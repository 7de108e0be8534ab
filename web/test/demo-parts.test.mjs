// What the demo page computes by itself: changes between texts, sounds, gaps, words that belong together, tasks.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import ts from "typescript";

/** A module of the page that imports nothing but types. */
async function part(name) {
  const source = readFileSync(new URL(`../demo/src/${name}.ts`, import.meta.url), "utf8");
  const options = { module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ES2022 };
  const { outputText } = ts.transpileModule(source, { compilerOptions: options });
  return import(`data:text/javascript;base64,${Buffer.from(outputText).toString("base64")}`);
}

test("changes are words, and add up to both texts", async () => {
  const { diff } = await part("diff");
  const shown = (before, after) =>
    diff(before, after).map(({ kind, text }) => ({ same: text, out: `[-${text}-]`, in: `{+${text}+}` })[kind]).join("");
  for (const [before, after, expected] of [
    ["I has two cat.", "I have two cats.", "I [-has-]{+have+} two [-cat-]{+cats+}."],
    ["he go to school", "He goes to school", "[-he go-]{+He goes+} to school"],
    ["Hello world", "Hello, world", "Hello{+,+} world"],
    ["the the cat", "the cat", "the [-the -]cat"],
    ["I dont know", "I don't know", "I [-dont-]{+don't+} know"],
    ["same", "same", "same"],
    ["", "new", "{+new+}"],
    ["old", "", "[-old-]"],
    ["", "", ""],
    ["größer als 👩‍👩‍👧", "grösser als 👩‍👩‍👧", "[-größer-]{+grösser+} als 👩‍👩‍👧"],
  ]) {
    assert.equal(shown(before, after), expected);
  }
  // Of any two texts.
  let seed = 1;
  const below = (n) => (seed = (seed * 48271) % 2147483647) % n;
  const text = () => Array.from({ length: below(12) }, () => ["a", "b", " ", ".", "c d", "  "][below(6)]).join("");
  for (let i = 0; i < 2000; i++) {
    const [before, after] = [text(), text()];
    const changes = diff(before, after);
    const without = (kind) => changes.filter((one) => one.kind !== kind).map((one) => one.text).join("");
    assert.deepEqual([without("in"), without("out")], [before, after]);
  }
});

test("sounds of ARPAbet are the phonetic alphabet's, stress before the syllable", async () => {
  const { sounds } = await part("ipa");
  const ipa = (arpabet) => sounds(arpabet)?.map(({ ipa }) => ipa).join("");
  for (const [arpabet, expected] of [
    ["TH ER1 OW0", "ˈθɝoʊ"],
    ["P AA1 K AH0 T", "ˈpɑkət"],
    ["T R AE0 N S F AO1 R M ER0", "tɹænsˈfɔɹmɚ"],
    ["K AE1 T", "kæt"],
    ["AH0 B AW1 T", "əˈbaʊt"],
    ["EH2 K S T R AH0 AO1 R D AH0 N EH2 R IY0", "ˌɛkstɹəˈɔɹdəˌnɛɹi"],
    ["IH0 K S T R IY1 M", "ɪkˈstɹim"],
    ["S IH1 NG IH0 NG", "ˈsɪŋɪŋ"],
    ["M Y UW1 Z IH0 K", "ˈmjuzɪk"],
    ["HH AE1 P IY0", "ˈhæpi"],
    ["M EH1 ZH ER0", "ˈmɛʒɚ"],
  ]) {
    assert.equal(ipa(arpabet), expected);
  }
  assert.deepEqual(sounds("SH IY1"), [
    { arpabet: "SH", ipa: "ʃ" },
    { arpabet: "IY1", ipa: "i" },
  ]);
  for (const wrong of ["", "hello", "P AA3", "P <b>"]) assert.equal(sounds(wrong), undefined, wrong);
});

test("gaps are numbered, and filled from the marks of an answer", async () => {
  const { marked, around, fillings } = await part("gaps");
  assert.deepEqual(marked("The ___ walks in __ park, snake_case."), {
    text: "The <extra_id_0> walks in <extra_id_1> park, snake_case.",
    gaps: 2,
  });
  assert.deepEqual(marked("<extra_id_7> and ____"), { text: "<extra_id_0> and <extra_id_1>", gaps: 2 });
  assert.deepEqual(around("a ___ b __"), ["a ", " b ", ""]);
  const marks = [99, 98, 97];
  assert.deepEqual(fillings([99, 5, 6, 98, 7, 97, 1], marks, 1), [[5, 6], [7]]);
  assert.deepEqual(fillings([98, 7, 1, 5], marks, 1), [[], [7]]);
  assert.deepEqual(fillings([4, 99, 5], marks, 1), [[5], []]);
});

test("words have their places, also where a model writes them in another way", async () => {
  const { places, words, linked } = await part("words");
  const cut = (text, all) => all?.map(({ begin, end }) => text.slice(begin, end));
  const text = "«Don't you know?», she said — 3 times.";
  const bare = ["Don't", "you", "know", "she", "said", "—", "3", "times"];
  assert.deepEqual(cut(text, words(text)), bare);
  assert.deepEqual(cut(text, places(text, text.split(" "))), bare);
  // The same word twice; one that was normalised; one too many.
  assert.deepEqual(places("a b a", ["a", "b", "a"]).map(({ begin }) => begin), [0, 2, 4]);
  assert.deepEqual(cut("ﬁne day", places("ﬁne day", ["fine", "day"])), ["ﬁne", "day"]);
  assert.equal(places("ﬁne day", ["fine", "day", "x"]), undefined);
  const weights = [
    [0.9, 0.1, 0],
    [0.3, 0.5, 0.2],
    [0.01, 0.02, 0.03],
  ];
  const given = { source: ["I", "have", "it"], target: ["Ich", "habe", "es"] };
  const links = linked("I have it", "Ich habe es", { ...given, weights });
  assert.deepEqual(links.partners, [[0], [0, 1], []]);
});

test("tasks come from their names", async () => {
  const { tasksOf, language, examples } = await part("tasks");
  const named = (...names) => ({
    generation: { task_specific_params: Object.fromEntries(names.map((name) => [name, { prefix: `${name}: ` }])) },
  });
  const views = (...all) => tasksOf(...all).map(({ view, from, to }) => [view, from, to].filter(Boolean).join(" "));
  const several = named("correction", "pronunciation", "translation_pt_BR_to_zh_Hant", "translation_en_to_de");
  assert.deepEqual(views(several, true), [
    "translate pt-BR zh-Hant",
    "translate en de",
    "pronounce en",
    "correct en en",
    "gaps",
  ]);
  assert.deepEqual(views(named("summarization"), false), ["free", "free"]);
  assert.deepEqual(views({ generation: {} }, true), ["free", "gaps"]);
  assert.equal(language("de"), "German");
  assert.equal(language("x!"), "x!");
  assert.ok(examples({ view: "translate", from: "fr", to: "en", prefix: "" }).length > 0);
  assert.deepEqual(examples({ view: "translate", from: "xx", to: "en", prefix: "" }), []);
});
