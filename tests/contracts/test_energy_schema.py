"""The JSON Schemas of run files, reports and predictions: what is written fits, and what is damaged does not."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from neuro import accounting, presets
from neuro.brain import Brain
from neuro.cli import main
from neuro.errors import FormatError, UsageError
from neuro.session import Session
from neuro.workload import Operation, Phase, Population, Traffic, Workload, from_json
from sims import energy
from sims.energy import prediction, report, schema, text

jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed (extra dev)")

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
    products=10 * 256 * 256,
)
TOO_WIDE = dataclasses.replace(FITS, name="cortex.layers.1.feedforward", weight_bits=16)
OPERATIONS = (
    Operation("cortex", "mixer", "mac", "dense", 5_000_000),
    Operation("cortex", "layers.0.feedforward.project", "mac", "binary", 256 * 10 * 256, 256_000),
    Operation("cortex", "mixer", "transcendental", "dense", 70),
)
PHASE = Phase("decode", 10, 10, 0.5, (FITS,), OPERATIONS, (Traffic("cortex", "weights", "weights", 4_000_000, 0),))
LOAD = Workload("m", 100, 5, 1, "a processor", "cpu", (PHASE,))


def changed(**changes) -> Workload:
    return dataclasses.replace(LOAD, phases=(dataclasses.replace(PHASE, **changes),))


LOADS = {
    "fits": LOAD,
    "in part": changed(populations=(FITS, TOO_WIDE)),
    "nowhere": changed(populations=(TOO_WIDE,)),
    "no spikes": changed(populations=(), operations=OPERATIONS[:1]),
    "no products": changed(populations=(), operations=OPERATIONS[2:]),
    "silent": changed(populations=(dataclasses.replace(FITS, spikes=0, synaptic_ops=0),)),
    "measured": dataclasses.replace(LOAD, measured_joules=0.25, measured_source="RAPL", uncounted=("aten.fft",)),
}
CHIPS = ("loihi2", "odin", "reckon", "speck", "spinnaker1", "spinnaker2", "truenorth", "xylo_audio2", "xylo_audio3")
PLATFORMS = (
    "cpu",
    "gpu:h200",
    "gpu:k4000",
    "jetson",
    "movidius:ncs",
    "movidius:ncs2",
    "loihi1",
    "loihi2",
    "convention",
)


def strict(data: Any) -> Any:
    """The data as a reader gets it that knows no NaN and no Infinity, as JSON does not."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    return json.loads(json.dumps(data), parse_constant=refuse)


def misfits(name: str, data: Any) -> list[str]:
    found = jsonschema.Draft202012Validator(schema.of(name)).iter_errors(strict(data))
    return [f"{list(error.absolute_path)}: {error.message}" for error in found]


@pytest.mark.parametrize("name", ["report", "run", "predict"])
def test_each_is_a_schema(name):
    jsonschema.Draft202012Validator.check_schema(schema.of(name))


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
def test_runs_and_their_reports_fit(load):
    assert misfits("run", json.loads(load.to_json())) == []
    assert misfits("report", report.estimate(load, losses=(3.5, 3.25), refined=False).to_dict()) == []


@pytest.mark.parametrize("chip", CHIPS)
def test_the_report_of_every_chip_fits(chip):
    assert misfits("report", report.estimate(LOAD, chip, refined=False).to_dict()) == []


def test_the_report_against_every_platform_fits():
    assert (
        misfits("report", report.estimate(LOAD, against=PLATFORMS, dense=LOADS["no spikes"], refined=False).to_dict())
        == []
    )


def test_what_takes_no_known_time_is_null_and_not_nan():
    """The convention prices arithmetic alone: neither its time nor the chip's waiting for it is known."""
    found = report.estimate(LOAD, against=["convention"], refined=False)
    (row,) = strict(found.to_dict())["against"]
    assert row["dense"]["seconds_per_token"] is None
    assert sum(term["median"] for term in row["hybrid"]["terms"].values()) > 0
    assert "nan" not in text.full(found) and "time not modelled" in text.full(found)
    assert all(joules >= 0 for _, terms, _ in text.bars(found) for joules in terms.values())


