"""`neuro eval --suite ...` of the suites that ask: what each writes, what it refuses, and that nothing is changed by it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from neuro import training_text
from neuro.cli import main
from neuro.errors import UsageError
from neuro.evaluate import adaptation, babi, generation, habit, profile, recall

STORY = "1 Mary went to the hall.\n2 John left.\n3 Where is Mary? \thall\t1\n4 Who left? \tJohn\t2\n"
FEW = ["--seeds", "1", "--episodes", "2"]


def prose(seed: int, lines: int = 120) -> str:
    random = np.random.default_rng(seed)
    words = [f"{a}{b}" for a in ("ka", "lo", "mi", "ru", "se") for b in ("n", "t", "lam", "", "sh", "d", "pel", "x")]
    return "".join(" ".join(random.choice(words, 12)) + ".\n" for _ in range(lines))


@pytest.fixture(scope="module")
def model(saved_model) -> Path:
    return saved_model([prose(0), STORY])


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    where = tmp_path_factory.mktemp("text")
    for number, name in enumerate(("one.txt", "two.txt")):
        (where / name).write_text(prose(number), encoding="utf-8")
    (where / "qa1_test.txt").write_text(STORY * 30, encoding="utf-8")
    return {path.stem: path for path in where.iterdir()}


@pytest.fixture(autouse=True)
def _short(monkeypatch) -> None:
    monkeypatch.setattr(profile, "PAUSE", 20)
    monkeypatch.setattr(habit, "SHOWINGS", 8)
    monkeypatch.setattr(babi, "QUESTIONS", 3)
    monkeypatch.setattr(adaptation, "HELD_OUT", 256)
    monkeypatch.setattr(generation, "WRITTEN", 40)


SUITES = {
    "profile": (["one"], ["--gap", "40", "--templates", "tuning", *FEW]),
    "habit": ([], ["--templates", "tuning", *FEW]),
    "dissociation": (["one"], ["--gap", "40", "--templates", "tuning", *FEW]),
    "dialogue": ([], ["--gap", "2", "--templates", "tuning", *FEW]),
    "babi": (["qa1_test"], FEW),
    "adaptation": (["one", "two"], ["--length", "256", "--seeds", "1"]),
    "generation": (["one"], ["--samples", "3"]),
}


@pytest.mark.parametrize("suite", SUITES)
def test_a_suite_writes_its_record_its_table_and_its_picture(suite, model, files, tmp_path, capsys):
    names, options = SUITES[suite]
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    argv = [
        "eval",
        str(model),
        *(str(files[name]) for name in names),
        "--suite",
        suite,
        *options,
        "--out",
        str(tmp_path),
    ]
    assert main([*argv, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "eval.json").read_text(encoding="utf-8"))
    assert (printed["schema"], printed["suite"], printed["read_in_training"]) == ("neuro.eval/1", suite, None)
    assert (tmp_path / f"{suite}.png").read_bytes().startswith(b"\x89PNG")
    rows = printed.get("rows") or printed.get("losses") or list(printed["found"].values())
    assert len(rows) >= 2
    if suite not in ("dissociation", "generation"):
        arms = [row["arm"] for row in rows]
        assert {"real", "episodic", "procedural", "shuffled"} <= {*arms} and arms[0] == "real"
    # What was finished is not computed again, and gives the same record.
    assert main([*argv, "-q"]) == 0
    assert "NaN" not in (tmp_path / "eval.json").read_text(encoding="utf-8")
    told = capsys.readouterr()
    assert told.err == "" and len(told.out.strip().split("\n")) >= 4
    assert json.loads((tmp_path / "eval.json").read_text(encoding="utf-8")) == printed
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before


def said(capsys, *argv: object) -> tuple[int, list[str]]:
    code = main([str(item) for item in argv])
    return code, capsys.readouterr().err.strip().split("\n")


def test_only_adaptation_takes_several_texts_and_some_suites_none(model, files, capsys):
    assert said(capsys, "eval", model, files["one"], files["two"], "--suite", "perplexity") == (
        2,
        ["neuro eval --suite perplexity: got 2 texts, expected one.", "Give one file or a folder."],
    )
    for suite in ("habit", "dialogue"):
        assert said(capsys, "eval", model, files["one"], "--suite", suite)[1] == [
            f"neuro eval --suite {suite}: got a text, expected none.",
            "Leave it out.",
        ]
        assert said(capsys, "eval", model, "--suite", suite, "--force")[1] == [
            f"neuro eval --suite {suite}: --force has no effect here.",
            "Leave out --force.",
        ]


@pytest.mark.parametrize(
    ("suite", "option"), [("habit", "gap"), ("generation", "seeds"), ("adaptation", "episodes"), ("babi", "templates")]
)
def test_an_option_without_effect_is_refused(suite, option, model, files, capsys):
    assert said(capsys, "eval", model, files["one"], "--suite", suite, f"--{option}", "3") == (
        2,
        [f"neuro eval --suite {suite}: --{option} has no effect here.", f"Leave out --{option}."],
    )


def test_a_text_shorter_than_a_span_is_refused(model, tmp_path, capsys):
    (tmp_path / "short.txt").write_text("ka lo.\n", encoding="utf-8")
    code, told = said(capsys, "eval", model, tmp_path / "short.txt")
    assert code == 2 and told[0].startswith("short.txt: got ")
    assert told[0].endswith(" tokens, expected at least one span of this model (16).")
    assert told[1] == "Give a longer text."


def test_a_training_text_shorter_than_a_span_is_refused(tmp_path, capsys):
    (tmp_path / "short.txt").write_text("a b c d e f g h", encoding="utf-8")
    code, told = said(
        capsys, "train", "tiny", "--set", f"data.train={tmp_path / 'short.txt'}", "--out", tmp_path / "run"
    )
    assert code == 2 and told[0].startswith(f"{tmp_path / 'short.txt'}: got ")
    assert told[0].endswith(" tokens to learn from, expected at least one span (16).")
    assert told[1] == "Give more text, or a smaller brain.plasticity_span."


def test_any_of_several_texts_may_be_one_that_was_read(model, files, tmp_path, capsys):
    copy = tmp_path / "model"
    copy.mkdir()
    for path in model.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    training_text.write(copy, training_text.record(training_text.windows(prose(1))))
    argv = ["eval", copy, files["one"], files["two"], "--suite", "adaptation", "--length", "256", "--seeds", "1", "-q"]
    code, told = said(capsys, *argv)
    assert code == 4 and told[0].startswith("two: got a text of which 100 % was read in the training of this model")
    assert said(capsys, *argv, "--force")[0] == 0


def test_training_goes_on_from_what_its_start_had_read(tmp_path, capsys):
    """The record of a model that begins with another's weights is that of both texts."""
    for number in (0, 1):
        (tmp_path / f"text{number}.txt").write_text(prose(number), encoding="utf-8")
    sets = ["train.steps=1", "train.eval_tokens=32"]
    for number, more in ((0, []), (1, [f"train.init={tmp_path / 'run0' / 'model'}"])):
        options = [
            word for item in [*sets, *more, f"data.train={tmp_path / f'text{number}.txt'}"] for word in ("--set", item)
        ]
        assert main(["train", "tiny", *options, "--out", str(tmp_path / f"run{number}"), "-q"]) == 0
    first, both = (training_text.read(tmp_path / f"run{number}" / "model") for number in (0, 1))
    assert (first.share(prose(0)), first.share(prose(1))) == (1.0, 0.0)
    assert (both.share(prose(0)), both.share(prose(1))) == (1.0, 1.0)


def test_a_model_that_never_learned_the_tasks_is_told_so_before_any_is_measured(tiny_brain):
    said: list[str] = []
    with pytest.raises(UsageError) as error:
        recall.run(tiny_brain().eval(), "", say=said.append, rows=2)
    assert "keys in a vocabulary of" in error.value.what and not said
    assert error.value.do == "This is for models that learned it: neuro train mqar --out runs/mqar"
