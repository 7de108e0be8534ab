"""Makes the tokenizer fixtures of this folder: two small vocabularies and what the reference makes of odd texts.

    python make_fixtures.py [path of the t5-tokenizer folder]

Writes small.model, small.json and fallback.model (trained here, on the sentences below) and golden.json. Without the
folder (tokenizer.json and spiece.model of t5-small) the values of the published T5 tokenizer are kept as they are.
golden.json says with which versions it was made.
"""

import base64
import copy
import io
import itertools
import json
import os
import sys
import tempfile

import sentencepiece
import tokenizers
import transformers
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Tokenizer

HERE = os.path.dirname(os.path.abspath(__file__))


def sentences():
    """A few thousand plain sentences in English, German and French."""
    english = (
        ["The gardener", "My sister", "An old sailor", "The teacher", "Our neighbour", "A young painter",
         "The baker's son"],
        ["watered", "repaired", "described", "forgot", "sold", "painted", "remembered", "is looking for"],
        ["the roses", "a wooden boat", "the broken clock", "three letters", "the kitchen window",
         "his notebook (the red one)"],
        ["before sunrise.", "in the rain...", "without a word!", "on Monday, at 10:30.", "for 25 euros.",
         "again and again."],
    )
    german = (
        ["Der Gärtner", "Meine Schwester", "Ein alter Seemann", "Die Lehrerin", "Unser Nachbar", "Die größte Bäckerei"],
        ["beschreibt", "vergisst", "verkauft", "malt", "sucht überall", "repariert", "öffnet"],
        ["die Rosen", "ein Holzboot", "die kaputte Uhr", "drei Briefe", "das Küchenfenster", "den Schlüssel"],
        ["vor Sonnenaufgang.", "im Regen.", "ohne ein Wort!", "am Montag um 10:30 Uhr.", "für 25 Euro.",
         "schon wieder?"],
    )
    french = (
        ["Le jardinier", "Ma sœur", "Un vieux marin", "La maîtresse d'école", "Notre voisin", "L'élève"],
        ["arrose", "décrit", "oublie", "vend", "a peint", "répare", "cherche"],
        ["les roses", "un bateau en bois", "l'horloge cassée", "trois lettres", "la fenêtre de la cuisine", "ses clés"],
        ["avant l'aube.", "sous la pluie...", "sans un mot !", "lundi à 10 h 30.", "pour 25 euros.",
         "encore une fois ?"],
    )
    for language in (english, german, french):
        for parts in itertools.product(*language):
            yield " ".join(parts)


def rules():
    """A character map in the spirit of nmt_nfkc, small enough to commit: lines of code points, from and to."""
    table = {chr(c): "" for c in [*range(1, 9), 0x0B, *range(0x0E, 0x20), 0x7F]}
    table |= {c: " " for c in "\t\n\f\r\u00a0\u2003\u200b\u2028\u3000\u2581\ufeff"}
    table |= {chr(0xFF01 + i): chr(0x21 + i) for i in range(94)}
    table |= {"e\u0301": "é", "a\u0308": "ä", "o\u0308": "ö", "u\u0308": "ü", "c\u0327": "ç", "ﬁ": "fi", "ﬀ": "ff"}
    table |= {"™": "TM", "½": "1\u20442", "…": "...", "①": "1", "é\u0323": "e\u0323\u0301"}
    hexadecimal = lambda text: " ".join(f"{ord(c):X}" for c in text)
    return "".join(f"{hexadecimal(a)}\t{hexadecimal(b)}\n" for a, b in sorted(table.items()))


def train(name, **options):
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as tsv:
        tsv.write(rules())
        tsv.flush()
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=sentences(), model_writer=model, model_type="unigram", pad_id=0, eos_id=1, unk_id=2,
            bos_id=-1, normalization_rule_tsv=tsv.name, num_threads=1, minloglevel=2, hard_vocab_limit=False, **options,
        )  # fmt: skip
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model.getvalue())
    # Nothing of this machine and no copy of the options: only what a reader needs.
    proto.trainer_spec.ClearField("input")
    proto.trainer_spec.ClearField("model_prefix")
    proto.normalizer_spec.ClearField("normalization_rule_tsv")
    data = proto.SerializeToString(deterministic=True)
    with open(os.path.join(HERE, name), "wb") as file:
        file.write(data)
    return proto, sentencepiece.SentencePieceProcessor(model_proto=data)


SENTINELS = 20


def tokenizer_json(proto):
    """The tokenizer.json of a model as published for T5."""
    vocab = [[p.piece, p.score] for p in proto.pieces]
    vocab += [[f"<extra_id_{n}>", 0.0] for n in reversed(range(SENTINELS))]
    special = [0, 1, 2, *range(len(proto.pieces), len(vocab))]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    eos = {"SpecialToken": {"id": "</s>", "type_id": 0}}
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    charsmap = base64.b64encode(proto.normalizer_spec.precompiled_charsmap).decode()
    return {
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 48, "strategy": "LongestFirst", "stride": 0},
        "padding": None,
        "added_tokens": [{"id": i, "content": vocab[i][0]} | flags for i in special],
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": charsmap},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}, eos],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, eos, {"Sequence": {"id": "B", "type_id": 0}}, eos],
            "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}},
        },
        "decoder": metaspace,
        "model": {"type": "Unigram", "unk_id": 2, "vocab": vocab, "byte_fallback": False},
    }


