"""The loss of a student with a teacher and its derivative by the logits, in float64, with NumPy 2.4.

    python make_distillation.py > distillation.json

The derivatives are central differences of the loss, not a formula of their own.
"""

import json

import numpy as np

CLASSES, TOKENS = 9, 4


def values(seed, count):
    i = np.arange(count, dtype=np.float64)
    return ((7919 * seed + 104729 * i + 31 * i * i) % 1009) / 1009 - 0.5


def log_softmax(x):
    x = x - x.max()
    return x - np.log(np.exp(x).sum())


def loss(logits, case):
    """The weighted sum over tokens, over the denominator, and the weighted sum of divergences."""
    total, divergence = 0.0, 0.0
    share, temperature = case["weight"], case["temperature"]
    for x, target, weight, ids, kept in zip(
        logits, case["targets"], case["weights"], case["ids"], case["probabilities"]
    ):
        log_p = log_softmax(x)
        log_z = x[0] - log_p[0]
        smooth = np.full(CLASSES, case["label_smoothing"] / CLASSES)
        smooth[target] += 1 - case["label_smoothing"]
        teacher = np.full(CLASSES, max(0.0, 1 - sum(kept)) / max(1, CLASSES - len(ids)))
        teacher[ids] = kept
        log_q = log_softmax(x / temperature)
        some = teacher > 0
        kl = (teacher[some] * (np.log(teacher[some]) - log_q[some])).sum()
        hard = -(smooth * log_p).sum()
        total += weight * ((1 - share) * hard + case["z_loss"] * log_z**2 + share * temperature**2 * kl)
        divergence += weight * kl
    return total / case["denominator"], divergence


def case(seed, kept, weight, temperature, smoothing):
    logits = 6 * values(seed, TOKENS * CLASSES).reshape(TOKENS, CLASSES)
    teacher = np.exp(8 * values(seed + 1, TOKENS * CLASSES).reshape(TOKENS, CLASSES) / temperature)
    teacher /= teacher.sum(1, keepdims=True)
    ids = np.argsort(-teacher, 1)[:, :kept]
    # Halves, as the cache holds them.
    probabilities = np.take_along_axis(teacher, ids, 1).astype(np.float16).astype(np.float64)
    out = {
        "weight": weight,
        "temperature": temperature,
        "label_smoothing": smoothing,
        "z_loss": 0.01,
        "denominator": 3.0,
        "targets": [3, 0, 8, 5],
        "weights": [1.0, 0.5, 0.0, 1.0],
        "ids": ids.tolist(),
        "probabilities": probabilities.tolist(),
        "logits": logits.tolist(),
    }
    out["loss"], out["divergence"] = loss(logits, out)
    gradient = np.zeros_like(logits)
    for at in np.ndindex(*logits.shape):
        step = np.zeros_like(logits)
        step[at] = 1e-5
        gradient[at] = (loss(logits + step, out)[0] - loss(logits - step, out)[0]) / 2e-5
    out["gradient"] = gradient.tolist()
    return out


cases = [
    case(3, 4, 0.5, 2.0, 0.0),
    case(5, CLASSES, 1.0, 1.0, 0.0),
    case(7, 1, 0.25, 4.0, 0.1),
    case(11, 6, 0.9, 0.5, 0.1),
]
print(json.dumps(cases, indent=1))
