"""Writes tests/golden/heads/*: classifiers and an answerer of the transformers library over the weights of
families/unigram, and what they say, in float32 on the CPU.

    pip install torch==2.15 transformers==5.23
    python make_heads.py

A folder has config.json, the tensors of the head, and golden.jsonl; the rest is the family's.
"""

import json
import pathlib
import sys

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import (
    AutoTokenizer,
    T5Config,
    T5ForQuestionAnswering,
    T5ForSequenceClassification,
    T5ForTokenClassification,
)

FOLDER = pathlib.Path(__file__).parent
MODEL = FOLDER / "families" / "unigram"
TEXTS = ["The house", "A small red building stands beside the old river.", "He sang", "a"]
PAIRS = [
    ("What is red?", "A small red building stands beside the old river."),
    ("Who sang?", "He sang in the house while the others were away."),
]
HEADS = {
    "sequence": (T5ForSequenceClassification, dict(id2label={0: "negative", 1: "neutral", 2: "positive"})),
    "several": (
        T5ForSequenceClassification,
        dict(id2label={0: "sport", 1: "music"}, problem_type="multi_label_classification"),
    ),
    "regression": (T5ForSequenceClassification, dict(id2label={0: "LABEL_0"}, problem_type="regression")),
    "tokens": (T5ForTokenClassification, dict(id2label={0: "O", 1: "B-PER", 2: "I-PER", 3: "B-LOC"})),
    "question": (T5ForQuestionAnswering, {}),
}


def numbers(tensor):
    return [[round(value, 6) + 0.0 for value in row] for row in tensor.tolist()]


def main():
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    base = load_file(MODEL / "model.safetensors")
    for name, (kind, settings) in HEADS.items():
        folder = FOLDER / "heads" / name
        folder.mkdir(parents=True, exist_ok=True)
        config = json.loads((MODEL / "config.json").read_text())
        config["architectures"] = [kind.__name__]
        for key, value in settings.items():
            config[key] = value
        if "id2label" in settings:
            config["label2id"] = {label: index for index, label in settings["id2label"].items()}
        torch.manual_seed(16)
        model = kind(T5Config(**{key: value for key, value in config.items() if key != "torch_dtype"})).eval()
        (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
        state = model.state_dict()
        head = {}
        for key in state:
            plain = key.removeprefix("transformer.")
            if plain in base:
                state[key] = base[plain].float()
            elif plain.endswith("embed_tokens.weight"):
                state[key] = base["shared.weight"].float()
            else:
                state[key] = torch.randn(state[key].shape) / 4
                head[key] = state[key].clone()
        model.load_state_dict(state)
        save_file(head, folder / "head.safetensors")
        lines = []
        with torch.no_grad():
            if name == "question":
                for question, context in PAIRS:
                    ids = tokenizer(question, context)["input_ids"]
                    output = model(input_ids=torch.tensor([ids]))
                    logits = torch.stack([output.start_logits[0], output.end_logits[0]], 1)
                    lines.append(dict(question=question, context=context, ids=ids, logits=numbers(logits)))
            else:
                for text in TEXTS:
                    ids = tokenizer(text)["input_ids"]
                    logits = model(input_ids=torch.tensor([ids])).logits
                    lines.append(dict(text=text, ids=ids, logits=numbers(logits.reshape(-1, logits.shape[-1]))))
        versions = dict(torch=torch.__version__, transformers=transformers.__version__, python=sys.version.split()[0])
        with open(folder / "golden.jsonl", "w") as out:
            for line in [versions, *(dict(kind="head", **line) for line in lines)]:
                print(json.dumps(line), file=out)


main()
