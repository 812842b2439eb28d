"""The three runs of docs/training.md, as its lines say, on a tiny brain: each starts where the one before ended."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch

import neuro
from neuro import config, tensor_file
from neuro.cli import main
from neuro.session import Session

PAGE = Path(__file__).resolve().parents[2] / "docs" / "training.md"
QUICK = ["train.steps=3", "train.warmup_steps=0", "train.batch=2", "train.eval_every=3", "train.eval_tokens=64"]


def stages() -> list[list[str]]:
    """The command lines of the page's curricula, without their first word."""
    lines = re.findall(r"^neuro (train small --out run-.*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return [shlex.split(line) for line in lines]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    base = tmp_path_factory.mktemp("curricula")
    words = "the keeper lit the lamp and the boat came home over a dark and quiet sea ".split()
    (base / "book.txt").write_text(" ".join(words[i * i % len(words)] for i in range(1500)), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(base)
        for seed, argv in enumerate(stages()):  # so that equal weights are not those of an equal draw
            quick = [word for item in QUICK for word in ("--set", item)]
            assert main([*(word.replace("small", "tiny") for word in argv), *quick, "--seed", str(seed), "-q"]) == 0
    return base


def weights(folder: Path) -> dict:
    return tensor_file.read(folder / "model" / "model.safetensors", "neuro.model/1")[0]


def test_the_page_has_three_stages():
    assert [argv[3] for argv in stages()] == ["run-a", "run-b", "run-c"]


def test_each_stage_adds_what_the_page_says(trained):
    a, b, c = (config.load(trained / name / "config.toml") for name in ("run-a", "run-b", "run-c"))
    assert [run.brain.hippocampus.enabled for run in (a, b, c)] == [False, True, True]
    assert all(run.brain.procedural.enabled for run in (a, b, c))
    assert [run.train.init for run in (a, b, c)] == ["", "run-a/model", "run-b/model"]
    assert c.brain.endocrine.modulates_decay and c.brain.hippocampus.rebind and not b.brain.endocrine.modulates_decay
    assert a.train.spans_per_step < b.train.spans_per_step or b.train.spans_per_step < c.train.spans_per_step


def test_each_stage_starts_from_the_weights_of_the_one_before(trained):
    """Two draws of a weight lie 1.4 of its norm apart; three steps go less far."""
    a, b, c = (weights(trained / name) for name in ("run-a", "run-b", "run-c"))
    assert not any(name.startswith("regions.hippocampus") for name in a)
    assert any(name.startswith("regions.hippocampus") for name in b)
    for before, after in ((a, b), (b, c)):
        name = "regions.cortex.layers.1.mixer.project.weight"
        moved = float((after[name].float() - before[name].float()).norm() / before[name].float().norm())
        assert 0 < moved < 0.2
    assert set(c) > set(b)  # how hormones set the decay


def test_the_last_stage_runs_and_remembers(trained):
    brain = neuro.load(trained / "run-c" / "model", "cpu")
    session = Session(brain)
    session.feed(torch.tensor([brain.tokenizer.encode("the keeper lit the lamp and the boat came home " * 4)]))
    assert float(session.state.regions.hippocampus.strengths.sum()) > 0
