"""`neuro eval` as a user types it: suites, what they write, what they refuse, and what an interrupt leaves."""

from __future__ import annotations

import functools
import importlib
import inspect
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from neuro import folder, plots, presets
from neuro.brain import Brain
from neuro.cli import main
from neuro.evaluate import perplexity, repeat
from neuro.evaluate.stream import Stream
from neuro.tokenizer import Tokenizer

cli_eval = importlib.import_module("neuro.cli.eval")

SHORT = ["--suite", "repeat", "--length", "40", "--gap", "30", "--samples", "2"]


def lines(count: int) -> str:
    random = np.random.default_rng(0)
    words = "the keeper of a lamp in that harbour is called Victor".split()
    return "".join(" ".join(random.choice(words, 2)) + "\n" for _ in range(count))


@pytest.fixture(scope="module")
def model(saved_model) -> Path:
    return saved_model([lines(60)])


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(lines(100), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def _short(monkeypatch) -> None:
    """Little warm-up and small blocks, so that a short text is enough."""
    monkeypatch.setattr(perplexity, "BLOCK_LINES", 10)
    monkeypatch.setattr(repeat, "Protocol", functools.partial(repeat.Protocol, warm_up=20))


def said(capsys, *argv: object) -> tuple[int, list[str]]:
    code = main([str(item) for item in argv])
    return code, capsys.readouterr().err.strip().split("\n")


@pytest.mark.parametrize("suite", cli_eval.SUITES)
def test_each_suite_has_what_the_command_line_asks_of_it(suite):
    module = importlib.import_module(f"neuro.evaluate.{suite}")
    assert list(inspect.signature(module.run).parameters)[:4] == ["brain", "raw", "out", "say"]
    assert callable(module.table) and callable(module.picture)


@pytest.mark.parametrize(
    ("options", "ratios"),
    [
        (SHORT, {"both", "episodic", "procedural", "shuffled", "off"}),
        (["--suite", "perplexity"], set()),
    ],
    ids=["repeat", "perplexity"],
)
def test_a_suite_writes_its_record_its_table_and_its_picture(options, ratios, model, text, tmp_path, capsys):
    suite = options[1]
    assert main(["eval", str(model), str(text), *options, "--json", "--out", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    printed = json.loads(captured.out)
    assert printed == json.loads((tmp_path / "eval.json").read_text(encoding="utf-8"))
    assert (printed["schema"], printed["suite"], printed["text"]) == ("neuro.eval/1", suite, "text.txt")
    assert {name for name in ratios if isinstance(printed[f"ratio_{name}"], float)} == ratios
    assert {row["arm"] for row in printed["arms"]} >= {"real", "episodic", "procedural", "off"}
    assert (tmp_path / f"{suite}.png").read_bytes().startswith(b"\x89PNG")
    assert captured.err.split("\n")[0].endswith(" ...")
    assert main(["eval", str(model), str(text), *options, "-q", "--out", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    for label in (
        "memory on",
        "episodic memory only",
        "procedural memory only",
        "memory of another part",
        "memory off",
    ):
        assert any(line.startswith(label) for line in captured.out.split("\n")), label


@pytest.mark.parametrize("suite", [SHORT, ["--suite", "perplexity"]], ids=["repeat", "perplexity"])
def test_an_interrupted_run_goes_on_where_it_stopped(suite, model, text, tmp_path, capsys, monkeypatch):
    """Interrupted twice, inside a piece; the record is that of a run without interrupts, byte for byte."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    argv = ["eval", str(model), str(text), *suite, "-q", "--out"]
    reads = 0
    read = Stream.read

    def counted(self, tokens):
        nonlocal reads
        reads += 1
        if reads == limit:
            raise KeyboardInterrupt
        return read(self, tokens)

    monkeypatch.setattr(Stream, "read", counted)
    limit = -1
    assert main([*argv, str(whole)]) == 0
    needed, kept = reads, [0]
    for limit in (needed // 3, needed // 2, -1):
        reads = 0
        assert main([*argv, str(broken)]) == (0 if limit < 0 else 130)
        kept.append(len(list((broken / "parts").glob("*.json"))))
        assert (broken / "eval.json").exists() == (limit < 0)
    assert kept == sorted(set(kept)), "each try adds pieces"
    assert reads < needed
    assert (broken / "eval.json").read_bytes() == (whole / "eval.json").read_bytes()
    reads, limit = 0, 1
    assert main([*argv, str(broken)]) == 0, "everything is finished: nothing is read again"


def test_runs_with_other_settings_do_not_mix_in_a_folder(model, text, tmp_path, capsys):
    records = []
    for out, seed in (("one", "0"), ("one", "1"), ("other", "1")):
        argv = ["eval", str(model), str(text), *SHORT, "--seed", seed, "-q", "--json", "--out", str(tmp_path / out)]
        assert main(argv) == 0
        records.append(json.loads(capsys.readouterr().out))
    assert records[0]["starts"] != records[1]["starts"]
    assert records[1] == records[2]


def test_numbers_are_not_lost_without_matplotlib(model, text, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(plots, "_pyplot", lambda: None)
    assert main(["eval", str(model), str(text), *SHORT, "-q", "--json", "--out", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == json.loads((tmp_path / "eval.json").read_text(encoding="utf-8"))
    assert captured.err == "no repeat.png: it needs matplotlib. pip install 'neuro-hybrid[plots]'\n"
    assert not (tmp_path / "repeat.png").exists()


@pytest.mark.parametrize(
    ("suite", "option"),
    [
        ("perplexity", ["--gap", "3"]),
        ("perplexity", ["--length", "3"]),
        ("perplexity", ["--samples", "3"]),
        ("perplexity", ["--seed", "3"]),
        ("repeat", ["--articles", "3"]),
    ],
)
def test_an_option_without_effect_in_a_suite_is_refused(suite, option, model, text, capsys):
    assert said(capsys, "eval", model, text, "--suite", suite, *option) == (
        2,
        [f"neuro eval --suite {suite}: {option[0]} has no effect here.", f"Leave out {option[0]}."],
    )


@pytest.mark.parametrize("option", ["gap", "length", "samples", "articles"])
def test_numbers_below_one_are_refused(option, model, text, capsys):
    suite = "perplexity" if option == "articles" else "repeat"
    assert said(capsys, "eval", model, text, "--suite", suite, f"--{option}", "0") == (
        2,
        [f"--{option}: got 0, expected at least 1.", f"Leave out --{option}, or give more."],
    )


def test_an_unknown_suite_gets_the_nearest(model, text, capsys):
    assert said(capsys, "eval", model, text, "--suite", "repaet") == (
        2,
        ["--suite: got 'repaet'.", "Did you mean 'repeat'?"],
    )


def test_a_text_that_is_too_short_is_wrong_usage_and_leaves_nothing(model, text, tmp_path, capsys):
    code, told = said(capsys, "eval", model, text, *SHORT, "--gap", "100000", "--out", tmp_path / "out")
    assert code == 2 and told[0].startswith("repeat: got a text of ")
    assert told[0].endswith("tokens, expected at least 200120 (2 samples of 20 + 40 + 100000).")
    assert not (tmp_path / "out").exists()


def test_without_a_text_there_is_nothing_to_measure(model, capsys):
    assert said(capsys, "eval", model, "--suite", "repeat") == (
        2,
        ["neuro eval: no text to measure on.", "Give a text file: neuro eval small book.txt"],
    )


def test_recall_needs_no_text_and_answers_task_by_task(capsys, tmp_path):
    torch.manual_seed(0)
    brain = Brain(presets.tiny().brain)
    brain.tokenizer = Tokenizer.numbered(brain.config.vocab_size)
    model, out = folder.save(brain, tmp_path / "model"), tmp_path / "out"
    argv = ["eval", str(model), "--suite", "recall", "--task", "task:delayed:pairs=2,delay=8", "--rows", "4", "--json"]
    assert main([*argv, "--out", str(out)]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record == json.loads((out / "eval.json").read_text()) and record["suite"] == "recall"
    assert [row["arm"] for row in record["results"]] == ["real", "off", "shuffled"]
    assert all(row["answers"] == 8 and 0 <= row["accuracy"] <= 1 for row in record["results"])
    assert 0 < record["elements"]["memory"] < record["elements"]["state"]
    assert (out / "recall.png").stat().st_size > 5000
    assert main(argv[:-1]) == 0
    assert "state elements" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["text.txt"], "got a text, expected none"),
        (["--task", "mqr"], "Did you mean 'mqar'"),
        (["--task", "task:delayd"], "Did you mean 'delayed'"),
        (["--rows", "0"], "--rows: got 0, expected at least 1"),
        (["--gap", "3"], "--gap has no effect here"),
    ],
)
def test_recall_refuses_what_means_nothing(extra, said, capsys, tmp_path):
    torch.manual_seed(0)
    brain = Brain(presets.tiny().brain)
    brain.tokenizer = Tokenizer.numbered(brain.config.vocab_size)
    model = folder.save(brain, tmp_path / "model")
    assert main(["eval", str(model), *extra, "--suite", "recall"]) == 2
    assert said in capsys.readouterr().err
