"""Writes blocks.json: stored blocks and their values according to the `gguf` Python package (0.17 or later).

    python runtime/tests/golden/blocks.py > runtime/tests/golden/blocks.json

"decode" holds random blocks with plausible scales (`data`) and what `gguf.quants.dequantize` makes of them.
"encode" holds values and the blocks that `gguf.quants.quantize` makes of them. All bytes are hexadecimal, values are
little-endian f32. Numbers of eight bits, which that package does not know, are torch's.
"""

import json
from importlib.metadata import version

import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from gguf import quants

# Type -> (bytes of a block, offsets of half-precision scales).
BLOCKS = {
    Type.F16: (2, [0]),
    Type.BF16: (2, []),
    Type.Q8_0: (34, [0]),
    Type.Q4_0: (18, [0]),
    Type.Q4_1: (20, [0, 2]),
    Type.Q5_0: (22, [0]),
    Type.Q5_1: (24, [0, 2]),
    Type.Q4_K: (144, [0, 2]),
    Type.Q5_K: (176, [0, 2]),
    Type.Q6_K: (210, [208]),
}


def random_blocks(rng, size, halves, count):
    blocks = rng.integers(0, 256, (count, size), dtype=np.uint8)
    for at in halves:
        scales = (rng.standard_normal((count, 1)) * 0.05).astype(np.float16)
        blocks[:, at : at + 2] = scales.view(np.uint8)
    if size == 2 and not halves:  # bf16: keep exponents finite
        blocks[:, 1] &= 0xBF
    return blocks.reshape(-1)


def main():
    rng = np.random.default_rng(20261123)
    decode, encode = {}, {}
    for kind, (size, halves) in BLOCKS.items():
        data = random_blocks(rng, size, halves, 64 if size == 2 else 2 if size > 100 else 4)
        values = quants.dequantize(data, kind).astype("<f4")
        decode[kind.name.lower()] = {"data": data.tobytes().hex(), "values": values.tobytes().hex()}
    for name, kind in {"f8_e4m3": torch.float8_e4m3fn, "f8_e5m2": torch.float8_e5m2}.items():
        data = np.arange(256, dtype=np.uint8)
        values = torch.from_numpy(data).view(kind).to(torch.float32).numpy()
        decode[name] = {"data": data.tobytes().hex(), "values": values.tobytes().hex()}
    values = np.concatenate(
        [
            rng.standard_normal(64) * 0.05,
            rng.standard_normal(32) * 1e4,
            rng.standard_normal(32) * 1e-6,
            np.zeros(32),
            np.concatenate([[127, -127], np.arange(-14.5, 15.5)]),  # ties of Q8_0 with d = 1
            np.tile(np.arange(-8, 8), 2),  # Q4_0 with d = 1
        ]
    ).astype("<f4")
    for kind in [Type.F32, Type.F16, Type.BF16, Type.Q8_0, Type.Q4_0]:
        data = quants.quantize(values, kind)
        encode[kind.name.lower()] = {"data": data.tobytes().hex(), "values": values.tobytes().hex()}
    print(json.dumps({"gguf": version("gguf"), "decode": decode, "encode": encode}, indent=0))


main()
