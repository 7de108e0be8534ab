"""Writes tests/golden/sentence/*: what sentence-transformers puts behind an encoder, and the vectors that it gives.

    pip install torch==2.15 transformers==5.23 sentence-transformers==6.2
    python make_sentence_models.py

The encoder and its tokenizer are those of families/unigram; a folder here has only what lies beside them.
"""

import json
import pathlib
import shutil
import sys
import tempfile

import sentence_transformers
import torch
import transformers
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer

FOLDER = pathlib.Path(__file__).parent
ENCODER = FOLDER / "families" / "unigram"
TEXTS = [
    "The house",
    "A small red building stands beside the old river.",
    "He sang",
    "The quick brown fox jumps over the lazy dog, and then it sleeps for a long time in the warm sun of the afternoon.",
]
OLD, NEW = "sentence_transformers.models.", "sentence_transformers.sentence_transformer.modules."


def module(index, name, package, path=None):
    return {"idx": index, "name": str(index), "path": path or "", "type": package + name}


MODELS = {
    # As sentence-T5 and GTR are stored.
    "st5": {
        "modules.json": [
            module(0, "Transformer", OLD),
            module(1, "Pooling", OLD, "1_Pooling"),
            module(2, "Dense", OLD, "2_Dense"),
            module(3, "Normalize", OLD, "3_Normalize"),
        ],
        "sentence_bert_config.json": {"max_seq_length": 16, "do_lower_case": False},
        "config_sentence_transformers.json": {"__version__": {"sentence_transformers": "2.2.0"}},
        "1_Pooling/config.json": {
            "word_embedding_dimension": 32,
            "pooling_mode_cls_token": False,
            "pooling_mode_mean_tokens": True,
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
        },
        "2_Dense/config.json": {
            "in_features": 32,
            "out_features": 24,
            "bias": False,
            "activation_function": "torch.nn.modules.linear.Identity",
        },
    },
    # Everything else: other kinds of pooling, prompts that do not take part in it, a bias and an activation.
    "kinds": {
        "modules.json": [
            module(0, "Transformer", "sentence_transformers.base.modules.transformer."),
            module(1, "Pooling", NEW + "pooling.", "1_Pooling"),
            module(2, "Dense", "sentence_transformers.base.modules.dense.", "2_Dense"),
        ],
        "sentence_bert_config.json": {"max_seq_length": 64, "do_lower_case": True},
        "config_sentence_transformers.json": {
            "prompts": {"query": "query: ", "document": "A document: "},
            "default_prompt_name": "document",
        },
        "1_Pooling/config.json": {
            "embedding_dimension": 32,
            "pooling_mode": ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"],
            "include_prompt": False,
        },
        "2_Dense/config.json": {
            "in_features": 192,
            "out_features": 10,
            "bias": True,
            "activation_function": "torch.nn.modules.activation.Tanh",
        },
    },
}


def write(folder, files):
    shutil.rmtree(folder, ignore_errors=True)
    for name, json_value in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(json_value, indent=1) + "\n")
    dense = files["2_Dense/config.json"]
    random = torch.Generator().manual_seed(16)
    rows, columns = dense["out_features"], dense["in_features"]
    tensors = {"linear.weight": torch.randn(rows, columns, generator=random) / columns**0.5}
    if dense["bias"]:
        tensors["linear.bias"] = torch.randn(rows, generator=random) / 4
    save_file(tensors, folder / "2_Dense" / "model.safetensors")


def main():
    for name, files in MODELS.items():
        folder = FOLDER / "sentence" / name
        write(folder, files)
        with tempfile.TemporaryDirectory() as whole:
            shutil.copytree(folder, whole, dirs_exist_ok=True)
            for file in ("config.json", "model.safetensors", "tokenizer.json"):
                shutil.copy(ENCODER / file, whole)
            model = SentenceTransformer(whole, device="cpu", model_kwargs={"dtype": torch.float32})
            print(model)
            lines = []
            for prompt in [None, *files["config_sentence_transformers.json"].get("prompts", {})]:
                for text, vector in zip(TEXTS, model.encode(TEXTS, prompt_name=prompt)):
                    vector = [round(value, 7) + 0.0 for value in vector.tolist()]
                    lines.append({"kind": "embed", "text": text, "prompt": prompt, "vector": vector})
        versions = {
            "sentence_transformers": sentence_transformers.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "python": sys.version.split()[0],
        }
        with open(folder / "golden.jsonl", "w") as out:
            for line in [versions, *lines]:
                print(json.dumps(line), file=out)


main()
