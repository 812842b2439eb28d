"""The energy report: counts by region and phase, the chip's part with its placement, ratios with their words, and its files."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from neuro.cli import main
from neuro.errors import UsageError
from neuro.workload import Operation, Phase, Population, Traffic, Workload
from sims.energy import activity, report, sides, technologies, text

ROOT = Path(__file__).parents[2]
FITS = Population(
    name="cortex.layers.0.feedforward",
    region="cortex",
    neurons=1024,
    fan_out=256,
    fan_in=256,
    input_signal="dense",
    weight_bits=8,
    spikes=1000,
    synaptic_ops=256_000,
    updates=10 * 1024,
    products=10 * 256 * 256,  # each of 256 channels has four neurons
)
TOO_WIDE = dataclasses.replace(FITS, name="cortex.layers.1.feedforward", weight_bits=16)
OPERATIONS = (
    Operation("cortex", "mixer", "mac", "dense", 5_000_000),
    Operation("cortex", "layers.0.feedforward.project", "mac", "binary", 256 * 10 * 256, 256_000),
    Operation("cortex", "mixer", "transcendental", "dense", 70),
    Operation("readout", "vocabulary", "mac", "dense", 1_000_000),
)
TRAFFIC = (
    Traffic("cortex", "weights", "weights", 4_000_000, 0),
    Traffic("cortex", "kv", "kv", 600, 300),
    Traffic("hippocampus", "episodic slots", "memory", 5000, 100),
)
LOAD = Workload(
    model="m",
    parameters=100,
    layers=5,
    spans=1,
    hardware="a processor",
    backend="cpu",
    phases=(Phase("decode", 10, 10, 0.5, (FITS,), OPERATIONS, TRAFFIC),),
)


def changed(**changes) -> Workload:
    """LOAD with other fields, of itself or of its one phase."""
    own = {name: value for name, value in changes.items() if name in {f.name for f in dataclasses.fields(Workload)}}
    phase = dataclasses.replace(LOAD.phases[0], **{name: changes[name] for name in changes.keys() - own.keys()})
    return dataclasses.replace(LOAD, phases=(phase,), **own)


def test_each_region_has_its_counts_by_phase():
    twice = dataclasses.replace(LOAD.phases[0], name="prefill", tokens=30)
    rows = activity.of(dataclasses.replace(LOAD, phases=(twice, *LOAD.phases)))
    assert [(row.phase, row.region) for row in rows] == [
        (phase, region) for phase in ("prefill", "decode") for region in ("cortex", "readout", "hippocampus")
    ]
    cortex = rows[3]
    assert cortex.macs == 5_000_000 + 256 * 10 * 256
    assert (cortex.effective_macs, cortex.replaced_macs) == (5_000_000, 256 * 10 * 256)
    assert (cortex.accumulates, cortex.spikes, cortex.updates) == (256_000, 1000, 10_240)
    assert (cortex.weights_bytes, cortex.kv_bytes, rows[5].memory_bytes) == (4_000_000, 900, 5100)
    assert cortex.spikes_per_synapse == 256_000 / (256 * 10 * 256)
    assert rows[4].spikes_per_synapse is None


def test_terms_count_neurons_targets_packets_and_hops():
    counts = {(term.part, term.kind): term.count for term in sides.on_chip(LOAD, "loihi1", 0).terms["decode"]}
    name = FITS.name
    assert counts[name, "synaptic_op"] == 256_000
    assert counts[name, "neuron_update"] == 10_240
    assert counts[f"{name}, its targets", "neuron_update"] == 2_560
    assert counts[name, "spike"] == 1000
    cores = np.unique(sides.on_chip(LOAD, "loihi1", 0).placement.of(f"{name}, its targets"))
    assert counts[name, "message"] == 1000 * len(cores) > 1000  # the targets' synapses need more than one core
    assert {"hop_ew", "hop_ns"} <= {kind for _, kind in counts}


def test_the_host_counts_the_same_events_as_the_cores():
    chip = sides.on_chip(LOAD, "loihi1", 0)
    sums: dict[str, float] = {}
    for term in chip.terms["decode"]:
        sums[term.kind] = sums.get(term.kind, 0.0) + term.count
    price = {c.kind: c.si for c in technologies.technology("loihi1").constants}
    for kind, count in sums.items():
        assert np.median(chip.inference.terms[kind]) == pytest.approx(count * price[kind], rel=0.02), kind


def test_the_median_is_the_counts_times_the_constants():
    chip = sides.on_chip(LOAD, "loihi1", 0)
    price = {c.kind: c.si for c in technologies.technology("loihi1").constants}
    by_hand = sum(term.count * price[term.kind] for term in chip.terms["decode"])
    assert chip.priced.total.median == pytest.approx(by_hand, rel=0.02)
    assert chip.priced.total.lo < by_hand < chip.priced.total.hi
    assert (chip.cores_j > chip.events_j).all()  # static power over the cores' own time
    assert np.median(chip.total_j) > 10 * np.median(chip.cores_j)  # the host of the published runs


def test_the_rest_is_what_the_chip_leaves():
    per_token = sides.counts(LOAD, LOAD.phases[0], [FITS])
    assert per_token["macs"] == 600_000 and per_token["layers"] == 4 and per_token["batch"] == 1
    assert per_token["weight_bytes"] == 400_000 - 256 * 256 * 4
    assert per_token["kv_bytes"] == (900 + 5100) / 10
    assert report.estimate(LOAD).mac_share_left == pytest.approx(6_000_000 / (6_000_000 + 655_360))


def test_tokens_of_one_call_are_a_batch():
    one_call = dataclasses.replace(LOAD.phases[0], calls=1)
    assert sides.counts(LOAD, one_call)["batch"] == 10
    alone = sides.on_platform(LOAD, "cpu:e5-2630", 0)
    together = sides.on_platform(dataclasses.replace(LOAD, phases=(one_call,)), "cpu:e5-2630", 0)
    assert np.median(together.total) < np.median(alone.total)


def test_both_sides_of_a_ratio_share_their_draws():
    (row,) = report.estimate(LOAD).against
    total = sum(row.hybrid.values())
    draws = total / row.dense.total
    assert row.ratio.median == pytest.approx(np.median(draws))
    apart = np.quantile(total, 0.95) / np.quantile(row.dense.total, 0.05)
    assert row.ratio.hi < apart
    assert row.convention == pytest.approx((6_000_000 * 4.6 + 256_000 * 0.9) / (6_655_360 * 4.6))


def test_the_verdict_follows_the_other_side():
    none = changed(populations=())
    (row,) = report.estimate(none).against
    assert row.ratio is None and row.verdict == "nothing of it is on the chip"
    ten = tuple(dataclasses.replace(op, count=1000 * op.count) for op in OPERATIONS)
    larger = changed(operations=ten, populations=())
    (row,) = report.estimate(LOAD, dense=larger).against
    assert row.verdict == "lower with at least 95 %" and row.ratio.hi < 1
    smaller = changed(operations=(Operation("cortex", "mixer", "mac", "dense", 1000),), populations=(), layers=1)
    (row,) = report.estimate(changed(layers=50), dense=smaller).against
    assert row.verdict == "higher with at least 95 %" and row.ratio.lo > 1


def test_a_lower_bound_is_never_called_lower():
    larger = changed(
        operations=tuple(dataclasses.replace(op, count=1000 * op.count) for op in OPERATIONS), populations=()
    )
    (row,) = report.estimate(LOAD, chip="spinnaker2", dense=larger).against
    assert row.ratio.hi < 1
    assert row.verdict == "undecided: a lower bound, for spinnaker2 has no price of its host and idle power"


def test_boards_are_not_compared_with_chips():
    (row,) = report.estimate(LOAD, against=["convention"]).against
    assert row.ratio is None
    assert row.verdict == "not compared: convention is priced as arithmetic, loihi1 as device"


def test_spiking_layers_have_their_break_even_and_margin():
    (row,) = report.estimate(LOAD).layers
    assert row.spikes_per_synapse == pytest.approx(256_000 / (256 * 10 * 256))
    assert row.break_even.spikes_per_synapse.median == pytest.approx(0.40, abs=0.01)
    assert row.margin == pytest.approx(row.break_even.spikes_per_synapse.median / row.spikes_per_synapse)
    assert "times below" in text.full(report.estimate(LOAD))


def test_a_layer_whose_updates_cost_more_than_its_products_has_no_rate_that_saves():
    tiny = dataclasses.replace(FITS, products=10 * 256 * 2, updates=10 * 1024 * 8)
    said = text.full(report.estimate(changed(populations=(tiny,))))
    assert "no rate saves, the updates alone cost more" in said


def test_the_text_says_what_moves_the_answer():
    said = text.full(report.estimate(LOAD, against=["cpu", "gpu:h200"], losses=(3.5, 3.25)))
    for words in (
        "m: 10 tokens (10 in 10 calls of decode), 1 commit, 100 parameters",
        "against all products on cpu:e5-2630: ",
        "by 4.6 pJ a product and 0.9 pJ an addition alone ",
        "validation loss 3.5 against 3.25 of the dense model: +0.2500 nats",
        "without idle power",
        "fits: ",
        "with its host, at the pace of the published runs",
        "1024 values a token are no spikes",
        "unpriced: host: ",
        "weakest evidence: ",
        "what widens the interval: synaptic op ",
        "Counts per token of decode",
    ):
        assert words in said, words
    assert "equal quality is not claimed" in text.full(report.estimate(LOAD))


def test_what_was_not_counted_is_said():
    load = dataclasses.replace(LOAD, uncounted=("aten.fft",))
    assert "not counted, so that every sum is a lower bound: aten.fft" in text.full(report.estimate(load))
    assert report.estimate(load).to_dict()["uncounted"] == ["aten.fft"]


def test_spikes_as_input_need_nothing_from_outside():
    load = changed(populations=(dataclasses.replace(FITS, input_signal="binary"),))
    assert "input" not in dict(report.estimate(load).chip.unpriced)
    assert "input" in dict(report.estimate(LOAD).chip.unpriced)


def test_what_has_no_place_gets_no_joules():
    only = report.estimate(changed(populations=(TOO_WIDE,)))
    assert not only.chip.placed and only.chip.priced is None
    assert only.to_dict()["chip"]["joules_per_token"] is None
    assert only.mac_share_left == 1.0
    assert "no energy, does not fit" in text.summary_lines(only.workload)[0]
    assert "does not fit" in text.full(only)


def test_the_parts_that_have_a_place_are_priced_beside_those_that_do_not():
    both = report.estimate(changed(populations=(FITS, TOO_WIDE)))
    assert both.chip.priced == report.estimate(LOAD).chip.priced
    what, why = both.chip.unpriced[0]
    assert what == f"{TOO_WIDE.name}, its targets" and why.startswith("does not fit: ")
    assert "per token for those that have a place" in text.summary_lines(both.workload)[0]


def test_a_model_without_spikes_says_so():
    load = changed(populations=())
    assert text.summary_lines(load)[0] == "spiking layers on loihi1: this model has none"
    assert "nothing to place: no spiking population" in text.full(report.estimate(load))


def test_measured_energy_is_beside_modelled_and_both_say_so():
    load = changed(measured_joules=0.25, measured_source="RAPL, all packages, idle included")
    lines = text.summary_lines(load)
    words = "25 mJ, measured (RAPL, all packages, idle included)"
    assert words in lines[1] and "modelled" in lines[2]
    said = text.full(report.estimate(load))
    assert words in said and "modelled" in said
    measured = report.estimate(load).to_dict()["measured"]
    assert measured["joules_per_token"] == 0.025 and measured["label"] == "measured"
    assert report.estimate(LOAD).to_dict()["measured"] is None


def test_the_dict_is_json_with_a_schema_and_deterministic():
    data = report.estimate(changed(populations=(FITS, TOO_WIDE)), seed=3).to_dict()
    assert data["schema"] == "neuro.energy/2" and data["seed"] == 3
    assert json.loads(json.dumps(data)) == data
    assert report.estimate(changed(populations=(FITS, TOO_WIDE)), seed=3).to_dict() == data
    assert data["chip"]["label"] == data["against"][0]["label"] == "modelled"
    assert data["chip"]["lower_bound"] and data["chip"]["unpriced"]
    assert {row["region"] for row in data["counts"]} == {"cortex", "readout", "hippocampus"}


def test_the_csv_has_every_count_and_joules_by_region():
    rows = list(csv.DictReader(io.StringIO(text.table(report.estimate(LOAD)))))
    assert [row["region"] for row in rows] == ["cortex", "readout", "hippocampus"]
    assert rows[0]["accumulates"] == "256000" and rows[1]["spikes_per_synapse"] == ""
    chip = report.estimate(LOAD).chip.priced.by_region["cortex"]
    assert float(rows[0]["loihi1 events median (J)"]) == pytest.approx(chip.median)
    assert rows[1]["loihi1 events median (J)"] == ""
    allocated = [float(row["cpu:e5-2630 dense, allocated by mac median (J)"] or 0) for row in rows]
    whole = float(np.median(report.estimate(LOAD).against[0].dense.total))
    assert sum(allocated) == pytest.approx(whole, rel=1e-9)


def test_bars_add_up_to_their_sides():
    for label, terms, words in text.bars(report.estimate(LOAD)):
        assert label and words and all(joules >= 0 for joules in terms.values()) and sum(terms.values()) > 0


def test_the_report_grades_what_it_used_and_says_at_least_where_a_price_lacks():
    estimated = report.estimate(LOAD, against=["cpu", "gpu:h200"])
    data = estimated.to_dict()
    published = data["chip"]["as_published"]
    assert data["chip"]["weakest_evidence"] == "presilicon"  # its cores' own time
    assert published["weakest_evidence"] == "silicon_fit" and published["unpriced"] == ["weights"]
    assert [row["weakest_evidence"] for row in data["against"]] == ["silicon", "vendor"]
    still = dataclasses.replace(estimated.chip, static_j=estimated.chip.static_j * np.nan)
    assert still.weakest_evidence == "silicon_fit"
    said = text.full(estimated)
    assert "    total          >= " in said and "  unpriced: kv_bytes: counted, and nothing here prices it" in said


def test_a_platform_by_its_first_part():
    assert report.resolve("cpu") == "cpu:e5-2630" and report.resolve("loihi1") == "loihi1"
    with pytest.raises(UsageError, match="platform: got 'gpu', expected one of gpu:h200, gpu:k4000"):
        report.resolve("gpu")
    with pytest.raises(UsageError, match="platform: got 'tpu', expected one of ") as raised:
        report.resolve("tpu")
    assert raised.value.do


def test_wrong_chips_and_seeds_are_usage_errors():
    with pytest.raises(UsageError, match="chip: got 'loihi', expected one of "):
        report.estimate(LOAD, chip="loihi")
    with pytest.raises(UsageError, match="--seed: got -1, expected at least 0"):
        report.estimate(LOAD, seed=-1)
    with pytest.raises(UsageError, match="chip: 'dynap_se2' has limits but no energy constants"):
        report.estimate(LOAD, chip="dynap_se2")


def test_a_run_file_is_priced_without_torch_as_exactly_one_object(tmp_path):
    path = tmp_path / "run.json"
    path.write_text(LOAD.to_json())
    call = f"code = main(['energy', {str(path)!r}, '--json'])"
    code = f"import sys\nfrom neuro.cli import main\n{call}\nassert 'torch' not in sys.modules\nsys.exit(code)"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == report.estimate(LOAD).to_dict()


def test_the_command_writes_its_files_explains_terms_and_predicts(tmp_path, capsys):
    path = tmp_path / "run.json"
    path.write_text(LOAD.to_json())
    assert main(["energy", str(path), "--seed", "3", "--out", str(tmp_path), "--against", "cpu,gpu:h200"]) == 0
    priced = report.estimate(LOAD, seed=3, against=["cpu", "gpu:h200"])
    assert capsys.readouterr().out.strip() == text.full(priced)
    assert json.loads((tmp_path / "energy.json").read_text()) == priced.to_dict()
    assert (tmp_path / "energy.csv").read_text() == text.table(priced)
    assert (tmp_path / "energy.png").read_bytes()[:4] == b"\x89PNG"
    assert main(["energy", "why", "loihi1.spike", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == technologies.why("loihi1.spike")
    counts = ["--platform", "cpu:e5-2630", "--macs", "172800", "--layers", "3"]
    assert main(["energy", "predict", *counts, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "neuro.prediction/1" and found["energy_j"]["dynamic"]["median"] > 0
    assert main(["energy", "predict", *counts]) == 0
    assert "fitted to " in capsys.readouterr().out
    assert main(["energy", "predict", "--platform", "akida", "--count", "clock=4.3e6", "--macs", "1e6"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("total     >= 15 mJ") and "no effect macs" in said and "unpriced  host" in said


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["why"], "no term"),
        (["predict", "--platform", "akida", "--count", "clock"], "got --count clock, expected KIND=NUMBER"),
        (["why", "loihi1.spike", "--count", "clock=1"], "--count has no effect here"),
        (["why", "loihi1.spikes"], "Did you mean 'loihi1.spike'?"),
        (["why", "loihi1.spike", "--chip", "loihi1"], "--chip has no effect here"),
        (["RUN", "some text"], "got a text too"),
        (["RUN", "--chip", "loihi9"], "chip: got 'loihi9', expected one of "),
        (["RUN", "--against", "gpu"], "expected one of gpu:h200, gpu:k4000"),
        (["RUN", "--against", ","], "got --against ',', which names no platform"),
        (["RUN", "--macs", "3"], "--macs has no effect here"),
        (["RUN", "--loss", "3"], "got one validation loss"),
        (["predict", "--macs", "3"], "no platform"),
        (["predict", "text", "--platform", "speck"], "got 'text'"),
        (["predict", "--platform", "speck"], "got no spikes"),
        (["predict", "--platform", "speck", "--spikes", "-1"], "got spikes=-1"),
        (["predict", "--platform", "speck", "--spikes", "5", "--against", "cpu"], "--against has no effect here"),
    ],
)
def test_the_command_refuses_what_makes_no_sense(argv, words, tmp_path, capsys):
    path = tmp_path / "run.json"
    path.write_text(LOAD.to_json())
    assert main(["energy", *(str(path) if word == "RUN" else word for word in argv)]) == 2
    captured = capsys.readouterr()
    assert words in captured.err and captured.out == ""
