// A model of t5-small's shape with seeded random weights: speed does not depend on their values.

import { createWriteStream, existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { once } from "node:events";
import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));
const folder = `${root}/target/web-bench`;

const CONFIG = {
  model_type: "t5",
  d_model: 512,
  d_kv: 64,
  d_ff: 2048,
  num_layers: 6,
  num_decoder_layers: 6,
  num_heads: 8,
  vocab_size: 32128,
  relative_attention_num_buckets: 32,
  relative_attention_max_distance: 128,
  feed_forward_proj: "relu",
  layer_norm_epsilon: 1e-6,
  tie_word_embeddings: true,
  pad_token_id: 0,
  eos_token_id: 1,
  decoder_start_token_id: 0,
};

/** Names and shapes. */
function tensors() {
  const { d_model: d, d_ff, num_heads, d_kv, num_layers } = CONFIG;
  const inner = num_heads * d_kv;
  const list = [["shared.weight", [CONFIG.vocab_size, d]]];
  for (const stack of ["encoder", "decoder"]) {
    for (let block = 0; block < num_layers; block++) {
      const attentions = stack === "encoder" ? ["SelfAttention"] : ["SelfAttention", "EncDecAttention"];
      const at = (layer) => `${stack}.block.${block}.layer.${layer}`;
      attentions.forEach((name, layer) => {
        for (const matrix of ["q", "k", "v"]) list.push([`${at(layer)}.${name}.${matrix}.weight`, [inner, d]]);
        list.push([`${at(layer)}.${name}.o.weight`, [d, inner]], [`${at(layer)}.layer_norm.weight`, [d]]);
      });
      if (block === 0) list.push([`${at(0)}.SelfAttention.relative_attention_bias.weight`, [32, num_heads]]);
      const last = at(attentions.length);
      list.push([`${last}.DenseReluDense.wi.weight`, [d_ff, d]], [`${last}.DenseReluDense.wo.weight`, [d, d_ff]]);
      list.push([`${last}.layer_norm.weight`, [d]]);
    }
    list.push([`${stack}.final_layer_norm.weight`, [d]]);
  }
  return list;
}

/** The model's path as Q8_0, made by t5-quantize (a release build) if it is not there. */
export async function t5Small() {
  const out = `${folder}/t5-small-q8_0.gguf`;
  if (existsSync(out)) return out;
  const source = `${folder}/t5-small`;
  mkdirSync(source, { recursive: true });
  writeFileSync(`${source}/config.json`, JSON.stringify(CONFIG));
  await writeWeights(`${source}/model.safetensors`);
  const quantize = [
    "run",
    "--quiet",
    "--release",
    "--locked",
    "--package",
    "t5-quantize",
    "--",
    source,
    `${out}.new.gguf`,
  ];
  execFileSync("cargo", quantize, { cwd: root, stdio: ["ignore", "ignore", "inherit"] });
  renameSync(`${out}.new.gguf`, out);
  rmSync(source, { recursive: true });
  return out;
}

async function writeWeights(path) {
  let at = 0;
  const header = {};
  const list = tensors();
  for (const [name, shape] of list) {
    const bytes = 4 * shape.reduce((a, b) => a * b);
    header[name] = { dtype: "F32", shape, data_offsets: [at, (at += bytes)] };
  }
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  const file = createWriteStream(path);
  file.write(length);
  file.write(text);
  let seed = 1;
  for (const [, shape] of list) {
    const values = new Float32Array(shape.reduce((a, b) => a * b));
    const scale = shape.length === 1 ? 0 : 2 / Math.sqrt(shape[1]);
    for (let i = 0; i < values.length; i++) {
      // xorshift32
      seed ^= seed << 13;
      seed ^= seed >>> 17;
      seed ^= seed << 5;
      values[i] = shape.length === 1 ? 1 : (seed / 2 ** 32) * scale;
    }
    if (!file.write(new Uint8Array(values.buffer))) await once(file, "drain");
  }
  file.end();
  await once(file, "finish");
}
