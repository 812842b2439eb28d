"""Perplexity: the published formula, by hand; pure, repeatable, and able to see a memory."""

from __future__ import annotations

import math

import pytest
import torch

from neuro import presets
from neuro.brain import Brain
from neuro.config import apply_sets
from neuro.errors import UsageError
from neuro.evaluate import arms, perplexity
from neuro.state import leaves
from neuro.tokenizer import Tokenizer

WIKI = " \n = First = \n \n The cat 's well @-@ known hat . \n \n = Second = \n \n A 1 @,@ 000 @.@ 5 m wall \n \n"


@pytest.fixture
def brain() -> Brain:
    torch.manual_seed(0)
    tokenizer = Tokenizer.train(["the cat sat on a wall\n"], 270)
    brain = Brain(apply_sets(presets.tiny().brain, [f"vocab_size={tokenizer.vocab_size}"])).eval()
    brain.tokenizer = tokenizer
    return brain


def test_word_perplexity_and_bits_per_byte_follow_from_nats_words_and_bytes(brain):
    raw = "the cat sat\non a wall\n\n"
    row = perplexity.evaluate(brain, raw)
    assert row.words == 3 + 3 + 3  # words, and one <eos> per line
    assert row.word_perplexity == pytest.approx(math.exp(row.nats / 9))
    assert row.bits_per_byte == pytest.approx(row.nats / math.log(2) / len(raw))
    assert row.vocabulary == "open"


def test_a_uniform_model_costs_ln_v_a_token(brain):
    with torch.no_grad():
        brain.embedding.zero_()
    row = perplexity.evaluate(brain, "the cat sat\n")
    assert row.nats_per_token == pytest.approx(math.log(brain.config.vocab_size), rel=1e-6)


def test_wikitext_counts_its_own_words_and_pays_for_the_flags(brain):
    with torch.no_grad():
        brain.embedding.zero_()
    row = perplexity.evaluate(brain, WIKI, wikitext=True)
    assert row.words == sum(len(line.split()) + 1 for line in WIKI.removesuffix("\n").split("\n"))
    flags = row.nats - row.nats_per_token * row.tokens
    assert flags == pytest.approx(-4 * math.log1p(-perplexity.FLAG_PROBABILITY), rel=1e-6)
    assert row.units == 2


def test_evaluation_changes_nothing_and_gives_the_same_bits_twice(brain):
    before = {name: tensor.clone() for name, tensor in brain.state_dict().items()}
    brain.train()
    first, second = (perplexity.evaluate(brain, "the cat sat on a wall\n" * 9) for _ in range(2))
    assert first == second
    assert brain.training
    assert all(torch.equal(before[name], tensor) for name, tensor in brain.state_dict().items())


def test_the_off_arm_reads_no_memory(brain):
    raw = "the cat sat on a wall and sat and sat\n" * 12
    real, off = (perplexity.evaluate(brain, raw, arm=arm) for arm in ("real", "off"))
    assert real.nats != off.nats
    state = arms.without_memory(brain.init_state(1))
    assert all(not leaf.any() for name, leaf in leaves(state) if "strengths" in name)


def test_words_are_scored_in_a_closed_vocabulary():
    torch.manual_seed(0)
    tokenizer = Tokenizer.train(["a b c\n", "<unk> a\n"], 10, kind="words")
    brain = Brain(apply_sets(presets.tiny().brain, [f"vocab_size={tokenizer.vocab_size}"])).eval()
    brain.tokenizer = tokenizer
    row = perplexity.evaluate(brain, "a b zebra\n", wikitext=True)
    assert (row.vocabulary, row.tokens, row.words) == ("closed", 4, 4)
    assert row.bits_per_byte is None, "<unk> does not say which word it was: the code is not lossless"


def test_one_unit_has_no_interval(brain):
    """A bootstrap over one block is that block."""
    line = "the cat sat\n"
    assert perplexity.evaluate(brain, line).word_perplexity_interval is None
    low, high = perplexity.evaluate(brain, line * perplexity.BLOCK_LINES + "a wall\n").word_perplexity_interval
    assert low < high


def test_evaluation_that_fails_leaves_the_mode_as_it_was(brain, monkeypatch):
    brain.train()
    monkeypatch.setattr(brain.tokenizer, "encode", lambda text: [10**6])
    with pytest.raises(UsageError):
        perplexity.evaluate(brain, "the cat\n")
    assert brain.training


def test_an_unknown_arm_and_an_empty_text_are_refused(brain):
    with pytest.raises(UsageError, match="expected one of real, episodic, procedural, off"):
        perplexity.evaluate(brain, "x\n", arm="on")
