// Same ids as the reference, on the real module, for every build that this Node can run.

import assert from "node:assert/strict";
import { test } from "node:test";
import { T5 } from "../dist/index.js";
import { golden, model, options } from "./models.mjs";

// As tests/parity.rs: the reference's own rounding, and as much again.
const TOLERANCE = 1e-4;

function close(found, expected) {
  assert.equal(found.length, expected.length);
  found.forEach((value, i) => assert.ok(Math.abs(value - expected[i]) <= TOLERANCE, `${value}, not ${expected[i]}`));
}

for (const family of ["t5-1.0", "t5-1.1", "mt5", "umt5", "byt5", "unigram", "odd"]) {
  test(`${family} gives the reference's ids`, async () => {
    const t5 = await T5.load(model(family));
    let checked = 0;
    for (const one of golden(family)) {
      if (one.kind === "greedy" && Array.isArray(one.input_ids)) {
        const [best] = await t5.generate(one.input_ids, options(one)).outputs;
        assert.deepEqual(best.ids, one.ids);
        close(best.logprobs, one.logprobs);
        checked += 1;
      } else if (one.kind === "beam" || one.kind === "gnmt_beam") {
        const outputs = await t5.generate(one.input_ids, options(one)).outputs;
        assert.deepEqual(outputs.map((output) => output.ids), one.n_best.map((entry) => entry.ids));
        close(outputs.map((output) => output.score), one.n_best.map((entry) => entry.score));
        checked += 1;
      } else if (one.kind === "tokenize") {
        assert.deepEqual(await t5.tokenize(one.text), one.ids);
        checked += 1;
      }
    }
    assert.ok(checked > 10, `${checked} cases`);
    t5.dispose();
  });
}
