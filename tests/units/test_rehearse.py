"""Training the hippocampus alone: what its streams hold, and that a replay reads what the brain would have read."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from neuro.brain import Brain
from neuro.errors import UsageError
from neuro.evaluate import templates
from neuro.tokenizer import Tokenizer
from neuro.train import forms, rehearse
from neuro.train.episodes import AGAIN, ANSWER, TEXT, Episode, Episodes

WORDS = "The keeper of the lamp in the harbour is called Victor and he was never seen again in summer or winter.\n" * 40


@pytest.fixture(scope="module")
def brain(tiny_brain) -> Brain:
    tokenizer = Tokenizer.train([WORDS], 420)
    brain = tiny_brain([f"vocab_size={tokenizer.vocab_size}", "procedural.enabled=false"]).eval()
    brain.tokenizer = tokenizer
    return brain


@pytest.fixture(scope="module")
def episodes(brain) -> Episodes:
    return Episodes(np.array(brain.tokenizer.encode(WORDS * 15)), brain.tokenizer, 6000, 0)


def test_what_is_trained_on_shares_nothing_with_what_is_measured_by():
    training = forms.TRAINING
    for chosen in templates.SETS.values():
        for name in ("wrongly", "changed", "chatter", "replies", "things", "places", "times"):
            assert not {*getattr(training, name)} & {*getattr(chosen, name)}, name
        for first, second in itertools.product(training.facts, chosen.facts):
            assert not {first.said, first.reworded, first.told} & {second.said, second.reworded, second.told}
            assert not {*first.values} & {*second.values}, (first.said, second.said)


def test_drawn_forms_differ_and_are_none_of_those_measured_by(episodes):
    known = {form for chosen in templates.SETS.values() for fact in chosen.facts for form in fact[:3]}
    facts = forms.drawn(np.random.default_rng(0), 60, ("a1", "b1", "c1", "d1", "e1", "f1", "g1"))
    assert len({fact.said for fact in facts}) == 60
    assert not known & {form for fact in facts for form in fact[:3]}
    values = {value for chosen in templates.SETS.values() for fact in chosen.facts for value in fact.values}
    assert episodes.words and not values & {*episodes.words}


def test_answers_are_what_was_stated_last_by_the_user(brain):
    """Of every question in the words of a statement: the statement with this answer was read before."""
    episodes = Episodes(np.array(brain.tokenizer.encode(WORDS * 15)), brain.tokenizer, 6000, 3)
    episode = episodes.draw()
    assert episode.tokens.shape == episode.kinds.shape == (6000,)
    assert {*np.unique(episode.kinds)} == {TEXT, ANSWER, AGAIN}
    starts = np.flatnonzero((episode.kinds[1:] == ANSWER) & (episode.kinds[:-1] != ANSWER)) + 1
    asked = 0
    for start in starts:
        stop = start + int(np.argmin(episode.kinds[start:] == ANSWER))
        before = brain.tokenizer.decode(episode.tokens[:start].tolist())
        answer = brain.tokenizer.decode(episode.tokens[start:stop].tolist())
        cue = before.rpartition("\n")[2]
        if stop > start and f"\n{cue} " in before:
            assert f"\n{cue}{answer}." in before
            asked += 1
    assert asked >= 5


def test_the_same_seed_draws_the_same_streams(brain, episodes):
    text = np.array(brain.tokenizer.encode(WORDS * 15))
    first, second, other = (Episodes(text, brain.tokenizer, 300, seed).draw() for seed in (1, 1, 2))
    assert np.array_equal(first.tokens, second.tokens) and not np.array_equal(first.tokens, other.tokens)


def test_a_text_shorter_than_a_stream_is_refused(brain):
    with pytest.raises(UsageError) as error:
        Episodes(np.zeros(300, np.int64), brain.tokenizer, 300, 0)
    assert error.value.what == "episodes: got a text of 300 tokens, expected more than a stream's 300."
    assert error.value.do == "Give a longer text, or a smaller length."


def plain(brain: Brain, length: int) -> Episode:
    return Episode(np.random.default_rng(0).integers(2, 290, length), np.zeros(length, np.int8))


def test_a_replay_is_as_surprised_as_the_brain(brain):
    """Trust is the one thing that a replay begins anew in each span, so its weight is none here."""
    trust = brain.regions["hippocampus"].memory.log_trust
    before = trust.detach().clone()
    span = brain.config.plasticity_span
    episode = plain(brain, 5 * span + 1)
    with torch.no_grad():
        trust.fill_(-60.0)
        state, nats = brain.init_state(1), []
        for part in torch.from_numpy(episode.tokens)[None].split(span, 1):
            out = brain.scan(part, state)
            nats.append(out.aux.surprise[0])
            state = brain.commit(out.state)[0]
        (thoughts,) = rehearse.think(brain, [episode])
        for number in (1, 4):
            asked = rehearse.replay_loss(brain, thoughts, [number], {TEXT: 1.0}, 0.0, np.random.default_rng(0))
            own = torch.cat(nats)[number * span + 1 : (number + 1) * span + 1]
            places = rehearse._sample(
                episode.kinds[number * span + 1 : (number + 1) * span + 1], np.random.default_rng(0)
            )
            assert asked.nats[TEXT] == pytest.approx(float(own[torch.from_numpy(places)].mean()), abs=0.01)
            assert float(asked.total) == pytest.approx(asked.nats[TEXT], rel=1e-5)
        trust.copy_(before)


def test_thinking_leaves_the_brain_as_it_is(brain):
    """Neither weights nor methods change, and a stream that is read afterwards is the same."""
    tokens = torch.arange(2, 12).unsqueeze(0)
    before = brain.scan(tokens, brain.init_state(1)).logits
    weights = {name: tensor.clone() for name, tensor in brain.state_dict().items()}
    rehearse.think(brain, [plain(brain, 40), plain(brain, 40)])
    assert "scan" not in vars(brain.regions["hippocampus"]) and "_missed" not in vars(brain)
    assert torch.equal(brain.scan(tokens, brain.init_state(1)).logits, before)
    assert all(torch.equal(weights[name], tensor) for name, tensor in brain.state_dict().items())


def test_only_the_hippocampus_learns_and_what_is_sought_is_found_better(tiny_brain, brain, episodes):
    learner = tiny_brain([f"vocab_size={brain.config.vocab_size}", "procedural.enabled=false"], seed=3).eval()
    learner.tokenizer = brain.tokenizer
    weights = {name: tensor.clone() for name, tensor in learner.state_dict().items()}
    (thoughts,) = rehearse.think(learner, [episodes.draw()])
    adam = torch.optim.Adam(rehearse.parameters(learner), lr=3e-3)
    found = []
    kinds = {TEXT: 0.3, ANSWER: 1.0, AGAIN: 0.3}
    for _ in range(12):
        random = np.random.default_rng(0)
        spans = rehearse.spans_to_ask(thoughts, learner.config.plasticity_span, 6, random)
        loss = rehearse.replay_loss(learner, thoughts, spans, kinds, 1.0, random)
        found.append((float(loss.total.detach()), loss.found[ANSWER]))
        adam.zero_grad()
        loss.total.backward()
        adam.step()
    assert found[-1][0] < found[0][0] and found[-1][1] > found[0][1]
    changed = {name for name, tensor in learner.state_dict().items() if not torch.equal(weights[name], tensor)}
    assert changed and all(name.startswith("regions.hippocampus.") for name in changed)
    assert {name.rpartition("hippocampus.")[2] for name in changed} >= {"key.weight", "place_cells.project.weight"}
