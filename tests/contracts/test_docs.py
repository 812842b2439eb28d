"""The Python that a page shows runs, in its order."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize(
    ("page", "blocks"),
    [
        ("neurons.md", 4),
        ("spiking.md", 1),
        ("hippocampus.md", 3),
        ("limbic.md", 1),
        ("energy.md", 2),
        ("adapter.md", 2),
    ],
)
def test_what_a_page_shows_runs(page, blocks):
    shown = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
    assert len(shown) >= blocks
    names: dict[str, object] = {}
    for block in shown:
        exec(compile(block, page, "exec"), names)
