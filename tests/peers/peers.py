#!/usr/bin/env python3
"""Measures this program beside engines that anyone can install, in one run, and prints one table. See README.md."""

import argparse
import datetime
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
MODELS = ["t5-small", "flan-t5-small", "t5-base"]
ENGINES = ["onnxruntime-int8", "onnxruntime-f32", "ctranslate2-int8", "candle-q8_0"]
PACKAGES = ["numpy", "safetensors", "onnx", "onnxruntime", "ctranslate2", "gguf"]
# (key, heading, whether more is better). Peak memory is read after encoder128 and greedy, before anything larger.
METRICS = [
    ("encoder128", "encoder 128, ms", False),
    ("greedy", "greedy, ms/token", False),
    ("peak", "peak memory, MB", False),
    ("encoder512", "encoder 512, ms", False),
    ("beams4", "4 beams, ms/step", False),
    ("batch16", "batch 16, tok/s", True),
    ("load", "load, ms", False),
]
SOURCE, NEW = 128, 64
# Tokens decoded in the batch of 16 by what would take minutes for 64: it computes cross-attention's keys and values
# anew in every step.
SHORT = {"candle-q8_0": 17}
# These have no beam search.
LOCK_STEP = {"onnxruntime-int8", "onnxruntime-f32", "candle-q8_0"}
# Of 16 tokens compared with those of our float32 file, how many must be the same for every prompt. A float32 engine may
# leave us where two tokens are almost equally likely; 8-bit ones, which round activations with one scale for a row or
# a tensor, leave us soon, so that only the first token, which is sure for these prompts, tells that the model is right.
COMPARED, LEAST, LEAST_8_BIT = 16, 8, 1
PROMPTS = [
    "translate English to German: The house is wonderful.",
    "translate English to French: The cat is sleeping on the sofa.",
    "Is the following sentence positive or negative? I loved this movie.",
    "What is the capital of France?",
]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("scratch", help="folder for the engines and the converted models")
    parser.add_argument("--models", default=",".join(MODELS), help="shapes to measure, or folders with a checkpoint")
    parser.add_argument("--engines", default=",".join(ENGINES))
    parser.add_argument("--metrics", default=",".join(key for key, *_ in METRICS))
    parser.add_argument("--ours", default="q8_0", help="types of our files, TYPE or TYPE@ISA; ratios are to the first")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cpu", type=int, default=1, help="the processor that one thread is pinned to")
    parser.add_argument("--real", help="checkpoint with a tokenizer whose answers are compared; 'none' leaves it out")
    parser.add_argument("--bin", default=f"{ROOT}/target/release", help="folder with t5 and t5-quantize")
    parser.add_argument("--build-minutes", type=float, default=20, help="longest build of candle's")
    parser.add_argument("--record", action="store_true", help="also write a JSON file to runtime/benches/record")
    args = parser.parse_args()
    args.scratch = os.path.abspath(args.scratch)
    for key, known in [("engines", ENGINES), ("metrics", [key for key, *_ in METRICS])]:
        chosen = [name for name in getattr(args, key).split(",") if name]
        for name in chosen:
            if name not in known:
                parser.error(f"--{key}: expected some of {','.join(known)}, found {name}")
        setattr(args, key, chosen)
    args.models, args.ours = args.models.split(","), args.ours.split(",")
    for name in args.models:
        if name not in MODELS and not os.path.exists(f"{name}/config.json"):
            parser.error(f"--models: expected some of {','.join(MODELS)} or a checkpoint's folder, found {name}")
    if args.cpu not in os.sched_getaffinity(0):
        parser.error(f"--cpu: this machine has no processor {args.cpu} for us")
    return args


def say(text):
    print(text, file=sys.stderr, flush=True)


def built(args, name, command, environment):
    """Runs a build once; why it failed, or None."""
    done = f"{args.scratch}/{name}.built"
    if os.path.exists(done):
        return None
    say(f"building {name} (at most {args.build_minutes:g} minutes) ...")
    log = f"{args.scratch}/{name}.log"
    try:
        with open(log, "w") as out:
            # A group of its own, so that a build that takes too long ends with all its compilers.
            process = subprocess.Popen(
                command, stdout=out, stderr=out, env={**os.environ, **environment}, start_new_session=True
            )
        code = process.wait(60 * args.build_minutes)
    except FileNotFoundError as error:
        return f"cannot be built here: {error}"
    except BaseException as stopped:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()
        if not isinstance(stopped, subprocess.TimeoutExpired):
            raise
        return f"not built within {args.build_minutes:g} minutes (see {log})"
    if code != 0:
        return f"its build ended with {code} (see {log})"
    open(done, "w").close()
    return None


