"""Reference values: the transformers library in float32 on the CPU, plus gnmt.py over its logits."""

import copy

import torch
from transformers import (
    GenerationConfig,
    MT5Config,
    MT5ForConditionalGeneration,
    T5Config,
    T5EncoderModel,
    T5ForConditionalGeneration,
    UMT5Config,
    UMT5ForConditionalGeneration,
)

import families
import gnmt
import one_stack

CLASSES = {
    "t5": (T5Config, T5ForConditionalGeneration),
    "mt5": (MT5Config, MT5ForConditionalGeneration),
    "umt5": (UMT5Config, UMT5ForConditionalGeneration),
}


def build(name, state, dtype=torch.float32):
    """The library's model of a family with exactly these weights, nothing tied behind our back.

    transformers 5 ties on load whatever the file says, and its umT5 scales whatever the file says; so weights are
    put in one by one and the two switches are set by the rule that fits the published checkpoints.
    """
    config = families.config_of(name)
    scaled = families.scales_output(config)
    if families.is_one_stack(name):
        prefix = config["model_type"] == "pocket_t5_prefix_lm"
        return one_stack.OneStack(config, state, scaled, prefix).eval().to(dtype)
    if families.options_of(name).get("encoder_only"):
        model = T5EncoderModel(T5Config(**config))
    else:
        config_class, model_class = CLASSES[config["model_type"]]
        model = model_class(config_class(**config))
        model.config.scale_decoder_outputs = scaled
        model.config.tie_word_embeddings = scaled  # what umT5 looks at
        assert scaled is False or config["model_type"] != "mt5", "the library's mT5 never scales"
    model.set_attn_implementation("eager")  # the one that returns attention weights
    state = dict(state)
    model.shared.weight = torch.nn.Parameter(state.pop("shared.weight").clone())
    model.encoder.embed_tokens = model.shared
    if hasattr(model, "decoder"):
        model.decoder.embed_tokens = model.shared
        head = state.pop("lm_head.weight", model.shared.weight)
        model.lm_head.weight = torch.nn.Parameter(head.detach().clone())
    parameters = dict(model.named_parameters())
    ours = set(state)
    theirs = {key for key in parameters if "embed_tokens" not in key and key not in ("shared.weight", "lm_head.weight")}
    assert ours == theirs, sorted(ours ^ theirs)
    with torch.no_grad():
        for key, value in state.items():
            assert parameters[key].shape == value.shape, key
            parameters[key].copy_(value)
    return model.eval().to(dtype)


def numbers(values, digits=6):
    """Rounded, for JSON. Six digits leave rounding two orders below the tolerances of the tests."""
    if isinstance(values, torch.Tensor):
        values = values.tolist()
    if isinstance(values, list):
        return [numbers(value, digits) for value in values]
    return round(values, digits) + 0.0


def encode(model, input_ids):
    """Encoder states [len, d_model]."""
    with torch.no_grad():
        return model.get_encoder()(input_ids=torch.tensor([input_ids])).last_hidden_state[0]


def logits(model, input_ids, decoder_ids):
    """Logits [len(decoder_ids), vocab] of one uncached pass over the decoder."""
    with torch.no_grad():
        return model(
            input_ids=torch.tensor([input_ids]), decoder_input_ids=torch.tensor([decoder_ids]), use_cache=False
        ).logits[0]


def score(model, input_ids, target_ids, prefix=()):
    """log p of each target id, one uncached pass."""
    start = [model.config.decoder_start_token_id, *prefix]
    rows = logits(model, input_ids, start + list(target_ids)[:-1])[len(start) - 1 :]
    return torch.log_softmax(rows, -1)[range(len(target_ids)), list(target_ids)]


def cross_attention(model, input_ids, target_ids):
    """Weights [layer, head, target, input]: row i belongs to the step that produces target_ids[i]."""
    decoder_ids = [model.config.decoder_start_token_id, *target_ids[:-1]]
    with torch.no_grad():
        out = model(
            input_ids=torch.tensor([input_ids]),
            decoder_input_ids=torch.tensor([decoder_ids]),
            output_attentions=True,
            use_cache=False,
        )
    return torch.stack([layer[0] for layer in out.cross_attentions])


