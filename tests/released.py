"""Whether a program that was built for a release answers as it should, and how fast and how large it is.

    python3 tests/released.py FOLDER NAME COMMAND...     t5, perhaps behind an emulator
    python3 tests/released.py FOLDER wheel               the package pocket_t5

The greedy requests of golden/pocket.jsonl must give their texts, and everything that is printed of them,
log-probabilities included, must be what the first program gave whose answers lie in FOLDER/bits-DIGEST.json; DIGEST is
of the built-in model and the requests, of which others have other answers. Prints a row: name, bytes of the program,
the median time from start to answer, and the most memory that it took. Under an emulator the last two tell of the
emulator. """

import hashlib
import json
import pathlib
import resource
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent
GOLDENS = ROOT / "golden/pocket.jsonl"
MODEL = ROOT.parent / "runtime/model/pocket-t5.gguf"
RUNS = 5


def main():
    folder, name, *command = sys.argv[1:]
    lines = map(json.loads, GOLDENS.read_text().splitlines())
    goldens = [line for line in lines if line.get("kind") == "greedy"]
    texts = [golden["text"] for golden in goldens]
    if name == "wheel":
        size, found = None, of_package(texts)
    else:
        size, found = pathlib.Path(command[-1]).stat().st_size, of_command(command, texts)
    for golden, answer in zip(goldens, found, strict=True):
        expected = {"text": golden["answer"], "ids": golden["ids"]}
        got = {key: answer[key] for key in expected}
        if got != expected:
            sys.exit(f"{name}: expected {expected}, found {got}")
    digest = hashlib.sha256(MODEL.read_bytes() + GOLDENS.read_bytes()).hexdigest()
    bits = pathlib.Path(folder) / f"bits-{digest[:16]}.json"
    if not bits.exists():
        bits.write_text(json.dumps(found))
    elif json.loads(bits.read_text()) != found:
        sys.exit(f"{name}: expected the log-probabilities of the programs before it, in {bits}, found others")
    if command:
        times = []
        for _ in range(RUNS):
            begin = time.monotonic()
            subprocess.run([*command, texts[0]], check=True, stdout=subprocess.DEVNULL)
            times.append(time.monotonic() - begin)
        seconds = statistics.median(times)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        print(f"| {name} | {size / 1e6:.1f} MB | {1e3 * seconds:.0f} ms | {peak / 1e6:.0f} MB |")
    print(f"{name}: {len(texts)} golden texts, the same bits")


def of_command(command, texts):
    # The reference does not read sentence by sentence.
    whole = [*command, "generate", "--split-sentences", "no"]
    output = subprocess.run([*whole, "--json", *texts], check=True, stdout=subprocess.PIPE, text=True)
    keys = ["text", "ids", "logprobs", "score"]
    found = [{key: json.loads(line)[key] for key in keys} for line in output.stdout.splitlines()]
    piped = "\n".join(texts)
    lines = subprocess.run(whole, input=piped, check=True, stdout=subprocess.PIPE, text=True).stdout
    if lines.splitlines() != [answer["text"] for answer in found]:
        sys.exit(f"{command}: expected the same texts for lines of standard input, found {lines}")
    return found


def of_package(texts):
    import pocket_t5

    keys = ["text", "ids", "score"]
    results = pocket_t5.Model().outputs(texts, split_sentences=False)
    return [
        {key: getattr(best, key) for key in keys} | {"logprobs": best.logprobs.tolist()} for best, *_ in results
    ]


main()
