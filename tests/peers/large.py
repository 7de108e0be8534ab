#!/usr/bin/env python3
"""Measures a large encoder beside llama.cpp on the same file and PyTorch in bf16: `random_xxl.py` writes one.

    cargo build --release -p t5-runtime
    pip install torch==2.15 transformers llama-cpp-python       # the last one is compiled: ten minutes
    large.py --torch FOLDER --llama --lengths 77 256 512 --threads 1 2 NAME=FILE.gguf NAME=FILE.gguf,FILE.packed ...

Each measurement is a process of its own; a run that is not counted comes before those that are. One JSON object a line:
milliseconds of the encoder, of opening the model, and the largest resident size, which holds the pages of mapped files,
too. A file of packed weights behind the comma is used, and made where there is none. For llama.cpp a file must have a
vocabulary (a tokenizer in the folder that it was made from). What a state came to is printed for the other engines:
they have the same ids. In a model of random weights rounding errors grow from block to block: with `random_xxl.py
--blocks 2` the numbers are near each other, with 24 they are not.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

T5 = os.environ.get("T5", pathlib.Path(__file__).parents[2] / "target/release/t5")


def ours(name, files, length, threads, repeats):
    model, *packed = files.split(",")
    command = [T5, "bench", "--json", "--model", model, "--threads", str(threads), "--input-tokens", str(length),
               "--repeats", str(repeats)]
    command += [part for file in packed for part in ("--packed", file)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return {"engine": name, "threads": threads, "encoder_ms": found["encoder_ms"],
            "open_ms": found["load_ms"]["median"], "peak_rss_mb": found["peak_rss_mb"], "isa": found["isa"]}


def torch_bf16(folder, length, threads, repeats):
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
            state = model(ids).last_hidden_state[0, -1, :4].tolist()
            times.append(1000 * (time.perf_counter() - begin))
    return of_a_peer(f"PyTorch {torch.__version__} bf16", threads, times, opened, state)


def llama_cpp(file, length, threads, repeats):
    import llama_cpp as llama

    llama.llama_backend_init()
    begin = time.perf_counter()
    model = llama.llama_model_load_from_file(str(file).encode(), llama.llama_model_default_params())
    parameters = llama.llama_context_default_params()
    parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = length
    parameters.n_threads = parameters.n_threads_batch = threads
    parameters.embeddings = True
    parameters.pooling_type = llama.LLAMA_POOLING_TYPE_NONE
    context = llama.llama_init_from_model(model, parameters)
    opened = time.perf_counter() - begin
    batch = llama.llama_batch_init(length, 0, 1)
    batch.n_tokens = length
    for i in range(length):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = i % 32000, i, 1, 1
        batch.seq_id[i][0] = 0
    times = []
    for _ in range(1 + repeats):
        begin = time.perf_counter()
        if llama.llama_encode(context, batch):
            sys.exit("llama.cpp refused the input")
        state = llama.llama_get_embeddings_ith(context, length - 1)[:4]
        times.append(1000 * (time.perf_counter() - begin))
    name = f"llama.cpp of llama-cpp-python {llama.__version__}, {pathlib.Path(file).name}"
    return of_a_peer(name, threads, times, opened, state)


def of_a_peer(name, threads, times, opened, state):
    """The measurement of this process; the first time is not counted."""
    import resource

    times = sorted(times[1:])
    return {"engine": name, "threads": threads, "encoder_ms":
            {"median": times[len(times) // 2], "min": times[0], "max": times[-1]}, "open_ms": 1000 * opened,
            "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6, "state": state}


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("files", nargs="*", metavar="NAME=FILE[,PACKED]")
    arguments.add_argument("--torch", metavar="FOLDER")
    arguments.add_argument("--llama", action="store_true", help="llama.cpp, too, on each file without packed weights")
    arguments.add_argument("--lengths", type=int, nargs="+", default=[77, 256, 512])
    arguments.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    arguments.add_argument("--repeats", type=int, default=1)
    arguments.add_argument("--worker", choices=["torch", "llama"], help=argparse.SUPPRESS)
    arguments = arguments.parse_args()
    length, threads = arguments.lengths[0], arguments.threads[0]
    if arguments.worker == "torch":
        print(json.dumps(torch_bf16(arguments.torch, length, threads, arguments.repeats)))
        return
    if arguments.worker == "llama":
        print(json.dumps(llama_cpp(arguments.files[0], length, threads, arguments.repeats)))
        return
    for length in arguments.lengths:
        for threads in arguments.threads:
            for file in arguments.files:
                name, files = file.split("=", 1)
                show(ours(name, files, length, threads, arguments.repeats), length)
                if arguments.llama and "," not in files:
                    show(peer(["llama", files], length, threads, arguments.repeats), length)
            if arguments.torch:
                show(peer(["torch", "--torch", arguments.torch], length, threads, arguments.repeats), length)


def peer(worker, length, threads, repeats):
    command = [sys.executable, __file__, "--lengths", str(length), "--threads", str(threads), "--repeats", str(repeats),
               "--worker", *worker]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def show(found, length):
    print(json.dumps({"tokens": length, **found}), flush=True)


main()
