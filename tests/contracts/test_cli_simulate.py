"""neuro simulate as a user types it."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from neuro import extras
from neuro.cli import main
from neuro.cli.simulate import STUDIES
from sims.circuits import studies
from sims.networks import native

SMALL = ["--neurons", "200", "--seconds", "0.05"]


def test_the_summary_is_on_stdout_and_the_speed_on_stderr(capsys):
    assert main(["simulate", "brunel", *SMALL]) == 0
    captured = capsys.readouterr()
    head, row = captured.out.strip().split("\n")
    assert head.split() == "second excitatory Hz inhibitory Hz CV correlation synaptic events".split()
    assert row.split()[0] == "1" and float(row.split()[1]) > 0
    assert "times real time" in captured.err and "200 neurons" in captured.err


def test_one_row_for_each_second_and_the_rest(capsys):
    assert main(["simulate", "coba", "--neurons", "100", "--seconds", "2.5", "--dt", "0.5", "--json", "-q"]) == 0
    captured = capsys.readouterr()
    record = json.loads(captured.out)
    assert [row["length"] for row in record["seconds"]] == [1.0, 1.0, 0.5] and captured.err == ""
    assert record["schema"] == "neuro.simulate/1" and record["excitatory"] == 80
    assert set(record["seconds"][0]) == {"length", "excitatory_hz", "inhibitory_hz", "cv", "correlation", "events"}


def test_the_same_seed_prints_the_same(capsys):
    texts = []
    for seed in ("3", "3", "4"):
        assert main(["simulate", *SMALL, "--seed", seed, "-q"]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2]


def test_both_names_of_a_circuit_are_the_same_network(capsys):
    texts = []
    for name in ("cuba", "vogels-abbott"):
        assert main(["simulate", name, *SMALL, "-q", "--precision", "float64"]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]


def test_the_regime_of_brunel_is_chosen_by_g_and_eta(capsys):
    rates = []
    for g in ("3", "6"):
        assert main(["simulate", "brunel", *SMALL, "--g", g, "--eta", "2.5", "--json"]) == 0
        record = json.loads(capsys.readouterr().out)
        assert (record["g"], record["eta"]) == (float(g), 2.5)
        rates.append(record["seconds"][0]["excitatory_hz"])
    assert rates[0] > 2 * rates[1]


@pytest.mark.skipif(not extras.installed("matplotlib"), reason="matplotlib is not installed (extra plots)")
@pytest.mark.parametrize(("suffix", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
@pytest.mark.parametrize("seconds", ["0.05", "0.0001"])
def test_the_picture_is_of_the_kind_its_name_says(capsys, tmp_path, suffix, start, seconds):
    """Even of one step, in which nobody fires."""
    out = tmp_path / f"picture.{suffix}"
    assert main(["simulate", "--neurons", "100", "--seconds", seconds, "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip().split("\n")[-1] == str(out)
    assert out.read_bytes().startswith(start)


def test_without_the_library_a_note_says_so(capsys, monkeypatch):
    monkeypatch.setattr(native, "status", lambda: (False, "the reason"))
    monkeypatch.setattr(native, "library", lambda: None)
    assert main(["simulate", *SMALL]) == 0
    captured = capsys.readouterr()
    assert captured.err.startswith("note: in numpy, 10 to 90 times slower than in C++: the reason\n")
    assert captured.out.startswith("second")


@pytest.mark.parametrize("built", [True, False])
def test_doctor_says_whether_networks_run_in_the_library(built, capsys, monkeypatch):
    monkeypatch.setattr(native, "status", lambda: (built, "the reason"))
    assert main(["doctor", "--json"]) == 0
    (row,) = [row for row in json.loads(capsys.readouterr().out)["backends"] if row["name"] == "networks"]
    assert row["ok"] == built and "the reason" in row["says"]
    assert ("times slower" in row["says"] and "C++ compiler" in row["says"]) != built


@pytest.mark.parametrize(
    ("argv", "lines"),
    [
        (
            ["brunell"],
            [
                f"circuit: got 'brunell', expected one of brunel, vogels-abbott, cuba, coba, {', '.join(STUDIES)}.",
                "Did you mean 'brunel'?",
            ],
        ),
        (
            ["coba", "--out", "x.txt"],
            ["--out: got 'x.txt', expected a name that ends in .png or .svg.", "Name a picture."],
        ),
        (
            ["lif-curve", "--neurons", "10", "--dt", "1"],
            ["lif-curve: got --neurons and --dt, expected none of them.", "It takes --seed, --lesion and --out."],
        ),
        (
            ["coba", "--lesion"],
            [f"coba: got --lesion, expected one of {', '.join(STUDIES)} with it.", "Leave --lesion out."],
        ),
        (["coba", "--seconds", "-1"], ["seconds: got -1, expected more than 0.", "Give a time such as --seconds 1."]),
        (
            ["coba", "--seconds", "1e12"],
            [
                "seconds: got 1e+12, expected fewer steps than 1e+16 of 0.1 ms: memory cannot count them.",
                "Simulate less at a time.",
            ],
        ),
        (
            ["coba", "--seconds", "1e308"],
            [
                "seconds: got 1e+308, expected fewer steps than inf of 0.1 ms: memory cannot count them.",
                "Simulate less at a time.",
            ],
        ),
        (["coba", "--eta", "1"], ["coba: got eta, expected none of them.", "Only brunel takes --g and --eta."]),
        (
            ["coba", "--precision", "float16"],
            ["precision: got 'float16', expected float32 or float64.", "Did you mean 'float64'?"],
        ),
    ],
)
def test_mistakes_are_two_lines_with_code_2(capsys, argv, lines):
    code = main(["simulate", *argv])
    captured = capsys.readouterr()
    assert (code, captured.out, captured.err.strip().split("\n")) == (2, "", lines)


def test_a_picture_without_matplotlib_is_refused_before_the_run(capsys, monkeypatch):
    monkeypatch.setattr(extras, "installed", lambda package: package != "matplotlib")
    assert main(["simulate", *SMALL, "--out", "x.png"]) == 3
    captured = capsys.readouterr()
    assert captured.err.strip().split("\n") == [
        "neuro simulate --out needs matplotlib.",
        "pip install 'neuro-hybrid[plots]'",
    ]


class _Quick:
    """A circuit that runs at once."""

    def __init__(self, seed, lesion):
        self.statistics = {name: 1.5 + seed + lesion for name in studies.record("lif-curve")["statistics"]} | {
            "error_without_noise": float("nan")
        }
        grid = np.linspace(0.5, 2, 4)
        self.curves = dict.fromkeys(("drive", "plain", "noisy", "lapicque", "siegert"), grid)


def test_a_circuit_in_brian2_is_shown_beside_its_record(capsys, monkeypatch):
    monkeypatch.setitem(studies.STUDIES, "lif-curve", _Quick)
    assert main(["simulate", "lif-curve", "--seed", "2"]) == 0
    captured = capsys.readouterr()
    rows = [line.split() for line in captured.out.strip().split("\n")]
    known = studies.record("lif-curve")
    assert [row[0] for row in rows[1:]] == list(known["statistics"])
    assert rows[1][1] == "-" and rows[2][1] == "3.5"
    assert all(f"doi:{doi}" in captured.err for doi in known["doi"]) and known["lesion"] in captured.err


def test_a_circuit_in_brian2_as_json_and_lesioned(capsys, monkeypatch):
    monkeypatch.setitem(studies.STUDIES, "lif-curve", _Quick)
    assert main(["simulate", "lif-curve", "--lesion", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["schema"] == "neuro.simulate.circuit/1" and record["lesion"] is True
    assert record["statistics"]["below_threshold_hz"] == 2.5 and record["statistics"]["error_without_noise"] is None


@pytest.mark.skipif(not extras.installed("matplotlib"), reason="matplotlib is not installed (extra plots)")
def test_a_circuit_in_brian2_draws_its_picture(capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(studies.STUDIES, "lif-curve", _Quick)
    out = tmp_path / "curve.png"
    assert main(["simulate", "lif-curve", "-q", "--out", str(out)]) == 0
    assert capsys.readouterr().out.endswith(f"{out}\n") and out.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", STUDIES)
def test_without_brian2_its_circuits_say_how_to_get_it(name, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "brian2", None)
    assert main(["simulate", name]) == 3
    what, do = capsys.readouterr().err.strip().split("\n")
    assert what.startswith("this needs the package brian2 (") and do == "pip install 'neuro-hybrid[sims]'"


def test_the_verb_knows_every_circuit():
    assert tuple(studies.STUDIES) == STUDIES