def generate(model, inputs, ends, prefix=(), allowed=None, **options):
    """Runs `generate` on a batch padded on the right. Options are named as in GenerationConfig."""
    config = model.config
    longest = max(map(len, inputs))
    pad = config.pad_token_id
    ids = torch.tensor([row + [pad] * (longest - len(row)) for row in inputs])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in inputs])
    settings = GenerationConfig(
        pad_token_id=pad,
        eos_token_id=ends,
        decoder_start_token_id=config.decoder_start_token_id,
        return_dict_in_generate=True,
        output_logits=True,
        output_scores=True,
        # The library sizes its cache by the encoder's depth: a deeper decoder runs without it.
        use_cache=config.num_decoder_layers <= config.num_layers and not isinstance(model, one_stack.OneStack),
        **{"do_sample": False, "num_beams": 1, **options},
    )
    extra = {}
    if allowed is not None:
        extra["prefix_allowed_tokens_fn"] = lambda _batch, _ids: list(allowed)
    start = torch.tensor([[config.decoder_start_token_id, *prefix]] * len(inputs))
    with torch.no_grad():
        return model.generate(
            input_ids=ids, attention_mask=mask, decoder_input_ids=start, generation_config=settings, **extra
        )


def until_end(ids, ends):
    """Cuts the padding after the end token."""
    for at, token in enumerate(ids):
        if token in ends:
            return ids[: at + 1]
    return ids


def greedy(model, inputs, ends, prefix=(), **options):
    """One result per input: ids, log-probabilities under the unchanged model, and the margin of each choice
    over the runner-up after suppression and penalties."""
    out = generate(model, inputs, ends, prefix, **options)
    results = []
    for row in range(len(inputs)):
        ids = until_end(out.sequences[row, 1 + len(prefix) :].tolist(), ends)
        raw = torch.stack([step[row] for step in out.logits])[: len(ids)]
        log_probs = torch.log_softmax(raw, -1)[range(len(ids)), ids]
        best = torch.stack([step[row] for step in out.scores])[: len(ids)].topk(2, -1).values
        results.append({"ids": ids, "logprobs": log_probs, "margins": best[:, 0] - best[:, 1]})
    return results


def beam(model, input_ids, ends, prefix=(), **options):
    """n-best [(ids, score)], best first."""
    beams = options["num_beams"]
    out = generate(model, [input_ids], ends, prefix, num_return_sequences=beams, **options)
    start = 1 + len(prefix)
    return [
        (until_end(ids[start:], ends), value)
        for ids, value in zip(out.sequences.tolist(), out.sequences_scores.tolist())
    ]


def gnmt_beam(model, input_ids, ends, beams, alpha, limit, prefix=()):
    """n-best [(ids, score)], best first, by gnmt.py over uncached logits."""

    def log_probs(sequences):
        ids = torch.tensor([input_ids] * len(sequences))
        with torch.no_grad():
            rows = model(input_ids=ids, decoder_input_ids=torch.tensor(sequences), use_cache=False).logits[:, -1]
        return torch.log_softmax(rows, -1).tolist()

    prompt = [model.config.decoder_start_token_id, *prefix]
    found = gnmt.beam_search(log_probs, prompt, beams, alpha, limit, set(ends))
    return [(ids, value) for value, ids, _ in found]


def first_distribution(model, input_ids, ends, **options):
    """Probabilities of the first new token after the sampling filters."""
    torch.manual_seed(0)
    out = generate(model, [input_ids], ends, do_sample=True, max_new_tokens=1, **options)
    return torch.softmax(out.scores[0][0].double(), -1)


def nudged(name, state, relative, seed=7):
    """A model whose weights are off by a relative error: what must not change when the arithmetic does."""
    generator = torch.Generator().manual_seed(seed)
    noisy = {}
    for key, value in state.items():
        noisy[key] = value * (1 + relative * torch.randn(value.shape, generator=generator))
    return build(name, noisy)


def with_max_distance(model, distance):
    """A copy with wrong position buckets beyond the exact ones: what long cases must notice."""
    wrong = copy.deepcopy(model)
    for module in wrong.modules():
        if hasattr(module, "relative_attention_max_distance"):
            module.relative_attention_max_distance = distance
    return wrong
