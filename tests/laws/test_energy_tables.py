"""Law: every technology table is complete, its numbers follow from its sources, and nothing is added that is inside already."""

from __future__ import annotations

import json
import math

import pytest

from sims.energy import technologies
from sims.energy.technologies import SECONDS, UNITS, technology

PLATFORMS = (
    "akida",
    "convention",
    "cpu:e5-2630",
    "gpu:h200",
    "gpu:k4000",
    "horowitz:45nm",
    "jetson:tx1",
    "loihi1",
    "loihi2",
    "movidius:ncs",
    "movidius:ncs2",
    "odin",
    "reckon",
    "seneca",
    "speck",
    "spinnaker1",
    "spinnaker2",
    "truenorth",
    "xylo_audio2",
    "xylo_audio3",
)
TABLES = technologies.technologies()


def value(platform: str, kind: str) -> float:
    return technology(platform).constant(kind).value


def test_every_platform_has_a_table_and_nothing_else_has():
    assert tuple(sorted(TABLES)) == PLATFORMS


@pytest.mark.parametrize("platform", PLATFORMS)
def test_every_constant_has_its_keys_a_known_unit_an_ordered_interval_and_a_source(platform):
    table = TABLES[platform]
    assert len({c.id for c in table.constants}) == len({c.kind for c in table.constants}) == len(table.constants)
    for c in table.constants:
        assert c.id.startswith(f"{platform}.") and c.platform == platform
        assert c.unit in UNITS and 0 < c.lo <= c.value <= c.hi
        assert c.source["paper"] and c.source["url"] and c.includes and len(c.note) > 10
        words = technologies.why(c.id)
        for part in (c.evidence, c.basis, c.source["url"], c.note):
            assert part in words
    for run in table.runs:
        words = technologies.why(run.id)
        assert run.source["url"] in words and run.source["paper"] in words and run.network in words
    assert 0 < table.setup.sigma < 1 and 0 < table.setup.static_sigma < 1


def test_every_row_of_the_tables_has_every_key():
    for path in technologies.FOLDER.glob("*.json"):
        data = json.loads(path.read_text(encoding="utf-8"))
        assert data["schema"] == "neuro.technology/2"
        for row in data["constants"]:
            assert set(row["source"]) == {"paper", "table", "page", "url", "commit"}, row["id"]


def test_what_is_second_hand_or_inferred_says_so():
    second_hand = ["loihi1.time_synop", "gpu:h200.weight_byte", "truenorth.synop", "spinnaker1.synop", "convention.mac"]
    for term in second_hand:
        assert "second-hand" in technologies.why(term).lower()
    for term in ("speck.spike", "akida.clock", "xylo_audio3.tick"):
        assert "nferred" in technologies.why(term)
    for c in TABLES["loihi1"].constants:
        assert c.evidence == ("presilicon" if c.unit in SECONDS or c.kind == "plasticity_update" else c.evidence)


def test_a_constant_and_an_unpriced_cost_of_one_name_are_both_explained():
    words = technologies.why("loihi1.static")
    assert "0.02955 W static" in words and "unpriced until counted as static" in words


def test_the_derived_constants_follow_from_the_published_runs():
    runs = {run.id: run for table in TABLES.values() for run in table.runs}
    for platform in ("gpu:k4000", "movidius:ncs"):
        four, eight = (runs[f"{platform}.scaled{n}"] for n in (4, 8))
        slope = (eight.dynamic_j - four.dynamic_j) / (eight.macs - four.macs)
        assert value(platform, "mac") == pytest.approx(slope * 1e12, rel=5e-3)
    for platform in ("gpu:k4000", "jetson:tx1"):
        one, batched = runs[f"{platform}.kws"].dynamic_j, runs[f"{platform}.batch64"].dynamic_j
        mac = technology(platform).constant("mac")
        assert mac.lo == pytest.approx((one - (one - batched) / (1 - 1 / 64)) / 172_800 * 1e12, rel=2e-2)
        assert mac.hi == pytest.approx(one / 172_800 * 1e12, rel=5e-3)
    pilots = [runs[f"loihi2.pilotnet{n}"] for n in (1, 2, 3)]
    each = [run.dynamic_j / run.synops * 1e12 for run in pilots]
    synop = technology("loihi2").constant("synaptic_op")
    assert synop.value == pytest.approx(math.prod(each) ** (1 / 3), rel=5e-3)
    assert (synop.lo, synop.hi) == (pytest.approx(min(each), rel=5e-3), pytest.approx(max(each), rel=5e-3))
    assert value("loihi2", "static") == pytest.approx(math.prod(run.idle_w for run in pilots) ** (1 / 3), rel=5e-3)
    spikes = [run.dynamic_j / run.spikes * 1e9 for run in TABLES["speck"].runs]
    assert value("speck", "spike") == pytest.approx(math.prod(spikes) ** 0.25, rel=5e-3)
    seneca = {kind: value("seneca", kind) for kind in ("load16", "store16", "fp16_op", "synaptic_op")}
    assert seneca["synaptic_op"] == pytest.approx(2 * seneca["load16"] + seneca["fp16_op"] + seneca["store16"])
    assert value("convention", "mac") == pytest.approx(
        value("horowitz:45nm", "fp32_add") + value("horowitz:45nm", "fp32_mul")
    )


def test_the_published_energies_come_out_of_powers_and_rates():
    """Joules per inference of the paper's table 1, and of the three PilotNet runs."""
    runs = {run.id: run for table in TABLES.values() for run in table.runs}
    published = {
        "cpu:e5-2630.kws": 6.32e-3,
        "gpu:k4000.kws": 29.8e-3,
        "jetson:tx1.kws": 5.58e-3,
        "movidius:ncs.kws": 1.455e-3,
        "movidius:ncs2.kws": 2.03e-3,
        "loihi1.kws": 0.272e-3,
        "loihi2.pilotnet1": 1.094e-3,
        "loihi2.pilotnet2": 1.071e-3,
        "loihi2.pilotnet3": 0.562e-3,
    }
    for name, joules in published.items():
        assert runs[name].dynamic_j == pytest.approx(joules, rel=5e-3), name
    assert runs["loihi1.kws"].total_j == pytest.approx(0.371e-3, rel=3e-3)
    for n, millijoules in ((1, 1.661), (2, 1.818), (3, 0.991)):
        assert runs[f"loihi2.pilotnet{n}"].total_j == pytest.approx(millijoules * 1e-3, rel=1e-3)
    assert runs["gpu:k4000.scaled0"].macs == 172_800 and runs["gpu:k4000.scaled0"].layers == 3
    assert runs["gpu:k4000.scaled8"].macs == 107_264 + 8 * 720_896 and runs["gpu:k4000.scaled8"].layers == 83
