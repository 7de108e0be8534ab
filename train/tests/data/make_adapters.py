"""Makes adapters.json: logits of a tiny T5 with adapters behind its feed-forward layers, in float64.

transformers 5 computes the model; adapters are put in by hooks, as layers of their own (x + up(relu(down(norm(x))))) or
inside the feed-forward layers (y + up(relu(down(y))) of what they add). Values follow from tensors' names, as in
tests/src/checkpoint.rs. Run: python make_adapters.py
"""

import json
from pathlib import Path

import torch
from transformers import T5Config, T5ForConditionalGeneration

SIZE = 5
INPUTS, TARGETS = [3, 7, 5, 9, 10, 2, 1], [4, 8, 6, 1]


def part(name, shape):
    state = 7
    for byte in name.encode():
        state = (state * 31 + byte) % 2**32
    values = []
    for _ in range(torch.Size(shape).numel()):
        state = (state * 1664525 + 1013904223) % 2**32
        values.append((state >> 8) / 2**24 - 0.5)
    return torch.tensor(values, dtype=torch.float64).reshape(shape)


def logits(inside):
    config = T5Config(
        vocab_size=11, d_model=4, d_kv=3, d_ff=6, num_layers=2, num_decoder_layers=2, num_heads=2,
        relative_attention_num_buckets=8, relative_attention_max_distance=20, feed_forward_proj="relu",
        dropout_rate=0.0, tie_word_embeddings=True, decoder_start_token_id=0,
    )
    model = T5ForConditionalGeneration(config).double().eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.copy_(part(name, value.shape))
    for stack, last in (("encoder", 1), ("decoder", 2)):
        for number, block in enumerate(getattr(model, stack).block):
            at = f"{stack}.block.{number}.layer.{last + 1}"
            down = part(f"{at}.Adapter.down.weight", (SIZE, 4))
            up = part(f"{at}.Adapter.up.weight", (4, SIZE))
            norm = part(f"{at}.layer_norm.weight", (4,))

            def adapter(y, down=down, up=up):
                return torch.relu(y @ down.T) @ up.T

            def own(module, args, x, adapter=adapter, norm=norm):
                return x + adapter(x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * norm)

            if inside:
                hook = lambda module, args, y, adapter=adapter: y + adapter(y)
                block.layer[last].DenseReluDense.register_forward_hook(hook)
            else:
                block.layer[last].register_forward_hook(own)
    inputs, targets = torch.tensor([INPUTS]), torch.tensor([TARGETS])
    with torch.no_grad():
        return model(input_ids=inputs, labels=targets).logits[0].flatten().tolist()


golden = {"size": SIZE, "inputs": INPUTS, "targets": TARGETS, "own": logits(False), "inside": logits(True)}
Path(__file__).with_name("adapters.json").write_text(json.dumps(golden) + "\n")
