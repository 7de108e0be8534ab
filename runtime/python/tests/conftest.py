import os
from pathlib import Path

import pytest

import pocket_t5

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def model() -> pocket_t5.Model:
    return pocket_t5.Model(threads=1)


@pytest.fixture(scope="session")
def family() -> Path:
    """A tiny checkpoint as a Hugging Face folder."""
    return ROOT / "tests/golden/families/unigram"


@pytest.fixture(scope="session")
def real() -> Path:
    """A model with real weights, where there is one."""
    shared = Path(os.environ.get("POCKET_T5_SHARED", ROOT.parent / "shared"))
    folder = shared / "models/flan-t5-small-titler"
    if not folder.is_dir():
        pytest.skip(f"there is no {folder}")
    return folder
