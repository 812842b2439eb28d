"""Prices: the log-normal draws, the tables they come from, and the numbers of SANA-FE on a case it published."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from neuro.errors import FormatError, UsageError
from neuro.workload import Phase, Population, Workload
from sims.energy import sides, technologies
from sims.energy.price import Term, price
from sims.energy.streams import DRAWS, normal, shares
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
    both = price([*terms, Term("r", "p", "spike", 0)], technology(constant("spike"), constant()), 0)
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
    for term in sides.on_chip(load, "loihi1", 0).terms["inference"]:
        joules[term.kind] = joules.get(term.kind, 0.0) + term.count * price_pj[term.kind] * 1e-12
    assert joules["synaptic_op"] == pytest.approx(7.2704e-7, rel=1e-9)
    assert joules["neuron_update"] + joules["spike"] == pytest.approx(1.1424e-7, rel=1e-9)
    assert joules["message"] == pytest.approx(7.104e-8, rel=1e-9)
    assert sum(joules.values()) == pytest.approx(9.1232e-7, rel=1e-9)


def test_the_cpu_constant_follows_from_the_published_powers_and_rates():
    mac = technologies.technologies()["cpu:e5-2630"].constant("mac")
    four, eight = 9.315 / 355.24, 10.554 / 233.10  # J per inference: dynamic W over inferences a second
    assert mac.value == pytest.approx((eight - four) / (5_874_432 - 2_990_848) * 1e12, rel=2e-3)
    one, batched = 6.322e-3, 3.483e-4  # J per inference at batch 1 and 64
    per_call = (one - batched) / (1 - 1 / 64)
    assert mac.lo == pytest.approx((one - per_call) / 172_800 * 1e12, rel=5e-3)
    assert mac.hi == pytest.approx(one / 172_800 * 1e12, rel=2e-3)


def test_what_a_term_takes_of_the_variance_is_its_covariance_with_the_sum():
    a, b = normal("a", 0), normal("b", 0)
    found = shares({"a": 3 * a, "b": b, "fixed": np.ones(DRAWS)})
    assert found == {
        "a": pytest.approx(0.9, abs=0.03), "b": pytest.approx(0.1, abs=0.03), "fixed": pytest.approx(0.0, abs=1e-9),
    }  # fmt: skip
    assert sum(found.values()) == pytest.approx(1.0) and shares({"fixed": np.ones(DRAWS)}) == {}


def loihi(*kinds: str, count: float = 10):
    return price([Term("r", "p", kind, count) for kind in kinds], technologies.technology("loihi1"), 0)


def test_the_common_factor_and_the_two_setups_widen_what_they_are_about():
    exact = [constant(lo=10.0, hi=10.0), constant("static", lo=10.0, hi=10.0, unit="W", basis="Static")]
    plain = technology(*exact)
    wide = dataclasses.replace(plain, common_sigma=0.2, setup=Setup(0.0, SOURCE, "", 0.1))
    events, static = (price([Term("r", "p", kind, 1)], wide, 0).total for kind in ("synaptic_op", "static"))
    assert events.hi / events.lo == pytest.approx(math.exp(3.29 * 0.2), rel=5e-3)
    assert static.hi / static.lo == pytest.approx(math.exp(3.29 * 0.1), rel=5e-3)
    assert static.median == pytest.approx(10.0, rel=1e-3)  # watts times seconds
    shares = price([Term("r", "p", "static", 1)], wide, 0).variance_share
    assert shares == {"static": 0.0, "setup_static": 1.0}


def test_the_draws_add_up_to_the_total_by_kind_and_by_region():
    terms = [Term("a", "p", "synaptic_op", 100), Term("b", "p", "spike", 300)]
    priced = price(terms, technologies.technology("loihi1"), 0)
    assert priced.draws.total == pytest.approx(sum(priced.draws.by_kind.values()))
    assert priced.draws.total == pytest.approx(sum(priced.draws.by_region.values()))
    assert priced.total.median == pytest.approx(float(sorted(priced.draws.total)[1000]), rel=1e-2)


def test_what_is_not_counted_is_unpriced_until_it_is():
    assert loihi("synaptic_op").unpriced[:5] == ("hops", "static", "barrier", "host", "weights")
    assert {"neuron_update", "spike", "message", "plasticity_update"} <= set(loihi("synaptic_op").unpriced)
    everything = ("synaptic_op", "neuron_update", "spike", "message", "hop_ew", "plasticity_update", "static")
    assert loihi(*everything).unpriced == ("barrier", "host", "weights")
    assert loihi("synaptic_op").boundary == "dynamic" and loihi(*everything).boundary == "total"


def test_parts_of_a_counted_whole_are_not_missed():
    synop = price([Term("r", "p", "synaptic_op", 1)], technologies.technology("seneca"), 0).unpriced
    parts = price([Term("r", "p", "load16", 1)], technologies.technology("seneca"), 0).unpriced
    assert "load16" not in synop and "message" in synop
    assert "synaptic_op" not in parts and "fp16_op or int8_pair" in parts


@pytest.mark.parametrize(
    ("platform", "kinds", "count", "words"),
    [
        ("truenorth", ("synaptic_op", "hop_ew"), 1, "truenorth: got 'hop_ew' to price, expected one of synaptic_op"),
        ("cpu:e5-2630", ("mac", "synaptic_op"), 1, "got 'synaptic_op' to price, expected one of mac, static"),
        ("seneca", ("synaptic_op", "load16"), 1, "seneca.synop: got load16 counted too, which it includes"),
        ("loihi1", ("spike",), -1, "r, spike: got -1, expected a count of at least 0"),
        ("loihi1", ("time_idle",), 1, "got 'time_idle' to price"),
    ],
)
def test_what_may_not_be_added_is_refused(platform, kinds, count, words):
    with pytest.raises(UsageError, match=words):
        price([Term("r", "p", kind, count) for kind in kinds], technologies.technology(platform), 0)


def test_nothing_is_added_to_an_all_in_constant_but_the_static_power_outside_it():
    whole = constant(basis="AllIn", includes=("everything", "static"))
    above = constant(basis="AllIn", includes=("everything above idle",))
    idle = constant("static", unit="W", basis="Static")
    terms = [Term("r", "p", kind, 1) for kind in ("synaptic_op", "static")]
    assert price(terms, technology(above, idle), 0).boundary == "total"
    assert price(terms[:1], technology(whole, idle), 0).boundary == "total"
    for chip, more in ((technology(whole, idle), "static"), (technology(above, constant("spike")), "spike")):
        with pytest.raises(UsageError, match=f"t.synaptic_op: got {more} beside it, expected it alone: it is all-in"):
            price([terms[0], Term("r", "p", more, 1)], chip, 0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": "guess"}, "got model 'guess' and scope 'device'"),
        ({"scope": "galaxy"}, "and scope 'galaxy', expected one of calls"),
        (
            {"runs": [{"id": "x", "network": "n", "setup": "s", "source": SOURCE, "note": "", "macs": 1}]},
            "run 'x' lacks",
        ),
        ({"runs": [{"id": "x"}]}, "not a technology table"),
    ],
)
def test_a_model_a_scope_or_a_run_that_is_incomplete_is_refused(tmp_path, change, words):
    data = json.loads((technologies.FOLDER / "loihi1.json").read_text(encoding="utf-8"))
    path = tmp_path / "loihi1.json"
    path.write_text(json.dumps(data | change))
    with pytest.raises(FormatError, match=words):
        technologies.load(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lo": 99.0}, "breaks the table's rules"),
        ({"hi": 1.0}, "breaks the table's rules"),
        ({"lo": 0.0}, "breaks the table's rules"),
        ({"unit": "eV"}, "breaks the table's rules"),
        ({"unit": "W"}, "breaks the table's rules"),
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
        ({"alternatives": [["spike", "spikes"]]}, "got 'spikes' among the alternatives, which has no price"),
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
    chip = technology(*grades)
    assert chip.evidence_of(chip.kinds) == "textbook" and chip.evidence_of(["synaptic_op", "mac"]) == "vendor"
    assert chip.evidence_of([]) == "silicon"


def test_why_says_value_interval_unit_evidence_source_and_note():
    words = technologies.why("loihi1.synop")
    for part in ("35.5 pJ per synaptic op", "between 23.6 and 49.3", "silicon_fit", "SANA-FE", "second-hand"):
        assert part in words
    assert "sigma 0.35" in technologies.why("loihi1.setup") and "lava-dl" in technologies.why("loihi1.setup")
    assert "unpriced" in technologies.why("loihi1.hops") and "SANA-FE" in technologies.why("loihi1.hops")


def test_an_unknown_term_names_the_nearest():
    with pytest.raises(UsageError, match="unknown term 'loihi1.synops'") as raised:
        technologies.why("loihi1.synops")
    assert raised.value.do == "Did you mean 'loihi1.synop'?"
