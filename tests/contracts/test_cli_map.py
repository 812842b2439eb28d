"""neuro map as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from neuro import extras
from neuro.cli import main
from sims.mapping import native
from sims.mapping.network import Dense, Group, Network


@pytest.fixture
def written(tmp_path) -> Path:
    groups = (Group("a", 1500, 0.1), Group("b", 40), Group("unused", 3))
    Network("mine", groups, (Dense("a", "b"),)).write(tmp_path / "net.json")
    return tmp_path / "net.json"


def test_a_network_gets_a_table_and_a_verdict(written, capsys):
    assert main(["map", str(written)]) == 0
    lines = capsys.readouterr().out.strip().split("\n")
    assert lines[0] == f"{written} on Intel Loihi 1: fits: 2 of 128 cores"
    assert [line.split()[:3] for line in lines[2:6]] == [
        ["population", "neurons", "cores"],
        ["a", "1500", "2"],
        ["b", "40", "1"],
        ["unused", "3", "1"],
    ]
    assert any(line.startswith("per step: 150 packets") for line in lines) and lines[-1] == "checked: 0 violations"


def test_json_and_files_say_the_same(written, tmp_path, capsys):
    assert main(["map", str(written), "--json", "--out", str(tmp_path / "out"), "-q"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record == json.loads((tmp_path / "out/map.json").read_text())
    assert (record["schema"], record["fits"], record["cores"], record["violations"]) == ("neuro.map/1", True, 2, [])
    assert sum(stop - first for _, first, stop, _ in record["slices"]) == 1543
    assert sum(record["core"]["neurons"]) == 1543 and record["per_step"]["packets"] == pytest.approx(150)


@pytest.mark.skipif(not extras.installed("matplotlib"), reason="matplotlib is not installed (extra plots)")
@pytest.mark.parametrize("chip", ["loihi1", "spinnaker1"])
def test_the_picture_is_drawn(written, tmp_path, capsys, chip):
    assert main(["map", str(written), "--chip", chip, "--out", str(tmp_path / "o")]) == 0
    assert (tmp_path / "o/map.png").read_bytes().startswith(b"\x89PNG")


def test_what_does_not_fit_ends_with_code_4(written, tmp_path, capsys):
    """On Xylo by its verdict, on Loihi 1 by the number of chips, whose picture shows both."""
    assert main(["map", str(written), "--chip", "odin"]) == 4
    assert "does not fit: " in capsys.readouterr().out.split("\n")[0]
    Network("two", (Group("a", 140_000),), ()).write(tmp_path / "two.json")
    assert main(["map", str(tmp_path / "two.json"), "--out", str(tmp_path)]) == 4
    assert "does not fit: needs 2 chips (137 cores of 128 each); no part of it" in capsys.readouterr().out


def test_a_chip_that_hides_its_places_gets_no_hops(written, capsys):
    assert main(["map", str(written), "--chip", "loihi2"]) == 0
    assert "hops are not known (loihi2 does not say where its cores lie)" in capsys.readouterr().out
    assert main(["map", str(written), "--chip", "loihi2", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["per_step"]["hops_ew"] is None and record["per_step"]["packets"] > 0
    assert "in_axons_per_core" in record["unchecked"]


def test_without_the_library_a_note_says_so(written, capsys, monkeypatch):
    monkeypatch.setattr(native, "status", lambda: (False, "the reason"))
    monkeypatch.setattr(native, "library", lambda: None)
    assert main(["map", str(written), "--chip", "loihi2"]) == 0
    note = "note: refined in plain Python, and in layer order beyond 50000 synapses: the reason"
    assert capsys.readouterr().err.strip() == note


def test_a_model_is_run_and_its_populations_are_placed(capsys):
    assert main(["map", "small", "-q"]) == 0
    out = capsys.readouterr().out
    assert "small on Intel Loihi 1: fits: " in out and "feedforward, its targets" in out


def test_a_run_file_is_placed_as_it_is(tmp_path, capsys):
    assert main(["run", "small", "A word", "--tokens", "2", "--out", str(tmp_path), "-q"]) == 0
    capsys.readouterr()
    assert main(["map", str(tmp_path / "run.json")]) == 0
    assert "fits: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "argv", "code", "words"),
    [
        (
            None,
            ["none.json"],
            3,
            ["none.json: no such file.", "Give a run.json or a network's JSON, or the name of a model."],
        ),
        ("[]", [], 1, ["not a JSON object", "Give a run.json or a network's JSON."]),
        ('{"schema": "x"}', [], 1, ["got schema 'x', expected 'neuro.network/1' or", "Give a run.json"]),
        ("{}", ["--chip", "loihi"], 2, ["chip: got 'loihi', expected one of", "Did you mean 'loihi"]),
        ("{}", ["--set", "a=1"], 2, ["--set has no effect here.", "Leave out --set."]),
    ],
)
def test_mistakes_are_two_lines(tmp_path, capsys, text, argv, code, words):
    if text is not None:
        (tmp_path / "x.json").write_text(text)
        argv = [str(tmp_path / "x.json"), *argv]
    assert main(["map", *argv]) == code
    captured = capsys.readouterr()
    lines = captured.err.strip().split("\n")
    assert captured.out == "" and len(lines) == 2
    assert words[0] in lines[0] and words[1] in lines[1]
