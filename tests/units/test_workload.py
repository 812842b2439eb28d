"""A workload survives its file, and what cannot be a count is refused with its reason."""

from __future__ import annotations

import dataclasses
import json

import pytest

from neuro.errors import FormatError, MissingError, UsageError
from neuro.workload import Operation, Phase, Population, Traffic, Workload, from_json, read

POPULATION = Population(
    name="cortex.layers.0.feedforward",
    region="cortex",
    neurons=8,
    fan_out=4,
    fan_in=4,
    input_signal="dense",
    weight_bits=8,
    spikes=5,
    synaptic_ops=20,
    updates=80,
)
GOOD = Workload(
    model="m",
    parameters=100,
    layers=3,
    spans=1,
    hardware="h",
    backend="cpu",
    phases=(
        Phase(
            name="inference",
            tokens=10,
            calls=10,
            seconds=0.5,
            populations=(POPULATION,),
            operations=(Operation("cortex", "mixer", "mac", "dense", 7),),
            traffic=(Traffic("cortex", "weights", "weights", 400, 0),),
        ),
    ),
    measured_joules=0.25,
    measured_source="RAPL",
)


def changed(**changes) -> Workload:
    """GOOD with other fields, of itself or of its one phase."""
    own = {name: value for name, value in changes.items() if name in {f.name for f in dataclasses.fields(Workload)}}
    phase = dataclasses.replace(GOOD.phases[0], **{name: changes[name] for name in changes.keys() - own.keys()})
    return dataclasses.replace(GOOD, phases=(phase,), **own)


@pytest.mark.parametrize("changes", [{}, {"populations": (), "measured_joules": None, "measured_source": None}])
def test_a_workload_equals_what_its_file_gives_back(tmp_path, changes):
    good = changed(**changes)
    path = tmp_path / "run.json"
    path.write_text(good.to_json(), encoding="utf-8")
    assert read(path) == from_json(good.to_json()) == good


def altered(change: dict) -> dict:
    """The file of GOOD with other values, of the run or of its one phase."""
    data = json.loads(GOOD.to_json())
    for key, value in change.items():
        (data["phases"][0] if key in data["phases"][0] else data)[key] = value
    return data


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": "neuro.workload/1"}, r"w\.json: got schema 'neuro\.workload/1', expected 'neuro\.workload/2'"),
        ({"schema": None}, "got schema None"),
        ({"extra": 1}, "unexpected keyword argument 'extra'"),
        ({"populations": [{"name": "p", "spokes": 1}]}, "unexpected keyword argument 'spokes'"),
        ({"traffic": None}, "not iterable"),
        ({"seconds": float("nan")}, "got seconds=nan, expected a finite number >= 0"),
        ({"seconds": None}, "got seconds=None, expected a finite number >= 0"),
        ({"measured_joules": -1.0}, r"got measured_joules=-1\.0, expected a finite number >= 0"),
    ],
)
def test_a_file_that_is_no_workload_says_why(change, words):
    with pytest.raises(FormatError, match=words) as raised:
        from_json(json.dumps(altered(change)), "w.json")
    assert "Write it again with 'neuro run --out DIR'." in raised.value.do


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GOOD.to_json()[:-20], r"w\.json: not JSON"),
        ("", "not JSON"),
        ("[1]", "got schema 'list'"),
        ("{}", "got schema None"),
    ],
)
def test_truncated_and_foreign_json_says_so(text, words):
    with pytest.raises(FormatError, match=words):
        from_json(text, "w.json")


def test_a_missing_key_is_named():
    data = json.loads(GOOD.to_json())
    del data["phases"][0]["tokens"]
    with pytest.raises(FormatError, match="tokens"):
        from_json(json.dumps(data))


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "latin.json").write_bytes(b"\xff\xfe")
    for name, kind in (("absent.json", MissingError), ("latin.json", FormatError)):
        with pytest.raises(kind, match=name):
            read(tmp_path / name)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tokens": 0}, "workload: got 0 tokens, expected at least 1"),
        ({"spans": -1}, "workload: got spans=-1, expected a count >= 0"),
        ({"tokens": 1.5}, r"workload phase 'inference': got tokens=1\.5, expected a count >= 0"),
        (
            {"operations": (Operation("r", "n", "mac", "dense", -1),)},
            "workload operation 'n': got count=-1, expected a count >= 0",
        ),
        ({"operations": (Operation("r", "n", "mac", "dense", True),)}, "got count=True, expected a count >= 0"),
        ({"traffic": (Traffic("r", "n", "weights", 1, -1),)}, "workload traffic 'n': got written_bytes=-1"),
        (
            {"operations": (Operation("r", "n", "magic", "dense", 1),)},
            "operation kind: got 'magic', expected one of mac",
        ),
        (
            {"operations": (Operation("r", "n", "mac", "loud", 1),)},
            "operation signal: got 'loud', expected one of binary",
        ),
        ({"traffic": (Traffic("r", "n", "disk", 1, 1),)}, "traffic store: got 'disk', expected one of weights"),
        (
            {"populations": (dataclasses.replace(POPULATION, spikes=-1, synaptic_ops=-4),)},
            "workload population 'cortex.layers.0.feedforward': got spikes=-1, expected a count >= 0",
        ),
        (
            {"populations": (dataclasses.replace(POPULATION, synaptic_ops=21),)},
            r"got synaptic_ops=21, expected at most spikes x fan_out = 20\.",
        ),
        (
            {"operations": (Operation("r", "n", "mac", "dense", 1, 2),)},
            r"workload operation 'n': got effective=2 of count=1\.",
        ),
        ({"name": "sleep"}, "workload phase: got 'sleep', expected one of prefill, decode"),
        ({"unit": "word"}, "workload unit: got 'word', expected one of token, sample"),
        ({"populations": (dataclasses.replace(POPULATION, input_signal="odd"),)}, "population input_signal: got 'odd'"),
    ],
)
def test_counts_that_cannot_be_are_refused(changes, words):
    with pytest.raises(UsageError, match=words):
        changed(**changes)


def test_counts_in_a_file_are_checked_too():
    data = json.loads(GOOD.to_json())
    data["phases"][0]["populations"][0]["synaptic_ops"] = 21
    with pytest.raises(UsageError, match="expected at most spikes x fan_out"):
        from_json(json.dumps(data))


def test_phases_add_up_and_a_sum_with_an_unknown_part_is_unknown():
    once = GOOD.phases[0]
    looked = dataclasses.replace(once.operations[0], effective=3)
    for rows, effective in (((looked, looked), 6), ((looked, once.operations[0]), None)):
        phases = tuple(
            dataclasses.replace(once, name=name, operations=(row,))
            for name, row in zip(("prefill", "decode"), rows, strict=True)
        )
        both = dataclasses.replace(GOOD, phases=phases)
        assert (both.tokens, both.seconds) == (20, 1.0)
        assert both.operations == (dataclasses.replace(looked, count=14, effective=effective),)
        assert both.populations == (dataclasses.replace(POPULATION, spikes=10, synaptic_ops=40, updates=160),)
        assert both.traffic == (Traffic("cortex", "weights", "weights", 800, 0),)
        assert both.phase("decode") is phases[1] and both.phase("inference") is None
