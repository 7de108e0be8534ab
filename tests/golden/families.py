"""The tiny checkpoints: one per family of T5 and per way of storing it. Sizes, storage, and seeded weights.

Weights are drawn so that attention is peaked, logits are well apart and the end token is a serious candidate:
a model with the library's default initialisation answers one token for ever and would hide most faults.
"""

import json
import pathlib
import zlib

import numpy as np
import torch
from safetensors.torch import save_file

TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}

# What config.json says, as files on the hub say it; `omit` lists keys that old files do not have.
BASE = dict(
    architectures=["T5ForConditionalGeneration"],
    model_type="t5",
    vocab_size=96,
    d_model=32,
    d_kv=8,
    d_ff=48,
    num_layers=2,
    num_decoder_layers=2,
    num_heads=4,
    relative_attention_num_buckets=32,
    relative_attention_max_distance=128,
    dropout_rate=0.1,
    layer_norm_epsilon=1e-6,
    initializer_factor=1.0,
    feed_forward_proj="gated-gelu",
    is_encoder_decoder=True,
    use_cache=True,
    pad_token_id=0,
    eos_token_id=1,
    decoder_start_token_id=0,
    tie_word_embeddings=False,
)

# name -> (what it is for, config changes, storage options)
FAMILIES = {
    "t5-1.0": (
        "ReLU, tied and scaled; config.json as in 2020, without the newer keys; the embedding stored three times "
        "and a left-over bias table in cross-attention, which no model uses",
        dict(feed_forward_proj="relu", tie_word_embeddings=True),
        dict(
            omit=["feed_forward_proj", "relative_attention_max_distance", "num_decoder_layers", "tie_word_embeddings"],
            duplicates=True,
        ),
    ),
    "t5-1.1": (
        "gated GELU, separate head, heads * d_kv (48) larger than d_model (32)",
        dict(num_heads=3, d_kv=16, vocab_size=112),
        {},
    ),
    "t5-resaved": (
        "as transformers 5 writes an untied model: tie_word_embeddings true, scale_decoder_outputs false, a head",
        dict(tie_word_embeddings=True, scale_decoder_outputs=False),
        {},
    ),
    "mt5": (
        "mT5, stored as F32; a vocabulary that 16 does not divide",
        dict(model_type="mt5", architectures=["MT5ForConditionalGeneration"], vocab_size=107, d_model=24, d_kv=6,
             d_ff=40),
        dict(dtype="F32"),
    ),
    "umt5": (
        "umT5: a bias table in every block",
        dict(model_type="umt5", architectures=["UMT5ForConditionalGeneration"], num_layers=3),
        {},
    ),
    "byt5": (
        "ByT5: bytes, three encoder blocks and one decoder block",
        dict(vocab_size=384, num_layers=3, num_decoder_layers=1, tokenizer_class="ByT5Tokenizer"),
        dict(byte_tokenizer=True),
    ),
    "madlad": (
        "MADLAD-400: no shared.weight, only decoder.embed_tokens.weight and a head; pad 1, eos 2",
        dict(pad_token_id=1, eos_token_id=2, decoder_start_token_id=0),
        dict(embedding="decoder.embed_tokens.weight"),
    ),
    "gated-silu": ("gated SiLU, as UL2", dict(feed_forward_proj="gated-silu"), {}),
    "gated-relu": ("gated ReLU", dict(feed_forward_proj="gated-relu", vocab_size=80), {}),
    "encoder-only": (
        "an encoder alone",
        dict(architectures=["T5EncoderModel"], is_encoder_decoder=False),
        dict(encoder_only=True),
    ),
    "shallow-encoder": (
        "one encoder block, three decoder blocks; stored as BF16 in three shards",
        dict(num_layers=1, num_decoder_layers=3),
        dict(dtype="BF16", shards=3),
    ),
    "odd": (
        "nothing divides by 16 or 32: d_model 40, 5 heads of 6, d_ff 56, vocabulary 101; 12 buckets to distance 50",
        dict(
            d_model=40,
            num_heads=5,
            d_kv=6,
            d_ff=56,
            vocab_size=101,
            relative_attention_num_buckets=12,
            relative_attention_max_distance=50,
        ),
        {},
    ),
    "several-ends": (
        "generation_config.json with two end tokens, 3 beams and a suppressed token, which are the defaults of a request",
        dict(feed_forward_proj="relu", tie_word_embeddings=True, num_layers=1),
        dict(
            generation=dict(
                decoder_start_token_id=0,
                eos_token_id=[1, 17],
                pad_token_id=0,
                num_beams=3,
                max_new_tokens=24,
                length_penalty=1.4,
                early_stopping=True,
                suppress_tokens=[9],
            )
        ),
    ),
    "lm": (
        "a language model of one stack, a type of this project's own; ReLU, tied and scaled",
        dict(
            model_type="pocket_t5_lm",
            architectures=["PocketT5LanguageModel"],
            is_encoder_decoder=False,
            num_layers=0,
            feed_forward_proj="relu",
            tie_word_embeddings=True,
        ),
        {},
    ),
    "prefix-lm": (
        "a prefix language model of one stack; gated GELU, separate head",
        dict(
            model_type="pocket_t5_prefix_lm",
            architectures=["PocketT5PrefixLanguageModel"],
            is_encoder_decoder=False,
            num_layers=0,
        ),
        {},
    ),
    "unigram": (
        "a small Unigram vocabulary with 100 sentinels, as spiece.model and as tokenizer.json",
        dict(vocab_size=256, feed_forward_proj="relu", tie_word_embeddings=True),
        dict(unigram=True),
    ),
}


