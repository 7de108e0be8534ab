#!/usr/bin/env python3
"""The reference's answers of the built-in model, from its checkpoint before quantisation.

usage: make_pocket.py CHECKPOINT_FOLDER > pocket.jsonl      needs torch and transformers
"""

import json
import sys

import torch
import transformers
from transformers import AutoTokenizer, T5ForConditionalGeneration

TEXTS = [
    "translate English to German: Where is the station?",
    "translate English to German: I have never seen such a beautiful house.",
    "translate English to German: She reads a book every week.",
    "translate English to German: We have to leave early tomorrow, because the train does not wait.",
    "translate English to German: How much does this cost?",
    "translate English to German: My sister's friend lives in a small town near the sea.",
    "translate English to French: Where is the station?",
    "translate English to French: We are going to the beach tomorrow.",
    "translate English to French: My brother lives in a small town.",
    "translate English to French: Do you want to drink a coffee with me?",
    "translate English to French: He didn't know what he should say.",
    "translate English to French: It's raining, so I stay at home.",
    "translate German to English: Wo ist der Bahnhof?",
    "translate German to English: Meine Schwester wohnt in einem kleinen Haus am Meer.",
    "translate German to English: Wir müssen morgen früh los, weil der Zug nicht wartet.",
    "translate French to English: Où est la gare ?",
    "translate French to English: Il ne savait pas ce qu'il devait dire.",
    "translate French to English: Il pleut, alors je reste à la maison.",
    "translate English to German: The cat sleeps. The dog barks.",
    "pronounce: s t a t i o n",
    "pronounce: t h o r o u g h",
    "pronounce: p o c k e t",
    "pronounce: t r a n s f o r m e r",
    "pronounce: q u i e t l y",
    "fix: he go to school evry day",
    "fix: I has two cat.",
    "fix: Their is a problem with teh car.",
    "fix: She dont knwo what to do .",
    "fix: This sentence is right.",
    "The <extra_id_0> walks in <extra_id_1> park.",
    "Where <extra_id_0> the station?",
]

folder = sys.argv[1]
tokenizer = AutoTokenizer.from_pretrained(folder)
model = T5ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
reference = f"transformers {transformers.__version__}"
print(json.dumps({"reference": reference, "torch": torch.__version__, "dtype": "float32"}))
for text in TEXTS:
    source = tokenizer(text, return_tensors="pt").input_ids
    options = dict(do_sample=False, num_beams=1, max_new_tokens=64)
    with torch.no_grad():
        ids = model.generate(input_ids=source, **options)[0, 1:]
        logits = model(input_ids=source, labels=ids[None]).logits[0]
    logprobs = torch.log_softmax(logits.double(), -1).gather(1, ids[:, None])[:, 0]
    record = {
        "kind": "greedy",
        "text": text,
        "input_ids": source[0].tolist(),
        "ids": ids.tolist(),
        "answer": tokenizer.decode(ids, skip_special_tokens=True),
        "logprobs": [round(value, 5) for value in logprobs.tolist()],
    }
    print(json.dumps(record, ensure_ascii=False))