def variants(base):
    """What else is in circulation: a name and the keys that differ from small.json."""
    precompiled = base["normalizer"]
    metaspace = lambda scheme, split=True: {
        "type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split,
    }  # fmt: skip
    sequence = lambda *steps: {"type": "Sequence", "normalizers": list(steps)}
    strip = {"type": "Strip", "strip_left": False, "strip_right": True}
    collapse = lambda content: {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": content}
    never = {"pre_tokenizer": metaspace("never"), "decoder": metaspace("never")}
    before_2024 = {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True, "str_rep": "▁"}
    count = len(base["model"]["vocab"])
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    more = [
        {"id": count, "content": "<left>"} | flags | {"lstrip": True},
        {"id": count + 1, "content": "<right>"} | flags | {"rstrip": True},
        {"id": count + 2, "content": "ﬁnd me"} | flags | {"normalized": True},
        {"id": count + 3, "content": "<extra_id"} | flags,
    ]
    return {
        "published": {},
        "before 2024": {
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, before_2024]},
            "decoder": before_2024,
        },
        "collapse": {"normalizer": sequence(precompiled, collapse(" ")), "pre_tokenizer": metaspace("always")},
        "trim": {"normalizer": sequence(precompiled, strip, collapse("▁")), "pre_tokenizer": metaspace("always")},
        "not legacy": {"normalizer": sequence(precompiled, strip, collapse("▁")), "pre_tokenizer": metaspace("first")},
        "keep": {"normalizer": None, "pre_tokenizer": metaspace("always")},
        "no prefix": {"normalizer": sequence(strip, collapse(" "))} | never,
        "no split": {"normalizer": precompiled, "pre_tokenizer": metaspace("first", split=False)},
        "more tokens": {"added_tokens": base["added_tokens"] + more},
        "more tokens, trim": {
            "added_tokens": base["added_tokens"] + more,
            "normalizer": sequence(precompiled, strip, collapse("▁")),
            "pre_tokenizer": metaspace("first"),
        },
    }


TEXTS = [
    "", " ", "   ", "\t\n", "a", " a", "a ", "  a   b  ", "The gardener\twatered\nthe roses.", "line one\r\nline two\r",
    "Der Gärtner verkauft die größte Bäckerei für 25 Euro.", "L'élève a peint l'horloge cassée, sans un mot !",
    "no\u00a0break\u2003em\u3000wide\u200bzero\u2028line\u0085next", "\ufeffbyte order mark", "trailing tab\t",
    "cafe\u0301 cafe\u0301", "a\u0308o\u0308u\u0308", "e\u0323\u0301", "é\u0323", "\u0301alone",
    "a\u0301\u0302\u0303\u0304\u0305z",
    "ＦＵＬＬ ｗｉｄｔｈ １２３", "ﬁnd me ﬀ ™ ½ … ①", "find me", "xﬁnd mex", "smile 😀 👩‍👩‍👧‍👦 🇩🇪🇫🇷🇩 👍🏽", "日本語 と 한국어", "Привет, мир",
    "العربية \u06001 \u060012", "हिन्दी क्षि", "ไทย", "z̷a̸l̶g̵o̷", "a\0b", "\0", "\x01\x02", "\x01The\x02re",
    "bell\x07 del\x7f esc\x1b",
    "Hello <extra_id_0>.", "Hello<extra_id_0>.", "Hello <extra_id_0> .", "<extra_id_0> a <extra_id_1> b <extra_id_2>",
    "<extra_id_0><extra_id_1>", " <extra_id_0> ", "<extra_id_19><extra_id_20><extra_id_007>", "<extra_id_1",
    "extra_id_0>", "< extra_id_0 >",
    "<pad> Today is <unk> nice day </s>", "the end</s>", "the end </s>", "the end</s> ", "</s>", "</s></s>",
    "the</s>end", "<pad>", "<unk>",
    "＜pad＞", "＜unk＞", "x＜unk＞ｙ日＜unk＞", "＜/s＞", "＜extra_id_0＞", "<s> <S> <PAD> </S>", "▁", "▁a▁▁b▁", "a ▁ b", "_a_",
    "a <left> b <right> c", "<left><right>", "  <right>  <left>  ", "<left>a<left>", "x<extra_id y", "<0x41><0xE2>",
    "[PAD32100]",
    "....................", "--------", "aaaaaaaaaaaaaaaaaaaaaaaaa", "hahahahahahaha", "!?!?!?", "1234567890",
    "10:30", "25 euros",
    "{curly} [square] \\back|pipe~tilde`tick^hat_under", "http://example.org/a?b=c&d=%20", "O'Brien's \"quoted\" “curly” ‘text’ – dash — long",
    "SHOUTING The Gardener", "ß ẞ œ Œ æ ç Ç ñ", "x" * 300, "ab " * 60, "é" * 100, "👍" * 40,
]  # fmt: skip


