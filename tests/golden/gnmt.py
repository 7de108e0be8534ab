"""Beam search with the length penalty of GNMT, as T5 was evaluated (Mesh TensorFlow, T5X).

A literal reading of the published pseudo-code, written for clarity and independent of any library's beam search:

    lp(n) = ((5 + n) / 6) ** alpha, n = generated tokens including the end token
    live = B slots with log-probabilities [0, -1e7, -1e7, ...]; finished = B slots at -1e7
    step i (n = i + 1):
        candidates = log_softmax(logits) + live log-probability           # B * V
        take the best 2B
        new live = best B of the 2B that do not end in the end token, by raw log-probability
        finished = best B of old finished and candidates that end, score = log-probability / lp(n)
    stop at the limit, or when worst finished score > best live log-probability / lp(limit)
    result: finished if any finished, else live with raw log-probabilities; best first

The published rule knows one end token. With E of them the best (1 + E) * B candidates are taken, so that B that go on
are among them, as the 2B are there for.
"""

import heapq

EMPTY = -1e7


def length_penalty(n, alpha):
    return ((5.0 + n) / 6.0) ** alpha


def beam_search(log_probs, prompt, beams, alpha, limit, ends):
    """`log_probs(sequences)` gives, for each sequence of ids, the log-probabilities of the next id.

    `prompt` (the start token and a forced prefix) does not count as generated. Returns [(score, ids, finished)]
    with ids after the prompt, best first. Equal scores: the earlier beam, then the lower id.
    """
    live = [(0.0 if slot == 0 else EMPTY, list(prompt)) for slot in range(beams)]
    finished = [(EMPTY, None) for _ in range(beams)]
    for step in range(limit):
        n = step + 1
        rows = log_probs([sequence for _, sequence in live])
        candidates = [
            (total + float(value), beam, token)
            for beam, ((total, _), row) in enumerate(zip(live, rows))
            for token, value in enumerate(row)
        ]
        best = heapq.nsmallest((1 + len(ends)) * beams, candidates, key=lambda c: (-c[0], c[1], c[2]))
        grown = [(total, live[beam][1] + [token]) for total, beam, token in best]
        ended = [(total / length_penalty(n, alpha), ids) for total, ids in grown if ids[-1] in ends]
        finished = sorted(finished + ended, key=lambda slot: -slot[0])[:beams]
        live = [(total, ids) for total, ids in grown if ids[-1] not in ends][:beams]
        if finished[-1][0] > live[0][0] / length_penalty(limit, alpha):
            break
    real = [(score, ids) for score, ids in finished if ids is not None]
    start = len(prompt)
    if real:
        return [(score, ids[start:], True) for score, ids in real]
    return [(score, ids[start:], False) for score, ids in live]


def check():
    """The two published test cases of T5X's beam search."""
    import numpy as np

    def log_softmax(row):
        row = np.array(row, dtype=np.float64)
        return row - np.log(np.exp(row - row.max()).sum()) - row.max()

    # First-order toy model with states PAD, A, B, START, END.
    a, b, start, end = 1, 2, 3, 4
    same, other = [1.0, -1.0, 1.0, -1.0], [-1.0, 1.0, -1.0, 1.0]

    def toy(sequences):
        rows = []
        for ids in sequences:
            row, step = [-1e6] * 5, len(ids) - 1
            if ids[-1] == start:
                row[a] = row[b] = 0.0
            elif ids[-1] == end or step > 4:
                row[end] = 0.0
            else:
                row[ids[-1]] = same[step - 1]
                row[a + b - ids[-1]] = other[step - 1]
            rows.append(row)
        # Edges add up as they are: both best paths have the same sum.
        return rows

    paths = sorted(ids for _, ids, _ in beam_search(toy, [start], 2, 0.0, 6, {end}))
    assert paths == [[a, a, b, b, a, end], [b, b, a, a, b, end]], paths

    # Constant logits and a forced prompt.
    for prompt, better, worse in [([7], 2, 3), ([4, 5], 3, 2)]:
        row = [-1e9] * 10
        row[better], row[worse] = -0.1, -0.9
        left = 5 - len(prompt)
        result = beam_search(lambda ids: [log_softmax(row)] * len(ids), [0] + prompt, 2, 0.0, left, {1})
        assert result[0][1] == [better] * left, result
        # Where the worse id stands is a tie, which rounding decides.
        assert sorted(result[1][1]) == sorted([worse] + [better] * (left - 1)), result
    assert abs(-2.0 / length_penalty(5, 0.6) - -1.47204) < 1e-5


if __name__ == "__main__":
    check()
    print("the published cases hold")
