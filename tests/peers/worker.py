"""One engine in a process of its own: commands as JSON lines on stdin, answers as JSON lines on stdout.

    worker.py ENGINE FOLDER THREADS

    {"encoder": ids}                               -> {"value": ms}
    {"step": ids, "beams": n, "tokens": n}         -> {"value": ms of one step}
    {"load": true}                                 -> {"value": ms}, the model loaded anew
    {"answer": ids, "tokens": n}                   -> {"ids": [...]}
    {"peak": true}                                 -> {"value": MB}

Every measurement is made twice and the second one counts. A step is (t(tokens) - t(1)) / (tokens - 1).
"""

import importlib.metadata
import json
import sys
import time

from engines import ENGINES


def milliseconds(work):
    work()
    begin = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - begin)


def step(engine, ids, beams, tokens):
    started = engine.start(ids, beams)
    short = milliseconds(lambda: engine.decode(started, 1))
    return (milliseconds(lambda: engine.decode(started, tokens)) - short) / (tokens - 1), short


def peak_mb():
    with open("/proc/self/status") as file:
        kilobytes = next(line for line in file if line.startswith("VmHWM")).split()[1]
    return int(kilobytes) * 1024 / 1e6


def main():
    name, folder, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
    kind = ENGINES[name][1]
    engine = kind(folder, threads)
    print(json.dumps({"version": importlib.metadata.version(kind.version)}), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        if "encoder" in command:
            ids = command["encoder"]
            if engine.encode:
                value = milliseconds(lambda: engine.encode(ids))
            else:
                one, short = step(engine, ids, 1, 32)
                value = short - one
            answer = {"value": value}
        elif "step" in command:
            answer = {"value": step(engine, command["step"], command["beams"], command["tokens"])[0]}
        elif "load" in command:
            engine = None
            begin = time.perf_counter()
            engine = kind(folder, threads)
            answer = {"value": 1e3 * (time.perf_counter() - begin)}
        elif "answer" in command:
            answer = {"ids": engine.answer(command["answer"], command["tokens"])}
        else:
            answer = {"value": peak_mb()}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
