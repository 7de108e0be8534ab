"""A data set as Hugging Face stores it: Parquet shards by split, Snappy-compressed. pyarrow 26.

    python make_parquet.py dataset
"""

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

ROWS = [("a fine film", 1), ("too long, \"too\" loud", 0), ("naïve\nbut new", 1), ("dull", 0)]
SHARDS = {"train-00000-of-00002": ROWS[:2], "train-00001-of-00002": ROWS[2:3], "validation-00000-of-00001": ROWS[3:]}

folder = Path(sys.argv[1]) / "data"
folder.mkdir(parents=True, exist_ok=True)
for name, rows in SHARDS.items():
    table = pa.table({
        "sentence": [text for text, _ in rows],
        "label": pa.array([label for _, label in rows], pa.int64()),
        "liked": [label == 1 for _, label in rows],
        "words": [text.split() for text, _ in rows],
        "nothing": pa.array([None] * len(rows), pa.string()),
    })
    pq.write_table(table, folder / f"{name}.parquet", compression="snappy")
