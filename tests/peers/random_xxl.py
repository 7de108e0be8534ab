"""Writes an encoder of T5-XXL's shape with random weights, for measurements of time and memory.

    pip install torch==2.15 safetensors numpy
    python random_xxl.py FOLDER [--blocks N] [--fp8]

24 blocks, 4,096 wide: 9.5 GB in F16, in two shards with an index and config.json; with --fp8 4.9 GB in one file without
a configuration, matrices of eight bits with a scale each (`scale_weight`), as ComfyUI stores them. One block is in
memory at a time: a safetensors file is written front to back, and its header is known before.
"""

import argparse
import json
import pathlib
import struct

import numpy as np
import torch

CONFIG = dict(
    architectures=["T5EncoderModel"],
    model_type="t5",
    vocab_size=32128,
    d_model=4096,
    d_kv=64,
    d_ff=10240,
    num_layers=24,
    num_heads=64,
    relative_attention_num_buckets=32,
    feed_forward_proj="gated-gelu",
    is_encoder_decoder=False,
)
ATTENTION, FEED_FORWARD = "layer.0.SelfAttention", "layer.1.DenseReluDense"


def shapes(blocks):
    """Names and shapes in the order of the file."""
    d, f, inner = CONFIG["d_model"], CONFIG["d_ff"], CONFIG["num_heads"] * CONFIG["d_kv"]
    yield "shared.weight", (CONFIG["vocab_size"], d)
    for block in range(blocks):
        prefix = f"encoder.block.{block}."
        for name in "qkv":
            yield f"{prefix}{ATTENTION}.{name}.weight", (inner, d)
        yield f"{prefix}{ATTENTION}.o.weight", (d, inner)
        if block == 0:
            buckets = CONFIG["relative_attention_num_buckets"]
            yield f"{prefix}{ATTENTION}.relative_attention_bias.weight", (buckets, CONFIG["num_heads"])
        yield f"{prefix}layer.0.layer_norm.weight", (d,)
        yield f"{prefix}{FEED_FORWARD}.wi_0.weight", (f, d)
        yield f"{prefix}{FEED_FORWARD}.wi_1.weight", (f, d)
        yield f"{prefix}{FEED_FORWARD}.wo.weight", (d, f)
        yield f"{prefix}layer.1.layer_norm.weight", (d,)
    yield "encoder.final_layer_norm.weight", (d,)


def values(rng, name, shape):
    """Sizes with which the states stay finite and differ: norms near one, columns of unit length."""
    x = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
    if len(shape) == 1:
        return 1 + 0.1 * x
    return x if "shared" in name or "bias" in name else x / shape[1] ** 0.5


def parts(rng, name, shape, fp8):
    """What is stored for one tensor: (name, dtype's name, shape, values)."""
    matrix = len(shape) == 2 and "shared" not in name and "bias" not in name
    if not (fp8 and matrix):
        return [(name, "F16", shape, lambda: values(rng, name, shape).to(torch.float16))]
    scale = 4.5 / shape[1] ** 0.5 / 448
    weight = lambda: (values(rng, name, shape) / scale).clamp(-448, 448).to(torch.float8_e4m3fn)
    scales = lambda: torch.tensor(scale, dtype=torch.float32)
    return [(name, "F8_E4M3", shape, weight), (name.removesuffix("weight") + "scale_weight", "F32", (), scales)]


def write(path, entries):
    sizes = {"F8_E4M3": 1, "F16": 2, "F32": 4}
    header, at = {}, 0
    for name, dtype, shape, _ in entries:
        size = sizes[dtype] * int(np.prod(shape))
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)))
        out.write(text)
        for *_, make in entries:
            out.write(make().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("folder", type=pathlib.Path)
    arguments.add_argument("--blocks", type=int, default=CONFIG["num_layers"])
    arguments.add_argument("--fp8", action="store_true")
    arguments = arguments.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(20261128)
    entries = [part for name, shape in shapes(arguments.blocks) for part in parts(rng, name, shape, arguments.fp8)]
    if arguments.fp8:
        return write(arguments.folder / "t5xxl_fp8_e4m3fn_scaled.safetensors", entries)
    config = {**CONFIG, "num_layers": arguments.blocks}
    (arguments.folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    half = len(entries) // 2
    for name, shard in zip(names, [entries[:half], entries[half:]]):
        write(arguments.folder / name, shard)
    weight_map = {entry[0]: names[index >= half] for index, entry in enumerate(entries)}
    index = {"metadata": {}, "weight_map": weight_map}
    (arguments.folder / "model.safetensors.index.json").write_text(json.dumps(index) + "\n")


main()
