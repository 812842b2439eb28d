"""Prices: the log-normal draws, the tables they come from, and the numbers of SANA-FE on a case it published."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from neuro.errors import FormatError, UsageError
from neuro.workload import Phase, Population, Workload
from sims.energy import report, technologies
from sims.energy.price import Term, price
from sims.energy.technologies import Constant, Setup, Technology

SOURCE = {"paper": "p", "url": "u"}


def constant(kind: str = "synaptic_op", **changes) -> Constant:
    plain = Constant(
        f"t.{kind}", "t", kind, 10.0, 5.0, 20.0, "pJ", 14, 0.75, "PerTerm", ("all",), "silicon", SOURCE, ""
    )
    return dataclasses.replace(plain, **changes)


def technology(*constants: Constant, setup_sigma: float = 0.0) -> Technology:
    return Technology("t", "T", Setup(setup_sigma, SOURCE, ""), constants or (constant(),), ())


def test_the_draws_have_the_constants_median_and_its_interval():
    total = price([Term("r", "p", "synaptic_op", 1_000_000)], technology(), 0).total
    assert total.median == pytest.approx(10e-6, rel=1e-4)
    assert total.lo == pytest.approx(5e-6, rel=1e-3)
    assert total.hi == pytest.approx(20e-6, rel=1e-3)


def test_the_setup_factor_widens_what_every_constant_shares():
    term = [Term("r", "p", "synaptic_op", 1000)]
    total = price(term, technology(constant(lo=10.0, hi=10.0), setup_sigma=0.35), 0).total
    assert total.hi / total.lo == pytest.approx(math.exp(3.29 * 0.35), rel=5e-3)
    assert price(term, technology(constant(lo=10.0, hi=10.0)), 0).total.hi == pytest.approx(10e-9)


def test_regions_share_their_draws():
    terms = [Term("a", "p", "synaptic_op", 100), Term("b", "p", "synaptic_op", 300)]
    priced = price(terms, technology(setup_sigma=0.35), 0)
    for part in ("median", "lo", "hi"):
        a, b = (getattr(priced.by_region[region], part) for region in "ab")
        assert b == pytest.approx(3 * a, rel=1e-12)
        assert a + b == pytest.approx(getattr(priced.total, part), rel=1e-12)


def test_a_constant_added_to_a_table_moves_no_other_draw():
    terms = [Term("r", "p", "synaptic_op", 100)]
    alone = price(terms, technology(), 0)
    both = price(terms, technology(constant("spike"), constant()), 0)
    assert alone.by_kind["synaptic_op"] == both.by_kind["synaptic_op"]
    assert dataclasses.astuple(both.by_kind["spike"]) == (0.0, 0.0, 0.0)


def test_two_platforms_share_no_draws():
    terms = [Term("r", "p", "synaptic_op", 100)]
    one = technology(setup_sigma=0.35)
    two = dataclasses.replace(one, platform="other")
    assert price(terms, one, 0).total != price(terms, two, 0).total


def test_the_shares_of_the_variance_are_worked_by_hand():
    # Equal energies: each kind has (sigma / 2)^2, the setup its own sigma^2.
    terms = [Term("r", "p", "synaptic_op", 7), Term("r", "p", "spike", 7)]
    shares = price(terms, technology(constant(), constant("spike"), setup_sigma=0.35), 0).variance_share
    sigma = math.log(4) / 3.29
    whole = 2 * (sigma / 2) ** 2 + 0.35**2
    assert shares == {
        "synaptic_op": pytest.approx((sigma / 2) ** 2 / whole),
        "spike": pytest.approx((sigma / 2) ** 2 / whole),
        "setup": pytest.approx(0.35**2 / whole),
    }
    assert price([], technology(), 0).variance_share == {}
    certain = technology(constant(lo=10.0, hi=10.0))
    assert price(terms[:1], certain, 0).variance_share == {}


def test_the_published_case_of_sana_fe_comes_out_component_by_component():
    """64 -> 32 dense, every input fires at each of 10 steps, both layers on one tile (SANA-FE 2.2.9, Loihi)."""
    p = Population("p", "cortex", 64, 32, 32, "binary", 8, spikes=640, synaptic_ops=20_480, updates=640)
    load = Workload("m", 1, 1, 1, "h", "cpu", (Phase("inference", 10, 10, 1.0, (p,), (), ()),))
    price_pj = {c.kind: c.value for c in technologies.technologies()["loihi1"].constants}
    joules: dict[str, float] = {}
    for term in report.estimate(load).terms:
        joules[term.kind] = joules.get(term.kind, 0.0) + term.count * price_pj[term.kind] * 1e-12
    assert joules["synaptic_op"] == pytest.approx(7.2704e-7, rel=1e-9)
    assert joules["neuron_update"] + joules["spike"] == pytest.approx(1.1424e-7, rel=1e-9)
    assert joules["message"] == pytest.approx(7.104e-8, rel=1e-9)
    assert sum(joules.values()) == pytest.approx(9.1232e-7, rel=1e-9)


def test_the_cpu_constant_follows_from_the_published_powers_and_rates():
    (mac,) = technologies.technologies()["cpu:e5-2630"].constants
    four, eight = 9.315 / 355.24, 10.554 / 233.10  # J per inference: dynamic W over inferences a second
    assert mac.value == pytest.approx((eight - four) / (5_874_432 - 2_990_848) * 1e12, rel=2e-3)
    one, batched = 6.322e-3, 3.483e-4  # J per inference at batch 1 and 64
    per_call = (one - batched) / (1 - 1 / 64)
    assert mac.lo == pytest.approx((one - per_call) / 172_800 * 1e12, rel=5e-3)
    assert mac.hi == pytest.approx(one / 172_800 * 1e12, rel=2e-3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lo": 99.0}, "breaks the table's rules"),
        ({"hi": 1.0}, "breaks the table's rules"),
        ({"lo": 0.0}, "breaks the table's rules"),
        ({"unit": "J"}, "breaks the table's rules"),
        ({"basis": "Sum"}, "breaks the table's rules"),
        ({"evidence": "rumour"}, "breaks the table's rules"),
        ({"source": {}}, "breaks the table's rules"),
        ({"basis": "AllIn"}, "'loihi1.synop' is AllIn beside other constants"),
        ({"colour": "red"}, "not a technology table"),
    ],
)
def test_a_constant_that_breaks_the_rules_is_refused(tmp_path, change, words):
    data = json.loads((technologies.FOLDER / "loihi1.json").read_text(encoding="utf-8"))
    data["constants"][0] |= change
    path = tmp_path / "loihi1.json"
    path.write_text(json.dumps(data))
    with pytest.raises(FormatError, match=words):
        technologies.load(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": "neuro.technology/0"}, r"got schema 'neuro\.technology/0'"),
        ({"setup": {"sigma": 0.1, "source": {}, "note": ""}}, "'setup' has no source"),
        ({"unpriced": [{"id": "hops", "why": "w", "source": {}}]}, "'hops' has no source"),
        ({"unpriced": [{"id": "hops"}]}, "not a technology table"),
    ],
)
def test_a_table_that_breaks_the_rules_is_refused(tmp_path, change, words):
    data = json.loads((technologies.FOLDER / "loihi1.json").read_text(encoding="utf-8"))
    path = tmp_path / "loihi1.json"
    path.write_text(json.dumps(data | change))
    with pytest.raises(FormatError, match=words):
        technologies.load(path)


def test_the_weakest_grade_of_evidence_is_said():
    grades = [constant(evidence="silicon"), constant("spike", evidence="textbook"), constant("mac", evidence="vendor")]
    assert technology(*grades).weakest_evidence == "textbook"


def test_why_says_value_interval_unit_evidence_source_and_note():
    words = report.why("loihi1.synop")
    for part in ("35.5 pJ per synaptic op", "between 23.6 and 49.3", "silicon_fit", "SANA-FE", "second-hand"):
        assert part in words
    assert "sigma 0.35" in report.why("loihi1.setup") and "lava-dl" in report.why("loihi1.setup")
    assert "unpriced" in report.why("loihi1.hops") and "SANA-FE" in report.why("loihi1.hops")


def test_an_unknown_term_names_the_nearest():
    with pytest.raises(UsageError, match="unknown term 'loihi1.synops'") as raised:
        report.why("loihi1.synops")
    assert raised.value.do == "Did you mean 'loihi1.synop'?"
