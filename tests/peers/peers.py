#!/usr/bin/env python3
"""Measures this program beside engines that anyone can install, on one checkpoint, in one run.

    tests/peers/peers.py --model FOLDER --gguf FILE [--t5 target/release/t5] [--threads 1] [--repeats 5]
                         [--engines transformers,onnxruntime-f32,...] [--install VENV]

FOLDER is a Hugging Face T5 checkpoint with its tokenizer, FILE what `t5-quantize` made of it. Every engine encodes the
same 128 ids (or the few less at which a word ends) and then generates exactly 64 tokens greedily; a step is the time of
64 tokens less that of one, over 63. CTranslate2 has no encoder alone: one token stands for it; onnxruntime's encoder
includes the cross-attention keys and values. Each engine runs in a process of its own, one after the other. Its first
tokens are compared with ours: a float32 engine that chooses others fails the run, since then it did not compute the
same model.

--install makes a virtual environment with the engines from their registries and runs in it. An engine that is missing
is left out, with the reason. Prints one table, and one JSON line for each engine to --json FILE.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

PACKAGES = ["torch", "transformers", "sentencepiece", "onnx", "onnxruntime", "ctranslate2", "numpy"]
ENGINES = ["transformers", "onnxruntime-f32", "onnxruntime-int8", "ctranslate2-int8"]
SOURCE_TOKENS, NEW_TOKENS = 128, 64
# Compared tokens of float32 engines: later ones may differ where two are almost equally likely.
FIRST = 8
TEXT = (
    "summarize: The lighthouse on the northern cape was built in 1871 after three ships were lost in a single winter. "
    "Its lamp burned whale oil at first, later paraffin, and was changed to electricity in 1934. Keepers lived there "
    "with their families until the station was automated. Visitors can climb the two hundred steps to the gallery, "
    "from which on clear days the islands are visible. The foundation that owns the building repairs the stonework "
    "every summer with the help of volunteers, and a small museum shows the old lens, the logbooks and photographs. "
    "Last year more than twelve thousand people came, which paid for a new roof."
)


def spread(seconds):
    ms = [1e3 * s for s in seconds]
    return {"median": statistics.median(ms), "min": min(ms), "max": max(ms)}


def timed(work):
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def measure(encode, generate, repeats):
    """`encode()` runs the encoder; `generate(n)` generates n tokens and returns their ids."""
    encode()
    ids = generate(NEW_TOKENS)
    encoder, steps = [], []
    for _ in range(repeats):
        encoder.append(timed(encode))
        steps.append((timed(lambda: generate(NEW_TOKENS)) - timed(lambda: generate(1))) / (NEW_TOKENS - 1))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    return {"encoder_ms": spread(encoder), "ms_per_token": spread(steps), "ids": ids, "peak_rss_mb": peak}


def load_model(folder):
    import torch
    from transformers import T5ForConditionalGeneration

    return torch, T5ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()


def transformers_engine(args, source):
    torch, model = load_model(args.model)
    torch.set_num_threads(args.threads)
    ids = torch.tensor([source])

    def generate(count):
        with torch.inference_mode():
            out = model.generate(ids, max_new_tokens=count, min_new_tokens=count, num_beams=1, do_sample=False)
        return out[0, 1:].tolist()

    def encode():
        with torch.inference_mode():
            model.encoder(ids)

    return measure(encode, generate, args.repeats)


def export(args, folder):
    """Two ONNX graphs: the encoder with the cross-attention keys and values, and one decoder step over caches."""
    torch, model = load_model(args.model)
    from torch import nn

    config = model.config
    layers, heads, width = config.num_decoder_layers, config.num_heads, config.d_kv

    def by_head(x):
        return x.view(x.shape[0], -1, heads, width).transpose(1, 2)

    def attend(attention, q, k, v, bias=None):
        scores = by_head(q) @ k.transpose(2, 3)
        mixed = (scores if bias is None else scores + bias).softmax(-1) @ v
        return attention.o(mixed.transpose(1, 2).flatten(2))

    def bias(attention, queries, keys):
        # The library's own buckets; relative position = key - query.
        bucket = attention._relative_position_bucket(
            keys[None, :] - queries[:, None],
            bidirectional=not attention.is_decoder,
            num_buckets=config.relative_attention_num_buckets,
            max_distance=config.relative_attention_max_distance,
        )
        return attention.relative_attention_bias(bucket).permute(2, 0, 1)[None]

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, ids):
            x = model.shared(ids)
            places = torch.arange(ids.shape[1])
            position = bias(model.encoder.block[0].layer[0].SelfAttention, places, places)
            for block in model.encoder.block:
                attention, feed_forward = block.layer
                y, own = attention.layer_norm(x), attention.SelfAttention
                x = x + attend(own, own.q(y), by_head(own.k(y)), by_head(own.v(y)), position)
                x = feed_forward(x)
            x = model.encoder.final_layer_norm(x)
            cross = [block.layer[1].EncDecAttention for block in model.decoder.block]
            return tuple(by_head(part(x)) for own in cross for part in (own.k, own.v))

    class Step(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, token, *caches):
            cross, past = caches[: 2 * layers], caches[2 * layers :]
            place = torch.arange(past[0].shape[2] + 1)
            position = bias(model.decoder.block[0].layer[0].SelfAttention, place[-1:], place)
            x, grown = model.shared(token), []
            for i, block in enumerate(model.decoder.block):
                attention, across, feed_forward = block.layer
                y, own = attention.layer_norm(x), attention.SelfAttention
                k = torch.cat([past[2 * i], by_head(own.k(y))], 2)
                v = torch.cat([past[2 * i + 1], by_head(own.v(y))], 2)
                grown += [k, v]
                x = x + attend(own, own.q(y), k, v, position)
                y, own = across.layer_norm(x), across.EncDecAttention
                x = x + attend(own, own.q(y), cross[2 * i], cross[2 * i + 1])
                x = feed_forward(x)
            x = model.decoder.final_layer_norm(x)
            if getattr(config, "scale_decoder_outputs", config.tie_word_embeddings):
                x = x * config.d_model**-0.5
            return (model.lm_head(x)[:, 0], *grown)

    ids = torch.arange(2, 18)[None]
    cross = [f"cross{i}" for i in range(2 * layers)]
    past = [f"past{i}" for i in range(2 * layers)]
    grown = [f"grown{i}" for i in range(2 * layers)]
    with torch.no_grad():
        encoder, step = Encoder(), Step()
        axes = {"ids": {1: "source"}, **{name: {2: "source"} for name in cross}}
        common = {"opset_version": 17, "dynamo": False}
        torch.onnx.export(
            encoder, (ids,), f"{folder}/encoder.onnx", input_names=["ids"], output_names=cross, dynamic_axes=axes, **common
        )
        caches = [*encoder(ids), *(torch.zeros(1, heads, 3, width) for _ in past)]
        axes = {name: {2: "source"} for name in cross}
        axes |= {name: {2: "past"} for name in past} | {name: {2: "grown"} for name in grown}
        torch.onnx.export(
            step,
            (ids[:, :1], *caches),
            f"{folder}/step.onnx",
            input_names=["token", *cross, *past],
            output_names=["logits", *grown],
            dynamic_axes=axes,
            **common,
        )


def onnxruntime_engine(args, source, int8):
    import numpy as np
    import onnxruntime

    folder = os.path.join(args.work, "onnx")
    if not os.path.exists(f"{folder}/step.onnx"):
        os.makedirs(folder, exist_ok=True)
        # In another process, so that the exporter's memory is not counted.
        subprocess.run([*command(args, "export")], check=True, stdout=subprocess.DEVNULL)
    names = {part: f"{folder}/{part}.onnx" for part in ("encoder", "step")}
    if int8:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        for part, name in names.items():
            names[part] = f"{folder}/{part}-int8.onnx"
            if not os.path.exists(names[part]):
                quantize_dynamic(name, names[part], weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul"])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = args.threads, 1
    encoder, step = (onnxruntime.InferenceSession(names[part], options) for part in ("encoder", "step"))
    inputs = {value.name: value for value in step.get_inputs()}
    cross = [value.name for value in encoder.get_outputs()]
    past = [name for name in inputs if name.startswith("past")]
    heads, width = inputs[past[0]].shape[1], inputs[past[0]].shape[3]
    config = json.load(open(os.path.join(args.model, "config.json")))
    start, end = config.get("decoder_start_token_id", 0), config.get("eos_token_id", 1)
    ids = np.array([source], np.int64)

    def encode():
        return encoder.run(None, {"ids": ids})

    def generate(count):
        caches = dict(zip(cross, encode()))
        own = [np.zeros((1, heads, 0, width), np.float32)] * len(past)
        token, out = start, []
        for _ in range(count):
            feeds = {"token": np.array([[token]], np.int64), **caches, **dict(zip(past, own))}
            logits, *own = step.run(None, feeds)
            logits[0, end] = -np.inf
            token = int(logits[0].argmax())
            out.append(token)
        return out

    return measure(encode, generate, args.repeats)


def ctranslate2_engine(args, source):
    import ctranslate2
    from transformers import AutoTokenizer

    folder = os.path.join(args.work, "ctranslate2")
    if not os.path.exists(folder):
        from ctranslate2.converters import TransformersConverter

        TransformersConverter(args.model).convert(folder, quantization="int8")
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    translator = ctranslate2.Translator(folder, device="cpu", intra_threads=args.threads, inter_threads=1)
    tokens = tokenizer.convert_ids_to_tokens(source)

    def generate(count):
        result = translator.translate_batch(
            [tokens], beam_size=1, min_decoding_length=count, max_decoding_length=count, max_input_length=0
        )
        return tokenizer.convert_tokens_to_ids(result[0].hypotheses[0])

    # It has no call for the encoder alone: one token is the nearest thing.
    return measure(lambda: generate(1), generate, args.repeats)


def ours(args):
    """The ids of as much of the text as fits, our own answer, and our times."""
    threads = ["--threads", str(args.threads)]

    def run(*arguments):
        done = subprocess.run([args.t5, *arguments], check=True, capture_output=True, text=True)
        return json.loads(done.stdout)

    text = TEXT
    while len(run("tokenize", "--model", args.gguf, "--json", text)["ids"]) > SOURCE_TOKENS:
        text = text.rsplit(" ", 1)[0]
    count = str(NEW_TOKENS)
    limits = ["--max-new-tokens", count, "--min-new-tokens", count, "--beams", "1"]
    answer = run("generate", "--model", args.gguf, "--json", *limits, *threads, text)
    source = answer["input_ids"]
    lengths = ["--input-tokens", str(len(source)), "--new-tokens", count, "--repeats", str(args.repeats)]
    bench = run("bench", "--model", args.gguf, "--json", *lengths, *threads)
    result = {key: bench[key] for key in ("encoder_ms", "ms_per_token", "peak_rss_mb", "isa")}
    return source, {"engine": "pocket-t5", **result, "ids": answer["ids"]}


def command(args, engine):
    return [
        sys.executable, os.path.abspath(__file__), "--model", args.model, "--gguf", args.gguf, "--work", args.work,
        "--threads", str(args.threads), "--repeats", str(args.repeats), "--run", engine,
    ]


def run_one(args):
    """In a process of its own: one engine, one JSON line."""
    if args.run == "export":
        return export(args, os.path.join(args.work, "onnx"))
    source = json.load(open(os.path.join(args.work, "source.json")))
    run = {
        "transformers": transformers_engine,
        "onnxruntime-f32": lambda args, source: onnxruntime_engine(args, source, False),
        "onnxruntime-int8": lambda args, source: onnxruntime_engine(args, source, True),
        "ctranslate2-int8": ctranslate2_engine,
    }[args.run]
    try:
        result = run(args, source)
    except ImportError as error:
        result = {"skipped": f"{error} (--install VENV installs it)"}
    print(json.dumps({"engine": args.run, **result}))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--gguf", required=True)
    parser.add_argument("--t5", default="target/release/t5")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--engines", default=",".join(ENGINES))
    parser.add_argument("--work", help="folder for converted models; by default a temporary one")
    parser.add_argument("--json", help="file that gets one JSON line for each engine")
    parser.add_argument("--install", metavar="VENV")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        return run_one(args)
    if args.install and os.path.realpath(sys.prefix) != os.path.realpath(args.install):
        python = os.path.join(args.install, "bin", "python")
        if not os.path.exists(python):
            subprocess.run([sys.executable, "-m", "venv", args.install], check=True)
            subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        return os.execv(python, [python, os.path.abspath(__file__), *sys.argv[1:]])
    temporary = None
    if args.work is None:
        temporary = tempfile.TemporaryDirectory()
        args.work = temporary.name
    os.makedirs(args.work, exist_ok=True)

    source, result = ours(args)
    print(f"text of {len(source)} tokens, {args.threads} thread(s), medians of {args.repeats}\n", flush=True)
    json.dump(source, open(os.path.join(args.work, "source.json"), "w"))
    results = [result]
    os.environ.update(OMP_NUM_THREADS=str(args.threads), TOKENIZERS_PARALLELISM="false")
    for engine in args.engines.split(","):
        done = subprocess.run(command(args, engine), capture_output=True, text=True)
        lines = done.stdout.strip().splitlines()
        if done.returncode != 0 or not lines:
            reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
            results.append({"engine": engine, "skipped": reason})
        else:
            results.append(json.loads(lines[-1]))
    if args.json:
        with open(args.json, "a") as file:
            file.writelines(json.dumps(result) + "\n" for result in results)

    own, wrong = results[0], []
    print("| engine | encoder ms | ratio | step ms | ratio | peak MB | same first tokens |\n|---|---|---|---|---|---|---|")
    for result in results:
        name = result["engine"]
        if "skipped" in result:
            print(f"| {name} | skipped: {result['skipped']} |")
            continue
        encoder, step = result["encoder_ms"]["median"], result["ms_per_token"]["median"]
        pairs = list(zip(result["ids"], own["ids"]))
        same = next((i for i, (a, b) in enumerate(pairs) if a != b), len(pairs))
        ratios = encoder / own["encoder_ms"]["median"], step / own["ms_per_token"]["median"]
        print(
            f"| {name} | {encoder:.2f} | {ratios[0]:.2f} | {step:.3f} | {ratios[1]:.2f} | {result['peak_rss_mb']:.0f} "
            f"| {same} of {len(pairs)} |"
        )
        if same < FIRST and "int8" not in name:
            wrong.append(f"{name} agrees with us on {same} tokens only")
    if wrong:
        sys.exit("; ".join(wrong))


if __name__ == "__main__":
    main()
