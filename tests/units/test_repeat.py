"""Suite repeat: its streams by hand, its arms, its places; pure, and refusing what cannot be measured."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

import neuro
from neuro import presets, text
from neuro.brain import Brain
from neuro.config import apply_sets
from neuro.errors import UsageError
from neuro.evaluate import arms, perplexity, repeat
from neuro.session import Session
from neuro.tokenizer import Tokenizer

WORDS = "the cat sat on a wall and saw another cat walk by".split()
SHORT = {"length": 40, "gap": 30, "samples": 2, "warm_up": 20}


def words(count: int, seed: int = 0) -> str:
    """Lines of one to nine words in no order."""
    random = np.random.default_rng(seed)
    lines = [" ".join(random.choice(WORDS, random.integers(1, 10))) for _ in range(count)]
    return "\n".join(lines) + "\n"


def made(*sets: str) -> Brain:
    torch.manual_seed(0)
    tokenizer = Tokenizer.train([words(50)], 280)
    brain = Brain(apply_sets(presets.tiny().brain, [f"vocab_size={tokenizer.vocab_size}", *sets])).eval()
    brain.tokenizer = tokenizer
    with torch.no_grad():
        for name, p in brain.named_parameters():
            if name.endswith("memory.null.bias"):
                p.zero_()  # recall competes with nothing
            elif not p.any():
                p.normal_(0.0, 0.3)
    return brain


@pytest.fixture
def brain() -> Brain:
    return made()


RAW = words(150)


def by_hand(brain: Brain, place: repeat.Sample, keep: tuple[str, ...], state=None) -> list[float]:
    """Nats of each part of a stream, from the logits; from a state on: of the second showing alone."""
    session = Session(brain, state)
    start = [brain.tokenizer.bos_id, *place.warm_up]
    costs = []
    for part in [place.passage] if state else [start, place.passage, place.gap, place.passage]:
        costs.append(0.0)
        for tokens in torch.tensor([part]).split(brain.config.plasticity_span, 1):
            before = session.state.logits.unsqueeze(1)
            after = session.feed(tokens, keep_logits=True)
            said = torch.log_softmax(torch.cat([before, after[:, :-1]], 1), -1)
            costs[-1] -= float(said[0].gather(1, tokens[0].unsqueeze(1)).sum())
            session.state = arms.keep_only(session.state, keep)
        session.commit()
        session.state = arms.keep_only(session.state, keep)
    return costs


def test_the_arms_are_streams_made_by_hand(brain):
    protocol = repeat.Protocol(**SHORT)
    places = repeat.samples(brain, RAW, False, protocol)
    record = repeat.run(brain, RAW, **SHORT)
    assert [row["arm"] for row in record["arms"]] == ["real", "episodic", "procedural", "shuffled", "off"]
    total = sum(float(place.words.sum()) for place in places)
    for row in record["arms"]:
        if row["arm"] == "shuffled":
            continue
        showings = [by_hand(brain, place, arms.ARMS[row["arm"]]) for place in places]
        first, second = (sum(costs[part] for costs in showings) for part in (1, 3))
        assert row["first_word_perplexity"] == pytest.approx(math.exp(first / total), rel=1e-5)
        assert row["second_word_perplexity"] == pytest.approx(math.exp(second / total), rel=1e-5)
        assert row["second_token_perplexity"] == pytest.approx(math.exp(second / 80), rel=1e-5)
        assert row["ratio"] == pytest.approx(math.exp((second - first) / total), rel=1e-5)
        assert row["ratio_interval"][0] <= row["ratio"] <= row["ratio_interval"][1]
    costs = {row["arm"]: row["second_word_perplexity"] for row in record["arms"]}
    for row in record["arms"]:
        for other in ("off", "shuffled"):
            expected = None if row["arm"] == other else pytest.approx(costs[row["arm"]] / costs[other])
            assert row[f"over_{other}"] == expected
    assert len(set(costs.values())) == 5, "each arm keeps something else"


def test_shuffled_reads_again_with_the_memories_of_the_other_stream(brain):
    places = repeat.samples(brain, RAW, False, repeat.Protocol(**SHORT))
    everything = arms.ARMS["real"]
    held = []
    for place in places:
        session = Session(brain)
        for part in ([brain.tokenizer.bos_id, *place.warm_up], place.passage, place.gap):
            session.feed(torch.tensor([part]))
            session.commit()
        held.append(session.state)
    second = 0.0
    for place, own, other in zip(places, held, held[::-1], strict=True):
        memory, source = own.regions.hippocampus, other.regions.hippocampus
        assert (memory.strengths > 0).sum() == (source.strengths > 0).sum(), "as many slots filled"
        swapped = arms.with_memories_of(own, other)
        assert torch.equal(swapped.regions.hippocampus.keys, source.keys)
        assert torch.equal(swapped.regions.cortex.procedural.fast, other.regions.cortex.procedural.fast)
        second += by_hand(brain, place, everything, swapped)[0]
    row = next(row for row in repeat.run(brain, RAW, **SHORT)["arms"] if row["arm"] == "shuffled")
    total = sum(float(place.words.sum()) for place in places)
    assert row["second_word_perplexity"] == pytest.approx(math.exp(second / total), rel=1e-5)


@pytest.mark.parametrize(
    ("sets", "ratios"),
    [
        ([], {"both", "episodic", "procedural", "shuffled", "off"}),
        (["procedural.enabled=false"], {"episodic", "shuffled", "off"}),
        (["hippocampus.enabled=false"], {"procedural", "shuffled", "off"}),
        (["procedural.enabled=false", "hippocampus.enabled=false"], {"off"}),
    ],
)
def test_a_ratio_is_named_by_the_memories_it_keeps(sets, ratios):
    record = repeat.run(made(*sets), RAW, **SHORT)
    names = {key.removeprefix("ratio_") for key in record if key.startswith("ratio_") and not key.endswith("_interval")}
    assert names == ratios
    named = ratios & ({"both"} if "both" in ratios else {"episodic", "procedural"}) or {"off"}
    assert record[f"ratio_{named.pop()}"] == record["arms"][0]["ratio"]
    assert record["shuffled_left_out"] == (None if len(ratios) > 1 else "this brain has no memory")


def test_a_model_that_knows_nothing_gains_nothing(brain):
    with torch.no_grad():
        brain.embedding.zero_()
    record = repeat.run(brain, RAW, **SHORT)
    for row in record["arms"]:
        assert row["first_token_perplexity"] == pytest.approx(brain.config.vocab_size, rel=1e-5)
        assert row["ratio_interval"] == pytest.approx((1.0, 1.0))


def test_places_share_no_token_and_follow_from_the_seed(brain):
    ids = [token for line in RAW.removesuffix("\n").split("\n") for token in brain.tokenizer.encode(line + "\n")]
    starts = {}
    for seed in (0, 1):
        protocol = repeat.Protocol(**SHORT | {"samples": 4}, seed=seed)
        places = repeat.samples(brain, RAW, False, protocol)
        starts[seed] = [place.start for place in places]
        assert min(np.diff(starts[seed])) >= protocol.sample_tokens == 90
        assert starts[seed][-1] + protocol.sample_tokens <= len(ids)
        for place in places:
            used = [*place.passage, *place.gap, *place.warm_up]
            assert used == ids[place.start : place.start + protocol.sample_tokens]
            assert [len(part) for part in (place.warm_up, place.passage, place.gap)] == [20, 40, 30]
        again = repeat.samples(brain, RAW, False, protocol)
        assert [place.start for place in again] == starts[seed]
    assert starts[0] != starts[1]


def test_words_are_those_of_the_perplexity_suite(brain):
    """Over the whole text they are its words; of a line that is cut, the share of its tokens."""
    whole = sum(perplexity.code(RAW, brain, False).words)
    tokens = sum(map(len, perplexity.code(RAW, brain, False).ids))
    (place,) = repeat.samples(brain, RAW, False, repeat.Protocol(tokens - 2, 1, 1, warm_up=1))
    ends = [perplexity.words_of(line) / len(brain.tokenizer.encode(line + "\n")) for line in RAW.split("\n")]
    assert place.words.sum() == pytest.approx(whole - 2 * ends[-2])


def test_evaluation_changes_nothing_and_gives_the_same_bits_twice(brain):
    before = {name: tensor.clone() for name, tensor in brain.state_dict().items()}
    brain.train()
    first, second = (repeat.run(brain, RAW, **SHORT) for _ in range(2))
    assert first == second
    assert brain.training
    assert all(torch.equal(before[name], tensor) for name, tensor in brain.state_dict().items())
    assert repeat.run(brain, RAW, **SHORT, seed=1)["ratio_both"] != first["ratio_both"]


def test_evaluation_that_fails_leaves_the_mode_as_it_was(brain, monkeypatch):
    brain.train()
    monkeypatch.setattr(brain.tokenizer, "encode", lambda text: [10**6] * len(text))
    with pytest.raises(UsageError, match="got ids"):
        repeat.run(brain, RAW, **SHORT)
    assert brain.training


def test_one_sample_has_no_other_to_take_memories_from(brain):
    record = repeat.run(brain, RAW, **SHORT | {"samples": 1})
    assert "ratio_shuffled" not in record and record["shuffled_left_out"] == "needs another sample"
    told = repeat.table(record)
    assert "memory of another part: left out, needs another sample" in told
    assert told[-1] == "indicative: a claim needs 5 samples"


def test_five_samples_are_more_than_indicative(brain):
    record = repeat.run(brain, RAW, **SHORT | {"samples": 5, "length": 20})
    assert not record["indicative"] and not any("indicative" in line for line in repeat.table(record))


def test_a_text_that_is_too_short_says_what_it_has_and_what_it_needs(brain):
    tokens = len(brain.tokenizer.encode("the cat\n"))
    with pytest.raises(UsageError) as error:
        repeat.run(brain, "the cat\n")
    assert error.value.what == (
        f"repeat: got a text of {tokens} tokens, expected at least 60000 (5 samples of 2000 + 2000 + 8000)."
    )
    assert error.value.do == "Give a longer text, or fewer samples, a shorter passage or a shorter gap."


def test_a_script_without_spaces_is_told_per_token(brain, tmp_path):
    record = repeat.run(brain, "天地玄黄宇宙洪荒日月盈昃" * 60, **SHORT | {"length": 150})
    row = record["arms"][0]
    assert (row["first_word_perplexity"], row["second_word_perplexity"]) == (None, None)
    assert row["first_token_perplexity"] > 1 and row["token_ratio_interval"] is not None
    json.dumps(record, allow_nan=False)
    assert "not told" in repeat.table(record)[2]
    assert repeat.picture(record, tmp_path / "r.png").exists()


@pytest.mark.parametrize("name", ["length", "gap", "samples", "warm_up"])
def test_settings_below_one_are_refused(name):
    with pytest.raises(UsageError) as error:
        repeat.Protocol(**{name: 0})
    assert error.value.what == f"repeat: got {name} 0, expected at least 1."
    assert error.value.do == f"Leave it out for {getattr(repeat.Protocol, name)}."


def test_the_shipped_model_remembers_what_it_read(neuro_data):
    raw = text.read_text(neuro_data / "wikitext-2" / "valid.txt.gz")
    settings = {"length": 128, "gap": 64, "samples": 2, "warm_up": 192}
    record = repeat.run(neuro.load("small", "cpu"), raw, wikitext=True, **settings)
    assert record["arms"][0]["ratio"] < 0.4
    assert min(record["ratio_shuffled"], record["ratio_off"]) > 0.8
