"""A tiny T5, a LoRA adapter that PEFT wrote, and the adapted model's logits.

    python make_peft.py make peft            # transformers 5.23, peft 0.21, torch 2.15
    python make_peft.py check BASE ADAPTER MERGED

`check` loads BASE with ADAPTER through PEFT, and MERGED without, and compares their logits: BASE is a folder that
t5-train fine-tuned, ADAPTER and MERGED what `t5-train export` wrote of the run with and without `--adapter`.
"""

import json
import sys
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import T5Config, T5ForConditionalGeneration

INPUTS, TARGETS = [[3, 17, 40, 9, 22, 1]], [[0, 5, 33, 12]]


def logits(model):
    with torch.no_grad():
        return model(input_ids=torch.tensor(INPUTS), decoder_input_ids=torch.tensor(TARGETS)).logits[0]


def make(folder):
    torch.manual_seed(5)
    config = T5Config(
        vocab_size=48, d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2, dropout_rate=0.0,
        feed_forward_proj="relu", tie_word_embeddings=True, decoder_start_token_id=0,
    )
    model = T5ForConditionalGeneration(config).eval()
    model.save_pretrained(folder / "base")
    (folder / "base" / "generation_config.json").unlink(missing_ok=True)
    plain = logits(model)
    out = {"inputs": INPUTS[0], "targets": TARGETS[0], "base": plain.flatten().tolist()}
    for name, kind in [("plain", {"target_modules": ["q", "v"]}),
                       ("stabilised", {"target_modules": "all-linear", "use_rslora": True})]:
        model = T5ForConditionalGeneration.from_pretrained(folder / "base").eval()
        adapted = get_peft_model(model, LoraConfig(r=3, lora_alpha=12, task_type="SEQ_2_SEQ_LM", **kind)).eval()
        for key, value in adapted.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(value, std=0.2)
        out[name] = logits(adapted).flatten().tolist()
        adapted.save_pretrained(folder / name)
        (folder / name / "README.md").unlink(missing_ok=True)
    (folder / "logits.json").write_text(json.dumps(out))


def check(base, adapter, merged):
    adapted = PeftModel.from_pretrained(T5ForConditionalGeneration.from_pretrained(base), adapter).eval()
    found, expected = logits(adapted), logits(T5ForConditionalGeneration.from_pretrained(merged).eval())
    plain = logits(T5ForConditionalGeneration.from_pretrained(base).eval())
    print("largest logit", expected.abs().max().item())
    print("largest difference", (found - expected).abs().max().item())
    print("largest change by the adapter", (plain - expected).abs().max().item())


if sys.argv[1] == "make":
    make(Path(sys.argv[2]))
else:
    check(*sys.argv[2:])
