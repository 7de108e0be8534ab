"""Writes tests/golden/processors/*: what the transformers library makes of the rarer settings of generation_config.json
on the tiny checkpoints of families/.

    pip install torch==2.15 transformers==4.56.2 safetensors numpy
    python make_processors.py
    pip install transformers==5.23
    python make_processors.py

4.56 is the last version with diverse beam search of its own; `top_h` came with 5. Each version writes a file of its own
for each family; the first line says which. Cases are kept by the rules of make_families.py: no choice hangs on less
than MARGIN, and beams survive NUDGE.
"""

import json
import pathlib

import numpy as np
import torch
import transformers

import families
import reference
from make_families import MARGIN, NUDGE, Maker, Unsuitable, require

FOLDER = pathlib.Path(__file__).parent / "processors"
FAMILIES = ("t5-1.0", "odd", "several-ends")
ATTEMPTS = 200
OLD = transformers.__version__.startswith("4.")


def penalise_every_beam():
    """The library penalises tokens of the source in the first beam only: it gathers the scores of as many rows as there
    are sources. Here every beam is penalised, as the setting is documented; without beams it makes no difference."""
    penalty = transformers.generation.logits_process.EncoderRepetitionPenaltyLogitsProcessor
    original = penalty.__call__

    def call(self, input_ids, scores):
        if self.encoder_input_ids.shape[0] == 1:
            self.encoder_input_ids = self.encoder_input_ids.expand(scores.shape[0], -1)
        return original(self, input_ids, scores)

    penalty.__call__ = call


