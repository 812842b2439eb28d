"""The report: what is on the chip, what is not, what was measured, and what is not priced for want of a placement."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from neuro.cli import main
from neuro.errors import UsageError
from neuro.workload import Operation, Phase, Population, Traffic, Workload
from sims.energy import report

ROOT = Path(__file__).resolve().parents[2]
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
)
TOO_WIDE = dataclasses.replace(FITS, name="cortex.layers.1.feedforward", weight_bits=16)
LOAD = Workload(
    model="m",
    parameters=100,
    layers=3,
    spans=1,
    hardware="a processor",
    backend="cpu",
    phases=(
        Phase(
            name="inference",
            tokens=10,
            calls=10,
            seconds=0.5,
            populations=(FITS,),
            operations=(
                Operation("cortex", "mixer", "mac", "dense", 5_000_000),
                Operation("cortex", "layers.0.feedforward.project", "mac", "binary", 256 * 10 * 1024),
                Operation("cortex", "mixer", "transcendental", "dense", 70),
                Operation("readout", "vocabulary", "mac", "dense", 1_000_000),
            ),
            traffic=(Traffic("cortex", "weights", "weights", 400, 0),),
        ),
    ),
)


def changed(**changes) -> Workload:
    """LOAD with other fields, of itself or of its one phase."""
    own = {name: value for name, value in changes.items() if name in {f.name for f in dataclasses.fields(Workload)}}
    phase = dataclasses.replace(LOAD.phases[0], **{name: changes[name] for name in changes.keys() - own.keys()})
    return dataclasses.replace(LOAD, phases=(phase,), **own)


def test_terms_count_neurons_targets_and_one_packet_per_spike_and_destination_core():
    counts = {(term.part, term.kind): term.count for term in report.estimate(LOAD).terms}
    name = FITS.name
    assert counts == {
        (name, "synaptic_op"): 256_000,
        (name, "neuron_update"): 10_240,
        (f"{name}, its targets", "neuron_update"): 2_560,
        (name, "spike"): 1000,
        (name, "message"): 2000,  # its targets sit on two cores
    }


def test_the_median_is_the_counts_times_the_constants():
    priced = report.estimate(LOAD).spiking
    by_hand = (256_000 * 35.5 + 12_800 * 72.8 + 1000 * 69.3 + 2000 * 111.0) * 1e-12
    assert priced.total.median == pytest.approx(by_hand, rel=0.02)
    assert priced.total.lo < by_hand < priced.total.hi
    assert report.estimate(LOAD).per_token(priced.total).median == pytest.approx(by_hand / 10, rel=0.02)


def test_everything_that_is_no_spiking_population_is_not_on_the_chip_with_its_share():
    estimated = report.estimate(LOAD)
    whole = 5_000_000 + 2_621_440 + 1_000_000
    assert [(row.region, row.macs, row.others) for row in estimated.off_chip] == [
        ("cortex", 5_000_000, {"transcendental": 70}),
        ("readout", 1_000_000, {}),
    ]
    assert estimated.off_chip_mac_share == pytest.approx(6_000_000 / whole)
    text = estimated.to_text()
    assert "Not on the chip: 69.6 % of the multiply-accumulates" in text
    assert "500000 mac (58.0 %), transcendental 7" in text and "100000 mac (11.6 %)" in text


def test_a_population_takes_only_the_work_of_its_own_region_onto_the_chip():
    elsewhere = Operation("amygdala", "layers.0.project", "mac", "binary", 900)
    rows = report.estimate(changed(operations=(*LOAD.operations, elsewhere))).off_chip
    assert {row.region: row.macs for row in rows} == {"cortex": 5_000_000, "readout": 1_000_000, "amygdala": 900}


def test_the_text_has_every_region_every_kind_and_every_unpriced_term():
    text = report.estimate(LOAD).to_text()
    for words in ("10 tokens (10 read)", "needs 1 chip (3 of 128 cores)", "Intel Xeon E5-2630 (ABR power logs)"):
        assert words in text
    for kind in ("synaptic op", "neuron update", "spike", "message", "all of cortex", "readout"):
        assert f"  {kind} " in text
    for name in ("hops", "static", "host", "weights", "input", "idle", "other"):
        assert f"  unpriced: {name}: " in text
    assert "1024 values per token are no spikes" in text


def test_spikes_as_input_need_nothing_from_outside():
    load = changed(populations=(dataclasses.replace(FITS, input_signal="binary"),))
    assert "input" not in dict(report.estimate(load).unpriced)


def test_links_between_chips_are_unpriced_where_there_are_several():
    assert "links" not in dict(report.estimate(LOAD).unpriced)
    # 65,536 targets need 640 cores.
    wide = dataclasses.replace(FITS, fan_out=65_536, synaptic_ops=1000 * 65_536)
    assert "links" in dict(report.estimate(changed(populations=(wide,))).unpriced)


def test_what_does_not_fit_gets_no_joules():
    only = report.estimate(changed(populations=(TOO_WIDE,)))
    assert only.spiking is None and only.terms == ()
    assert only.to_dict()["chip"]["joules_per_token"] is None
    assert only.off_chip_mac_share == 1.0
    lines = report.summary_lines(only.workload)
    assert "no energy, does not fit: cortex.layers.1.feedforward: weights of 16 bits" in lines[0]
    assert "does not fit" in only.to_text() and "Spiking layers" in only.to_text()


def test_the_parts_that_fit_are_priced_beside_those_that_do_not():
    both = report.estimate(changed(populations=(FITS, TOO_WIDE)))
    assert both.spiking == report.estimate(LOAD).spiking
    assert both.unpriced[0] == (TOO_WIDE.name, "does not fit: weights of 16 bits, a synapse holds at most 9")
    assert "per token for those that fit" in report.summary_lines(both.workload)[0]


def test_a_model_without_spikes_says_so():
    load = changed(populations=())
    assert report.summary_lines(load)[0] == "spiking layers on loihi1: this model has none"
    assert "nothing to place: no spiking population" in report.estimate(load).to_text()


def test_measured_energy_comes_before_modelled_and_both_say_so():
    load = changed(measured_joules=0.25, measured_source="RAPL, all packages, idle included")
    lines = report.summary_lines(load)
    words = "25 mJ, measured (RAPL, all packages, idle included)"
    assert words in lines[1] and "modelled" in lines[2]
    text = report.estimate(load).to_text()
    assert text.index(words) < text.index("modelled")
    measured = report.estimate(load).to_dict()["measured"]
    assert measured["joules_per_token"] == 0.025 and measured["label"] == "measured"
    assert report.estimate(LOAD).to_dict()["measured"] is None


def test_the_dict_is_json_with_a_schema():
    data = report.estimate(changed(populations=(FITS, TOO_WIDE))).to_dict()
    assert data["schema"] == "neuro.energy/1"
    assert json.loads(json.dumps(data)) == data
    for side in ("cpu", "chip"):
        assert data[side]["label"] == "modelled" and data[side]["lower_bound"] and data[side]["unpriced"]
    assert data["cpu"]["by_region"].keys() == {"cortex", "readout"}


def test_wrong_chips_and_seeds_are_usage_errors(monkeypatch):
    with pytest.raises(UsageError, match="chip: got 'loihi', expected one of dynap_se2, loihi1"):
        report.estimate(LOAD, chip="loihi")
    with pytest.raises(UsageError, match="--seed: got -1, expected at least 0"):
        report.estimate(LOAD, seed=-1)
    priced = {report.CPU: report.technologies()[report.CPU]}
    monkeypatch.setattr(report, "technologies", lambda: priced)
    with pytest.raises(UsageError, match="'loihi1' has limits but no energy constants"):
        report.estimate(LOAD)


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


def test_the_command_explains_terms_and_refuses_what_makes_no_sense(tmp_path, capsys):
    path = tmp_path / "run.json"
    path.write_text(LOAD.to_json())
    assert main(["energy", str(path), "--seed", "3"]) == 0
    assert capsys.readouterr().out.strip() == report.estimate(LOAD, seed=3).to_text()
    assert main(["energy", "why", "loihi1.spike", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == report.why("loihi1.spike")
    for argv, words in (
        (["energy", "why"], "no term"),
        (["energy", "why", "loihi1.spikes"], "Did you mean 'loihi1.spike'?"),
        (["energy", str(path), "some text"], "got a text too"),
        (["energy", str(path), "--chip", "truenorth"], "has limits but no energy constants"),
    ):
        assert main(argv) == 2
        captured = capsys.readouterr()
        assert words in captured.err and captured.out == ""
