"""Writes metrics.json: inputs and reference values of the metrics' tests.

sacrebleu 2.x, rouge-score 0.1.x, numpy and scipy; classes and the correlations of `numbers` by their textbook formulas.
"""
import json
import math
import random
from pathlib import Path

import numpy as np
import sacrebleu
import scipy.stats
from rouge_score import rouge_scorer

SENTENCES = [
    ("The cat sat on the mat.", ["The cat sat on the mat.", "There was a cat on the mat."]),
    ("Er hat 3,5 Äpfel (rot) gekauft!", ["Er kaufte 3,5 rote Äpfel.", "Er hat 3.5 Äpfel gekauft!", "Er hat Äpfel."]),
    ("«Où est la gare ?»", ["« Où est la gare ? »"]),
    ("It's 5-10 km, e.g. \"nearby\" &amp; cheap…", ["It is 5 - 10 km, e.g. nearby & cheap ..."]),
    ("a", ["an entirely different sentence here", "a"]),
    ("", ["something"]),
    ("Wir wissen es nicht , sagte Tom .", ["Wir wissen es nicht, sagte Tom."]),
    ("Price: 1,000.50 € or £900 = ok", ["Price: 1,000.50€ or £900 = ok", "It costs 1000.50 euros."]),
    ("I am I am I am", ["I am I think", "I am"]),
]

SUMMARIES = [
    ("the cat was found under the bed", "the cat was under the bed"),
    ("First sentence here . Second one follows . Third !", "The first sentence . A third one ."),
    ("We show that transformers learn. They scale well .",
     "Transformers learn and scale . They do it well . We show that ."),
    ("", "nothing was said"),
    ("Same text . Same text . Same text .", "Same text . Other text . Same same ."),
    ("A-b c_d 12.5 % naïve", "a b c d 12 5 naive"),
    ("w1 w2 w3 w4 w5", "w1 w2 w6 w7 w8 . w1 w3 w8 w9 w5 ."),
]


def corpus(name, pairs):
    predictions = [p for p, _ in pairs]
    references = [r for _, r in pairs]
    most = max(len(r) for r in references)
    streams = [[r[i] if i < len(r) else None for r in references] for i in range(most)]
    return {
        "name": name,
        "predictions": predictions,
        "references": references,
        "bleu": sacrebleu.corpus_bleu(predictions, streams).score,
        "bleu_intl": sacrebleu.corpus_bleu(predictions, streams, tokenize="intl").score,
        "chrf": sacrebleu.corpus_chrf(predictions, streams).score,
    }


def summaries():
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"])
    for prediction, target in SUMMARIES:
        # As the T5 code: sentences are lines for rougeLsum.
        scores = scorer.score(target.replace(" . ", " .\n"), prediction.replace(" . ", " .\n"))
        yield {"prediction": prediction, "target": target} | {k: 100 * v.fmeasure for k, v in scores.items()}


def ranks(values):
    order = sorted(values)
    return [sum(i + 1 for i, v in enumerate(order) if v == x) / order.count(x) for x in values]


def numbers(rng):
    targets = [rng.randrange(0, 26) / 5 for _ in range(60)]
    predictions = [round((t + rng.gauss(0, 1)) * 5) / 5 for t in targets]
    correlation = lambda x, y: 100 * float(np.corrcoef(x, y)[0, 1])
    return {
        "targets": targets,
        "predictions": predictions,
        "pearson": correlation(targets, predictions),
        "spearman": correlation(ranks(targets), ranks(predictions)),
    }


EDGES = [
    ("nan", [1, 2, 3], ["nan", 1, 2]),
    ("infinite", [1, 2, 3], ["inf", 1, 2]),
    ("both constant", [0.6] * 20, [1.6] * 20),
    ("constant predictions", [1, 2, 3], [2, 2, 2]),
    ("constant targets", [0.1] * 7, [1, 2, 3, 4, 5, 6, 7]),
    ("large", [1, 2, 3], [1e300, 2e300, 3e300]),
    ("large and mixed", [5, 4.8, 4.8, 3.2, 0], [1e308, -1e308, 3, 2, 1]),
    ("small", [1, 2, 3, 4], [1e-300, 2e-300, 4e-300, 3e-300]),
    ("two", [1, 2], [5, 3]),
    ("mostly constant", [1, 2, 3, 4.2], [-1, -1, -1, 2.2]),
]


def correlations():
    """As the T5 code: scipy.stats, times 100. JSON has no NaN, so those are words."""
    word = lambda value: value if math.isfinite(value) else str(value)
    for name, targets, predictions in EDGES:
        x, y = [float(v) for v in targets], [float(v) for v in predictions]
        yield {
            "name": name,
            "targets": targets,
            "predictions": predictions,
            "pearson": word(100 * float(scipy.stats.pearsonr(x, y)[0])),
            "spearman": word(100 * float(scipy.stats.spearmanr(x, y)[0])),
        }


def classes(rng):
    targets = [rng.randrange(4) for _ in range(80)]
    predictions = [t if rng.random() < 0.5 else rng.randrange(-1, 4) for t in targets]
    kinds = sorted(set(targets) | set(predictions))
    onehot = lambda ids: np.array([[float(i == k) for k in kinds] for i in ids])
    t, p = onehot(targets), onehot(predictions)
    cov = lambda x, y: float(((x - x.mean(0)) * (y - y.mean(0))).sum())
    f1s = []
    for k in range(4):
        hit = sum(a == b == k for a, b in zip(targets, predictions))
        precision = hit / max(1, predictions.count(k))
        recall = hit / max(1, targets.count(k))
        f1s.append(2 * precision * recall / (precision + recall) if hit else 0.0)
    return {
        "targets": targets,
        "predictions": predictions,
        "matthews": 100 * cov(t, p) / math.sqrt(cov(t, t) * cov(p, p)),
        "macro_f1": 100 * sum(f1s) / 4,
        "accuracy": 100 * sum(a == b for a, b in zip(targets, predictions)) / len(targets),
    }


def main():
    rng = random.Random(3)
    data = {
        "sacrebleu": sacrebleu.__version__,
        "corpora": [
            corpus("all", SENTENCES),
            corpus("single reference", [(p, r[:1]) for p, r in SENTENCES]),
            corpus("short", [("good morning", ["good morning Tom"])]),
            corpus("no match", [("x y z", ["a b c"])]),
            corpus("smoothed", [("the a the b", ["the c the d", "a the"])]),
        ]
        + [corpus(f"sentence {i}", [pair]) for i, pair in enumerate(SENTENCES)],
        "summaries": list(summaries()),
        "numbers": numbers(rng),
        "correlations": list(correlations()),
        "classes": classes(rng),
    }
    Path(__file__).with_name("metrics.json").write_text(json.dumps(data, ensure_ascii=False, indent=1) + "\n")


main()
