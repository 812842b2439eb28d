"""neuro chat and neuro show --limbic as a user types them."""

from __future__ import annotations

import io
import json
import sys

import numpy as np
import pytest

from neuro import folder, memory_file
from neuro.cli import _model, main
from neuro.config import HORMONES
from neuro.sampling import Sampler

TEXT = "The keeper of the lamp is called Victor.\nNobody knows the colour of the old boat.\n" * 20


@pytest.fixture(scope="module")
def model(saved_model) -> str:
    return str(saved_model(TEXT.split("\n")))


@pytest.fixture
def typed(monkeypatch, model, capsys):
    def run(text: str, *argv: str):
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        code = main(["chat", model, "--tokens", "6", *argv])
        return code, capsys.readouterr()

    return run


def test_each_line_is_a_turn_with_one_quiet_line(typed):
    code, said = typed("The keeper\n\n  \nThe boat", "--temperature", "0")
    quiet = said.err.strip().split("\n")
    assert code == 0 and len(quiet) == 2 and said.out.count("\n") == 2
    assert all(line.startswith("[valence ") and "layers" in line and "memories" in line for line in quiet)
    assert all(name in quiet[0] for name in HORMONES)
    code, said = typed("The keeper\n", "-q")
    assert (code, said.err) == (0, "")


def test_as_json_a_turn_is_a_reply_and_its_state(typed):
    code, said = typed("The keeper\nThe boat\n", "--json")
    records = [json.loads(line) for line in said.out.strip().split("\n")]
    assert code == 0 and [record["event"] for record in records] == ["reply", "turn", "reply", "turn", "done"]
    assert records[-1] == {"event": "done", "schema": "neuro.chat/1", "saved": None}
    first, second = records[1]["state"], records[3]["state"]
    assert first["writes"] > 0 and second["filled"] == first["filled"] + second["writes"]
    assert 0 <= first["layers_run"] <= first["layers"] and set(HORMONES) <= set(first)


def test_a_reply_is_one_line_and_the_turn_goes_into_the_memory(typed, model, monkeypatch, tmp_path):
    brain = folder.load(model, "cpu")
    planned = iter([*brain.tokenizer.encode("\nold boat\nnever"), 0, 0, 0, 0])
    monkeypatch.setattr(Sampler, "__call__", lambda self, logits, warmth=None: next(planned))
    path = tmp_path / "m"
    code, said = typed("The keeper\n", "--memory", str(path), "--tokens", "30")
    assert code == 0 and said.out == "old boat\n" and f"in {path}" in said.err
    _, transcript = memory_file.load(path, brain, brain.init_state(1))
    assert brain.tokenizer.decode(transcript.ids[1:]) == "The keeper\n\nold boat"
    assert [name for _, name in transcript.sources] == ["prompt", "written"]


def test_an_interrupt_keeps_what_was_said(typed, monkeypatch, tmp_path):
    calls = 0

    def stop(self, logits, warmth=None) -> int:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return 7

    monkeypatch.setattr(Sampler, "__call__", stop)
    code, said = typed("The keeper\nThe boat\n", "--memory", str(tmp_path / "m"))
    assert code == 130 and (tmp_path / "m").exists() and "saved" in said.err


def test_mistakes_of_chat(typed, monkeypatch):
    code, said = typed("x\n", "--tokens", "0")
    assert code == 2 and said.err.startswith("--tokens: got 0, expected at least 1.\n")


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_limbic_picture_and_its_numbers(model, capsys, tmp_path, suffix):
    pytest.importorskip("matplotlib", reason="pictures need the extra 'plots'")
    out = tmp_path / f"l.{suffix}"
    text = "The keeper of the lamp is called Victor. Nobody knows $x$ of the old boat."
    assert main(["show", model, text, "--limbic", "--out", str(out), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["schema"] == "neuro.show.limbic/1" and out.stat().st_size > 5000
    rows, brain = record["tokens"], folder.load(model, "cpu")
    assert "".join(row["token"] for row in rows[1:]) == text and len(rows) == 1 + len(brain.tokenizer.encode(text))
    names = {
        "prominence",
        "boundary",
        "valence",
        "arousal",
        "salience",
        "novelty",
        "recall gate",
        "surprise",
        *HORMONES,
    }
    assert all(names | {"token", "layers_run"} == set(row) for row in rows)
    hormones = np.array([[row[name] for name in HORMONES] for row in rows])
    moved = np.flatnonzero(np.abs(np.diff(hormones, axis=0)).max(1))
    assert set(moved.tolist()) <= set(record["commits"]) and len(moved) > 0, "hormones move at commits only"
    loudest = max(rows, key=lambda row: row["prominence"])
    assert rows[0]["prominence"] == 0 and loudest["prominence"] > 0.5


def test_a_text_alone_is_read_by_small(model, capsys, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason="pictures need the extra 'plots'")
    asked = []
    brain = folder.load(model, "cpu")
    monkeypatch.setattr(_model, "load", lambda name, args: asked.append(name) or brain)
    out = tmp_path / "l.png"
    assert main(["show", "--limbic", "The keeper of the lamp", "--out", str(out)]) == 0
    assert asked == ["small"] and out.stat().st_size > 5000


def test_mistakes_of_the_limbic_picture(model, capsys, tmp_path):
    cases = [
        (["show", model, "--limbic"], "no text to read"),
        (["show", "keeper", "--limbic"], "no text to read"),
        (["show", " ", "--limbic"], "no text to read"),
        (["show", "nowhere/there", "--limbic"], "no text to read"),
        (["show", model, "x", "--limbic", "--view", "raster"], "--view has no effect with --limbic"),
        (["show", model, "x", "--limbic", "--spikes"], "got --spikes and --limbic"),
        (
            ["show", model, "x", "--limbic", "--out", str(tmp_path / "a.pdf")],
            "expected a name that ends in .png or .svg",
        ),
        (["show", "--affect", "x", "--limbic"], "--limbic has no effect with --affect"),
    ]
    for argv, words in cases:
        assert main(argv) == 2
        lines = capsys.readouterr().err.strip().split("\n")
        assert len(lines) == 2 and words in lines[0], lines
    assert not list(tmp_path.iterdir())


def test_a_text_in_a_script_without_spaces_may_stand_alone(capsys, tmp_path):
    out = tmp_path / "l.svg"
    assert main(["show", "--limbic", "日本語", "--out", str(out)]) == 0
    assert out.exists()


def test_what_is_no_utf8_is_named_in_any_locale(model, capsys, monkeypatch):
    """In the locale C, Python lets through bytes that no text holds."""
    given = io.TextIOWrapper(io.BytesIO(b"hello \xff\n"), encoding="utf-8", errors="surrogateescape")
    monkeypatch.setattr(sys, "stdin", given)
    assert main(["chat", model, "--tokens", "1"]) == 2
    assert "standard input: not UTF-8" in capsys.readouterr().err
