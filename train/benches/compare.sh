#!/usr/bin/env bash
# Training steps of this crate beside PyTorch's, in turns on the same machine.
# usage: [PYTHON=INTERPRETER] compare.sh [THREADS]      with torch and transformers; by default they are installed
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/tools.sh
need_rust
need_python target/tools/pytorch torch==2.15.* transformers==5.23.*
threads=${1:-1}
pin=""
[ "$threads" = 1 ] && command -v taskset >/dev/null && pin="taskset -c 1"
cargo bench --package t5-train --bench step --no-run
for round in 1 2; do
  for shape in tiny t5-small; do
    for precision in f32 bf16; do
      echo "pytorch   $($pin "$PYTHON" train/benches/pytorch_step.py $shape $precision "$threads")"
      echo "pocket-t5 $($pin cargo bench --quiet --package t5-train --bench step -- $shape "$threads" adamw $precision)"
    done
  done
done
