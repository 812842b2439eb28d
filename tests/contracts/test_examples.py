"""Every example runs as its first lines say, and prints what its page promises."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROMISES = {
    "seed_a_memory.py": ["The password of the vault is crim", "as if it had never been read"],
    "specialists.py": ["has read harbour", "bakery"],
    "keep_learning.py": ["with memories"],
    "train_a_brain.py": ["One boat came in and one boat stayed"],
}


ELSEWHERE = {"adapter.py": "test_hf_adapter.py", "harness.py": "test_harness.py"}  # what needs an extra


def test_every_example_is_tried():
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == set(PROMISES) | set(ELSEWHERE)
    for example, test in ELSEWHERE.items():
        assert example in Path(__file__).with_name(test).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PROMISES)
def test_it_runs(name, tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name)],
        capture_output=True, text=True, cwd=tmp_path, timeout=600, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for words in PROMISES[name]:
        assert words in done.stdout
