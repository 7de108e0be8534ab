#!/usr/bin/env python3
"""C4's line and page rules beside datatrove's, on the same pages, one processor each, in turns.

    cargo build --profile unchecked -p t5-train
    tests/peers/corpus.py FOLDER TEXT... [--program target/unchecked/t5-train] [--pages 20000]

TEXT are files of plain text (.xz too) with a paragraph a line; pages of twelve lines are made of them, with faults.
FOLDER is the user's: datatrove is installed there (about 300 MB) and found again. What is timed of datatrove is its
filter alone, on documents in memory; of ours the whole command, which reads JSON lines, writes compressed ones, and
here leaves out repeats and languages, which that filter does not look at either.
"""

import argparse
import json
import lzma
import os
import subprocess
import sys
import time
import venv
from pathlib import Path

FAULTS = [
    "Menu Home About",
    "We use cookies on all of our pages.",
    "You need JavaScript to see this page.",
    "Too short.",
]


def pages(texts, count):
    lines = []
    for text in texts:
        opened = lzma.open(text, "rt", encoding="utf-8") if text.suffix == ".xz" else open(text, encoding="utf-8")
        with opened as file:
            for line in file:
                if line.strip():
                    lines.append(line.strip())
                if len(lines) >= 12 * count:
                    break
    for i in range(min(count, len(lines) // 12)):
        page = lines[12 * i : 12 * i + 12]
        page.insert(i % 12, FAULTS[i % len(FAULTS)])
        if i % 25 == 0:
            page.append("function main() { return 1 now; }.")
        yield {"text": "\n".join(page), "url": f"https://books.example/{i}", "id": str(i)}


def python_of(folder):
    """The interpreter that has datatrove, made where there is none."""
    python = folder / "venv/bin/python"
    if not python.exists():
        venv.create(folder / "venv", with_pip=True)
    if subprocess.run([python, "-c", "import datatrove, spacy"], capture_output=True).returncode != 0:
        subprocess.run([python, "-m", "pip", "install", "-q", "datatrove==0.10.*", "spacy"], check=True)
    return python


def theirs(path, kept):
    """Runs in the interpreter with datatrove: prints the seconds of its filter and writes the ids that it keeps."""
    from datatrove.data import Document
    from datatrove.pipeline.filters import C4QualityFilter

    quality = C4QualityFilter(min_num_sentences=3, min_words_per_line=5)
    with open(path, encoding="utf-8") as file:
        documents = [Document(text=page["text"], id=page["id"]) for page in map(json.loads, file)]
    quality.filter(Document(text="One two three four five. It was so. And so.", id="first"))
    started = time.perf_counter()
    found = [document.id for document in documents if quality.filter(document) is True]
    print(time.perf_counter() - started)
    Path(kept).write_text("\n".join(found))


def main():
    if sys.argv[1:2] == ["--theirs"]:
        return theirs(*sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("texts", type=Path, nargs="+")
    parser.add_argument("--program", type=Path, default=Path("target/unchecked/t5-train"))
    parser.add_argument("--pages", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    folder = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    python = python_of(folder)
    path, kept = folder / "pages.jsonl", folder / "kept"
    with open(path, "w", encoding="utf-8") as file:
        made = list(pages(arguments.texts, arguments.pages))
        file.writelines(json.dumps(page) + "\n" for page in made)
    size = sum(len(page["text"].encode()) for page in made) / 1e6
    config = folder / "corpus.toml"
    more = 'repeats = "none"\nlanguage = ""\none_of_an_address = false\nvalidation_per_thousand = 0\nthreads = 1\n'
    config.write_text(f'input = ["{path}"]\noutput = "{folder}/corpus"\n{more}')
    processor = str(max(os.sched_getaffinity(0)))
    times = {"datatrove": [], "t5-train": []}
    for _ in range(arguments.repeats):
        command = ["taskset", "-c", processor, python, __file__, "--theirs", path, kept]
        times["datatrove"].append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        subprocess.run(["rm", "-rf", folder / "corpus"], check=True)
        started = time.perf_counter()
        command = ["taskset", "-c", processor, arguments.program, "corpus", config]
        table = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        times["t5-train"].append(time.perf_counter() - started)
    medians = {name: sorted(seconds)[len(seconds) // 2] for name, seconds in times.items()}
    print(f"{len(made)} pages, {size:.1f} MB; median of {arguments.repeats}, and all")
    for name, seconds in times.items():
        all_of_them = " ".join(f"{second:.2f}" for second in seconds)
        rate = len(made) / medians[name]
        print(f"{name:10} {rate:9.0f} pages/s {size / medians[name]:7.1f} MB/s  {medians[name]:.2f} s ({all_of_them})")
    print(f"ratio {medians['datatrove'] / medians['t5-train']:.1f}")
    print(table, end="")
    print(f"datatrove keeps {len(kept.read_text().split())} pages")


if __name__ == "__main__":
    main()