def enter_environment(args):
    """Installs the Python packages into the scratch folder and goes on in its interpreter."""
    os.makedirs(args.scratch, exist_ok=True)
    python = f"{args.scratch}/venv/bin/python"
    if not os.path.exists(f"{args.scratch}/venv.built"):
        say("installing " + " ".join(PACKAGES))
        subprocess.run([sys.executable, "-m", "venv", f"{args.scratch}/venv"], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        open(f"{args.scratch}/venv.built", "w").close()
    if os.path.realpath(sys.prefix) != os.path.realpath(f"{args.scratch}/venv"):
        os.execv(python, [python, os.path.abspath(__file__), *sys.argv[1:]])


def build(args):
    """Engines that are compiled here; those that are left out, with reasons."""
    missing = {}
    if "candle-q8_0" in args.engines:
        # Built from a copy, so that its lock file and outputs stay out of the repository.
        shutil.copytree(f"{HERE}/candle", f"{args.scratch}/candle", dirs_exist_ok=True)
        command = ["cargo", "build", "--release", "--manifest-path", f"{args.scratch}/candle/Cargo.toml"]
        command += ["--target-dir", f"{args.scratch}/candle/target"]
        missing["candle-q8_0"] = built(args, "candle", command, {"RUSTFLAGS": "-C target-cpu=native"})
    return {name: reason for name, reason in missing.items() if reason}


class Engine:
    """A peer in a process of its own."""

    def __init__(self, args, name, folder):
        self.name = name
        if name == "candle-q8_0":
            command = [f"{args.scratch}/candle/target/release/candle-peer", folder]
        else:
            command = [sys.executable, f"{HERE}/worker.py", name, folder, str(args.threads)]
        self.process = subprocess.Popen(
            pinned(args, command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.version = self.reply()["version"]

    def reply(self):
        line = self.process.stdout.readline()
        if not line:
            errors = self.process.stderr.read().strip().splitlines() or ["no message"]
            raise RuntimeError(f"{self.name} ended: {errors[-1]}")
        return json.loads(line)

    def ask(self, **command):
        try:
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        return self.reply()

    def measure(self, metric, vocab_size):
        from checkpoint import bench_ids

        ids = lambda batch, length: bench_ids(vocab_size, batch, length)
        if metric == "load":
            return self.ask(load=True)["value"]
        if metric == "peak":
            return self.ask(peak=True)["value"]
        if metric.startswith("encoder"):
            return self.ask(encoder=ids(1, int(metric[7:])))["value"]
        if metric == "batch16":
            tokens = SHORT.get(self.name, NEW)
            return 16e3 / self.ask(step=ids(16, SOURCE), beams=1, tokens=tokens)["value"]
        return self.ask(step=ids(1, SOURCE), beams=4 if metric == "beams4" else 1, tokens=NEW)["value"]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Ours:
    """This program: `t5 bench` anew for each measurement, which takes the same ids (checkpoint.bench_ids)."""

    def __init__(self, args, kind, gguf):
        self.args, self.gguf, self.name = args, gguf, f"pocket-t5 {kind}"
        self.isa = kind.partition("@")[2]
        version = subprocess.run([f"{args.bin}/t5", "--version"], check=True, capture_output=True, text=True)
        self.version = version.stdout.split()[1]

    def bench(self, *options):
        isa = ["--isa", self.isa] if self.isa else []
        command = [f"{self.args.bin}/t5", "bench", "--model", self.gguf, "--json", "--repeats", "1", *isa]
        command += ["--threads", str(self.args.threads), *options]
        done = subprocess.run(pinned(self.args, command), check=True, capture_output=True, text=True)
        return json.loads(done.stdout)

    def measure(self, metric, vocab_size):
        new = ["--new-tokens", str(NEW)]
        if metric.startswith("encoder"):
            return self.bench("--input-tokens", metric[7:], "--new-tokens", "1")["encoder_ms"]["median"]
        if metric == "load":
            return self.bench("--input-tokens", "1", "--new-tokens", "1")["load_ms"]["median"]
        if metric == "peak":
            return self.bench(*new)["peak_rss_mb"]
        if metric == "batch16":
            return self.bench(*new, "--batch", "16")["tokens_per_s"]["median"]
        return self.bench(*new, "--beams", "4" if metric == "beams4" else "1")["ms_per_token"]["median"]

    def close(self):
        pass


def pinned(args, command):
    return ["taskset", "-c", str(args.cpu), *command] if args.threads == 1 else command


def quantized(args, folder, model, kind):
    """Our file of a checkpoint, made once."""
    path = f"{folder}/{kind}.gguf"
    if not os.path.exists(path):
        command = [f"{args.bin}/t5-quantize", "--type", kind, model, path]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    return path


def prepared(name, model, folder):
    """The folder of a checkpoint converted for one engine, made once; in a process of its own, for its memory."""
    target = f"{folder}/{name}"
    if not os.path.exists(f"{target}/done"):
        os.makedirs(target, exist_ok=True)
        code = "import sys; from engines import ENGINES; ENGINES[sys.argv[1]][0](*sys.argv[2:])"
        command = [sys.executable, "-c", code, name, model, target]
        done = subprocess.run(command, cwd=HERE, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError((done.stderr.strip().splitlines() or ["no message"])[-1])
        open(f"{target}/done", "w").close()
    return target


def started(args, model, folder, missing):
    """All peers with a checkpoint loaded; engines that cannot are put into `missing`."""
    engines = []
    for name in args.engines:
        if name in missing:
            continue
        try:
            engines.append(Engine(args, name, prepared(name, model, folder)))
        except RuntimeError as error:
            missing[name] = str(error)
    return engines


def compare_answers(args, missing):
    """Whether all engines choose our first tokens on real weights: a JSON object by engine, and what is wrong."""
    model = args.real or os.path.join(
        os.environ.get("POCKET_T5_SHARED", f"{ROOT}/../shared"), "models/flan-t5-small-titler"
    )
    if model == "none" or not os.path.exists(f"{model}/config.json"):
        say(f"answers not compared: no checkpoint with real weights ({model})")
        return {}, []
    folder = f"{args.scratch}/models/real-{os.path.basename(os.path.abspath(model))}"
    os.makedirs(folder, exist_ok=True)

    def ours(kind, prompt):
        count = str(COMPARED)
        command = [f"{args.bin}/t5", "generate", "--model", quantized(args, folder, model, kind), "--json"]
        command += ["--beams", "1", "--max-new-tokens", count, "--min-new-tokens", count, "--threads", "1", prompt]
        answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        return answer["input_ids"], answer["ids"]

    expected = [(*ours("q8_0", prompt), ours("f32", prompt)[1]) for prompt in PROMPTS]
    same, wrong = {"pocket-t5 q8_0": [first_difference(q8_0, f32) for _, q8_0, f32 in expected]}, []
    for engine in started(args, model, folder, missing):
        counts = []
        for source, q8_0, f32 in expected:
            found = engine.ask(answer=source, tokens=COMPARED)["ids"]
            counts.append(first_difference(found, f32))
        same[engine.name] = counts
        if min(counts) < (LEAST if engine.name.endswith("f32") else LEAST_8_BIT):
            wrong.append(f"{engine.name} agrees with our float32 answers on {counts} first tokens only")
        engine.close()
    return same, wrong


def first_difference(one, other):
    return next((i for i, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))


def measure(args, name, missing):
    """Medians and spreads of one checkpoint, by engine and metric; the engines take turns within a repeat."""
    import checkpoint

    model, folder = name, f"{args.scratch}/models/{os.path.basename(os.path.abspath(name))}"
    os.makedirs(folder, exist_ok=True)
    if name in MODELS:
        model = f"{folder}/checkpoint"
        if not os.path.exists(f"{model}/model.safetensors"):
            checkpoint.make(name, model)
    with open(f"{model}/config.json") as file:
        vocab_size = json.load(file)["vocab_size"]
    say(f"{name}: converting and loading ...")
    ours = [Ours(args, kind, quantized(args, folder, model, kind.partition("@")[0])) for kind in args.ours]
    engines = ours + started(args, model, folder, missing)
    values = {engine.name: {} for engine in engines}
    for metric, heading, _ in METRICS:
        # Peak memory is that of encoding and decoding 128 tokens, whether their times are asked for or not.
        if metric not in args.metrics and not ("peak" in args.metrics and metric in ("encoder128", "greedy")):
            continue
        begin = time.monotonic()
        for repeat in range(1 if metric == "peak" else args.repeats):
            for engine in list(engines):
                try:
                    value = engine.measure(metric, vocab_size)
                except RuntimeError as error:
                    missing[engine.name] = str(error)
                    engines.remove(engine)
                    continue
                if metric in args.metrics:
                    values[engine.name].setdefault(metric, []).append(value)
        say(f"{name}: {heading}: {time.monotonic() - begin:.0f} s")
    result = {}
    for engine in engines:
        spread = {
            metric: {"median": statistics.median(all), "min": min(all), "max": max(all)}
            for metric, all in values[engine.name].items()
        }
        result[engine.name] = {"version": engine.version, **spread}
        engine.close()
    return result


def table(args, name, result):
    metrics = [metric for metric in METRICS if metric[0] in args.metrics]
    print(f"\n### {name}\n")
    print("| engine | " + " | ".join(heading for _, heading, _ in metrics) + " |")
    print("|---|" + "---|" * len(metrics))
    own = next(iter(result.values()))
    for engine, found in result.items():
        cells = []
        for key, _, more_is_better in metrics:
            if key not in found:
                cells.append("")
                continue
            value, reference = found[key]["median"], own[key]["median"]
            mark = " ²" if key == "beams4" and engine in LOCK_STEP else ""
            ratio = reference / value if more_is_better else value / reference
            text = f"{value:.4g}{mark}"
            cells.append(text if found is own else f"{text} ({ratio:.2f})")
        print(f"| {engine} {found['version']} | " + " | ".join(cells) + " |")


def machine():
    with open("/proc/cpuinfo") as file:
        lines = dict(line.split(":", 1) for line in file if ":" in line)
    fields = {key.strip(): value.strip() for key, value in lines.items()}
    return {
        "cpu": fields.get("model name", platform.processor() or platform.machine()),
        "processors": os.cpu_count(),
        "flags": fields.get("flags", fields.get("Features", "")).split(),
        "system": f"{platform.system()} {platform.release()}",
    }


def record(args, results, same, missing):
    host, day = machine(), datetime.date.today().isoformat()
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout
    place = "-".join("".join(c if c.isalnum() else " " for c in host["cpu"].lower()).split())
    folder = f"{ROOT}/runtime/benches/record"
    os.makedirs(folder, exist_ok=True)
    path = f"{folder}/{day}-{place}-peers.json"
    contents = {
        "date": day, "commit": commit.strip(), "machine": host, "threads": args.threads, "repeats": args.repeats,
        "source_tokens": SOURCE, "new_tokens": NEW, "models": results, "same_first_tokens": same, "left_out": missing,
    }
    # A list: later runs of a day add to it.
    runs = []
    if os.path.exists(path):
        with open(path) as file:
            runs = json.load(file)
    with open(path, "w") as file:
        json.dump([*runs, contents], file, indent=1)
        file.write("\n")
    say(f"written: {path}")


def main():
    args = arguments()
    for program in ("t5", "t5-quantize"):
        if not os.path.exists(f"{args.bin}/{program}"):
            sys.exit(f"{args.bin}/{program} is not there: cargo build --release -p t5-runtime -p t5-quantize, or --bin")
    enter_environment(args)
    missing = build(args)
    threads = str(args.threads)
    os.environ.update(OMP_NUM_THREADS=threads, RAYON_NUM_THREADS=threads)

    same, wrong = compare_answers(args, missing)
    for engine, counts in same.items():
        print(f"{engine}: {', '.join(map(str, counts))} of {COMPARED} first tokens are those of our float32 file")
    results = {}
    for name in args.models:
        # Of a folder its name, not where it lies.
        label = os.path.basename(os.path.normpath(name))
        results[label] = measure(args, name, missing)
        table(args, label, results[label])
    brackets = "in brackets: how many times faster or smaller the first line is"
    print(f"\nMedians of {args.repeats}, {args.threads} thread(s); {brackets}.")
    if "beams4" in args.metrics:
        print("² 4 sequences in lock step, without a search: less work than 4 beams.")
    for engine, reason in missing.items():
        print(f"left out: {engine}: {reason}")
    if args.record:
        record(args, results, same, missing)
    if wrong:
        sys.exit("; ".join(wrong))


if __name__ == "__main__":
    main()
