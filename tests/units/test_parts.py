"""Finished pieces: kept whole, found again by what their numbers follow from, and by nothing else."""

from __future__ import annotations

import json

import pytest
import torch

from neuro import presets
from neuro.brain import Brain
from neuro.config import apply_sets
from neuro.errors import FormatError
from neuro.evaluate.parts import Parts
from neuro.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def brains() -> list[Brain]:
    """Two of the same sizes and other weights, and the first with another half-life."""
    tokenizer = Tokenizer.train(["the cat sat on a wall\n"], 270)
    made = []
    for seed, sets in ((0, []), (1, []), (0, ["hippocampus.half_life_tokens=7"])):
        torch.manual_seed(seed)
        made.append(Brain(apply_sets(presets.tiny().brain, [f"vocab_size={tokenizer.vocab_size}", *sets])))
        made[-1].tokenizer = tokenizer
    return made


def never() -> None:
    pytest.fail("computed again")


def test_a_finished_piece_is_not_computed_again(brains, tmp_path):
    values = [0.1 + 0.2, 1e-300, 3.0]
    said: list[str] = []
    for compute in (lambda: values, never):
        parts = Parts(tmp_path, "repeat", brains[0], "text", {"gap": 3}, said.append)
        assert parts.get("real-0", "memory on", compute) == values
    assert said == ["memory on ...", "memory on: finished before"]
    assert [path.parent for path in tmp_path.rglob("*.json")] == [tmp_path / "parts"]


def test_another_model_text_setting_or_suite_has_pieces_of_its_own(brains, tmp_path):
    one, other, older = brains
    cases = [
        ("repeat", one, "text", {"gap": 3}),
        ("perplexity", one, "text", {"gap": 3}),
        ("repeat", other, "text", {"gap": 3}),
        ("repeat", older, "text", {"gap": 3}),
        ("repeat", one, "texT", {"gap": 3}),
        ("repeat", one, "text", {"gap": 4}),
    ]
    for number, case in enumerate(cases):
        assert Parts(tmp_path, *case).get("real-0", "", lambda number=number: number) == number
    assert [Parts(tmp_path, *case).get("real-0", "", never) for case in cases] == list(range(len(cases)))


def test_without_a_folder_nothing_is_kept(brains):
    parts = Parts(None, "repeat", brains[0], "text", {})
    assert [parts.get("real-0", "", lambda number=number: number) for number in (1, 2)] == [1, 2]


@pytest.mark.parametrize("content", ["{", "[1]", json.dumps({"schema": "neuro.eval.part/1", "key": "0" * 64})])
def test_a_foreign_piece_is_refused(content, brains, tmp_path):
    parts = Parts(tmp_path, "repeat", brains[0], "text", {})
    parts.get("real-0", "", lambda: 1)
    (path,) = tmp_path.rglob("*.json")
    path.write_text(content, encoding="utf-8")
    with pytest.raises(FormatError) as error:
        parts.get("real-0", "", never)
    assert error.value.what.startswith(f"{path}: ")
    assert error.value.do == "Remove this file; it is computed again."
    if content != "{":
        assert error.value.what == f"{path}: got another file, expected a finished piece of this evaluation."
