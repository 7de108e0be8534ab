import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import pocket_t5

GERMAN = "translate English to German: Where is the station?"
FRENCH = "translate English to French: Good morning!"


def test_a_text_gives_a_text_and_several_give_a_list(model):
    assert model.generate(GERMAN) == "Wo ist der Bahnhof?"
    both = model.generate([GERMAN, FRENCH])
    assert both == [model.generate(GERMAN), model.generate(FRENCH)]
    assert model.generate(iter([GERMAN])) == both[:1]
    assert model.generate([]) == []


def test_outputs_have_scores(model):
    outputs = model.outputs(GERMAN, beams=4, n_best=3)
    assert len(outputs) == 3 and outputs[0].text == "Wo ist der Bahnhof?" == str(outputs[0])
    assert [output.score for output in outputs] == sorted((output.score for output in outputs), reverse=True)
    best = outputs[0]
    assert best.logprobs.dtype == np.float32 and best.logprobs.shape == (len(best.ids),)
    assert best.finish == "eos" and model.detokenize(best.ids) == best.text
    many = model.outputs([GERMAN, FRENCH], beams=4, n_best=3)
    assert [output.text for output in many[0]] == [output.text for output in outputs]
    assert np.array_equal(many[0][0].logprobs, best.logprobs)
    tokens = model.outputs(GERMAN, top_logprobs=3)[0]
    assert [place[0][0] for place in tokens.alternatives] == tokens.ids
    plain = model.outputs(GERMAN, logprobs=False)[0]
    assert plain.logprobs.shape == (0,) and np.isnan(plain.score)


def test_options_are_those_of_the_library(model):
    draws = {"temperature": 1.0, "seed": 7, "top_k": np.int64(5), "top_p": np.float32(0.9)}
    assert model.generate(GERMAN, **draws) == model.generate(GERMAN, **draws)
    assert model.generate(GERMAN, prefix="Wo liegt").startswith("Wo liegt")
    assert model.generate(GERMAN, stop=["Bahn"]) == "Wo ist der "
    assert model.generate(GERMAN, stop=("Bahn",), beams=None) == "Wo ist der "
    assert model.generate(GERMAN, choices=["Guten Abend.", "Wo ist der Bahnhof?"]) == "Wo ist der Bahnhof?"
    first = model.tokenize("Wo")[0]
    assert model.generate(GERMAN, suppress=np.array([first])) != model.generate(GERMAN)
    assert len(model.outputs(GERMAN, max_new_tokens=2)[0].ids) == 2


def test_a_stream_gives_pieces(model):
    stream = model.generate(GERMAN, stream=True)
    assert stream.outputs is None
    pieces = list(stream)
    assert len(pieces) > 2 and "".join(pieces) == "Wo ist der Bahnhof?"
    assert stream.outputs[0].text == "Wo ist der Bahnhof?"
    assert list(stream) == []
    # One that is left behind, and one that is closed.
    for piece in model.generate(GERMAN, stream=True):
        assert piece
        break
    closed = model.generate(GERMAN, stream=True)
    next(closed)
    closed.close()
    assert list(closed) == [] and closed.outputs is None
    assert model.generate(GERMAN) == "Wo ist der Bahnhof?"


def test_a_stream_of_several_texts(model):
    stream = model.generate([GERMAN, FRENCH], stream=True)
    texts = ["", ""]
    order = []
    for index, piece in stream:
        texts[index] += piece
        order.append(index)
    assert texts == model.generate([GERMAN, FRENCH])
    assert order != sorted(order), "they come side by side"
    assert [outputs[0].text for outputs in stream.outputs] == texts
    # Beams come as a whole.
    assert "".join(model.generate(GERMAN, stream=True, beams=4)) == model.generate(GERMAN, beams=4)


def test_scores_choices_and_alignments(model):
    score = model.score(GERMAN, "Wo ist der Bahnhof?")
    greedy = model.outputs(GERMAN)[0]
    assert score.ids == greedy.ids
    # What a target that is given gets is what it got when it was generated.
    np.testing.assert_array_equal(score.logprobs, greedy.logprobs)
    assert score.sum == pytest.approx(float(score.logprobs.sum()), rel=1e-6)
    # A word that its task spells out is read so here, too, as where the choice is made.
    spoken = "S T EY1 SH AH0 N"
    ranked = model.choose("pronounce: station", [spoken, "S T"])
    assert ranked[0].text == spoken and ranked[0].logprob == model.score("pronounce: station", spoken).sum
    ranked = model.choose("translate English to German: Good morning.", ["Guten Abend.", "Guten Morgen."])
    assert [choice.index for choice in ranked] == [1, 0] and str(ranked[0]) == "Guten Morgen."
    assert ranked[0].probability + ranked[1].probability == pytest.approx(1)
    words = model.align(GERMAN, "Wo ist der Bahnhof?")
    assert words.weights.shape == (len(words.target), len(words.source))
    station = words.target.index(next(word for word in words.target if word.startswith("Bahnhof")))
    assert words.source[int(words.weights[station].argmax())].startswith("station")