def ids_to_decode(count):
    """Id lists for decoding only: unknown ids, several </s>, pieces with and without a space in odd places."""
    return [
        [], [0], [1], [2], [1, 5, 6], [5, 1, 6, 1], [0, 0, 5, 6], [2, 5], [5, 2, 2, 6], list(range(3, 60)),
        [count - 1, 5, count - 2, 6], [3, 3, 3, 5], [count - 1, 3, 5],
    ]  # fmt: skip


def results(encode, decode, texts, lists):
    ids = [encode(text) for text in texts]
    text = lambda skip: [decode(i, skip) for i in ids + lists]
    return {"ids": ids, "lists": lists, "decoded": text(False), "decoded_skip_special": text(True)}


def of_file(description, texts, lists):
    tokenizer = Tokenizer.from_str(json.dumps(description))
    tokenizer.no_truncation()
    return results(
        lambda text: tokenizer.encode(text).ids,
        lambda ids, skip: tokenizer.decode(ids, skip_special_tokens=skip),
        texts,
        lists,
    )


def main():
    proto, _ = train("small.model", vocab_size=420, split_digits=True)
    base = tokenizer_json(proto)
    with open(os.path.join(HERE, "small.json"), "w") as file:
        json.dump(base, file, ensure_ascii=False, separators=(",", ":"))
    made_with = {m.__name__: m.__version__ for m in (tokenizers, sentencepiece, transformers)}
    golden = {"made_with": made_with, "texts": TEXTS}

    # The test runs the crate itself on the variants; the values of the library for Python are kept for two.
    golden["variants"] = copy.deepcopy(variants(base))
    for variant in golden["variants"].values():
        normalizer = variant.get("normalizer")
        for step in (normalizer or {}).get("normalizers", [normalizer]):
            if step and step["type"] == "Precompiled":
                step["precompiled_charsmap"] = "that of small.json"
    for name in ("published", "more tokens, trim"):
        description = base | variants(base)[name]
        count = max(token["id"] for token in description["added_tokens"]) + 1
        golden[f"small.json, {name}"] = of_file(description, TEXTS, ids_to_decode(count))

    proto, processor = train(
        "fallback.model", vocab_size=620, byte_fallback=True, remove_extra_whitespaces=False,
        user_defined_symbols=["<2de>"]
    )
    plain = [text for text in TEXTS if "<" not in text and "＜" not in text]
    golden["sentencepiece fallback.model"] = {
        "texts": plain,
        "ids": [processor.encode(text) for text in plain],
        "decoded": [processor.decode(processor.encode(text)) for text in plain],
    }

    byt5 = transformers.ByT5Tokenizer()
    plain = [text for text in TEXTS if "<extra_id_" not in text and len(text) < 100]
    encode = lambda text: byt5(text).input_ids
    decode = lambda ids, skip: byt5.decode(ids, skip_special_tokens=skip)
    lists = [[], [0, 100, 1, 100], [229, 133, 100], [229, 100, 2, 100], [243, 131, 100], [197, 197, 197, 172, 131]]
    golden["byt5"] = {"texts": plain} | results(encode, decode, plain, lists)

    path = os.path.join(HERE, "golden.json")
    if len(sys.argv) > 1:
        with open(os.path.join(sys.argv[1], "tokenizer.json")) as file:
            golden["t5"] = of_file(json.load(file), TEXTS, ids_to_decode(32100))
        loaded = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
        different = [t for t, ids in zip(TEXTS, golden["t5"]["ids"]) if loaded(t).input_ids != ids]
        assert not different, f"transformers differs on {different}"
        processor = sentencepiece.SentencePieceProcessor(model_file=os.path.join(sys.argv[1], "spiece.model"))
        pairs = zip(TEXTS, golden["t5"]["ids"])
        different = [t for t, ids in pairs if "<" not in t and processor.encode(t) + [1] != ids]
        golden["t5"]["sentencepiece differs"] = different
    else:
        with open(path) as file:
            golden["t5"] = json.load(file)["t5"]
    with open(path, "w") as file:
        file.write(pretty(golden))


def pretty(value, depth=0):
    """JSON with lists of numbers on one line each."""
    if isinstance(value, dict) and depth < 3:
        inner = ",\n".join(f"{json.dumps(k)}: {pretty(v, depth + 1)}" for k, v in value.items())
        return "{\n" + inner + "\n}"
    if isinstance(value, list) and depth < 4 and value and isinstance(value[0], (list, str)):
        return "[\n" + ",\n".join(json.dumps(v, separators=(",", ":")) for v in value) + "\n]"
    return json.dumps(value, ensure_ascii=True, separators=(",", ":")) + ("\n" if depth == 0 else "")


if __name__ == "__main__":
    main()
