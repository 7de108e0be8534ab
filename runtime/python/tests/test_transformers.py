"""The same texts, ids and numbers as the transformers library gives, where it is installed."""

import numpy as np
import pytest

import pocket_t5

torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

TEXTS = [
    "summarize: The quick brown fox jumps over the lazy dog while the farmer watches from the old wooden gate.",
    "translate English to German: The house is wonderful.",
    "Give a title: A new bridge over the river was opened on Monday by the mayor of the town.",
]


@pytest.fixture(scope="module")
def both(real):
    reference = transformers.T5ForConditionalGeneration.from_pretrained(real, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(real)
    return pocket_t5.Model(real), reference, tokenizer


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_equal(both, text):
    model, reference, tokenizer = both
    inputs = tokenizer(text, return_tensors="pt")
    assert model.tokenize(text) == inputs.input_ids[0].tolist()
    for options, theirs in [
        ({"max_new_tokens": 30, "beams": 1}, {"num_beams": 1}),
        (
            {"max_new_tokens": 30, "beams": 4, "length_penalty": 1.0, "length_penalty_kind": "hugging_face"},
            {"num_beams": 4, "length_penalty": 1.0},
        ),
    ]:
        ids = reference.generate(**inputs, max_new_tokens=30, do_sample=False, **theirs)[0, 1:].tolist()
        output = model.outputs(text, **options)[0]
        assert output.ids == ids, (output.text, tokenizer.decode(ids))
        assert output.text == tokenizer.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("text", TEXTS)
def test_numbers_are_near(both, text):
    model, reference, tokenizer = both
    inputs = tokenizer(text, return_tensors="pt")
    target = model.outputs(text, max_new_tokens=30)[0].text
    labels = tokenizer(target, return_tensors="pt").input_ids
    with torch.no_grad():
        logits = reference(**inputs, labels=labels).logits[0]
        states = reference.encoder(**inputs).last_hidden_state[0]
    expected = logits.log_softmax(-1).gather(1, labels[0, :, None])[:, 0].numpy()
    score = model.score(text, target)
    assert score.ids == labels[0].tolist()
    # Sums of some hundred products in f32, in another order.
    np.testing.assert_allclose(score.logprobs, expected, atol=2e-3)
    np.testing.assert_allclose(model.embed(text, pooling="none"), states.numpy(), atol=2e-3)
    np.testing.assert_allclose(model.embed(text), states.mean(0).numpy(), atol=1e-3)
