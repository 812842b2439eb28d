"""Law: energy prices only what happened, every constant has a source and an interval, and what has no price is said."""

from __future__ import annotations

import dataclasses
import json
import random

import numpy as np
import pytest

from neuro.workload import Operation, Phase, Population, Traffic, Workload
from sims.energy import report, technologies, text

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
    priced = report.estimate(workload(spikes=0)).chip.priced
    for kind in ("synaptic_op", "spike", "message", "hop_ew", "hop_ns"):
        assert dataclasses.astuple(priced.by_kind[kind]) == (0.0, 0.0, 0.0)
    assert priced.by_kind["neuron_update"].lo > 0
    assert priced.total == priced.by_kind["neuron_update"]


@pytest.mark.parametrize("seed", range(5))
def test_twice_the_counts_are_twice_the_events_and_exactly_twice_the_joules(seed):
    """But for hops, which depend on which neurons the spikes are spread over."""
    once, twice = (report.estimate(workload(scale=k, seed=seed), seed=seed).chip for k in (1, 2))
    counts = [
        {(t.part, t.kind): t.count for t in chip.terms["inference"] if not t.kind.startswith("hop")}
        for chip in (once, twice)
    ]
    assert counts[1] == {key: 2 * count for key, count in counts[0].items()}
    doubled = twice.priced.by_kind
    for kind, row in once.priced.by_kind.items():
        if not kind.startswith("hop"):
            assert dataclasses.astuple(doubled[kind]) == tuple(2 * joules for joules in dataclasses.astuple(row)), kind


def test_the_same_seed_gives_the_same_bits_and_another_seed_other_draws():
    first, again, other = (json.dumps(report.estimate(workload(), seed=s).to_dict()) for s in (3, 3, 4))
    assert first == again != other


@pytest.mark.parametrize("seed", range(5))
def test_every_interval_is_ordered_and_variance_shares_add_up(seed):
    estimated = report.estimate(workload(seed=seed), seed=seed)
    for name, (median, lo, hi) in intervals(estimated.chip.priced).items():
        assert 0 <= lo <= median <= hi, name
        assert lo > 0 or name.startswith("hop"), name
    (against,) = estimated.against
    hybrid = [draws for name, draws in against.hybrid.items() if "hop_" not in name]
    for draws in (against.dense.total, against.dense.dynamic, against.dense.time_s, *hybrid):
        row = estimated.per_token(draws)
        assert 0 < row.lo <= row.median <= row.hi
    assert sum(estimated.chip.priced.variance_share.values()) == pytest.approx(1.0)
    data = estimated.to_dict()
    for part in (data["chip"]["as_published"], data["against"][0]["dense"], data["against"][0]["hybrid"]):
        assert set(part["variance_share"]) == set(part["terms"])
        assert sum(part["variance_share"].values()) == pytest.approx(1.0)


def test_parts_add_up_to_wholes_in_every_draw():
    estimated = report.estimate(workload(), against=["cpu", "gpu:h200"])
    draws = estimated.chip.priced.draws
    assert np.allclose(sum(draws.by_kind.values()), draws.total) and np.allclose(
        sum(draws.by_region.values()), draws.total
    )
    for row in estimated.against:
        assert np.allclose(sum(row.dense.terms.values()), row.dense.total)
        assert (sum(row.hybrid.values()) >= row.hybrid_dynamic).all()


def test_every_constant_has_every_key_an_interval_and_a_source_that_why_prints():
    seen = 0
    for path in technologies.FOLDER.glob("*.json"):
        for row in json.loads(path.read_text(encoding="utf-8"))["constants"]:
            assert set(row) == KEYS, row["id"]
            assert row["lo"] <= row["value"] <= row["hi"] and row["unit"] in technologies.UNITS
            assert row["source"]["paper"] and row["note"]
            words = technologies.why(row["id"])
            assert row["source"]["url"] in words and row["evidence"] in words and row["note"] in words
            seen += 1
        technology = technologies.load(path)
        for term in ("setup", *(row.id for row in technology.unpriced)):
            assert "source" in technologies.why(f"{technology.platform}.{term}")
    assert seen >= 5


def test_totals_with_unpriced_terms_say_at_least():
    estimated = report.estimate(workload())
    assert estimated.chip.unpriced and estimated.against[0].dense.table.unpriced
    totals = [line for line in text.full(estimated).split("\n") if line.startswith("  total")]
    assert len(totals) == 2 and all(" >= " in line for line in totals)
    assert all(">= " in line for line in text.summary_lines(workload()))


def test_more_spikes_never_cost_less():
    medians = [report.estimate(workload(spikes=s)).chip.priced.total.median for s in (0, 1, 10, 100, 1000)]
    assert medians == sorted(set(medians))


def test_evaluating_another_platform_moves_no_draw():
    alone = report.estimate(workload()).to_dict()
    beside = report.estimate(workload(), against=["gpu:h200", "cpu"]).to_dict()
    assert alone["against"][0] == beside["against"][1] and alone["chip"] == beside["chip"]


def test_a_counted_network_of_spikes_is_placed_with_each_neuron_once():
    """Two layers of snntorch for 25 steps: the second layer's neurons are the first's targets, and no others are added."""
    torch = pytest.importorskip("torch")
    snntorch = pytest.importorskip("snntorch")
    from sims import energy

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = torch.nn.Linear(64, 128), torch.nn.Linear(128, 10)
            self.first, self.second = snntorch.Leaky(0.9), snntorch.Leaky(0.9)

        def forward(self, x):
            hidden, output, total = self.first.init_leaky(), self.second.init_leaky(), 0
            for step in x:
                fired, hidden = self.first(self.up(step), hidden)
                fired, output = self.second(self.down(fired), output)
                total = total + fired
            return total

    torch.manual_seed(0)
    load = energy.count(Net(), 2 * (torch.rand(25, 4, 64) < 0.3).float(), samples=4)
    first, second = load.populations
    assert (first.target, second.target) == (second.name, "") and first.spikes > 0
    (phase,) = load.phases
    assert (phase.batch, phase.steps) == (4, 25)
    chip = report.estimate(load).chip
    counts = {(t.part, t.kind): t.count for t in chip.terms["inference"]}
    assert sum(n for (_, kind), n in counts.items() if kind == "neuron_update") == 4 * 25 * (128 + 10)
    assert counts["first", "synaptic_op"] == 10 * first.spikes and counts["second", "spike"] == second.spikes
