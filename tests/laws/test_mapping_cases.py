"""Fit and no-fit on ten chips: verdicts worked by hand, placements counted again by the independent check."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sims import chips, mapping
from sims.mapping import network, validate

CASES = json.loads((Path(__file__).parents[1] / "fixtures/mapping/cases.json").read_text(encoding="utf-8"))["cases"]


def test_there_are_enough_cases_of_both_kinds_on_enough_chips():
    assert len(CASES) >= 20 and len({case["chip"] for case in CASES}) >= 8
    assert min(sum(case["fits"] == fits for case in CASES) for fits in (True, False)) >= 8


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['chip']}: {case['name']}")
def test_the_verdict_is_the_one_worked_by_hand(case):
    """The arithmetic stands in the file beside each verdict."""
    net, chip = network.from_json(json.dumps(case["network"])), chips.load(case["chip"])
    placement = mapping.place(net, chip)
    assert case["arithmetic"]
    assert (placement.fits, placement.cores, placement.chips) == (case["fits"], case["cores"], case["chips"])
    assert case["words"] in placement.verdict
    assert placement.verdict.startswith("fits: " if case["fits"] else "does not fit: ")
    assert validate.check(placement.network, placement.core, chip, placement.chips) == []
    if case["fits"]:
        assert placement.network is net and (placement.core[net.span(net.groups[-1].name)] >= 0).all()
