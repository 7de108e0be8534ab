"""The licences of everything that is compiled into a crate: texts.py MANIFEST [FEATURE]...

Prints each package with its licence and the texts that come with it, each text once. Build scripts, what runs while
compiling and tests are left out.
"""

import json
import pathlib
import subprocess
import sys

NAMES = ("license", "licence", "copying", "notice", "unlicense")


def main():
    manifest, *features = sys.argv[1:]
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--manifest-path", manifest]
    if features:
        command += ["--features", ",".join(features)]
    metadata = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    known, waiting = set(), [metadata["resolve"]["root"]]
    while waiting:
        package = waiting.pop()
        if package in known or is_macro(packages[package]):
            continue
        known.add(package)
        for dependency in nodes[package]["deps"]:
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
                waiting.append(dependency["pkg"])
    texts = {}
    for package in sorted((packages[package] for package in known), key=lambda package: package["name"]):
        print(f"{package['name']} {package['version']}: {package['license']}  {package['repository'] or ''}")
        folder = pathlib.Path(package["manifest_path"]).parent
        for file in sorted(folder.iterdir()):
            if file.is_file() and file.name.lower().startswith(NAMES):
                texts.setdefault(file.read_text(errors="replace").strip(), []).append(package["name"])
    for text, names in texts.items():
        print(f"\n{'=' * 80}\n{', '.join(dict.fromkeys(names))}\n\n{text}")


def is_macro(package):
    return any("proc-macro" in target["kind"] for target in package["targets"])


main()