def test_embeddings_are_arrays(model):
    one, both = model.embed(GERMAN), model.embed([GERMAN, FRENCH])
    assert one.shape == (256,) and both.shape == (2, 256) and both.dtype == np.float32
    np.testing.assert_array_equal(both[0], one)
    np.testing.assert_allclose(np.linalg.norm(model.embed([GERMAN, FRENCH], normalize=True), axis=1), 1, rtol=1e-6)
    states = model.embed(GERMAN, pooling="none")
    assert states.shape == (len(model.tokenize(GERMAN)), 256)
    np.testing.assert_allclose(states.mean(axis=0), one, rtol=1e-5, atol=1e-6)
    lists = model.embed([GERMAN, FRENCH], pooling="none")
    np.testing.assert_array_equal(lists[0], states)
    assert model.embed(GERMAN, pooling="none", pad_to=64).shape == (64, 256)
    assert not np.array_equal(model.embed(GERMAN, layer=1), one)
    np.testing.assert_array_equal(model.embed(GERMAN, layer=-1), one)
    assert model.embed([]).shape == (0, 256)


def test_text_and_ids(model):
    ids = model.tokenize("Good morning!")
    assert ids[-1] == model.info["tokenizer"]["eos_id"]
    assert model.detokenize(ids) == "Good morning!"
    assert model.detokenize(np.array(ids), skip_special=False) == "Good morning!</s>"
    with pytest.raises(pocket_t5.OptionError, match="^ids: expected 0 to 8106, found 8107$"):
        model.detokenize([8107])


def test_a_model_says_what_it_is(model):
    assert model.info["config"]["d_model"] == 256
    assert "Tatoeba" in pocket_t5.Model.__doc__ and "BLEU" in pocket_t5.Model.__doc__
    assert repr(model).startswith("Model(\"the built-in model\", isa=")
    assert pocket_t5.__version__


def test_models_come_from_folders_and_bytes(family, tmp_path):
    folder = pocket_t5.Model(family, isa="scalar", copy=True)
    assert folder.isa == "scalar" and folder.file == str(family)
    text = "the quick fox"
    assert pocket_t5.Model(str(family)).outputs(text)[0].ids == folder.outputs(text)[0].ids
    packed = tmp_path / "packed"
    assert pocket_t5.Model(family, packed=packed).outputs(text)[0].ids == folder.outputs(text)[0].ids
    assert packed.stat().st_size > 0
    card = (family.parents[3] / "runtime/model/pocket-t5.gguf").read_bytes()
    assert pocket_t5.Model(card).generate(GERMAN) == "Wo ist der Bahnhof?"


def test_what_is_wrong_is_said(model, tmp_path):
    nowhere = str(tmp_path / "nowhere")
    for call, error, message in [
        (lambda: pocket_t5.Model(nowhere), pocket_t5.FileError, f"^{nowhere}: "),
        (lambda: pocket_t5.Model(nowhere), FileNotFoundError, f"^{nowhere}: "),
        (lambda: pocket_t5.Model(tmp_path), pocket_t5.Error, "config.json"),
        (lambda: pocket_t5.Model(b"GGUF"), pocket_t5.ModelError, "^a file in memory: "),
        (lambda: pocket_t5.Model("hf:no-name"), pocket_t5.HubError, "no-name"),
        (lambda: pocket_t5.Model(isa="avx3"), pocket_t5.OptionError, "avx3"),
        (lambda: pocket_t5.Model(threads=0), ValueError, "^threads: expected 1 to 64, found 0$"),
        (lambda: pocket_t5.Model(threads=-1), pocket_t5.OptionError, "^threads: expected 1 to [0-9]+, found -1$"),
        (lambda: pocket_t5.Model(threads="2"), TypeError, "^argument 'threads': "),
        (lambda: model.embed(GERMAN, pad_to=-1), pocket_t5.OptionError, "^pad_to: expected 1 to [0-9]+, found -1$"),
        (lambda: model.detokenize(["a"]), TypeError, "^argument 'ids': "),
        (lambda: model.detokenize([5, -1]), pocket_t5.OptionError, "^ids: expected 0 to 8106, found -1$"),
        (lambda: model.generate(GERMAN, beam=2), pocket_t5.OptionError, '^options: there is no option "beam"$'),
        (lambda: model.generate(GERMAN, beams=5000), ValueError, "^beams: expected 1 to 1024, found 5000$"),
        (lambda: model.generate(GERMAN, beams=1.5), ValueError, "^beams: expected a whole number of 0 or more"),
        (lambda: model.generate(GERMAN, seed=-1), ValueError, "^seed: expected a whole number of 0 or more, found -1$"),
        (lambda: model.generate(GERMAN, seed=1 << 64), ValueError, "^seed: expected another value"),
        (lambda: model.generate(GERMAN, temperature=float("nan")), ValueError, "^temperature: "),
        (lambda: model.generate(GERMAN, stop=[object()]), ValueError, "^stop: expected another value"),
        (lambda: model.generate(GERMAN, n_best=2), ValueError, "^n_best: expected outputs"),
        (lambda: model.generate(GERMAN, task="none"), ValueError, "^task: "),
        (lambda: model.generate(GERMAN, max_input_tokens=2), ValueError, "^max_input_tokens: "),
        (lambda: model.generate(["Yes", GERMAN], max_input_tokens=4), ValueError, r"^text\[1\]: max_input_tokens: "),
        (
            lambda: list(model.generate(["Yes", GERMAN], max_input_tokens=4, stream=True)),
            ValueError,
            r"^text\[1\]: max_input_tokens: ",
        ),
        (lambda: model.generate([GERMAN] * 2, choices=["Ж"], stream=True), ValueError, "^choices: "),
        (lambda: model.generate([GERMAN, 5]), TypeError, "^text: expected a str or several, found int at place 1$"),
        (lambda: model.generate(5), TypeError, "^text: expected a str or several, found int$"),
        (lambda: model.generate(b"text"), TypeError, "^text: expected a str or several, found bytes$"),
        (lambda: model.generate("caf\udce9"), UnicodeEncodeError, "surrogate"),
        (lambda: model.embed(GERMAN, pooling="sum"), ValueError, "^pooling: expected one of none, cls"),
        (lambda: model.choose(GERMAN, []), ValueError, "^choices: expected at least one text"),
    ]:
        with pytest.raises(error, match=message):
            call()
    assert model.generate(GERMAN) == "Wo ist der Bahnhof?"


