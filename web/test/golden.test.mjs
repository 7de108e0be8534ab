// Same ids as the reference on the real module, for every build, every family; and what real weights give natively.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { choose } from "../dist/builds.js";
import { T5 } from "../dist/index.js";
import { binary, families, golden, model, options, quantized, shared, vectors } from "./models.mjs";

/** Builds with the vectors of their own, also on processors that others suit better. */
const BUILDS = ["simd128", "relaxed", "threads"].filter((build) => {
  try {
    return choose(build).build === build;
  } catch (error) {
    console.error(`skipped: ${build}: ${error.message}`);
    return false;
  }
});

// As tests/parity.rs: the reference's own rounding, and as much again.
const TOLERANCE = 1e-4;

function close(found, expected) {
  assert.equal(found.length, expected.length);
  found.forEach((value, i) => assert.ok(Math.abs(value - expected[i]) <= TOLERANCE, `${value}, not ${expected[i]}`));
}

for (const build of BUILDS) {
  for (const family of families()) {
    test(`${build}: ${family} gives the reference's ids`, async () => {
      const isa = build === "simd128" ? "simd128" : vectors;
      const t5 = await T5.load(model(family), { build, isa, threads: 2 });
      const info = await t5.info();
      assert.deepEqual([info.isa, info.threads], [isa, build === "threads" ? 2 : 1]);
      const cases = golden(family);
      let [checked, expected] = [0, 0];
      for (const one of cases) {
        if (one.kind === "greedy" && Array.isArray(one.input_ids)) {
          const [best] = await t5.generate(one.input_ids, options(one)).outputs;
          assert.deepEqual(best.ids, one.ids);
          close(best.logprobs, one.logprobs);
          checked += 1;
        } else if (["beam", "gnmt_beam", "defaults"].includes(one.kind)) {
          // The last kind: with what the checkpoint itself says.
          const wanted = one.kind === "defaults" ? { nBest: one.n_best.length } : options(one);
          const outputs = await t5.generate(one.input_ids, wanted).outputs;
          assert.deepEqual(outputs.map((output) => output.ids), one.n_best.map((entry) => entry.ids));
          close(outputs.map((output) => output.score), one.n_best.map((entry) => entry.score));
          checked += 1;
        } else if (one.kind === "tokenize") {
          assert.deepEqual(await t5.tokenize(one.text), one.ids);
          checked += 1;
        }
        expected += ["greedy", "beam", "gnmt_beam", "defaults", "tokenize"].includes(one.kind);
      }
      assert.equal(checked, expected);
      t5.dispose();
    });
  }
}

test("real weights in Q8_0 give what the native program gives, to the last bit", async (context) => {
  const folder = shared("models/flan-t5-small-titler");
  if (!folder) return context.skip("no shared folder with flan-t5-small-titler");
  const path = quantized(folder, "flan-t5-small-titler", "q8_0");
  const texts = readFileSync(`${folder}/golden.jsonl`, "utf8").trim().split("\n").slice(1, 9);
  const sources = texts.map((line) => JSON.parse(line).text);
  const native = sources.map((text) => {
    const command = ["generate", "--model", path, "--json", "--max-new-tokens", "48", text];
    return JSON.parse(execFileSync(binary("t5"), command, { encoding: "utf8" }).split("\n")[0]);
  });
  for (const build of BUILDS) {
    const t5 = await T5.load(path, { build });
    for (const [i, text] of sources.entries()) {
      const [best] = await t5.generate(text, { maxNewTokens: 48 }).outputs;
      const { text: expected, ids, logprobs } = native[i];
      assert.deepEqual([best.text, best.ids, best.logprobs], [expected, ids, logprobs]);
    }
    t5.dispose();
  }
});
