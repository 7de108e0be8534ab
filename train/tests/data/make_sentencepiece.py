"""Writes sentencepiece.json: ids by the sentencepiece library (0.2) with a model that our export wrote.

python make_sentencepiece.py SPIECE_MODEL [LINES...]

SPIECE_MODEL is the file that the test `spiece_model` leaves in target/tmp. Further files of text are no part of the
output: how many texts they hold, parted by line breaks and tabs, and the checksum of all ids (CRC-32 of 32-bit numbers,
with 2^32 - 1 behind each text) are printed, for the test to compare.
"""
import json
import struct
import sys
import zlib
from pathlib import Path

import sentencepiece

TEXTS = [
    "translate English to German: Where is the station?",
    "translate English to French: I'd like to insure this package, please.",
    "Wo ist der Bahnhof?",
    "Du hättest völlig recht, wenn es größer wäre.",
    "Où est la gare ? L'été dernier, j'étais à Nîmes.",
    "pronounce: queueing",
    "K Y UW1 IH0 NG",
    "fix: He ided off that disease.",
    "\"Well!\" said Mr. Smith. \"J. B. is here; isn't he?\"",
    "It was the best of times, it was the worst of times...",
    "3.14159 and 1,000,000 (or 50 %)",
    "a",
    "",
    "I",
    "....",
    "....................",
    "aaaaaaaaaaaaaaaaaaaaaaaa",
    "Donaudampfschifffahrtsgesellschaft",
    "supercalifragilisticexpialidocious",
    "UPPER CASE AND lower case",
    "tabs\tand\nnew lines",
    "two  spaces   three",
    "  spaces in front",
    "no-break\u00a0space and ideographic\u3000space",
    "ﬁne ligatures and full-width ＡＢＣ１２３",
    "x² + ½ = Ⅳ ①",
    "e\u0301 composed, é decomposed",
    "ｶﾞ and ガ",
    "zero\u200bwidth and soft\u00adhyphen",
    "日本語の文",
    "mixed 日本 and text",
    "日",
    "emoji 😀 and 👍🏽!",
    "Привет, мир",
    "#hash @at &amp; <b>html</b> {brace} [bracket] | pipe \\ slash ~ ^ `",
    "http://www.example.com/a?b=c&d=e#f",
    "don't can't won't I'm you've she'd it's",
    "– — … “quotes” ‘single’ «angles»",
    "word▁mark",
    "It is 5 o'clock",
]


def main():
    model, *files = sys.argv[1:]
    data = Path(model).read_bytes()
    encode = sentencepiece.SentencePieceProcessor(model_proto=data).EncodeAsIds
    head = f'{{"sentencepiece": "{sentencepiece.__version__}", "crc32": {zlib.crc32(data)}, "rows": [\n'
    rows = (json.dumps({"text": text, "ids": encode(text)}, ensure_ascii=False) for text in TEXTS)
    Path(__file__).with_name("sentencepiece.json").write_text(head + ",\n".join(rows) + "\n]}\n")
    count, checksum = 0, 0
    for name in files:
        for text in Path(name).read_text().removesuffix("\n").replace("\n", "\t").split("\t"):
            ids = [*encode(text), 2**32 - 1]
            count, checksum = count + 1, zlib.crc32(struct.pack(f"<{len(ids)}I", *ids), checksum)
    print(count, checksum)


main()
