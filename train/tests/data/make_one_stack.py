"""Makes one_stack.json: logits of tiny models of one stack in float64, a language model and a prefix language model.

A small implementation of its own, since no library has such models: T5's blocks without cross-attention, over the start
token, the inputs and the targets. Values follow from tensors' names, as in tests/src/checkpoint.rs. Run: python
make_one_stack.py
"""

import json
import math
from pathlib import Path

import torch

V, D, K, F, HEADS, BLOCKS, BUCKETS, FAR = 11, 4, 3, 6, 2, 2, 8, 20
INPUTS, TARGETS = [3, 7, 5, 9, 10, 2, 4, 6, 8, 3, 5, 7, 9, 1], [4, 8, 6, 10, 10, 3, 1]


def part(name, *shape):
    state = 7
    for byte in name.encode():
        state = (state * 31 + byte) % 2**32
    values = []
    for _ in range(math.prod(shape)):
        state = (state * 1664525 + 1013904223) % 2**32
        values.append((state >> 8) / 2**24 - 0.5)
    return torch.tensor(values, dtype=torch.float64).reshape(shape)


def bucket(relative, both):
    count, base, distance = BUCKETS, 0, max(-relative, 0)
    if both:
        count, distance = BUCKETS // 2, abs(relative)
        base = count if relative > 0 else 0
    exact = count // 2
    if distance < exact:
        return base + distance
    far = exact + int(math.log(distance / exact) / math.log(FAR / exact) * (count - exact))
    return base + min(count - 1, far)


def norm(x, weight):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * weight


def logits(prefix, gated):
    read = [0, *INPUTS, *TARGETS[:-1]]
    length, seen = len(read), len(INPUTS) + 1
    embedding = part("shared.weight", V, D)
    at = "decoder.block.{}.layer.{}.{}.weight".format
    table = part(at(0, 0, "SelfAttention.relative_attention_bias"), BUCKETS, HEADS)
    bias = torch.stack([table[[bucket(key - query, prefix) for key in range(length)]] for query in range(length)])
    sees = lambda query, key: key <= query or (prefix and key < seen and query < seen)
    hidden = torch.tensor([[not sees(query, key) for key in range(length)] for query in range(length)])
    x = embedding[read]
    for block in range(BLOCKS):
        y = norm(x, part(at(block, 0, "layer_norm"), D))
        q, k, v = (
            (y @ part(at(block, 0, f"SelfAttention.{name}"), HEADS * K, D).T).reshape(length, HEADS, K).transpose(0, 1)
            for name in "qkv"
        )
        scores = (q @ k.transpose(1, 2) + bias.permute(2, 0, 1)).masked_fill(hidden, -math.inf)
        context = (scores.softmax(-1) @ v).transpose(0, 1).reshape(length, HEADS * K)
        x = x + context @ part(at(block, 0, "SelfAttention.o"), D, HEADS * K).T
        y = norm(x, part(at(block, 2, "layer_norm"), D))
        if gated:
            inner = torch.nn.functional.gelu(y @ part(at(block, 2, "DenseReluDense.wi_0"), F, D).T, approximate="tanh")
            inner = inner * (y @ part(at(block, 2, "DenseReluDense.wi_1"), F, D).T)
        else:
            inner = torch.relu(y @ part(at(block, 2, "DenseReluDense.wi"), F, D).T)
        x = x + inner @ part(at(block, 2, "DenseReluDense.wo"), D, F).T
    x = norm(x, part("decoder.final_layer_norm.weight", D))
    # Tied and scaled, or with a head of its own.
    return x @ part("lm_head.weight", V, D).T if gated else x * D**-0.5 @ embedding.T


golden = {"inputs": INPUTS, "targets": TARGETS, "cases": []}
for prefix in (False, True):
    for gated in (False, True):
        values = logits(prefix, gated)
        losses = -values.log_softmax(-1)[range(len(values)), INPUTS + TARGETS]
        golden["cases"].append({
            "prefix": prefix,
            "gated": gated,
            "logits": values.flatten().tolist(),
            "loss": losses.mean().item(),
            "loss_on_targets": losses[len(INPUTS):].mean().item(),
        })
Path(__file__).with_name("one_stack.json").write_text(json.dumps(golden) + "\n")
