"""Law: energy counts only what happened, every constant has a source and an interval, and what has no price is said."""

from __future__ import annotations

import dataclasses
import json

import pytest

from neuro.errors import FormatError, UsageError
from neuro.workload import Operation, Population, Traffic, Workload, from_json
from sims import chips
from sims.energy import report, technologies
from sims.energy.measured import RaplMeter


def workload(spikes: int = 1000, scale: int = 1, **changes) -> Workload:
    population = Population(
        name="cortex.layers.0.feedforward",
        region="cortex",
        neurons=1024,
        fan_out=256,
        fan_in=256,
        input_signal="dense",
        weight_bits=8,
        spikes=spikes * scale,
        synaptic_ops=spikes * 256 * scale,
        updates=10 * 1024 * scale,
    )
    fields = {
        "model": "m",
        "parameters": 100,
        "tokens": 10,
        "prefill_tokens": 4,
        "spans": 1,
        "seconds": 0.5,
        "hardware": "h",
        "backend": "cpu",
        "populations": (population,),
        "operations": (
            Operation("cortex", "mixer", "mac", "dense", 5_000_000 * scale),
            Operation("cortex", "project", "mac", "binary", 2_000_000 * scale),
        ),
        "traffic": (Traffic("cortex", "weights", "weights", 400, 0),),
    }
    return Workload(**fields | changes)


def test_zero_spikes_cost_zero_dynamic_spike_energy():
    priced = report.estimate(workload(spikes=0)).spiking
    for kind in ("synaptic_op", "spike", "message"):
        assert dataclasses.astuple(priced.by_kind[kind]) == (0.0, 0.0, 0.0)
    assert priced.by_kind["neuron_update"].median > 0


def test_twice_the_counts_cost_exactly_twice():
    once, twice = (report.estimate(workload(scale=k)) for k in (1, 2))
    for kind, interval in once.spiking.by_kind.items():
        doubled = dataclasses.astuple(twice.spiking.by_kind[kind])
        assert doubled == pytest.approx([2 * x for x in dataclasses.astuple(interval)], rel=1e-12)
    assert twice.whole.total.median == pytest.approx(2 * once.whole.total.median, rel=1e-12)


def test_the_median_is_the_counts_times_the_constants():
    priced = report.estimate(workload()).spiking
    by_hand = (1000 * 256 * 35.5 + 10 * 1024 * 72.8 + 1000 * 69.3 + 1000 * 2 * 111.0) * 1e-12
    assert priced.total.median == pytest.approx(by_hand, rel=0.05)
    assert priced.total.lo < by_hand < priced.total.hi
    parts = [interval.median for interval in priced.by_region.values()]
    assert parts == [pytest.approx(priced.total.median)]
    assert sum(priced.variance_share.values()) == pytest.approx(1.0)


def test_the_same_seed_gives_the_same_bits_and_another_seed_other_draws():
    first, again, other = (report.estimate(workload(), seed=s).to_dict() for s in (3, 3, 4))
    assert first == again != other


def test_a_total_with_unpriced_terms_says_at_least():
    text = report.estimate(workload()).to_text()
    assert ">= " in text and "unpriced: hops" in text and "unpriced: idle" in text
    assert "not on the chip: 500000 dense multiply-accumulates per token (95.1 % of all operations)" in text
    assert all(">= " in line for line in report.summary_lines(workload()))


def test_measured_energy_is_said_first_and_labelled():
    lines = report.summary_lines(workload(measured_joules=0.25, measured_source="RAPL"))
    assert "25 mJ per token, measured (RAPL)" in lines[1]
    assert "modelled" in lines[2]


def test_every_constant_has_a_source_an_interval_and_known_words():
    keys = {field.name for field in dataclasses.fields(technologies.Constant)}
    for path in technologies.FOLDER.glob("*.json"):
        for row in json.loads(path.read_text(encoding="utf-8"))["constants"]:
            assert set(row) == keys, row["id"]
        for constant in technologies.load(path).constants:
            assert constant.lo <= constant.value <= constant.hi
            assert constant.id in technologies.why(constant.id)
            assert constant.source["url"] in technologies.why(constant.id)


@pytest.mark.parametrize(
    "change", [{"lo": 99.0}, {"unit": "J"}, {"basis": "Sum"}, {"evidence": "rumour"}, {"source": {}}]
)
def test_a_table_that_breaks_its_rules_is_refused(tmp_path, change):
    data = json.loads((technologies.FOLDER / "loihi1.json").read_text(encoding="utf-8"))
    data["constants"][0] |= change
    path = tmp_path / "loihi1.json"
    path.write_text(json.dumps(data))
    with pytest.raises(FormatError, match=r"breaks the table's rules"):
        technologies.load(path)


