"""Writes tests/golden/tokenizers/{roberta,gpt2,bert}: tokenizers in parts and as tokenizer.json, and the ids that the
transformers library's own (Python) tokenizers give the lines of make_tokenizers.py.

    pip install transformers==4.57 tokenizers
    python make_other_tokenizers.py

Later versions of the library have no tokenizers of its own. ids.bin is as make_tokenizers.py says, for one tokenizer.
"""

import io
import json
import pathlib
import struct

import tokenizers
import transformers
from tokenizers.implementations import BertWordPieceTokenizer, ByteLevelBPETokenizer

FOLDER = pathlib.Path(__file__).parent / "tokenizers"


def train(name, lines):
    folder = FOLDER / name
    folder.mkdir(exist_ok=True)
    if name == "bert":
        trained = BertWordPieceTokenizer(lowercase=True)
        trained.train_from_iterator(lines, vocab_size=700, min_frequency=1, limit_alphabet=250)
        trained.save_model(str(folder))
        config = {"tokenizer_class": "BertTokenizer", "do_lower_case": True}
        slow = transformers.BertTokenizer(str(folder / "vocab.txt"), do_lower_case=True)
    else:
        special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"] if name == "roberta" else ["<|endoftext|>"]
        trained = ByteLevelBPETokenizer(add_prefix_space=False)
        trained.train_from_iterator(lines, vocab_size=600, min_frequency=2, special_tokens=special)
        trained.save_model(str(folder))
        if name == "roberta":
            config = {"tokenizer_class": "RobertaTokenizer", "add_prefix_space": False}
            extra = [f"<extra_id_{n}>" for n in range(3)]
            slow = transformers.RobertaTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"),
                                                 additional_special_tokens=extra)
            names = dict(bos_token="<s>", eos_token="</s>", sep_token="</s>", cls_token="<s>", unk_token="<unk>",
                         pad_token="<pad>", mask_token="<mask>", additional_special_tokens=extra)
            (folder / "special_tokens_map.json").write_text(json.dumps(names) + "\n")
            added = {text: slow.convert_tokens_to_ids(text) for text in extra}
            (folder / "added_tokens.json").write_text(json.dumps(added) + "\n")
        else:
            config = {"tokenizer_class": "GPT2Tokenizer"}
            slow = transformers.GPT2Tokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config) + "\n")
    return slow


def main():
    lines = (FOLDER / "lines.txt").read_text(encoding="utf-8").split("\n")[:-1]
    for name in ["roberta", "gpt2", "bert"]:
        slow = train(name, lines)
        out = io.BytesIO()
        for line in lines + ["a <extra_id_1> b<extra_id_0>"]:
            ids = slow(line)["input_ids"]
            out.write(struct.pack(f"<H{len(ids)}H", len(ids), *ids))
        (FOLDER / name / "ids.bin").write_bytes(out.getvalue())
        versions = {"transformers": transformers.__version__, "tokenizers": tokenizers.__version__, "rows": len(slow)}
        (FOLDER / name / "versions.json").write_text(json.dumps(versions) + "\n")
        print(name, versions)


main()
