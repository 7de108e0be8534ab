#!/usr/bin/env python3
"""The same training step in PyTorch and transformers: forward, backward, AdamW; dropout 0.1, random ids, no padding.

usage: pytorch_step.py tiny|t5-small f32|bf16 THREADS
"""

import os
import resource
import statistics
import sys
import time

name, precision, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
os.environ["OMP_NUM_THREADS"] = str(threads)

import torch
from transformers import T5Config, T5ForConditionalGeneration

torch.set_num_threads(threads)
torch.manual_seed(0)
shapes = {
    "tiny": (dict(d_model=256, d_ff=1024, num_layers=4, num_heads=4, vocab_size=8192), (32, 64, 64)),
    "t5-small": (dict(d_model=512, d_ff=2048, num_layers=6, num_heads=8, vocab_size=32128), (8, 128, 32)),
}
sizes, (rows, source, target) = shapes[name]
config = T5Config(d_kv=64, dropout_rate=0.1, feed_forward_proj="relu", decoder_start_token_id=0, **sizes)
model = T5ForConditionalGeneration(config).train()
inputs = torch.randint(2, sizes["vocab_size"], (rows, source))
labels = torch.randint(2, sizes["vocab_size"], (rows, target))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
wall, cpu = [], []
for step in range(9):
    start, busy = time.perf_counter(), time.process_time()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
        loss = model(input_ids=inputs, labels=labels).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    if step >= 2:
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - busy)
tokens = rows * (source + target)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
print(
    f"{name} {precision} AdamW {threads} threads: {tokens / statistics.median(wall):.0f} tok/s "
    f"({tokens / max(wall):.0f}-{tokens / min(wall):.0f}), {tokens / statistics.median(cpu):.0f} tok per CPU second, "
    f"peak memory {peak:.0f} MB"
)
