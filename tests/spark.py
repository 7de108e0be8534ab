"""Spark's `pipe` over `t5`: the same results as without Spark, whatever the partitions, and a `t5` that fails ends the
job. Needs pyspark and Java.

    python3 tests/spark.py T5
"""

import json
import shutil
import subprocess
import sys


def without_line(record: dict) -> dict:
    """What is wrong with a record, without its line, which counts from the start of its partition."""
    return {"error": record["error"].split(": ", 1)[-1]}


def main(t5: str) -> int:
    try:
        from py4j.protocol import Py4JJavaError
        from pyspark import SparkConf, SparkContext
    except ImportError:
        print(f"skipped: {sys.executable} has no pyspark (PYTHON names an interpreter)")
        return 0
    if shutil.which("java") is None:
        print("skipped: Spark needs Java")
        return 0
    lines = [json.dumps({"id": i, "text": f"translate English to German: I have {i} books.\nThey are new."})
             for i in range(60)]
    lines[17] = "no object"
    command = [t5, "generate", "--threads", "1", "--input-format", "jsonl"]
    alone = subprocess.run(command, input="\n".join(lines) + "\n", capture_output=True, text=True, check=True)
    expected = [json.loads(line) for line in alone.stdout.splitlines()]
    assert len(expected) == 60 and expected[3]["id"] == 3 and expected[3]["output"], expected[3]
    expected[17] = without_line(expected[17])

    configuration = SparkConf().setMaster("local[2]").setAppName("t5").set("spark.ui.enabled", "false")
    context = SparkContext(conf=configuration)
    context.setLogLevel("ERROR")
    try:
        for partitions in (1, 7):
            found = context.parallelize(lines, partitions).pipe(" ".join(command), checkCode=True).collect()
            found = [json.loads(line) for line in found]
            assert len(found) == 60, found
            found[17] = without_line(found[17])
            different = [pair for pair in zip(found, expected, strict=True) if pair[0] != pair[1]]
            assert not different, (partitions, different)
        try:
            missing = " ".join([*command, "--model", "missing.gguf"])
            found = context.parallelize(lines, 2).pipe(missing, checkCode=True).collect()
        except Py4JJavaError as error:
            assert "with error code" in str(error), error
        else:
            raise AssertionError(f"expected a job that fails without a model, found {found}")
    finally:
        context.stop()
    print("60 texts in 1 and in 7 partitions: as without Spark")
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))