def config_of(name):
    """The complete configuration, whatever the file leaves out."""
    return {**BASE, **FAMILIES[name][1]}


def options_of(name):
    return FAMILIES[name][2]


def is_one_stack(name):
    """Without an encoder and without cross-attention."""
    return config_of(name)["model_type"].startswith("pocket_t5_")


def scales_output(config):
    """The rule of our loader: scale_decoder_outputs if present, else whether the file ties."""
    return config.get("scale_decoder_outputs", config["tie_word_embeddings"])


def has_head(name):
    config = config_of(name)
    return not options_of(name).get("encoder_only") and (
        not config["tie_word_embeddings"] or config.get("scale_decoder_outputs") is False
    )


def weights(name, seed):
    """The state dict in Hugging Face names, rounded to the storage type and widened to float32 again."""
    config, options = config_of(name), options_of(name)
    rng = np.random.Generator(np.random.PCG64([zlib.crc32(name.encode()), seed]))
    d, f, heads = config["d_model"], config["d_ff"], config["num_heads"]
    inner = heads * config["d_kv"]
    gated = config["feed_forward_proj"].startswith("gated-")
    state = {}

    def draw(key, shape, std, mean=0.0):
        values = torch.from_numpy(rng.normal(mean, std, shape).astype(np.float32))
        state[key] = values.to(TYPES[options.get("dtype", "F16")]).to(torch.float32)

    def attention(prefix):
        # Unscaled scores: sqrt(d_kv) * std_q * std_k, with queries and keys of unit size about 3.
        for part in "qkv":
            draw(f"{prefix}.{part}.weight", (inner, d), 1.0 * d**-0.5)
        draw(f"{prefix}.o.weight", (d, inner), 2.0 * inner**-0.5)

    def stack(side, blocks):
        for block in range(blocks):
            at = f"{side}.block.{block}.layer"
            attention(f"{at}.0.SelfAttention")
            if block == 0 or config["model_type"] == "umt5":
                buckets = config["relative_attention_num_buckets"]
                draw(f"{at}.0.SelfAttention.relative_attention_bias.weight", (buckets, heads), 1.5)
            draw(f"{at}.0.layer_norm.weight", (d,), 0.2, 1.0)
            if side == "decoder" and not is_one_stack(name):
                attention(f"{at}.1.EncDecAttention")
                draw(f"{at}.1.layer_norm.weight", (d,), 0.2, 1.0)
            last = 2 if side == "decoder" else 1
            for wi in ["wi_0", "wi_1"] if gated else ["wi"]:
                draw(f"{at}.{last}.DenseReluDense.{wi}.weight", (f, d), 1.5 * d**-0.5)
            draw(f"{at}.{last}.DenseReluDense.wo.weight", (d, f), 2.0 * f**-0.5)
            draw(f"{at}.{last}.layer_norm.weight", (d,), 0.2, 1.0)
        if side == "decoder" and not has_head(name):
            # A tied head would answer with its own input again; random signs in the last norm undo that.
            draw(f"{side}.final_layer_norm.weight", (d,), 1.0)
        else:
            draw(f"{side}.final_layer_norm.weight", (d,), 0.2, 1.0)

    draw("shared.weight", (config["vocab_size"], d), 1.5)
    if not is_one_stack(name):
        stack("encoder", config["num_layers"])
    if not options.get("encoder_only"):
        stack("decoder", config["num_decoder_layers"])
        if has_head(name):
            draw("lm_head.weight", (config["vocab_size"], d), 2.5 * d**-0.5)
        # A larger row varies more from step to step: the end token wins now and then.
        ends = options.get("generation", {}).get("eos_token_id", [config["eos_token_id"]])
        state["lm_head.weight" if has_head(name) else "shared.weight"][ends] *= 2.0
    return state


def write(name, state, folder):
    """Writes the Hugging Face folder of a family."""
    config, options = config_of(name), options_of(name)
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    dtype = options.get("dtype", "F16")
    stored = {key: value for key, value in config.items() if key not in options.get("omit", [])}
    stored["torch_dtype"] = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}[dtype]
    write_json(folder / "config.json", stored)
    if "generation" in options:
        write_json(folder / "generation_config.json", options["generation"])

    tensors = {key: value.to(TYPES[dtype]) for key, value in state.items()}
    if options.get("duplicates"):
        for side in ["encoder", "decoder"]:
            tensors[f"{side}.embed_tokens.weight"] = tensors["shared.weight"].clone()
        shape = (config["relative_attention_num_buckets"], config["num_heads"])
        left_over = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
        tensors[left_over] = torch.full(shape, 7.0, dtype=TYPES[dtype])
    if "embedding" in options:
        tensors[options["embedding"]] = tensors.pop("shared.weight")
    shards = options.get("shards", 1)
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    keys, index = sorted(tensors), {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = {key: tensors[key] for key in keys[shard::shards]}
        save_file(part, folder / file, metadata={"format": "pt"})
        index.update({key: file for key in part})
    size = sum(value.numel() * value.element_size() for value in tensors.values())
    write_json(
        folder / "model.safetensors.index.json",
        {"metadata": {"total_size": size}, "weight_map": dict(sorted(index.items()))},
    )


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