def test_unknown_terms_and_chips_name_the_nearest():
    with pytest.raises(UsageError, match=r"Did you mean 'loihi1\.synop'"):
        technologies.why("loihi1.synops")
    with pytest.raises(UsageError, match="Did you mean 'loihi1'"):
        report.estimate(workload(), chip="loihi")


def place(**changes) -> chips.Fit:
    population = dataclasses.replace(workload().populations[0], **changes)
    spikes = {"spikes": 0, "synaptic_ops": 0}
    return chips.fit([dataclasses.replace(population, **spikes)], chips.load("loihi1"))


@pytest.mark.parametrize(
    ("changes", "cores", "verdict"),
    [
        # 1,024 inputs of 8 bits are 8,192 bits a target: 128 targets a core; 256 targets 2 cores, plus 1 of neurons.
        ({}, 3, "needs 1 chip (3 of 128 cores)"),
        # One target of 1 bit per input: 1,024 columns a core.
        ({"weight_bits": 1}, 2, "needs 1 chip (2 of 128 cores)"),
        # 4,096 inputs x 8 bits = 32,768 bits: 32 targets a core, 8 cores; axons: 4,096 // 8 = 512 neurons a core, 8 cores.
        ({"neurons": 4096}, 16, "needs 1 chip (16 of 128 cores)"),
        # 65,536 targets over 128 a core: 512 cores; 4,096 // 512 = 8 neurons a core: 128 cores; 640 cores, 5 chips.
        ({"fan_out": 65_536}, 640, "needs 5 chips (640 of 640 cores)"),
        (
            {"neurons": 4097},
            0,
            "does not fit: cortex.layers.0.feedforward: a target has 4097 inputs, a core takes 4096",
        ),
        ({"weight_bits": 16}, 0, "does not fit: cortex.layers.0.feedforward: 16-bit weights, at most 9"),
    ],
)
def test_the_fit_is_worked_by_hand(changes, cores, verdict):
    fit = place(**changes)
    assert (fit.cores, fit.verdict) == (cores, verdict)


def test_rapl_is_read_with_its_wraparound_and_its_absence_is_explained(tmp_path):
    domain = tmp_path / "intel-rapl:0"
    domain.mkdir()
    (tmp_path / "intel-rapl:0:0").mkdir()
    (domain / "energy_uj").write_text("900000")
    (domain / "max_energy_range_uj").write_text("1000000")
    meter = RaplMeter(tmp_path)
    with meter:
        (domain / "energy_uj").write_text("150000")
    assert meter.reading()[0] == pytest.approx(0.25)
    assert meter.available()[0]
    absent = RaplMeter(tmp_path / "none")
    with absent:
        pass
    assert absent.reading() == (None, None)
    assert "modelled" in absent.available()[1]


def test_a_workload_round_trips_and_refuses_what_is_not_one():
    good = workload()
    assert from_json(good.to_json()) == good
    data = json.loads(good.to_json())
    for change, words in [
        ({"schema": "neuro.workload/0"}, "expected 'neuro.workload/1'"),
        ({"extra": 1}, "unexpected keyword"),
        ({"seconds": float("nan")}, "finite"),
    ]:
        with pytest.raises(FormatError, match=words):
            from_json(json.dumps(data | change))
    with pytest.raises(FormatError, match="not JSON"):
        from_json(good.to_json()[:-20])
    del data["tokens"]
    with pytest.raises(FormatError, match="tokens"):
        from_json(json.dumps(data))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: workload(tokens=0), "got 0 tokens"),
        (lambda: workload(spikes=-1), "expected a count >= 0"),
        (lambda: workload(operations=(Operation("r", "n", "magic", "dense", 1),)), "operation kind: got 'magic'"),
        (lambda: workload(operations=(Operation("r", "n", "mac", "loud", 1),)), "operation signal: got 'loud'"),
        (lambda: workload(operations=(Operation("r", "n", "mac", "dense", 1.5),)), "expected a count >= 0"),
        (
            lambda: workload(populations=(dataclasses.replace(workload().populations[0], synaptic_ops=7),)),
            "expected spikes x fan_out",
        ),
    ],
)
def test_counts_that_cannot_be_are_refused(build, words):
    with pytest.raises(UsageError, match=words):
        build()
