"""Parts of words: which they are, that rows are their sum, and that nothing is left of them in a model."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest
import torch

from neuro import corpus, presets
from neuro.config import DataConfig, apply_sets
from neuro.errors import UsageError
from neuro.folder import load
from neuro.tokenizer import Tokenizer
from neuro.train import loop, spelling
from neuro.train.spelling import Spelling, common_parts, parts_of

WORDS = ["walked", "talked", "Walked", "1987", "1996", "boat", "boats", "@-@", "the", ""]


@pytest.fixture
def spelled(tiny_brain):
    tokenizer = Tokenizer.train(["One boat came in, and one boat stayed out, 1987 to 1996."] * 20, 300)
    brain = tiny_brain([f"vocab_size={tokenizer.vocab_size}"], dtype=torch.float64)
    brain.tokenizer = tokenizer
    brain.spelling = Spelling(brain, tokenizer, 40, fresh=True)
    return brain


def test_parts_are_ends_runs_and_the_shape():
    assert parts_of("Boat") == {
        "shape Aa", "begins B", "begins Bo", "begins Boa", "begins Boat", "ends t", "ends at", "ends oat", "ends Boat",
        "^bo", "boa", "oat", "at$", "^boa", "boat", "oat$", "^boat", "boat$", "^boat$",
    }  # fmt: skip
    assert "shape 9999" in parts_of("1987") and parts_of("") == {"shape ", "^$"}


def test_kept_are_the_commonest_and_one_of_those_that_are_alike():
    names, places = common_parts(WORDS, 6)
    found = [{word for word, own in zip(WORDS, places, strict=True) if at in own} for at in range(6)]
    assert all(len(words) > 1 for words in found)  # a part of one word is that word's own row
    assert [len(words) for words in found] == sorted((len(words) for words in found), reverse=True)
    assert len({frozenset(words) for words in found}) == 6
    assert names == common_parts(WORDS, 6)[0]  # no order of a set in it
    everything, _ = common_parts(WORDS, 10_000)
    owners = [{word for word in WORDS if part in parts_of(word)} for part in everything]
    assert {"1987", "1996"} in owners and {"walked", "talked", "Walked"} in owners


def test_a_row_is_its_parts_over_the_root_of_their_number(spelled):
    parts, tokenizer = spelled.spelling, spelled.tokenizer
    tokens = [tokenizer.token_bytes(index).decode("utf-8", "replace") for index in range(tokenizer.vocab_size)]
    _, places = common_parts(tokens, 40)
    ids = torch.tensor([3, tokenizer.vocab_size - 1, 3, 0])
    for row, index in zip(parts.rows(ids), ids.tolist(), strict=True):
        own = places[index]
        expected = parts.parts[own].sum(0) / math.sqrt(max(1, len(own)))
        torch.testing.assert_close(row, expected)


def test_as_drawn_own_rows_and_parts_have_half_of_the_variance_each(spelled):
    ids = torch.arange(len(spelled.embedding))
    having = spelled.spelling.length > 0
    own = spelled.embedding.detach()[having].square().mean()
    of_parts = spelled.spelling.rows(ids).detach()[having].square().mean()
    assert 0.8 < own / of_parts < 1.25


def test_settling_changes_no_row_and_leaves_no_part(spelled):
    whole = (spelled.embedding + spelled.spelling.rows(torch.arange(len(spelled.embedding)))).detach().clone()
    own, parts = spelled.embedding.detach().clone(), spelled.spelling
    with spelling.held(spelled):
        assert torch.equal(spelled.embedding, whole) and not hasattr(spelled, "spelling")
    assert torch.equal(spelled.embedding, own) and spelled.spelling is parts
    spelling.settle(spelled)
    assert torch.equal(spelled.embedding, whole)
    assert not [name for name in spelled.state_dict() if "spelling" in name]
    spelling.settle(spelled)  # of one without parts: nothing
    assert torch.equal(spelled.embedding, whole)


def test_a_model_that_was_trained_without_parts_begins_as_it_was(tiny_brain, spelled):
    brain = tiny_brain([f"vocab_size={spelled.tokenizer.vocab_size}"])
    before = brain.embedding.detach().clone()
    brain.spelling = Spelling(brain, spelled.tokenizer, 40, fresh=False)
    spelling.settle(brain)
    assert torch.equal(brain.embedding, before)


def test_a_run_learns_parts_and_saves_a_model_without(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("The boats walked and talked, 1987 to 1996, and the boat stayed. " * 80, encoding="utf-8")
    sets = [f"data.train={text}", "train.steps=4", "train.batch=2", "train.sampled=30", "train.spelling=25"]
    brain = loop.train(apply_sets(presets.tiny(), [*sets, "train.eval_every=2", "train.eval_tokens=64"]), tmp_path)
    again = load(tmp_path / "model")
    assert not hasattr(brain, "spelling")
    assert torch.equal(again.embedding, brain.embedding.half().float())
    evaluated = json.loads((tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    held_out = corpus.prepare(DataConfig(train=str(text)), 300, tmp_path / "tokenizer.json").valid
    assert evaluated["valid_nats"] == pytest.approx(loop.held_out_nats(again, held_out, 64), rel=1e-3)


def test_tokens_without_a_part_in_common_are_refused(tiny_brain):
    tokenizer = SimpleNamespace(vocab_size=2, token_bytes=lambda index: (b"a", b"9")[index])
    with pytest.raises(UsageError, match=r"no two tokens have a part in common\.\nSet train.spelling=0"):
        Spelling(tiny_brain(), tokenizer, 4, fresh=True)


@pytest.mark.parametrize("sets", [["train.spelling=8"], ["train.spelling=8", "train.sampled=8", "train.quantize=int8"]])
def test_parts_are_of_a_sampled_vocabulary_that_nothing_rounds(sets):
    with pytest.raises(UsageError, match=r"train.spelling: got 8, expected 0 where train.sampled is 0"):
        apply_sets(presets.tiny(), sets)
