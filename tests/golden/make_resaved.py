"""Writes tests/golden/resaved/VERSION/*: what transformers makes of each family's config.json when it loads the
checkpoint and saves it again. Run it once with each version:

    pip install torch==2.15 transformers==5.23 safetensors numpy      (and again with transformers==4.57.3)
    python make_resaved.py

The weights are not stored a second time: the script asserts that the saved ones are those of the family, but for
names. It also asserts that the saved checkpoint, opened by the version that wrote it, gives the family's golden
scores and beams; where it does not (umT5 in transformers 5, which scales whatever config.json says), what it gives
instead lies in golden.jsonl beside the configuration.
"""

import json
import pathlib
import shutil
import tempfile

import torch
import transformers
from safetensors.torch import load_file
from transformers import GenerationConfig

import families

HERE = pathlib.Path(__file__).parent
LIBRARY = transformers.__version__.split(".")[0]
VERSION = ".".join(transformers.__version__.split(".")[:2])
# transformers 4 takes a file of transformers 5 for a tied model and drops its head: another model.
ANOTHER_MODEL = {("4", "t5-resaved")}
# Tensors that no model uses, and the name that the embedding gets.
UNUSED = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
EMBEDDINGS = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")


def tensors(folder):
    state = {}
    for file in sorted(folder.glob("*.safetensors")):
        state.update(load_file(file))
    state.pop(UNUSED, None)
    stored = [state.pop(name) for name in EMBEDDINGS if name in state]
    return {**state, "embedding": stored[0]}


def cases(folder):
    lines = (folder / "golden.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines[1:]]


def score(model, case):
    start = [model.config.decoder_start_token_id]
    target = case["target_ids"]
    with torch.no_grad():
        logits = model(
            input_ids=torch.tensor([case["input_ids"]]),
            decoder_input_ids=torch.tensor([start + target[:-1]]),
            use_cache=False,
        ).logits[0]
    return torch.log_softmax(logits, -1)[range(len(target)), target].tolist()


def beam(model, case, ends):
    options = {key: case[key] for key in ("num_beams", "length_penalty", "early_stopping", "max_new_tokens")}
    settings = GenerationConfig(
        pad_token_id=model.config.pad_token_id,
        eos_token_id=ends,
        decoder_start_token_id=model.config.decoder_start_token_id,
        num_return_sequences=case["num_beams"],
        return_dict_in_generate=True,
        output_scores=True,
        use_cache=False,
        **options,
    )
    # Nothing of the checkpoint's own defaults: the case says everything.
    model.generation_config = GenerationConfig()
    with torch.no_grad():
        out = model.generate(input_ids=torch.tensor([case["input_ids"]]), generation_config=settings)
    best = []
    for ids, value in zip(out.sequences[:, 1:].tolist(), out.sequences_scores.tolist()):
        end = next((at for at, token in enumerate(ids) if token in ends), len(ids) - 1)
        best.append({"ids": ids[: end + 1], "score": value})
    return best


def close(found, expected):
    return max(abs(a - b) for a, b in zip(found, expected)) < 2e-4


def check(name, model):
    """Compares with the family's golden values; gives lines of what is otherwise."""
    config = json.loads((HERE / "families" / name / "config.json").read_text())
    generation = HERE / "families" / name / "generation_config.json"
    ends = json.loads(generation.read_text())["eos_token_id"] if generation.exists() else [config["eos_token_id"]]
    other = []
    for case in cases(HERE / "families" / name):
        if case["kind"] == "encode":
            with torch.no_grad():
                ids = torch.tensor([case["input_ids"]])
                states = model.get_encoder()(input_ids=ids).last_hidden_state[0]
            assert close(states[-1].tolist(), case["last"]), name
        elif case["kind"] == "score":
            found = score(model, case)
            if not close(found, case["logprobs"]):
                other.append({**case, "logprobs": [round(value, 6) for value in found]})
        elif case["kind"] == "beam" and not any(key in case for key in ("prefix", "no_repeat_ngram_size")):
            if "min_new_tokens" in case:
                continue
            found = beam(model, case, ends)
            same = [row["ids"] for row in found] == [row["ids"] for row in case["n_best"]]
            if not same or not close([row["score"] for row in found], [row["score"] for row in case["n_best"]]):
                rounded = [{**row, "score": round(row["score"], 6)} for row in found]
                other.append({**case, "n_best": rounded})
    return other


def resave(name, cls, folder_name, out):
    family = HERE / "families" / name
    model = cls.from_pretrained(family, dtype="auto")
    with tempfile.TemporaryDirectory() as saved:
        saved = pathlib.Path(saved)
        model.save_pretrained(saved)
        before, after = tensors(family), tensors(saved)
        encoder_only = cls.__name__.endswith("EncoderModel")
        if encoder_only:
            before = {key: value for key, value in before.items() if not key.startswith(("decoder.", "lm_head."))}
        assert set(before) == set(after), sorted(set(before) ^ set(after))
        assert all(torch.equal(value, after[key]) for key, value in before.items()), name
        folder = out / folder_name
        folder.mkdir(parents=True)
        for file in ("config.json", "generation_config.json"):
            if (saved / file).exists():
                shutil.copy(saved / file, folder / file)
        again = cls.from_pretrained(saved, dtype=torch.float32).eval()
        if encoder_only:
            for case in cases(family):
                if case["kind"] == "encode":
                    with torch.no_grad():
                        states = again(input_ids=torch.tensor([case["input_ids"]])).last_hidden_state[0]
                    assert close(states[-1].tolist(), case["last"]), name
            other = []
        else:
            other = check(name, again)
        if other:
            reference = f"transformers {transformers.__version__}"
            header = {"family": name, "reference": reference, "torch": torch.__version__}
            lines = [json.dumps(line) for line in [header, *other]]
            (folder / "golden.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"{folder_name}: {len(other)} cases are other than as published")


def main():
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    out = HERE / "resaved" / VERSION
    if out.exists():
        shutil.rmtree(out)
    for family in sorted((HERE / "families").iterdir()):
        name = family.name
        # The library has no models of one stack.
        if (LIBRARY, name) in ANOTHER_MODEL or families.is_one_stack(name):
            continue
        architecture = json.loads((family / "config.json").read_text())["architectures"][0]
        resave(name, getattr(transformers, architecture), name, out)
        # The encoder alone of a family that has both stacks.
        if name in ("t5-1.1", "mt5", "umt5"):
            encoder = architecture.replace("ForConditionalGeneration", "EncoderModel")
            resave(name, getattr(transformers, encoder), f"{name}-encoder", out)


if __name__ == "__main__":
    main()
