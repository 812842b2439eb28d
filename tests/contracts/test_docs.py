"""The Python that a page shows runs, in its order."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sims.nir.conformance import NAMES

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


@pytest.mark.parametrize(
    ("page", "blocks"),
    [
        ("neurons.md", 4),
        ("spiking.md", 1),
        ("hippocampus.md", 3),
        ("limbic.md", 1),
        ("energy.md", 2),
        ("memory.md", 2),
        ("nir.md", 2),
        ("adapter.md", 4),
        ("ablation.md", 1),
        ("training.md", 1),
    ],
)
def test_what_a_page_shows_runs(page, blocks, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
    assert len(shown) >= blocks
    names: dict[str, object] = {}
    for block in shown:
        exec(compile(block, page, "exec"), names)


def test_the_page_of_nir_has_every_case_and_ours_are_equal():
    rows = [line.split(" | ") for line in (DOCS / "nir.md").read_text(encoding="utf-8").splitlines()]
    table = {row[0].removeprefix("| "): row for row in rows if len(row) > 8}
    heads = [name.split()[0] for name in table.pop("graph")[2:6]]
    assert heads == ["layers", "network", "sims.nir", "Brian2"]
    assert set(table) == set(NAMES)
    assert all(
        row[3:6] == ["equal"] * 3 and row[2] in ("equal", "refused") for name, row in table.items() if name in NAMES
    )


def test_the_page_of_peers_compares_equal_parameters():
    """Every table has ours and both peers, within 1 % of each other."""
    said = (
        (DOCS / "peers.md").read_text(encoding="utf-8").split("<!-- tables -->")[1].split("<!-- end of tables -->")[0]
    )
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in said.splitlines() if line.startswith("| ")]
    starts = [number for number, row in enumerate(rows) if row[0] == "model"]
    assert starts
    for start, end in zip(starts, [*starts[1:], len(rows)], strict=True):
        of = {row[0].split(",")[0]: int(row[1].replace(",", "")) for row in rows[start + 1 : end]}
        assert set(of) == {"ours", "Transformer-XL", "Compressive Transformer"}
        assert max(of.values()) < 1.01 * min(of.values())


def test_contributing_has_every_lane_in_its_order_and_the_quick_ones_stand_before_the_tests():
    lanes = re.findall(r'^ *lane "(.+?)"', (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE)
    said = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("## Lanes")[1].split("## Where things go")[0]
    rows = [line.split(" | ")[0].removeprefix("| ") for line in said.splitlines() if line.startswith("| ")]
    assert rows == ["lane", *lanes]
    assert {"lint", "format", "types", "arrows"} < set(lanes[2 : lanes.index("README: test")])