class Processors(Maker):
    def __init__(self, name):
        header = json.loads((pathlib.Path(__file__).parent / "families" / name / "golden.jsonl").open().readline())
        super().__init__(name, header["seed"])
        self.rng = np.random.Generator(np.random.PCG64(7))

    def until_suitable(self, case):
        """Adds a case with the first inputs that suit it."""
        for _ in range(ATTEMPTS):
            try:
                return case()
            except Unsuitable as reason:
                last = reason
        raise Unsuitable(last)

    def biases(self):
        pairs = [[self.draw(1), 3.0], [self.draw(1), -4.0]]
        # After every token that may come first: some apply.
        second = self.draw(1)[0]
        pairs += [[[first, second], 2.5] for first in range(3, 40)]
        return {"sequence_bias": pairs}

    def greedy_case(self, options, prefix=None, must_differ=True):
        ids = self.input(9)
        options = options() if callable(options) else options
        limits = dict(max_new_tokens=14)
        (plain,) = self.greedy([ids], prefix=prefix or (), **limits)
        # The margin of a forced token is infinite, and of two in one row of -inf it is not a number.
        (found,) = reference.greedy(self.model, [ids], self.ends, prefix or (), **limits, **options)
        (again,) = reference.greedy(self.nudged, [ids], self.ends, prefix or (), **limits, **options)
        margins = torch.nan_to_num(found["margins"], nan=1.0)
        require(margins.min() > MARGIN, "a margin is too small")
        require(found["ids"] == again["ids"], "ids change with rounding")
        require(not must_differ or found["ids"] != plain["ids"], "an option changes nothing")
        require(len(set(found["ids"])) > 2, "a monotonous answer")
        self.add(
            "greedy",
            input_ids=ids,
            prefix=prefix,
            **limits,
            **options,
            ids=found["ids"],
            logprobs=reference.numbers(found["logprobs"]),
            min_margin=reference.numbers(margins.clamp(max=100.0).min()),
        )

    def beam_case(self, options, prefix=None, must_differ=True):
        ids = self.input(9)
        options = options() if callable(options) else options
        rule = {"num_beams": 4, "length_penalty": 1.0, "early_stopping": False, "max_new_tokens": 10}
        rule |= {key: options[key] for key in options if key in rule}
        plain = reference.beam(self.model, ids, self.ends, prefix or (), **rule)
        found = reference.beam(self.model, ids, self.ends, prefix or (), **{**rule, **options})
        self.compare(found, reference.beam(self.nudged, ids, self.ends, prefix or (), **{**rule, **options}))
        require(all(score > -1e6 for _, score in found), "an unfilled beam")
        require(not must_differ or [ids for ids, _ in found] != [ids for ids, _ in plain], "an option changes nothing")
        one_length = len({len(ids) for ids, _ in found}) == 1
        require(not one_length or "num_beam_groups" not in options, "all of one length")
        self.add("beam", input_ids=ids, prefix=prefix, **{**rule, **options}, n_best=self.n_best(found))

    def distribution_case(self, options):
        ids = self.input(12)
        settings = {"top_k": 0, "top_p": 1.0, "temperature": 1.0, **options}
        found = reference.first_distribution(self.model, ids, self.ends, **settings).tolist()
        again = reference.first_distribution(self.nudged, ids, self.ends, **settings).tolist()
        require([p > 0 for p in found] == [p > 0 for p in again], "a filter is undecided")
        require(3 <= sum(p > 0.01 for p in found) <= 40, "a filter leaves too little or too much")
        kept = [[i, reference.numbers(p)] for i, p in enumerate(found) if p > 0]
        self.add("distribution", input_ids=ids, **options, probabilities=kept)

    def all(self):
        end = self.ends[0]
        token = lambda: self.draw(1)[0]
        both = (
            lambda: dict(forced_bos_token_id=token()),
            lambda: dict(forced_eos_token_id=token()),
            lambda: dict(forced_eos_token_id=end),
            dict(exponential_decay_length_penalty=(2, 1.3)),
            dict(exponential_decay_length_penalty=(0, 0.8)),
            dict(exponential_decay_length_penalty=(5, 1.6), min_new_tokens=4),
            dict(encoder_repetition_penalty=1.8),
            dict(encoder_repetition_penalty=0.6),
            dict(encoder_repetition_penalty=1.4, repetition_penalty=1.3),
            dict(encoder_no_repeat_ngram_size=1),
            lambda: dict(
                bad_words_ids=[self.draw(1) for _ in range(30)] + [self.draw(2) for _ in range(200)] + [[end]]
            ),
            self.biases,
            lambda: dict(begin_suppress_tokens=sorted({token() for _ in range(60)})),
            lambda: dict(begin_suppress_tokens=sorted({token() for _ in range(60)}), forced_bos_token_id=token()),
            lambda: dict(
                forced_bos_token_id=token(),
                forced_eos_token_id=end,
                exponential_decay_length_penalty=(3, 1.1),
                encoder_repetition_penalty=1.3,
                no_repeat_ngram_size=2,
                suppress_tokens=sorted({token() for _ in range(20)}),
                **self.biases(),
            ),
        )
        if OLD:
            for options in both:
                self.until_suitable(lambda: self.greedy_case(options))
                self.until_suitable(lambda: self.beam_case(options))
            # A prefix: no first token is forced.
            self.until_suitable(lambda: self.greedy_case({"forced_bos_token_id": token()}, self.draw(2), False))
            begin = lambda: dict(begin_suppress_tokens=sorted({token() for _ in range(60)}))
            self.until_suitable(lambda: self.greedy_case(begin, self.draw(2)))
            self.until_suitable(lambda: self.beam_case(self.biases, self.draw(3)))
            for options in (dict(repetition_penalty=1.5), dict(exponential_decay_length_penalty=(1, 1.4))):
                self.until_suitable(lambda: self.beam_case(dict(renormalize_logits=True, **options)))
            self.until_suitable(lambda: self.greedy_case(dict(remove_invalid_values=True), None, False))
            self.groups()
            for options in (
                dict(typical_p=0.5),
                dict(typical_p=0.85, temperature=1.4),
                dict(epsilon_cutoff=0.02),
                dict(eta_cutoff=0.05),
                dict(eta_cutoff=0.3, temperature=1.3),
                dict(
                    temperature=1.6, top_k=30, top_p=0.95, min_p=0.02, typical_p=0.9,
                    epsilon_cutoff=0.01, eta_cutoff=0.2,
                ),
            ):
                self.until_suitable(lambda: self.distribution_case(options))
        else:
            for options in (
                dict(top_h=0.6),
                dict(top_h=0.9, temperature=1.5),
                dict(top_h=0.9, temperature=1.5, top_k=8, top_p=0.9, typical_p=0.9),
            ):
                self.until_suitable(lambda: self.distribution_case(options))

    def groups(self):
        groups = dict(num_beams=4, num_beam_groups=2, diversity_penalty=0.8)
        for options in (
            groups,
            dict(groups, num_beam_groups=4, diversity_penalty=1.5),
            dict(groups, num_beams=6, num_beam_groups=3, length_penalty=0.6, early_stopping=True),
            dict(groups, num_beams=6, length_penalty=2.0, early_stopping="never"),
            dict(groups, length_penalty=0.0),
            dict(groups, length_penalty=-0.5, early_stopping="never", max_new_tokens=7),
            dict(groups, min_new_tokens=5, no_repeat_ngram_size=2, encoder_repetition_penalty=1.3),
            dict(groups, max_new_tokens=3),
        ):
            self.until_suitable(lambda: self.beam_case(options))
        self.until_suitable(lambda: self.beam_case(groups, self.draw(3)))


def main():
    torch.set_num_threads(1)
    penalise_every_beam()
    transformers.logging.set_verbosity_error()
    FOLDER.mkdir(exist_ok=True)
    for name in FAMILIES:
        maker = Processors(name)
        maker.all()
        header = {
            "family": name,
            "purpose": "the rarer settings of generation_config.json",
            "reference": f"transformers {transformers.__version__}",
            "torch": torch.__version__,
            "seed": maker.seed,
        }
        lines = [json.dumps(line) for line in [header, *maker.cases]]
        file = f"{name}.jsonl" if OLD else f"{name}-top-h.jsonl"
        (FOLDER / file).write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"{file}: {len(maker.cases)} cases")


if __name__ == "__main__":
    main()
