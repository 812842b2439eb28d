"""Law: energy prices only what happened, every constant has a source and an interval, and what has no price is said."""

from __future__ import annotations

import dataclasses
import json
import random

import pytest

from neuro.workload import Operation, Phase, Population, Traffic, Workload
from sims.energy import report, technologies

KEYS = {
    "id",
    "platform",
    "kind",
    "value",
    "lo",
    "hi",
    "unit",
    "node_nm",
    "vdd",
    "basis",
    "includes",
    "evidence",
    "source",
    "note",
}


def workload(spikes: int = 1000, scale: int = 1, seed: int = 0) -> Workload:
    """Two populations and some dense work; every count is multiplied by ``scale``, the shapes stay."""
    draw = random.Random(seed)
    populations = []
    for layer, region in enumerate(("cortex", "amygdala")):
        neurons, fan_out = draw.randrange(1, 4000), draw.randrange(1, 400)
        fired = spikes * (layer + 1) * scale
        populations.append(
            Population(
                name=f"{region}.layers.{layer}.feedforward",
                region=region,
                neurons=neurons,
                fan_out=fan_out,
                fan_in=fan_out,
                input_signal="dense",
                weight_bits=draw.randrange(1, 10),
                spikes=fired,
                synaptic_ops=fired * fan_out,
                updates=10 * neurons * scale,
            )
        )
    operations = (
        Operation("cortex", "mixer", "mac", "dense", 5_000_000 * scale),
        Operation("readout", "vocabulary", "mac", "dense", draw.randrange(1, 10**7) * scale),
    )
    traffic = (Traffic("cortex", "weights", "weights", 400, 0),)
    phase = Phase("inference", 10, 10, 0.5, tuple(populations), operations, traffic)
    return Workload("m", 100, 3, 1, "h", "cpu", (phase,))


def intervals(priced) -> dict[str, tuple[float, float, float]]:
    rows = {"total": priced.total, **priced.by_kind} | {f"in {k}": v for k, v in priced.by_region.items()}
    return {name: dataclasses.astuple(row) for name, row in rows.items()}


def test_zero_spikes_cost_zero_dynamic_spike_energy():
    priced = report.estimate(workload(spikes=0)).spiking
    for kind in ("synaptic_op", "spike", "message"):
        assert dataclasses.astuple(priced.by_kind[kind]) == (0.0, 0.0, 0.0)
    assert priced.by_kind["neuron_update"].lo > 0
    assert priced.total == priced.by_kind["neuron_update"]


@pytest.mark.parametrize("seed", range(5))
def test_twice_the_counts_are_twice_the_events_and_exactly_twice_the_joules(seed):
    once, twice = (report.estimate(workload(scale=k, seed=seed), seed=seed) for k in (1, 2))
    assert [term.count for term in twice.terms] == [2 * term.count for term in once.terms]
    for part in ("spiking", "whole"):
        doubled = intervals(getattr(twice, part))
        for name, row in intervals(getattr(once, part)).items():
            assert doubled[name] == tuple(2 * joules for joules in row), name


def test_the_same_seed_gives_the_same_bits_and_another_seed_other_draws():
    first, again, other = (json.dumps(report.estimate(workload(), seed=s).to_dict()) for s in (3, 3, 4))
    assert first == again != other


@pytest.mark.parametrize("seed", range(5))
def test_every_interval_is_ordered(seed):
    estimated = report.estimate(workload(seed=seed), seed=seed)
    for priced in (estimated.spiking, estimated.whole):
        for name, (median, lo, hi) in intervals(priced).items():
            assert 0 < lo <= median <= hi, name
        assert sum(priced.variance_share.values()) == pytest.approx(1.0)


def test_every_constant_has_every_key_an_interval_and_a_source_that_why_prints():
    seen = 0
    for path in technologies.FOLDER.glob("*.json"):
        for row in json.loads(path.read_text(encoding="utf-8"))["constants"]:
            assert set(row) == KEYS, row["id"]
            assert row["lo"] <= row["value"] <= row["hi"] and row["unit"] in technologies.UNITS
            assert row["source"]["paper"] and row["note"]
            words = report.why(row["id"])
            assert row["source"]["url"] in words and row["evidence"] in words and row["note"] in words
            seen += 1
        technology = technologies.load(path)
        for term in ("setup", *(row.id for row in technology.unpriced)):
            assert "source" in report.why(f"{technology.platform}.{term}")
    assert seen >= 5


def test_totals_with_unpriced_terms_say_at_least():
    estimated = report.estimate(workload())
    assert estimated.unpriced and estimated.reference.unpriced
    totals = [line for line in estimated.to_text().split("\n") if line.strip().startswith("total")]
    assert len(totals) == 2 and all(" >= " in line for line in totals)
    assert all(">= " in line for line in report.summary_lines(workload()))


def test_more_spikes_never_cost_less():
    medians = [report.estimate(workload(spikes=s)).spiking.total.median for s in (0, 1, 10, 100, 1000)]
    assert medians == sorted(set(medians))
