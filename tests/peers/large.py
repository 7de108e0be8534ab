#!/usr/bin/env python3
"""Measures a large encoder beside PyTorch in bf16: `random_xxl.py` writes one.

    cargo build --release -p t5-runtime
    large.py --torch FOLDER --lengths 77 256 512 --threads 1 2 NAME=FILE.gguf NAME=FILE.gguf,FILE.packed ...

Each measurement is a process of its own; a run that is not counted comes before those that are. One JSON object a line:
milliseconds of the encoder, of opening the model, and the largest resident size, which holds the pages of mapped files,
too. A file of packed weights behind the comma is used, and made where there is none.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import time

T5 = pathlib.Path(__file__).parents[2] / "target/release/t5"


def ours(name, files, length, threads, repeats):
    model, *packed = files.split(",")
    command = [T5, "bench", "--json", "--model", model, "--threads", str(threads), "--input-tokens", str(length),
               "--repeats", str(repeats)]
    command += [part for file in packed for part in ("--packed", file)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return {"engine": name, "threads": threads, "tokens": length, "encoder_ms": found["encoder_ms"],
            "open_ms": found["load_ms"]["median"], "peak_rss_mb": found["peak_rss_mb"], "isa": found["isa"]}


def torch_bf16(folder, length, threads, repeats):
    import resource

    import torch
    from transformers import T5EncoderModel

    torch.set_num_threads(threads)
    begin = time.perf_counter()
    model = T5EncoderModel.from_pretrained(folder, dtype=torch.bfloat16).eval()
    opened = time.perf_counter() - begin
    ids = torch.arange(length).reshape(1, -1) % 32000
    times = []
    with torch.inference_mode():
        for _ in range(1 + repeats):
            begin = time.perf_counter()
            model(ids)
            times.append(1000 * (time.perf_counter() - begin))
    times = sorted(times[1:])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    spread = {"median": times[len(times) // 2], "min": times[0], "max": times[-1]}
    return {"engine": f"PyTorch {torch.__version__} bf16", "threads": threads, "tokens": length, "encoder_ms": spread,
            "open_ms": 1000 * opened, "peak_rss_mb": peak}


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("files", nargs="*", metavar="NAME=FILE[,PACKED]")
    arguments.add_argument("--torch", metavar="FOLDER")
    arguments.add_argument("--lengths", type=int, nargs="+", default=[77, 256, 512])
    arguments.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    arguments.add_argument("--repeats", type=int, default=1)
    arguments.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = arguments.parse_args()
    if arguments.worker:
        print(json.dumps(torch_bf16(arguments.torch, arguments.lengths[0], arguments.threads[0], arguments.repeats)))
        return
    for length in arguments.lengths:
        for threads in arguments.threads:
            for file in arguments.files:
                name, files = file.split("=", 1)
                print(json.dumps(ours(name, files, length, threads, arguments.repeats)), flush=True)
            if arguments.torch:
                command = [sys.executable, __file__, "--worker", "--torch", arguments.torch, "--lengths", str(length),
                           "--threads", str(threads), "--repeats", str(arguments.repeats)]
                print(subprocess.run(command, check=True, capture_output=True, text=True).stdout, end="", flush=True)


main()