def test_threads_share_a_model(model):
    expected = [model.generate(GERMAN), model.generate(FRENCH)]
    results = {}

    def work(name):
        results[name] = [model.generate(GERMAN), model.generate(FRENCH)]

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert all(results[name] == expected for name in range(4))


def test_other_threads_run_meanwhile(model):
    turns = 0
    done = threading.Event()

    def count():
        nonlocal turns
        while not done.is_set():
            turns += 1
            time.sleep(0)

    counter = threading.Thread(target=count)
    counter.start()
    model.outputs(GERMAN, max_new_tokens=2000, min_new_tokens=2000)
    done.set()
    counter.join()
    # With the GIL held there would be one or two.
    assert turns > 1000, turns


@pytest.mark.parametrize("texts", [GERMAN, [GERMAN] * 2])
def test_a_stream_at_work_can_be_asked_and_closed(model, texts):
    endless = dict(max_new_tokens=10**6, min_new_tokens=10**6)
    # Beams have no piece before their end.
    stream = model.generate(texts, stream=True, beams=4, **endless)
    heard = threading.Event()
    worker = threading.Thread(target=lambda: (heard.set(), list(stream)))
    worker.start()
    heard.wait()
    assert stream.outputs is None
    stream.close()
    worker.join()
    assert list(stream) == [] and stream.outputs is None
    assert model.generate(GERMAN) == "Wo ist der Bahnhof?"


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there is no such timer on Windows")
@pytest.mark.parametrize("texts", [GERMAN, [GERMAN] * 2])
def test_a_handler_of_signals_may_close_what_it_interrupts(model, texts):
    stream = model.generate(texts, stream=True, beams=4, max_new_tokens=10**6, min_new_tokens=10**6)
    said = []

    def close(*_):
        with pytest.raises(pocket_t5.OptionError, match="^stream: expected one piece to be asked for at a time"):
            next(stream)
        said.append(stream.outputs)
        stream.close()

    before = signal.signal(signal.SIGALRM, close)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        assert list(stream) == []
    finally:
        signal.signal(signal.SIGALRM, before)
    assert said == [None] and stream.outputs is None


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent otherwise on Windows")
@pytest.mark.parametrize(
    "call",
    [
        "model.generate({text!r}, **options)",
        "model.generate([{text!r}] * 8, **options)",
        "list(model.generate({text!r}, stream=True, **options))",
        "list(model.generate([{text!r}] * 2, stream=True, **options))",
        "model.choose({text!r}, [str(number) + ' a' * 4000 for number in range(1000)])",
    ],
)
def test_ctrl_c_ends_a_generation(call):
    program = f"""
import pocket_t5, signal
# What runs in a shell's background is born deaf to it.
signal.signal(signal.SIGINT, signal.default_int_handler)
model = pocket_t5.Model(threads=1)
options = dict(max_new_tokens=1_000_000, min_new_tokens=1_000_000)
print("ready", flush=True)
try:
    {call.format(text=GERMAN)}
except KeyboardInterrupt:
    print("interrupted", model.generate({GERMAN!r}), flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=20)
        assert out == "interrupted Wo ist der Bahnhof?\n"
    finally:
        process.kill()
