"""The class for Ray Data in docs/at-scale.md, without Ray: a batch that is larger than what pipes hold is done.

    python3 tests/ray_data.py T5
"""

import faulthandler
import os
import sys
import tempfile
from pathlib import Path
from unittest import mock

DOCUMENT = Path(__file__).parent.parent / "docs/at-scale.md"
MODEL = '"--model", "model.gguf", '


def main(t5: str) -> int:
    example = DOCUMENT.read_text(encoding="utf-8").split("## Ray Data")[1].split("```python\n")[1].split("```")[0]
    assert MODEL in example, example
    # The built-in model; the last line asks a Ray that does nothing.
    names = {}
    with mock.patch.dict(sys.modules, {"ray": mock.MagicMock()}):
        exec(example.replace(MODEL, ""), names)
    # Both sides may wait for each other for ever.
    faulthandler.dump_traceback_later(600, exit=True)
    # The command is called as in the document. Spaces cost nothing, and come back with the result.
    texts = [f"translate English to German: I have {i} books.{' ' * 40_000}" for i in range(64)]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "t5").symlink_to(Path(t5).resolve())
        with mock.patch.dict(os.environ, {"PATH": f"{folder}:{os.environ['PATH']}"}):
            translate = names["Translate"]()
        outputs = translate({"text": texts})["output"]
        translate.t5.stdin.close()
        assert translate.t5.wait() == 0
    assert len(outputs) == 64 and all(outputs), outputs
    print("64 texts of 40 KB in one batch")
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))
