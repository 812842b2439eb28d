"""Perplexity: the published formula, by hand; pure, repeatable, and able to see a memory."""

from __future__ import annotations

import json
import math
import weakref

import numpy as np
import pytest
import torch

from neuro import presets
from neuro.brain import Brain
from neuro.config import apply_sets
from neuro.errors import UsageError
from neuro.evaluate import arms, perplexity
from neuro.evaluate.stream import Stream
from neuro.session import Session
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


def articles(lengths: list[int], seed: int = 0) -> str:
    """WikiText of articles with so many lines each."""
    random = np.random.default_rng(seed)
    words = "the cat sat on a wall and saw".split()
    lines = []
    for number, length in enumerate(lengths):
        lines += [" ", f" = {words[number % 8]} = ", " "]
        lines += [f" {' '.join(random.choice(words, 8))} . " for _ in range(length)]
    return "\n".join(lines) + "\n"


def test_the_suite_keeps_the_arms_and_adds_their_paired_differences(brain):
    raw = articles([3, 5, 2, 6, 4])
    record = perplexity.run(brain, raw, wikitext=True)
    rows = [perplexity.evaluate(brain, raw, True, arm).to_dict() for arm in arms.of(brain)]
    assert record["arms"] == rows
    words, nats = record["by_unit"]["words"], record["by_unit"]["nats"]
    assert [math.exp(sum(nats[row["arm"]]) / sum(words)) for row in rows] == pytest.approx(
        [row["word_perplexity"] for row in rows]
    )
    picks = np.random.default_rng(0).integers(0, 5, (1000, 5))  # one resampling for both arms
    drawn = np.array(words)[picks].sum(1)
    for arm in ("real", "episodic", "procedural"):
        change = record["changes"][arm]
        off = next(row for row in rows if row["arm"] == "off")["word_perplexity"]
        own = next(row for row in rows if row["arm"] == arm)["word_perplexity"]
        assert change["change"] == pytest.approx(own / off - 1)
        ratio = np.exp((np.array(nats[arm])[picks].sum(1) - np.array(nats["off"])[picks].sum(1)) / drawn)
        assert change["interval"] == pytest.approx(np.quantile(ratio - 1, [0.025, 0.975]))
    assert set(record["changes"]) == {"real", "episodic", "procedural"}


def test_shuffled_begins_each_article_with_the_memories_of_a_stream_in_the_other_half(brain):
    raw = articles([6, 4, 5, 7, 5, 6, 8])
    coded = perplexity.code(raw, brain, wikitext=True)
    record = perplexity.run(brain, raw, wikitext=True)
    found = record["shuffled"]
    sizes = [len(unit) for unit in coded.ids]
    count = found["units"] + 1
    assert 2 * sum(sizes[:count]) <= sum(sizes) < 2 * sum(sizes[: count + 1]), "the halves share no article"
    half = [token for unit in coded.ids[count:] for token in unit]
    own, other = Session(brain), Session(brain)
    bos = [brain.tokenizer.bos_id]
    own.feed(torch.tensor([bos + coded.ids[0]]))
    other.feed(torch.tensor([bos + half[: sizes[0]]]))
    nats, at = [], sizes[0]
    for number in range(1, count):
        own.commit()
        other.commit()
        filled = [int((s.state.regions.hippocampus.strengths > 0).sum()) for s in (own, other)]
        assert filled[0] == filled[1] > 0
        own.state = arms.with_memories_of(own.state, other.state)
        before, ids = own.state.logits.unsqueeze(1), torch.tensor([coded.ids[number]])
        said = torch.log_softmax(torch.cat([before, own.feed(ids, keep_logits=True)[:, :-1]], 1), -1)
        nats.append(-float(said[0].gather(1, ids[0].unsqueeze(1)).sum()) + coded.flag_nats[number])
        other.feed(torch.tensor([half[at : at + sizes[number]]]))
        at += sizes[number]
    words = sum(coded.words[1:count])
    assert found["words"] == words
    costs = found["word_perplexity"]
    assert costs["shuffled"] == pytest.approx(math.exp(sum(nats) / words), rel=1e-5)
    for arm in ("real", "off"):
        assert costs[arm] == pytest.approx(math.exp(sum(record["by_unit"]["nats"][arm][1:count]) / words))
    assert len(set(costs.values())) == 4
    change = found["changes_over_shuffled"]["real"]
    assert change["change"] == pytest.approx(costs["real"] / costs["shuffled"] - 1)
    assert change["interval"][0] <= change["change"] <= change["interval"][1]
    assert set(found["changes_over_off"]) == {"real", "shuffled", "foreign"}


