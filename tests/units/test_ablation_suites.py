"""What the ablation measures is what the suites measure, unit by unit; whole runs train each arm once and go on."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest
import torch

from neuro import config as configs
from neuro import presets
from neuro.brain import Brain
from neuro.errors import CheckError, UsageError
from neuro.evaluate import ablation_brain, ablation_suites, habit, perplexity, profile, recall, repeat
from neuro.evaluate.ablation_suites import MEASURES, SUITES, Settings
from neuro.tokenizer import Tokenizer

TASK = "task:delayed:pairs=2,delay=20"
SETTINGS = Settings(length=200, gap=60, samples=1, task=TASK, rows=6, episodes=2)


def prose(seed: int, lines: int = 60) -> str:
    random = np.random.default_rng(seed)
    words = [f"{a}{b}" for a in ("ka", "lo", "mi", "ru", "se") for b in ("n", "t", "lam", "", "sh", "d", "pel", "x")]
    return "".join(" ".join(random.choice(words, 12)) + ".\n" for _ in range(lines))


@pytest.fixture(autouse=True)
def _short(monkeypatch) -> None:
    monkeypatch.setattr(profile, "PAUSE", 20)
    monkeypatch.setattr(habit, "SHOWINGS", 8)
    monkeypatch.setattr(perplexity, "BLOCK_LINES", 6)
    monkeypatch.setattr(repeat, "Protocol", functools.partial(repeat.Protocol, warm_up=20))
    monkeypatch.setattr(ablation_suites, "WRITTEN", 8)


def made(*sets: str) -> Brain:
    torch.manual_seed(0)
    tokenizer = Tokenizer.train([prose(0)], 300)
    brain = Brain(configs.apply_sets(presets.tiny().brain, [f"vocab_size={tokenizer.vocab_size}", *sets])).eval()
    brain.tokenizer = tokenizer
    return brain


@pytest.fixture(scope="module")
def brain() -> Brain:
    return made()


@pytest.mark.parametrize("suite", SUITES)
def test_brains_with_and_without_a_memory_are_asked_the_same_units(suite, brain):
    here = ablation_suites.measure(brain, suite, prose(5), SETTINGS)
    there = ablation_suites.measure(made("hippocampus.enabled=false"), suite, prose(5), SETTINGS)
    assert here.keys() == there.keys() <= MEASURES.keys()
    for name, rows in here.items():
        assert rows.shape == there[name].shape and rows.shape[1] == 2 and np.isfinite(rows).all()
        assert (rows[:, 1] > 0).all() and np.array_equal(rows[:, 1], there[name][:, 1])


def ratio(rows: np.ndarray) -> float:
    return float(rows[:, 0].sum() / rows[:, 1].sum())


def test_measures_are_those_of_the_suites(brain):
    units = {suite: ablation_suites.measure(brain, suite, prose(5), SETTINGS) for suite in ("perplexity", "recall")}
    suite = perplexity.run(brain, prose(5))
    assert units["perplexity"]["perplexity"][:, 0].tolist() == pytest.approx(suite["by_unit"]["nats"]["real"])
    assert units["perplexity"]["perplexity"][:, 1].tolist() == suite["by_unit"]["words"]
    (result,) = recall.evaluate(brain, [TASK], SETTINGS.rows, 0, ("real",))
    assert ratio(units["recall"]["recall"]) == pytest.approx(result.nats, rel=1e-5)
    assert ratio(units["recall"]["recall right"]) == pytest.approx(result.accuracy)


def test_habit_and_profile_are_those_of_the_suites():
    brain = made("hippocampus.enabled=false", "procedural.enabled=false")  # one arm alone: the suites have as many
    of_habit = ablation_suites.measure(brain, "habit", "", SETTINGS)["habit"]
    real = next(row for row in habit.run(brain, "", seeds=1, episodes=2)["rows"] if row["arm"] == "real")
    assert ratio(of_habit) == pytest.approx(real["form_later"])
    rows = ablation_suites.measure(brain, "profile", prose(5), SETTINGS)
    asked, found = profile.measured(
        brain, prose(5), None, lambda line: None, gap=60, seeds=1, episodes=2, seed=0, templates="held-out"
    )
    same = [n for n, question in enumerate(asked) if question.label.endswith("same words")]
    nats = [sum(episode[n].nats for n in same) for episode in found["real"][0]]
    assert rows["profile"][:, 0].tolist() == pytest.approx(nats)
    assert (rows["profile right"][:, 1] == len(same)).all()


def test_repeat_sums_blocks_of_what_the_second_showing_saves(brain):
    rows = ablation_suites.measure(brain, "repeat", prose(5), SETTINGS)["repeat"]
    assert len(rows) == 200 / repeat.BLOCK
    (arm,) = [row for row in repeat.run(brain, prose(5), length=200, gap=60, samples=1)["arms"] if row["arm"] == "real"]
    assert np.exp(ratio(rows)) == pytest.approx(arm["ratio"])


def test_a_text_too_short_for_profile_is_refused(brain):
    with pytest.raises(UsageError) as error:
        ablation_suites.measure(brain, "profile", "short", SETTINGS)
    assert error.value.what.endswith("expected at least 160 (2 episodes of 20 + 60).")
    assert error.value.do == "Give a longer text, a smaller --gap or fewer --episodes."


def test_suites_are_named_or_refused():
    assert ablation_suites.named(None) == list(SUITES)
    assert ablation_suites.named("[repeat,perplexity]") == ["repeat", "perplexity"]
    with pytest.raises(UsageError) as error:
        ablation_suites.named("perplexit")
    assert error.value.what == "--suites: got 'perplexit', expected a suite of the ablation."
    assert error.value.do == "Did you mean 'perplexity'?"
    with pytest.raises(UsageError, match="--suites: got none, expected a suite"):
        ablation_suites.named("")


def test_counted_work_is_of_reading_and_writing(brain):
    load = ablation_suites.workload(brain, prose(5), "whole", SETTINGS)
    assert {phase.name: phase.tokens for phase in load.phases} == {"prefill": ablation_suites.READ + 1, "decode": 8}
    assert load.parameters == sum(brain.parameter_counts().values())


@pytest.fixture
def run(tmp_path):
    (tmp_path / "train.txt").write_text(prose(0, 200), encoding="utf-8")
    sets = [f"data.train={tmp_path / 'train.txt'}", "train.steps=2", "train.eval_tokens=64", "train.batch=2"]

    def go(text: str = prose(5), more: tuple[str, ...] = (), **options):
        given = {"parts": "hippocampus", "suites": "recall", "seeds": 2, "settings": SETTINGS, "backend": "cpu"}
        config = configs.apply_sets(presets.tiny(), [*sets, *more])
        return ablation_brain.run(config, text, tmp_path / "out", **(given | options))

    return go


def test_arms_are_trained_once_on_the_same_data_and_taken_up_again(run, tmp_path, monkeypatch):
    record = run(price=lambda load: {"parameters": float(load.parameters)})
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir() if (path / "model").is_dir()) == [
        "hippocampus-0",
        "hippocampus-1",
        "whole-0",
        "whole-1",
    ]
    read = [configs.load(out / name / "config.toml") for name in ("whole-1", "hippocampus-1")]
    assert read[0].train == read[1].train and read[0].data == read[1].data and read[0].train.seed == 1
    assert record["indicative"] and record["arms"]["hippocampus"]["without"] == "no episodic memory"
    assert record["energy"]["whole"]["parameters"] == record["arms"]["whole"]["parameters"]
    assert {len(arm["valid_nats"]) for arm in record["arms"].values()} == {2}
    assert json.loads(json.dumps(record)) == record

    def never(*arguments, **options):
        raise AssertionError("computed again")

    monkeypatch.setattr(ablation_brain.loop, "train", never)
    monkeypatch.setattr(ablation_suites, "measure", never)
    monkeypatch.setattr(ablation_suites, "workload", never)
    assert run(price=lambda load: {"parameters": float(load.parameters)}) == record


def test_a_folder_of_another_run_is_refused(run, tmp_path):
    run(parts="amygdala")
    with pytest.raises(UsageError) as error:
        run(parts="amygdala", more=("train.steps=3",))
    path = tmp_path / "out" / "config.toml"
    assert error.value.what == f"{path}: got an ablation of another configuration, expected this one's."
    assert error.value.do == "Choose another --out, or remove this folder."
    # A training that was put there by hand is looked at too.
    (tmp_path / "out" / "whole-0").rename(tmp_path / "out" / "hippocampus-0")
    with pytest.raises(UsageError) as error:
        run(parts="hippocampus")
    where = tmp_path / "out" / "hippocampus-0"
    assert error.value.what == f"{where}: got a training of another configuration, expected this one's."


def test_one_seed_no_text_and_the_training_text_are_refused(run):
    with pytest.raises(UsageError) as error:
        run(seeds=1)
    assert (error.value.what, error.value.do) == (
        "--seeds: got 1, expected at least 2.",
        "Give more: one training says nothing of the next.",
    )
    for source in ("", TASK):
        with pytest.raises(UsageError) as error:
            run(more=(f"data.train={source}",))
        assert error.value.what == f"ablation: got data.train '{source}', expected a text, a folder or 'hf:NAME'."
        assert error.value.do == "Give --set data.train=PATH, or put it into the configuration."
    with pytest.raises(CheckError, match="the text: got a text of which 100 % was read in the training"):
        run(text=prose(0, 200))
