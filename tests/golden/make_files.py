"""Writes tests/golden/files/*: tiny seeded T5s in the forms in which people hold them, and their encoders' states.

    pip install torch==2.15 transformers==5.23 safetensors sentencepiece numpy
    python make_files.py

Each model is a file, or a folder where its form is one. golden.jsonl says of each what it holds and what the
transformers library's encoder answers in float32 with the same (dequantised) weights: `input_ids`, and `states` of all
tokens, row by row. `refused` lists files that must not be read, with what their message has to say.
"""

import json
import pathlib
import shutil

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import T5Config, T5EncoderModel, UMT5Config, UMT5EncoderModel

HERE = pathlib.Path(__file__).parent
FOLDER = HERE / "files"
# The tokenizer of the family "unigram", whose pieces all have a row.
SENTENCEPIECE = (HERE / "families/unigram/spiece.model").read_bytes()
ROWS = json.loads((HERE / "families/unigram/config.json").read_text())["vocab_size"]
SIZES = dict(d_model=16, d_kv=6, d_ff=24, num_layers=2, num_heads=3, feed_forward_proj="gated-gelu", vocab_size=64)
IDS = [[5, 9, 33, 2, 1], [60, 3, 3, 17, 40, 41, 42, 8, 9, 10, 11, 12, 1]]


def model(seed, umt5=False, **changes):
    """An encoder whose attention is peaked and whose states differ from token to token."""
    torch.manual_seed(seed)
    config = {**SIZES, **changes}
    built = UMT5EncoderModel(UMT5Config(**config)) if umt5 else T5EncoderModel(T5Config(**config))
    with torch.no_grad():
        for name, value in built.named_parameters():
            if "layer_norm" in name:
                value.copy_(1 + 0.2 * torch.randn_like(value))
            elif "relative_attention_bias" in name or "shared" in name:
                value.copy_(torch.randn_like(value))
            else:
                value.copy_(torch.randn_like(value) * 1.5 / value.shape[1] ** 0.5)
    return built.eval()


def state(built):
    return {name: value.clone() for name, value in built.state_dict().items() if "embed_tokens" not in name}


def answers(built):
    cases = []
    for ids in IDS:
        with torch.no_grad():
            states = built(torch.tensor([ids])).last_hidden_state[0]
        cases.append({"input_ids": ids, "states": [round(float(value), 6) for value in states.flatten()]})
    return cases


def rounded(built, change):
    """Puts weights as they are stored into the model: `change` gives them by name."""
    with torch.no_grad():
        for name, value in built.named_parameters():
            if "embed_tokens" not in name:
                value.copy_(change(name, value).to(torch.float32))
    return built


def wan(name):
    """The name that Wan's models have for one of Hugging Face's."""
    if name == "shared.weight":
        return "token_embedding.weight"
    if name == "encoder.final_layer_norm.weight":
        return "norm.weight"
    parts = name.split(".")
    block, layer, rest = parts[2], parts[4], ".".join(parts[5:])
    rest = {
        "0.layer_norm.weight": "norm1.weight",
        "0.SelfAttention.relative_attention_bias.weight": "pos_embedding.embedding.weight",
        "1.layer_norm.weight": "norm2.weight",
        "1.DenseReluDense.wi_0.weight": "ffn.gate.0.weight",
        "1.DenseReluDense.wi_1.weight": "ffn.fc1.weight",
        "1.DenseReluDense.wo.weight": "ffn.fc2.weight",
    }.get(f"{layer}.{rest}", rest.replace("SelfAttention", "attn"))
    return f"blocks.{block}.{rest}"


def scaled_fp8(built, kind, key):
    """Matrices of eight bits with a scale each, as ComfyUI stores them; the model gets their dequantised values."""
    tensors = {"scaled_fp8": torch.zeros(2, dtype=kind)}

    def change(name, value):
        if value.dim() < 2 or "relative_attention_bias" in name or name == "shared.weight":
            tensors[name] = value.detach().to(torch.float16)
            return tensors[name]
        scale = (value.abs().max() / torch.finfo(kind).max).detach().to(torch.float32)
        module = name.removesuffix(".weight")
        tensors[name] = (value.detach() / scale).to(kind)
        tensors[f"{module}.{key}"] = scale
        tensors[f"{module}.{'scale_input' if key == 'scale_weight' else 'input_scale'}"] = torch.tensor(0.5)
        return tensors[name].to(torch.float32) * scale

    rounded(built, change)
    return tensors


