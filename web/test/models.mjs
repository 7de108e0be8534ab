// The tiny models of tests/golden/families as GGUF files, made by t5-quantize.

import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));
const folder = `${root}/target/web-test`;

/** The path of a family's model, weights stored as `dtype`. */
export function model(family, dtype = "f32") {
  mkdirSync(folder, { recursive: true });
  const out = `${folder}/${family}-${dtype}.gguf`;
  const source = `${root}/tests/golden/families/${family}`;
  execFileSync(quantizer(), [source, out, "--type", dtype], { stdio: ["ignore", "ignore", "inherit"] });
  return out;
}

let built;

/** The t5-quantize command, built if it is not up to date. */
function quantizer() {
  if (!built) {
    execFileSync("cargo", ["build", "--quiet", "--locked", "--package", "t5-quantize"], { cwd: root, stdio: "inherit" });
    built = `${root}/target/debug/t5-quantize`;
    if (!existsSync(built)) throw new Error(`expected ${built}, found nothing`);
  }
  return built;
}

/** The reference values of a family: every line but the header. */
export function golden(family) {
  const text = readFileSync(`${root}/tests/golden/families/${family}/golden.jsonl`, "utf8");
  return text.trim().split("\n").slice(1).map((line) => JSON.parse(line));
}

const NAMES = {
  max_new_tokens: "maxNewTokens",
  min_new_tokens: "minNewTokens",
  num_beams: "beams",
  length_penalty: "lengthPenalty",
  alpha: "lengthPenalty",
  early_stopping: "earlyStopping",
  no_repeat_ngram_size: "noRepeatNgram",
  repetition_penalty: "repetitionPenalty",
  prefix: "prefixIds",
  suppress_tokens: "suppress",
  allowed_tokens: "allowed",
};

/** The options of a reference case, under this package's names. */
export function options(golden) {
  const options = { nBest: golden.num_beams ?? 1 };
  for (const [key, value] of Object.entries(golden)) if (NAMES[key]) options[NAMES[key]] = value;
  if ("alpha" in golden) options.lengthPenaltyKind = "t5";
  else if ("length_penalty" in golden) options.lengthPenaltyKind = "huggingFace";
  return options;
}
