// Models for tests: checkpoints as GGUF files, made by t5-quantize, and the reference's values.

import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, statSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));
const made = `${root}/target/web-test`;

/**
 * What the builds with relaxed vectors multiply with here: "simd128" where the processor has no instruction that does
 * what their product is for. A processor that has one must be made use of.
 */
export const vectors = process.platform !== "linux" || hasProducts() ? "relaxed" : "simd128";
if (vectors !== "relaxed") console.error("skipped: relaxed products: this processor has neither AVX-VNNI nor ARM's");

function hasProducts() {
  return /\b(avx_vnni|asimddp)\b/.test(readFileSync("/proc/cpuinfo", "utf8"));
}

/** The folder of a family's checkpoint. */
export function folder(family) {
  return `${root}/tests/golden/families/${family}`;
}

/** The path of a family's model, weights stored as `dtype`. */
export function model(family, dtype = "f32") {
  return quantized(folder(family), family, dtype);
}

/** The path of a checkpoint as one file, made by t5-quantize if it is not there yet. */
export function quantized(source, name, dtype) {
  const out = `${made}/${name}-${dtype}.gguf`;
  const program = binary("t5-quantize");
  // Test files run side by side: each writes a file of its own and puts it in place whole.
  if (!existsSync(out) || statSync(out).mtimeMs < statSync(program).mtimeMs) {
    mkdirSync(made, { recursive: true });
    const own = `${out}.${process.pid}.gguf`;
    execFileSync(program, [source, own, "--type", dtype], { stdio: ["ignore", "ignore", "inherit"] });
    renameSync(own, out);
  }
  return out;
}

const built = new Set();

/** A command of the workspace, built if it is not up to date: with the workspace's features, as its tests were. */
export function binary(name) {
  const path = `${root}/target/debug/${name}`;
  if (!built.has(name)) {
    execFileSync("cargo", ["build", "--quiet", "--locked", "--workspace", "--bin", name], {
      cwd: root,
      stdio: "inherit",
    });
    built.add(name);
  }
  return path;
}

/** The names of all families that generate. */
export function families() {
  return readdirSync(`${root}/tests/golden/families`).filter((family) => family !== "encoder-only");
}

/** A path in the folder of shared data; undefined where it is absent. */
export function shared(path) {
  const found = `${process.env.POCKET_T5_SHARED ?? `${root}/../shared`}/${path}`;
  return existsSync(found) ? found : undefined;
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

/** What the reference was run with where a case says nothing, whatever the checkpoint says. */
const LIBRARY_DEFAULTS = {
  beams: 1,
  minNewTokens: 0,
  lengthPenaltyKind: "huggingFace",
  lengthPenalty: 1,
  earlyStopping: false,
  noRepeatNgram: 0,
  repetitionPenalty: 1,
  temperature: 0,
  suppress: [],
};

/** The options of a reference case, under this package's names. */
export function options(golden) {
  const options = { ...LIBRARY_DEFAULTS, nBest: golden.num_beams ?? 1 };
  for (const [key, value] of Object.entries(golden)) if (NAMES[key]) options[NAMES[key]] = value;
  if ("alpha" in golden) options.lengthPenaltyKind = "t5";
  else if ("length_penalty" in golden) options.lengthPenaltyKind = "huggingFace";
  return options;
}

/** The built-in model and what the native program answers to the reference's inputs. */
export const pocket = {
  path: `${root}/runtime/model/pocket-t5.gguf`,
  /** Of the first `count` cases, by default of all: `text` and its ids, and the native `answer`, `ids`, `logprobs`. */
  answers(count) {
    const lines = readFileSync(`${root}/tests/golden/pocket.jsonl`, "utf8").trim().split("\n").slice(1);
    const cases = lines.slice(0, count).map((line) => JSON.parse(line));
    const input = cases.map(({ text }) => `${text}\n`).join("");
    const command = ["generate", "--json", "--jobs", "1"];
    const out = execFileSync(binary("t5"), command, { input, encoding: "utf8" });
    return out.trim().split("\n").map((line, i) => {
      const { text: answer, ids, logprobs } = JSON.parse(line);
      return { text: cases[i].text, inputs: cases[i].input_ids, answer, ids, logprobs };
    });
  },
};

/** A GGUF file with more texts in its head. Their length is a multiple of any usual alignment: offsets stay right. */
export function described(bytes, texts) {
  const entries = Object.entries(texts).map(([key, value]) => {
    const [name, text] = [Buffer.from(key), Buffer.from(value)];
    const head = Buffer.alloc(8);
    const middle = Buffer.alloc(12);
    head.writeBigUInt64LE(BigInt(name.length));
    middle.writeUInt32LE(8);
    middle.writeBigUInt64LE(BigInt(text.length), 4);
    return Buffer.concat([head, name, middle, text]);
  });
  const rest = (64 - ((Buffer.concat(entries).length + 30) % 64)) % 64;
  if (!("x.padding" in texts)) return described(bytes, { ...texts, "x.padding": ".".repeat(rest + 1) });
  const out = Buffer.concat([bytes.subarray(0, 24), ...entries, bytes.subarray(24)]);
  out.writeBigUInt64LE(bytes.readBigUInt64LE(16) + BigInt(entries.length), 16);
  return out;
}