def test_a_brain_and_a_module_that_were_counted_fit():
    torch.manual_seed(0)
    brain = Brain(presets.tiny().brain)
    tally = accounting.Tally(brain, prefill=5)
    session = Session(brain, observers=[tally])
    session.feed(torch.arange(5).unsqueeze(0))
    session.commit()
    session.feed(torch.arange(3).unsqueeze(0))
    session.commit()
    module = energy.count(torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU()), torch.randn(2, 4))
    for load in (accounting.workload(brain, tally, "tiny", (1.0, 0.5)), module):
        assert misfits("run", json.loads(load.to_json())) == []
        assert misfits("report", report.estimate(load, refined=False).to_dict()) == []


@pytest.mark.parametrize(
    ("platform", "counts"),
    [
        ("cpu:e5-2630", {"macs": 172_800, "layers": 3}),
        ("gpu:h200", {"macs": 172_800, "layers": 3, "weight_bytes": 7e5, "setup": "other"}),
        ("loihi1", {"macs": 172_800, "steps": 10}),
        ("speck", {"spikes": 1e6, "macs": 5}),
        ("akida", {"counts": {"clock": 4.3e6}}),
        ("convention", {"macs": 172_800}),
    ],
)
def test_predictions_fit(platform, counts):
    assert misfits("predict", prediction.predict(platform, **counts)) == []


def places(data: Any, path: tuple = ()) -> Iterator[tuple]:
    """The path of everything below the top."""
    rows = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in rows:
        yield (*path, key)
        yield from places(value, (*path, key))


def damaged(data: Any, path: tuple, value: Any) -> Any:
    """A copy with another value there; `places` itself takes it out."""
    made = copy.deepcopy(data)
    owner = made
    for key in path[:-1]:
        owner = owner[key]
    if value is places:
        del owner[path[-1]]
    else:
        owner[path[-1]] = value
    return made


def test_a_run_file_that_fits_can_be_read():
    """Each field missing, of another type, negative or unknown: what the reader refuses, the schema refuses."""
    data = json.loads(LOADS["measured"].to_json())
    others = (places, -1, 1.5, True, None, "odd", [], {}, [{}])
    cases = [damaged(data, path, other) for path in places(data) for other in others]
    cases += [damaged(data, (*path, "more"), 1) for path in ((), ("phases", 0), ("phases", 0, "traffic", 0))]
    refused = 0
    validator = jsonschema.Draft202012Validator(schema.of("run"))
    for case in cases:
        try:
            from_json(json.dumps(case))
        except (FormatError, UsageError):
            refused += 1
            assert not validator.is_valid(case), case
    assert refused > 300


def test_a_damaged_report_does_not_fit():
    data = report.estimate(LOADS["measured"], losses=(3.5, 3.25), refined=False).to_dict()
    validator = jsonschema.Draft202012Validator(schema.of("report"))
    assert validator.is_valid(data)
    for path in places(data):
        once = path[-1] not in ("median", "lo", "hi") or path[:2] == ("chip", "joules_per_token")
        if once and not isinstance(path[-1], int):
            assert not validator.is_valid(damaged(data, path, {"odd": {"odd": []}})), path
    for path in ((), ("chip",), ("against", 0), ("counts", 0), ("layers", 0), ("against", 0, "dense")):
        assert not validator.is_valid(damaged(data, (*path, "more"), 1)), path
        for place in places(data):
            if place[:-1] == path:
                assert not validator.is_valid(damaged(data, place, places)), place


def test_the_command_prints_them(capsys):
    for argv, name in (([], "report"), (["report"], "report"), (["run", "--json"], "run"), (["predict"], "predict")):
        assert main(["energy", "schema", *argv]) == 0
        assert json.loads(capsys.readouterr().out) == schema.of(name)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["rum"], "energy schema: got 'rum', expected one of report, run, predict.\nDid you mean 'run'?"),
        (["run", "--chip", "loihi1"], "neuro energy schema: --chip has no effect here.\nLeave out --chip."),
        (["run", "--macs", "5"], "neuro energy schema: --macs has no effect here."),
        (["run", "--seed", "1"], "--seed"),
    ],
)
def test_the_command_refuses_what_makes_no_sense(argv, words, capsys):
    assert main(["energy", "schema", *argv]) == 2
    captured = capsys.readouterr()
    assert words in captured.err and captured.out == ""
