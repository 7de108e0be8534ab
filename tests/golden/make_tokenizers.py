"""Writes tests/golden/tokenizers/*: small SentencePiece models of the kinds other than Unigram, and the ids that the
sentencepiece package gives 2,000 lines in several scripts.

    pip install sentencepiece
    python make_tokenizers.py

Lines are made of the words below, which are everyday words of each language, by a seeded generator; lines.txt keeps
them. ids.bin holds, for each model in the order of models.json, the ids of every line behind their number, as
little-endian 16-bit numbers.
"""

import io
import json
import pathlib
import random
import struct
import tempfile

import sentencepiece

FOLDER = pathlib.Path(__file__).parent / "tokenizers"
WORDS = [
    "the quick brown fox jumps over a lazy dog while seven children read their books quietly near the old harbour wall",
    "der kleine Hund läuft schnell über die große Straße und sucht überall seinen Ball am schönen grünen Fluss",
    "le garçon mange une crêpe à côté de la fenêtre où l'élève écrit déjà sa leçon d'été cœur naïve",
    "быстрая лисица прыгает через ленивую собаку пока дети читают книги возле старой пристани ёжик",
    "η γρήγορη αλεπού πηδάει πάνω από το τεμπέλικο σκυλί ενώ τα παιδιά διαβάζουν βιβλία",
    "الثعلب السريع يقفز فوق الكلب الكسول والأطفال يقرؤون الكتب قرب الميناء القديم",
    "השועל המהיר קופץ מעל הכלב העצלן והילדים קוראים ספרים ליד הנמל",
    "तेज़ लोमड़ी आलसी कुत्ते के ऊपर कूदती है और बच्चे किताबें पढ़ते हैं",
    "ความ เร็ว หมา จิ้งจอก กระโดด ข้าม สุนัข ขี้เกียจ เด็ก อ่าน หนังสือ",
    "敏捷的 狐狸 跳过 懒狗 孩子们 在 旧港口 旁边 安静地 读书",
    "素早い キツネ が 怠け者の 犬 を 飛び越え こども は 本を よむ ｶﾞｷﾞ",
    "빠른 여우 가 게으른 개를 뛰어넘고 아이들은 책을 읽는다",
    "nhanh con cáo nhảy qua chó lười biếng trẻ em đọc sách cạnh bến cảng",
    "1 23 456 7,890 3.14 10:30 50% ½ ² ﬁ ﬂ Ⅳ № ™ … — « » “ ” ¿ ¡ € £ 😀 👩‍🚀 🇩🇪 e\u0301 a\u0308 \u00a0 \u3000 ａｂｃ",
]
MODELS = {
    "bpe": dict(model_type="bpe", vocab_size=700, character_coverage=0.98),
    "bpe-bytes": dict(model_type="bpe", vocab_size=800, byte_fallback=True, character_coverage=0.98),
    "bpe-verbatim": dict(model_type="bpe", vocab_size=600, remove_extra_whitespaces=False, add_dummy_prefix=False,
                         normalization_rule_name="identity", character_coverage=0.98),
    "word": dict(model_type="word", vocab_size=150),
    "char": dict(model_type="char", vocab_size=250, character_coverage=0.98),
}


def lines():
    random.seed(20261128)
    made = []
    while len(made) < 2000:
        words = random.choice(WORDS).split(" ")
        if random.random() < 0.3:
            words = words + random.choice(WORDS).split(" ")
        line = ""
        for _ in range(random.randint(0, 9)):
            word = random.choice(words)
            if random.random() < 0.1:
                word = word.upper()
            if random.random() < 0.1:
                word = word[: random.randint(1, len(word))]
            line += random.choice([" ", " ", " ", " ", "  ", "", ", ", "\u3000", "\u00a0", " \t"]) + word
        made.append(line if random.random() < 0.3 else line.strip() + random.choice(["", ".", " ", "!?", "。"]))
    return made


def rules():
    """A character map in the spirit of nmt_nfkc, small enough to commit: sequences, the longest of which counts."""
    table = {chr(0xFF01 + n): chr(0x21 + n) for n in range(94)}
    table |= {"\t": " ", "\u00a0": " ", "\u3000": " ", "\u200d": "", "ﬁ": "fi", "ﬂ": "fl", "½": "1⁄2", "²": "2", "Ⅳ": "IV",
              "№": "No", "™": "TM", "…": "...", "ｶ": "カ", "ｶﾞ": "ガ", "ｷ": "キ", "ｷﾞ": "ギ", "e\u0301": "é", "a\u0308": "ä"}
    code = lambda text: " ".join(f"{ord(c):04X}" for c in text)
    return "".join(f"{code(a)}\t{code(b)}\n" for a, b in table.items())


def main():
    FOLDER.mkdir(exist_ok=True)
    table = tempfile.NamedTemporaryFile("w", suffix=".tsv", encoding="utf-8")
    table.write(rules())
    table.flush()
    text = lines()
    (FOLDER / "lines.txt").write_text("\n".join(text) + "\n", encoding="utf-8")
    out, names = io.BytesIO(), []
    for name, options in MODELS.items():
        model = io.BytesIO()
        if "normalization_rule_name" not in options:
            options = {"normalization_rule_tsv": table.name, **options}
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(text * 2), model_writer=model, pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
            hard_vocab_limit=False, minloglevel=2, **options)
        processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
        (FOLDER / f"{name}.model").write_bytes(model.getvalue())
        for line in text:
            ids = processor.encode(line)
            out.write(struct.pack(f"<H{len(ids)}H", len(ids), *ids))
        unknown = sum(processor.encode(line).count(2) for line in text)
        names.append({"model": name, "pieces": processor.get_piece_size(), "unknown": unknown})
        print(names[-1], len(model.getvalue()))
    (FOLDER / "ids.bin").write_bytes(out.getvalue())
    (FOLDER / "models.json").write_text(json.dumps({"sentencepiece": sentencepiece.__version__, "models": names}) + "\n")


main()