def test_foreign_reads_nothing_that_it_has_stored_itself(brain):
    raw = articles([6, 4, 5, 7, 5, 6, 8])
    coded = perplexity.code(raw, brain, wikitext=True)
    found = perplexity.run(brain, raw, wikitext=True)["shuffled"]
    count, span = found["units"] + 1, brain.config.plasticity_span
    bos = [brain.tokenizer.bos_id]
    own, other = (bos + [i for unit in ids for i in unit] for ids in (coded.ids[:count], coded.ids[count:]))
    # What the other stream holds after each of its spans, made before the first stream reads a word.
    session, stores = Session(brain), []
    for at in range(0, len(own), span):
        session.feed(torch.tensor([other[at : at + span]]))
        session.commit()
        stores.append(session.state)
    reader, said = Session(brain), []
    for number, at in enumerate(range(0, len(own), span)):
        ids = torch.tensor([own[at : at + span]])
        logits = torch.cat([reader.state.logits.unsqueeze(1), reader.feed(ids, keep_logits=True)[:, :-1]], 1)
        said.append(-torch.log_softmax(logits, -1)[0].gather(1, ids[0].unsqueeze(1)).squeeze(1))
        reader.commit()
        reader.state = arms.with_memories_of(reader.state, stores[number])
    nats = torch.cat(said)[1:].double().numpy()  # nothing predicted the first
    first = len(coded.ids[0])
    words, flags = sum(coded.words[1:count]), sum(coded.flag_nats[1:count])
    assert found["word_perplexity"]["foreign"] == pytest.approx(
        math.exp((nats[first:].sum() + flags) / words), rel=1e-5
    )
    change = found["changes_over_foreign"]["real"]
    assert change["change"] == pytest.approx(found["word_perplexity"]["real"] / found["word_perplexity"]["foreign"] - 1)


def test_no_shuffled_score_depends_on_what_its_streams_read_later(brain):
    coded = perplexity.code(articles([6, 4, 5, 7, 5, 6, 8]), brain, wikitext=True)
    whole = perplexity._shuffled_nats(brain, coded, 3)
    for late in (2, 6):  # the last article that is scored, and the end of the other half
        ids = [list(unit) for unit in coded.ids]
        ids[late][-1] = ids[late][0]
        changed = perplexity._shuffled_nats(brain, perplexity.Coded(ids, coded.words, coded.flag_nats, 1), 3)
        assert np.array_equal(changed[:2], whole[:2])
        assert (changed[2] == whole[2]) == (late == 6)


def test_where_shuffled_cannot_be_it_says_so(brain):
    record = perplexity.run(brain, WIKI, wikitext=True)
    reason = "needs 3 articles in the first half of the text, has 0"
    assert (record["shuffled"], record["shuffled_left_out"]) == (None, reason)
    assert perplexity.table(record)[-1] == f"memory of another part: left out, {reason}"
    plain = perplexity.run(brain, "the cat\n")
    assert plain["shuffled_left_out"] == "needs 3 blocks of 50 lines in the first half of the text, has 0"
    assert plain["changes"]["real"]["interval"] is None
    bare = Brain(
        apply_sets(brain.config, ["hippocampus.enabled=false", "procedural.enabled=false"]), brain.backend
    ).eval()
    bare.tokenizer = brain.tokenizer
    record = perplexity.run(bare, articles([6, 4, 5, 7, 5, 6, 8]), wikitext=True)
    assert (record["changes"], record["shuffled_left_out"]) == ({}, "this brain has no memory")


def test_the_first_articles_alone_are_a_text_of_their_own(brain):
    raw = articles([3, 5, 2, 6, 4, 3])
    record = perplexity.run(brain, raw, wikitext=True, articles=2)
    assert record["arms"][0] == perplexity.evaluate(brain, raw, True, most_units=2).to_dict()
    assert len(record["by_unit"]["words"]) == 2


def test_a_script_without_spaces_has_bits_per_byte_and_no_word_perplexity(brain, tmp_path):
    raw = "天地玄黄宇宙洪荒日月盈昃" * 20
    record = perplexity.run(brain, raw)
    assert [row["word_perplexity"] for row in record["arms"]] == [None] * 4
    assert all(row["word_perplexity_interval"] is None and row["bits_per_byte"] > 1 for row in record["arms"])
    json.dumps(record, allow_nan=False)
    assert "nats a word, the text has hardly a space  " in perplexity.table(record)[1]
    assert perplexity.picture(record, tmp_path / "p.png").exists()


class Logits:
    """Stands for a tensor, whose own lifetime Python does not see."""


def test_a_long_text_keeps_no_logits(tiny_brain, tokens):
    """A span's last logits are a view of all of them: a list of those took 32 GB over WikiText-2's closed vocabulary."""
    alive: list[weakref.ref[Logits]] = []
    stream = Stream(tiny_brain().eval(), ("episodic",))
    feed = stream._session.feed

    def watched(*given):
        assert sum(ref() is not None for ref in alive) <= 1
        feed(*given)
        logits = Logits()
        alive.append(weakref.ref(logits))
        return [logits]

    stream._session.feed = watched
    stream.read(tokens(1, 80)[0].tolist())
    assert len(alive) == 5