class Code:
    """What a hostile pickle does when it is loaded."""

    def __reduce__(self):
        import os

        return os.system, ("touch /tmp/pocket-t5-was-here",)


def write_config(folder, config):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")


def main():
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    lines = [{"torch": torch.__version__, "transformers": transformers.__version__}]

    def add(path, built, **fields):
        lines.append({"file": path, **fields, "cases": answers(built)})

    half = lambda name, value: value.detach().to(torch.float16)
    built = model(1)
    rounded(built, half)
    plain = {name: value.to(torch.float16) for name, value in state(built).items()}
    save_file(plain, FOLDER / "t5xxl_fp16.safetensors")
    add("t5xxl_fp16.safetensors", built, model_type="t5", encoder_only=True)

    built = model(2, feed_forward_proj="relu")
    inner = {f"text_encoders.t5xxl.transformer.{name}": value for name, value in state(built).items()}
    others = {
        "model.diffusion_model.blocks.0.attn.q.weight": torch.ones(4, 4),
        "text_encoders.clip_l.transformer.text_model.encoder.layers.0.layer_norm1.weight": torch.ones(4),
        "text_encoders.clip_l.position_ids": torch.arange(4),
        "text_encoders.t5xxl.logit_scale": torch.ones(()),
    }
    save_file({**inner, **others}, FOLDER / "all-in-one.safetensors")
    add("all-in-one.safetensors", built, model_type="t5", encoder_only=True)

    built = rounded(model(3, umt5=True), lambda name, value: value.detach().to(torch.bfloat16))
    of_wan = {wan(name): value.to(torch.bfloat16) for name, value in state(built).items()}
    save_file(of_wan, FOLDER / "umt5-wan.safetensors")
    add("umt5-wan.safetensors", built, model_type="umt5", encoder_only=True)
    torch.save(of_wan, FOLDER / "umt5-wan.pth")
    add("umt5-wan.pth", built, model_type="umt5", encoder_only=True)

    for seed, kind, name in [(4, torch.float8_e4m3fn, "e4m3"), (5, torch.float8_e5m2, "e5m2")]:
        built = model(seed)
        eight = lambda name, value: value.detach().to(kind if value.dim() > 1 else torch.float32)
        stored = {key: eight(key, value) for key, value in state(built).items()}
        rounded(built, eight)
        save_file(stored, FOLDER / f"{name}.safetensors")
        add(f"{name}.safetensors", built, model_type="t5", encoder_only=True)

    built = model(6, umt5=True, vocab_size=ROWS)
    tensors = scaled_fp8(built, torch.float8_e4m3fn, "scale_weight")
    tensors["spiece_model"] = torch.tensor(list(SENTENCEPIECE), dtype=torch.uint8)
    save_file(tensors, FOLDER / "umt5-scaled.safetensors")
    add("umt5-scaled.safetensors", built, model_type="umt5", encoder_only=True, tokenizer=True)
    built = model(7)
    tensors = scaled_fp8(built, torch.float8_e5m2, "weight_scale")
    save_file(tensors, FOLDER / "scaled-e5m2.safetensors")
    add("scaled-e5m2.safetensors", built, model_type="t5", encoder_only=True)

    # Plain and gated, by each function.
    kinds = ["relu", "gelu", "gelu_new", "silu", "gated-relu", "gated-gelu", "gated-gelu_new", "gated-gelu_python",
             "gated-silu"]
    for number, kind in enumerate(kinds):
        name = f"act-{kind}"
        built = model(20 + number, num_layers=1, feed_forward_proj=kind)
        write_config(FOLDER / name, {"architectures": ["T5EncoderModel"], "model_type": "t5", **SIZES, "num_layers": 1,
                                     "feed_forward_proj": kind, "is_encoder_decoder": False})
        rounded(built, half)
        save_file({key: value.to(torch.float16) for key, value in state(built).items()}, FOLDER / name / "model.safetensors")
        add(name, built, model_type="t5", encoder_only=True)

    # Left out: d_kv is 64 and vocab_size 32128 then, of which only the first suits a tiny file.
    built = model(8, d_model=8, d_kv=64, d_ff=8, num_heads=1, num_layers=1, feed_forward_proj="relu")
    write_config(FOLDER / "left-out", {"architectures": ["T5EncoderModel"], "model_type": "t5", "d_model": 8, "d_ff": 8,
                                       "num_heads": 1, "num_layers": 1, "vocab_size": 64})
    save_file(state(built), FOLDER / "left-out/model.safetensors")
    add("left-out", built, model_type="t5", encoder_only=True)

    # A pipeline of Diffusers: CLIP in the first folder, the T5 in shards in the second.
    built = rounded(model(9, vocab_size=ROWS), half)
    root = FOLDER / "pipeline"
    write_config(root / "text_encoder", {"architectures": ["CLIPTextModel"], "model_type": "clip_text_model"})
    config = {"architectures": ["T5EncoderModel"], "model_type": "t5", **SIZES, "vocab_size": ROWS}
    write_config(root / "text_encoder_2", config)
    (root / "tokenizer").mkdir()
    (root / "tokenizer/vocab.json").write_text("{}\n")
    (root / "tokenizer_2").mkdir()
    (root / "tokenizer_2/spiece.model").write_bytes(SENTENCEPIECE)
    (root / "model_index.json").write_text('{"_class_name": "FluxPipeline"}\n')
    names, stored = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"], state(built)
    shards = {name: {} for name in names}
    weight_map = {}
    for number, (key, value) in enumerate(stored.items()):
        name = names[number * 2 // len(stored)]
        shards[name][key], weight_map[key] = value.to(torch.float16), name
    for name, tensors in shards.items():
        save_file(tensors, root / "text_encoder_2" / name)
    (root / "text_encoder_2/model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}) + "\n")
    add("pipeline", built, model_type="t5", encoder_only=True, tokenizer=True)

    # PyTorch's own files: whole, in shards, and nested in what a trainer saved.
    built = rounded(model(10, num_layers=1), half)
    config = {"architectures": ["T5EncoderModel"], "model_type": "t5", **SIZES, "num_layers": 1}
    tensors = {key: value.to(torch.float16) for key, value in state(built).items()}
    write_config(FOLDER / "pickle", config)
    torch.save(tensors, FOLDER / "pickle/pytorch_model.bin")
    add("pickle", built, model_type="t5", encoder_only=True)
    write_config(FOLDER / "pickle-shards", config)
    names = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]
    weight_map = {key: names[number % 2] for number, key in enumerate(tensors)}
    for name in names:
        torch.save({key: value for key, value in tensors.items() if weight_map[key] == name}, FOLDER / "pickle-shards" / name)
    (FOLDER / "pickle-shards/pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}) + "\n")
    add("pickle-shards", built, model_type="t5", encoder_only=True)
    parameters = {key: torch.nn.Parameter(value) for key, value in tensors.items()}
    torch.save({"epoch": 3, "state_dict": parameters, "loss": 0.5}, FOLDER / "nested.pt")
    add("nested.pt", built, model_type="t5", encoder_only=True)

    # Behind an encoder: the dense layer of the sentence model st5.
    (FOLDER / "dense").mkdir()
    dense = load_file(HERE / "sentence/st5/2_Dense/model.safetensors")
    torch.save(dense, FOLDER / "dense/pytorch_model.bin")

    refused = []

    def refuse(path, expected):
        refused.append({"file": path, "expected": expected})

    torch.save({"a": Code(), **tensors}, FOLDER / "code.bin")
    refuse("code.bin", "posix.system: to load such a file is to run a program; nothing was run")
    torch.save(tensors, FOLDER / "old.bin", _use_new_zipfile_serialization=False)
    refuse("old.bin", "expected PyTorch's zip form, found a bare pickle")
    torch.save({key: value.t() for key, value in tensors.items()}, FOLDER / "turned.bin")
    refuse("turned.bin", "expected values row by row")
    two = {f"a.{key}": value for key, value in plain.items()} | {f"b.{key}": value.clone() for key, value in plain.items()}
    save_file(two, FOLDER / "two.safetensors")
    refuse("two.safetensors", "expected the tensors of one T5, found those of 2: a.*, b.*")
    blocks = {**tensors, "encoder.block.0.layer.0.SelfAttention.q.scale_weight": torch.ones(3)}
    save_file(blocks, FOLDER / "scales.safetensors")
    refuse("scales.safetensors", "q.scale_weight: expected one number to scale all of a weight, found shape [3]")
    lines.append({"refused": refused})
    with open(FOLDER / "golden.jsonl", "w") as out:
        for line in lines:
            out.write(json.dumps(line) + "\n")


main()
