"""Writes tests/golden/states.jsonl: the encoder's states by the transformers library, in float32 on the CPU, without
padding, with padding that is masked or attended to, cut to a length, and of other layers.

    pip install torch==2.15 transformers==5.23
    python make_states.py

The models are those of families/, loaded as people load them: by T5EncoderModel and UMT5EncoderModel.
"""

import json
import pathlib
import sys

import torch
import transformers
from transformers import T5EncoderModel, UMT5EncoderModel

FOLDER = pathlib.Path(__file__).parent
CLASSES = {"encoder-only": T5EncoderModel, "t5-1.0": T5EncoderModel, "umt5": UMT5EncoderModel}
PAD, END = 0, 1


def states(model, ids, mask, layer):
    with torch.no_grad():
        mask = None if mask is None else torch.tensor([mask])
        output = model(input_ids=torch.tensor([ids]), attention_mask=mask, output_hidden_states=layer is not None)
    values = output.last_hidden_state if layer is None else output.hidden_states[layer]
    return [round(value, 5) + 0.0 for value in values[0].flatten().tolist()]


def main():
    lines = []
    for family, kind in CLASSES.items():
        model = kind.from_pretrained(FOLDER / "families" / family, dtype=torch.float32).eval()
        random = torch.Generator().manual_seed(16)
        vocabulary, blocks = model.config.vocab_size, model.config.num_layers

        def draw(length):
            return torch.randint(3, vocabulary, (length - 1,), generator=random).tolist() + [END]

        def add(ids, pad_to=None, pad_mask=None, layer=None):
            read, mask = list(ids), None
            if pad_to is not None:
                # As the reference tokenizers cut and pad.
                read = read if len(read) <= pad_to else [*read[: pad_to - 1], END]
                tokens = len(read)
                read = read + [PAD] * (pad_to - tokens)
                mask = [1] * tokens + [0] * (pad_to - tokens) if pad_mask else None
            case = dict(kind="states", family=family, ids=ids, pad_to=pad_to, pad_mask=pad_mask, layer=layer)
            case = {key: value for key, value in case.items() if value is not None}
            lines.append({**case, "input_ids": read, "states": states(model, read, mask, layer)})

        short, long = draw(6), draw(13)
        add(short)
        add(short, 9, True)
        add(short, 9, False)
        add(long, 9, True)
        add(short, 6, True)
        for layer in (0, 1, blocks - 1, -1, -2):
            add(draw(4), layer=layer)
        add(short, 8, True, layer=1)
    versions = dict(torch=torch.__version__, transformers=transformers.__version__, python=sys.version.split()[0])
    with open(FOLDER / "states.jsonl", "w") as out:
        for line in [versions, *lines]:
            print(json.dumps(line, separators=(",", ":")), file=out)


main()
