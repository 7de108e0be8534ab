"""Checkpoints in Hugging Face layout (config.json, model.safetensors): the published shapes with seeded weights."""

import json
import os

import numpy

# d_model, d_ff, blocks of each stack, heads, activation, tied head
SHAPES = {
    "t5-small": (512, 2048, 6, 8, "relu", True),
    "flan-t5-small": (512, 1024, 8, 6, "gated-gelu", False),
    "t5-base": (768, 3072, 12, 12, "relu", True),
}


def make(name, folder):
    """Writes the checkpoint of a published shape with random weights; speed does not depend on their values."""
    from safetensors.numpy import save_file

    d_model, d_ff, blocks, heads, activation, tied = SHAPES[name]
    config = {
        "model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "vocab_size": 32128, "d_model": d_model,
        "d_kv": 64, "d_ff": d_ff, "num_layers": blocks, "num_decoder_layers": blocks, "num_heads": heads,
        "relative_attention_num_buckets": 32, "relative_attention_max_distance": 128, "dropout_rate": 0.1,
        "layer_norm_epsilon": 1e-6, "initializer_factor": 1.0, "feed_forward_proj": activation,
        "tie_word_embeddings": tied, "is_encoder_decoder": True, "use_cache": True, "pad_token_id": 0,
        "eos_token_id": 1, "decoder_start_token_id": 0,
    }
    inner, random, tensors = 64 * heads, numpy.random.default_rng(20261123), {}

    def matrix(name, rows, columns, deviation):
        tensors[name + ".weight"] = random.standard_normal((rows, columns), numpy.float32) * numpy.float32(deviation)

    def norm(name):
        tensors[name + ".weight"] = numpy.ones(d_model, numpy.float32)

    def attention(name, biased):
        matrix(name + ".q", inner, d_model, (64 * d_model) ** -0.5)
        matrix(name + ".k", inner, d_model, d_model**-0.5)
        matrix(name + ".v", inner, d_model, d_model**-0.5)
        matrix(name + ".o", d_model, inner, inner**-0.5)
        if biased:
            matrix(name + ".relative_attention_bias", 32, heads, d_model**-0.5)

    matrix("shared", 32128, d_model, 1.0)
    for stack in ("encoder", "decoder"):
        for block in range(blocks):
            layer = f"{stack}.block.{block}.layer"
            attention(f"{layer}.0.SelfAttention", block == 0)
            norm(f"{layer}.0.layer_norm")
            last = 1
            if stack == "decoder":
                attention(f"{layer}.1.EncDecAttention", False)
                norm(f"{layer}.1.layer_norm")
                last = 2
            for wi in ("wi_0", "wi_1") if "gated" in activation else ("wi",):
                matrix(f"{layer}.{last}.DenseReluDense.{wi}", d_ff, d_model, d_model**-0.5)
            matrix(f"{layer}.{last}.DenseReluDense.wo", d_model, d_ff, d_ff**-0.5)
            norm(f"{layer}.{last}.layer_norm")
        norm(f"{stack}.final_layer_norm")
    if not tied:
        matrix("lm_head", 32128, d_model, d_model**-0.5)
    os.makedirs(folder, exist_ok=True)
    save_file(tensors, f"{folder}/model.safetensors.part", metadata={"format": "pt"})
    with open(f"{folder}/config.json", "w") as file:
        json.dump(config, file, indent=1)
    os.replace(f"{folder}/model.safetensors.part", f"{folder}/model.safetensors")


def load(folder):
    """The configuration, with defaults filled in, and all tensors in float32 by their Hugging Face names."""
    from safetensors.numpy import load_file

    with open(f"{folder}/config.json") as file:
        config = json.load(file)
    tensors = {name: value.astype(numpy.float32) for name, value in load_file(f"{folder}/model.safetensors").items()}
    config.setdefault("num_decoder_layers", config["num_layers"])
    config.setdefault("relative_attention_max_distance", 128)
    config.setdefault("feed_forward_proj", "relu")
    config.setdefault("decoder_start_token_id", 0)
    # A file that holds a head has an untied one, whatever its configuration says; newer files say apart from that
    # whether outputs are scaled.
    tied = "lm_head.weight" not in tensors
    config["scale_outputs"] = config.get("scale_decoder_outputs", tied)
    tensors.setdefault("shared.weight", tensors.get("encoder.embed_tokens.weight"))
    tensors.setdefault("lm_head.weight", tensors["shared.weight"])
    return config, tensors


def bench_ids(vocab_size, batch, length):
    """The ids that `t5 bench` takes (runtime/src/cli/bench.rs), `[batch][length]`."""
    state, usable = 1, max(vocab_size - 256, 1)

    def next_id():
        nonlocal state
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (state >> 33) % usable

    return [[next_id() for _ in range(length)] for _ in range(batch)]


def buckets(bidirectional, distances, config):
    """The relative-position bucket of each distance `key - query` (T5 paper, section 2.1; the library's rounding)."""
    count, longest = config["relative_attention_num_buckets"], config["relative_attention_max_distance"]
    found, start = numpy.zeros(len(distances), numpy.int64), 0
    if bidirectional:
        count //= 2
        start, distances = (distances > 0) * count, numpy.abs(distances)
    else:
        distances = numpy.maximum(-distances, 0)
    exact = count // 2
    logs = numpy.log(numpy.maximum(distances, 1).astype(numpy.float32) / exact) / numpy.log(longest / exact)
    far = numpy.minimum(exact + (logs * (count - exact)).astype(numpy.int64), count - 1)
    found = numpy.where(distances < exact, distances, far)
    return start + found
