"""Writes buckets.jsonl: relative-position buckets as the transformers library computes them.

`starts` lists [distance, bucket] wherever a new bucket begins, for distances 0 to 2000 (keys in the past);
the encoder's buckets for keys in the future are those plus half the buckets.
"""

import json
import pathlib

import torch
import transformers
from transformers.models.t5.modeling_t5 import T5Attention

FARTHEST = 2000

lines = [{"reference": f"transformers {transformers.__version__}", "torch": torch.__version__, "farthest": FARTHEST}]
for buckets, max_distance in ((32, 128), (8, 128), (8, 20), (12, 50), (16, 40), (64, 256), (32, 1000), (4, 3)):
    for bidirectional in (True, False):
        rule = dict(bidirectional=bidirectional, num_buckets=buckets, max_distance=max_distance)
        distances = torch.arange(FARTHEST + 1)
        past = T5Attention._relative_position_bucket(-distances, **rule).tolist()
        future = T5Attention._relative_position_bucket(distances, **rule).tolist()
        for distance in range(1, FARTHEST + 1):
            assert future[distance] == (past[distance] + buckets // 2 if bidirectional else 0)
        starts = [[n, b] for n, b in enumerate(past) if n == 0 or past[n - 1] != b]
        lines.append({**rule, "starts": starts})

text = "".join(json.dumps(line) + "\n" for line in lines)
(pathlib.Path(__file__).parent / "buckets.jsonl").write_text(text)
