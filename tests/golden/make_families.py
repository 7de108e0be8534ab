"""Writes tests/golden/families/*: tiny seeded checkpoints and what the transformers library answers with them.

    pip install torch==2.15 transformers==5.23 safetensors sentencepiece tokenizers numpy
    python make_families.py [NAME]...

Each family's folder is a Hugging Face checkpoint plus golden.jsonl, whose first line says which versions made it.
A seed is taken only if its values can be relied upon: no choice hangs on less than MARGIN, beams survive a relative
error of NUDGE in every weight, outputs are varied, and wrong position buckets are noticed. The same seed is found
on every run; a new version of the library should change nothing but the first lines.
"""

import json
import pathlib
import shutil
import sys

import numpy as np
import torch
import transformers

import families
import gnmt
import reference
import tokens

FOLDER = pathlib.Path(__file__).parent / "families"
MARGIN = 2e-3  # logits; float32 sums in another order differ by about 1e-5
NUDGE = 1e-5  # relative weight error, a hundred times that of float32
ATTEMPTS = 12  # inputs tried for a group of cases before the model is given up


class Unsuitable(Exception):
    """This seed's model does not make a good golden."""


def require(condition, why):
    if not condition:
        raise Unsuitable(why)


class Maker:
    def __init__(self, name, seed):
        self.name, self.seed = name, seed
        self.config, self.options = families.config_of(name), families.options_of(name)
        self.end = self.config["eos_token_id"]
        self.ends = self.options.get("generation", {}).get("eos_token_id", [self.end])
        self.state = families.weights(name, seed)
        self.model = reference.build(name, self.state)
        self.nudged = reference.nudged(name, self.state, NUDGE)
        self.rng = np.random.Generator(np.random.PCG64(seed + 1000))
        self.cases = []

    def draw(self, n):
        """Ordinary ids."""
        high = 259 if self.options.get("byte_tokenizer") else self.config["vocab_size"]
        return self.rng.integers(3, high, n).tolist()

    def input(self, n):
        """`n` ids, the last of which is the end token."""
        return self.draw(n - 1) + [self.end]

    def attempt(self, group):
        """Runs a group of cases, again with other inputs if they are unsuitable."""
        done = len(self.cases)
        for _ in range(ATTEMPTS):
            try:
                return group()
            except Unsuitable as reason:
                last = reason
                del self.cases[done:]
        raise Unsuitable(f"{group.__name__}: {last}")

    def add(self, kind, **fields):
        fields = {key: value for key, value in fields.items() if value is not None}
        self.cases.append({"kind": kind, **fields})

    # Encoder

    def encode(self):
        for ids in (self.draw(1), self.input(7), self.input(150)):
            states = reference.encode(self.model, ids)
            self.add(
                "encode",
                input_ids=ids,
                first=reference.numbers(states[0]),
                last=reference.numbers(states[-1]),
                mean=reference.numbers(states.mean(0)),
                rms=reference.numbers(states.square().mean().sqrt()),
            )
        wrong = reference.encode(reference.with_max_distance(self.model, 37), ids)
        require((wrong[-1] - states[-1]).abs().max() > 0.05, "the long input does not notice wrong buckets")

    # Greedy

    def greedy(self, inputs, **options):
        found = reference.greedy(self.model, inputs, self.ends, **options)
        again = reference.greedy(self.nudged, inputs, self.ends, **options)
        for row, other in zip(found, again):
            require(row["margins"].min() > MARGIN, "a margin is too small")
            require(row["ids"] == other["ids"], "greedy ids change with rounding")
        return found

    def add_greedy(self, ids, prefix=None, allowed_tokens=None, **options):
        (found,) = self.greedy([ids], prefix=prefix or (), allowed=allowed_tokens, **options)
        scored = reference.score(self.model, ids, found["ids"], prefix or ())
        require((scored - found["logprobs"]).abs().max() < 2e-4, "cached and uncached decoding differ")
        self.add(
            "greedy",
            input_ids=ids,
            prefix=prefix,
            allowed_tokens=allowed_tokens,
            **options,
            ids=found["ids"],
            logprobs=reference.numbers(found["logprobs"]),
            min_margin=reference.numbers(found["margins"].min()),
        )
        return found["ids"]

    def greedy_free(self):
        found = [self.add_greedy(ids, max_new_tokens=32) for ids in (self.draw(1), self.input(7), self.input(24))]
        require(sum(3 <= len(ids) < 32 and ids[-1] in self.ends for ids in found) >= 2, "too few natural ends")
        require(min(len(set(ids)) / len(ids) for ids in found) > 0.3, "a monotonous answer")

    def greedy_long_input(self):
        ids = self.add_greedy(self.input(150), max_new_tokens=32, min_new_tokens=12)
        require(len(set(ids)) >= 6, "a monotonous answer")

    def greedy_long_answer(self):
        ids = self.input(24)
        found = self.add_greedy(ids, max_new_tokens=140, min_new_tokens=140)
        require(len(set(found)) >= 16 and len(set(found[-24:])) >= 4, "the long answer is monotonous")
        right = reference.score(self.model, ids, found)
        wrong = reference.score(reference.with_max_distance(self.model, 37), ids, found)
        require((right - wrong)[64:].abs().max() > 0.05, "the long answer does not notice wrong buckets")

    def greedy_options(self):
        ids, prefix = self.input(8), self.draw(3)
        same = dict(max_new_tokens=20, min_new_tokens=20)
        plain = self.add_greedy(ids, **same)
        require(len(set(plain)) < 18, "nothing is repeated")
        few = sorted(set(self.draw(20)) - set(self.ends)) + self.ends
        for options in (
            dict(no_repeat_ngram_size=2, **same),
            dict(repetition_penalty=1.5, **same),
            dict(suppress_tokens=sorted(set(plain[:4])), **same),
            dict(allowed_tokens=few, **same),
            dict(prefix=prefix, **same),
            dict(prefix=prefix, no_repeat_ngram_size=3, repetition_penalty=1.2, max_new_tokens=20, min_new_tokens=8),
        ):
            found = self.add_greedy(ids, **options)
            require(found != plain and len(set(found)) > 3, "an option changes nothing")

    def greedy_batch(self):
        inputs = [self.input(n) for n in (4, 18, 2, 41, 10)]
        found = self.greedy(inputs, max_new_tokens=24)
        for ids, row in zip(inputs, found):
            (alone,) = self.greedy([ids], max_new_tokens=24)
            require(alone["ids"] == row["ids"], "the library's padded batch differs from single inputs")
        require(len({len(row["ids"]) for row in found}) >= 3, "rows of a batch end together")
        self.add(
            "batch",
            input_ids=inputs,
            max_new_tokens=24,
            ids=[row["ids"] for row in found],
            logprobs=[reference.numbers(row["logprobs"]) for row in found],
        )

    # Beams

    def add_beam(self, ids, prefix=None, **options):
        found = reference.beam(self.model, ids, self.ends, prefix or (), **options)
        again = reference.beam(self.nudged, ids, self.ends, prefix or (), **options)
        self.compare(found, again)
        require(all(score > -1e6 for _, score in found), "an unfilled beam")
        self.add("beam", input_ids=ids, prefix=prefix, **options, n_best=self.n_best(found))
        return [ids for ids, _ in found]

    def add_gnmt(self, ids, beams, alpha, limit, prefix=None):
        arguments = (ids, self.ends, beams, alpha, limit, prefix or ())
        found = reference.gnmt_beam(self.model, *arguments)
        self.compare(found, reference.gnmt_beam(self.nudged, *arguments))
        self.add(
            "gnmt_beam",
            input_ids=ids,
            prefix=prefix,
            num_beams=beams,
            alpha=alpha,
            max_new_tokens=limit,
            finished=found[0][0][-1] in self.ends,
            n_best=self.n_best(found),
        )
        return [ids for ids, _ in found]

    def compare(self, found, again):
        require([ids for ids, _ in found] == [ids for ids, _ in again], "beams change with rounding")
        scores = [score for _, score in found]
        require(all(a - b > 1e-4 for a, b in zip(scores, scores[1:])), "two beams are nearly equal")

    @staticmethod
    def n_best(found):
        return [{"ids": ids, "score": reference.numbers(score)} for ids, score in found]

    def beam_rules(self):
        ids = self.input(7)
        rules = ((1.0, False), (0.6, True), (2.0, "never"), (0.0, False), (1.0, True), (-0.5, "never"))
        found = [
            self.add_beam(ids, num_beams=4, length_penalty=penalty, early_stopping=early, max_new_tokens=16)
            for penalty, early in rules
        ]
        require(len({str(result) for result in found}) >= 3, "length penalty and stopping rule change nothing")
        require(found[0] != found[4], "early stopping changes nothing")
        require(len({len(ids) for ids in found[0]}) >= 2, "all beams have one length")

    def beam_long_input(self):
        self.add_beam(self.input(150), num_beams=4, length_penalty=1.0, early_stopping=False, max_new_tokens=20)

    def beam_long_answer(self):
        rule = dict(num_beams=2, length_penalty=1.0, early_stopping=False)
        self.add_beam(self.input(9), **rule, min_new_tokens=132, max_new_tokens=132)

    def beam_summary(self):
        """The summarisation parameters of the T5 checkpoints."""
        self.add_beam(
            self.input(24),
            num_beams=4,
            length_penalty=2.0,
            early_stopping=True,
            no_repeat_ngram_size=3,
            min_new_tokens=10,
            max_new_tokens=24,
        )

    def beam_prefix(self):
        self.add_beam(
            self.input(7),
            prefix=self.draw(3),
            num_beams=3,
            length_penalty=1.0,
            early_stopping=False,
            repetition_penalty=1.3,
            max_new_tokens=12,
        )

    def beam_gnmt(self):
        ids = self.input(8)
        found = [self.add_gnmt(ids, 4, alpha, 16) for alpha in (0.6, 0.0, 2.0)]
        require(len({str(result) for result in found}) >= 2, "alpha changes nothing")
        require(len(found[0][0]) >= 3, "the best answer is too short")

    def beam_gnmt_prefix(self):
        found = self.add_gnmt(self.input(8), 3, 0.6, 12, self.draw(3))
        require(len(found[0]) >= 2, "the best answer is too short")

    def beam_gnmt_cut(self):
        found = self.add_gnmt(self.input(150), 2, 0.6, 3)
        require(found[0][-1] not in self.ends, "the short limit should leave nothing finished")

    # The rest

    def score(self):
        for source, target in ((7, 10), (1, 1), (24, 140)):
            ids, target_ids = self.draw(source), self.input(target)
            found = reference.score(self.model, ids, target_ids)
            self.add("score", input_ids=ids, target_ids=target_ids, logprobs=reference.numbers(found))

    def alignment(self):
        ids, target_ids = self.input(7), self.input(5)
        weights = reference.cross_attention(self.model, ids, target_ids)
        self.add("alignment", input_ids=ids, target_ids=target_ids, weights=reference.numbers(weights, digits=5))

    def distribution(self):
        ids = self.input(12)
        for options in (
            dict(temperature=0.7),
            dict(top_k=5),
            dict(top_p=0.8),
            dict(min_p=0.1),
            dict(temperature=1.6, top_k=12, top_p=0.9, min_p=0.04),
        ):
            settings = {"top_k": 0, "top_p": 1.0, "temperature": 1.0, **options}
            found = reference.first_distribution(self.model, ids, self.ends, **settings).tolist()
            again = reference.first_distribution(self.nudged, ids, self.ends, **settings).tolist()
            require([p > 0 for p in found] == [p > 0 for p in again], "a filter is undecided")
            require(sum(p > 0.01 for p in found) > 2, "a filter leaves too little")
            kept = [[i, reference.numbers(p)] for i, p in enumerate(found) if p > 0]
            if len(kept) == len(found):  # nothing is cut off: the tail says nothing
                kept = [pair for pair in kept if pair[1] > 1e-3]
            self.add("distribution", input_ids=ids, **options, probabilities=kept)

    def defaults(self):
        """A request without options: generation_config.json decides."""
        options = {key: value for key, value in self.options["generation"].items() if "_token_id" not in key}
        ids = self.input(11)
        found = reference.beam(self.model, ids, self.ends, **options)
        self.compare(found, reference.beam(self.nudged, ids, self.ends, **options))
        self.add("defaults", input_ids=ids, n_best=self.n_best(found))

    def text(self, encode, decode):
        for text in tokens.SAMPLES:
            # The library's ByT5 counts sentinels upwards from 259; the checkpoints were trained with 258 downwards.
            if not (self.options.get("byte_tokenizer") and "<" in text):
                ids = encode(text)
                self.add("tokenize", text=text, ids=ids, decoded=decode(ids))
        if self.options.get("unigram"):
            for text in tokens.SAMPLES[:4]:
                ids = encode(text)
                (found,) = self.greedy([ids], max_new_tokens=24)
                self.add(
                    "text",
                    text=text,
                    max_new_tokens=24,
                    ids=found["ids"],
                    output=decode(found["ids"]),
                    logprobs=reference.numbers(found["logprobs"]),
                )

    def rounding(self):
        """How far float32 is from float64: what tolerances are chosen from."""
        exact = reference.build(self.name, self.state, torch.float64)
        ids, target = self.input(150), self.input(140)
        if self.options.get("encoder_only"):
            return (reference.encode(exact, ids) - reference.encode(self.model, ids)).abs().max().item()
        single, double = (reference.score(model, ids, target) for model in (self.model, exact))
        return (single - double).abs().max().item()


def make(name, seed):
    maker = Maker(name, seed)
    one_stack = families.is_one_stack(name)
    groups = [] if one_stack else [maker.encode]
    if not maker.options.get("encoder_only"):
        groups += [maker.greedy_free, maker.greedy_long_input, maker.greedy_long_answer, maker.greedy_options]
        groups += [maker.greedy_batch, maker.beam_rules, maker.beam_long_input, maker.beam_long_answer]
        groups += [maker.beam_summary, maker.beam_prefix, maker.beam_gnmt, maker.beam_gnmt_prefix, maker.beam_gnmt_cut]
        groups += [maker.score, maker.distribution] if one_stack else [maker.score, maker.alignment, maker.distribution]
    if "generation" in maker.options:
        groups.append(maker.defaults)
    for group in groups:
        maker.attempt(group)
    folder = FOLDER / name
    if folder.exists():
        shutil.rmtree(folder)
    families.write(name, maker.state, folder)
    if maker.options.get("unigram"):
        tokens.train(folder)
        maker.text(*tokens.unigram(folder))
    if maker.options.get("byte_tokenizer"):
        maker.text(*tokens.byte_level(folder))
    header = {
        "family": name,
        "purpose": families.FAMILIES[name][0],
        "reference": f"transformers {transformers.__version__}",
        "torch": torch.__version__,
        "dtype": "float32",
        "seed": seed,
        "float32_minus_float64": float(f"{maker.rounding():.1e}"),
    }
    lines = [json.dumps(line, ensure_ascii=False) for line in [header, *maker.cases]]
    (folder / "golden.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return header, len(maker.cases)


def main(names):
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    gnmt.check()
    for name in names or families.FAMILIES:
        for seed in range(1, 400):
            try:
                header, cases = make(name, seed)
            except Unsuitable as reason:
                print(f"{name}: seed {seed}: {reason}", file=sys.stderr)
                if (FOLDER / name).exists():
                    shutil.rmtree(FOLDER / name)
                continue
            size = sum(file.stat().st_size for file in (FOLDER / name).iterdir())
            print(f"{name}: seed {seed}, {cases} cases, {size} bytes, rounding {header['float32_minus_float64']}")
            break
        else:
            sys.exit(f"{name}: no suitable seed")


if __name__ == "__main__":
    main(sys.argv[1:])
