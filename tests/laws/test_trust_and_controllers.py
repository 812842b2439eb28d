"""Law: the gate opens for a memory that has been right, and a controller writes its share, in its order and no more."""

from __future__ import annotations

import pytest
import torch

from neuro.config import CONTROLLERS
from neuro.evaluate import arms

SPAN = 16


def hippocampus(state):
    return state.regions.hippocampus


def run(brain, ids):
    """(state after the last commit, trust [spans, B] after each span)."""
    state, trusts = brain.init_state(ids.shape[0]), []
    with torch.no_grad():
        for part in ids.split(SPAN, 1):
            out = brain.scan(part, state)
            trusts.append(hippocampus(out.state).trust)
            state = brain.commit(out.state)[0]
    return state, torch.stack(trusts)


def test_trust_rises_where_a_text_repeats_and_not_where_it_is_new(tiny_brain, tokens):
    brain = tiny_brain(["hippocampus.slots=128"])
    with torch.no_grad():
        brain.regions["hippocampus"].memory.log_scale.fill_(4.0)
    line = tokens(4, SPAN)
    repeated, new = run(brain, line.repeat(1, 6))[1], run(brain, tokens(4, 6 * SPAN, seed=1))[1]
    assert repeated[-1].min() > 0.6 > 0.4 > new[-1].abs().max()
    assert not repeated[0].any()  # an empty memory said nothing, so it was neither right nor wrong


def test_trust_opens_the_gate(tiny_brain):
    memory = tiny_brain().regions["hippocampus"].memory
    evidence, hidden = torch.zeros(1, 5), torch.randn(1, 1, 32).expand(1, 5, 32)
    gates = memory.gate(evidence, hidden, torch.linspace(-1, 1, 5).unsqueeze(0))
    assert (gates.diff() > 0).all() and gates[0, -1] - gates[0, 0] > 0.5


@pytest.mark.parametrize("filled", [0, 5, 40])
def test_the_evidence_is_the_log_of_the_sum_of_all_scores(tiny_brain, filled):
    memory = tiny_brain(dtype=torch.float64).regions["hippocampus"].memory
    draw = torch.Generator().manual_seed(filled)
    query, keys = (torch.randn(2, n, 8, generator=draw, dtype=torch.float64) for n in (3, 40))
    strengths = (torch.arange(40) < filled).double().expand(2, 40).clone().requires_grad_()
    found = memory.read(query, keys, torch.randn(2, 40, 32, generator=draw, dtype=torch.float64), strengths).evidence
    expected = torch.logsumexp(memory.scores(query, keys, strengths)[0], -1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    gradients = [torch.autograd.grad(x.sum(), strengths)[0] for x in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)


def test_an_emptied_memory_lets_nothing_in(tiny_brain, tokens):
    brain = tiny_brain()
    state = arms.keep_only(run(brain, tokens(2, 64))[0], ("procedural",))
    out = brain.scan(tokens(2, 9), state)
    assert not out.events.recall_gate.any()
    said = hippocampus(out.state).last_content
    assert not said.any()


@pytest.mark.parametrize("controller", CONTROLLERS)
def test_a_controller_keeps_its_budget_and_no_token_is_written_twice(tiny_brain, tokens, controller):
    sets = [f"hippocampus.tag={controller == 'tagged'}".lower(), f"hippocampus.controller={controller}"]
    brain = tiny_brain([*sets, "hippocampus.writes_per_span=4", "hippocampus.slots=64"])
    state = brain.init_state(2)
    for seed in range(5):
        out = brain.scan(tokens(2, SPAN, seed=seed), state)
        state, events = brain.commit(out.state)
        assert (events.writes <= 4).all() and (events.writes >= 3).all()
    memory = hippocampus(state)
    for row in range(2):
        origins = memory.origins[row][memory.strengths[row] > 0].tolist()
        assert len(set(origins)) == len(origins) >= 15
        assert max(origins) < 5 * SPAN and 0 not in origins  # the first token of a stream follows nothing
        if controller == "periodic":
            assert all(origin % 4 == 0 for origin in origins)


def test_the_surprise_controller_writes_the_most_surprising(tiny_brain, tokens):
    brain = tiny_brain(["hippocampus.controller=surprise", "hippocampus.writes_per_span=5"])
    out = brain.scan(tokens(3, SPAN), brain.init_state(3))
    memory = hippocampus(brain.commit(out.state)[0])
    for row in range(3):
        best = set(torch.topk(out.state.buffer.surprise[row], 5).indices.tolist())
        assert set(memory.origins[row][memory.strengths[row] > 0].int().tolist()) == best


def test_what_was_stressed_is_written_first_where_prosody_has_a_gain(tiny_brain, tokens):
    ids, stressed = tokens(1, SPAN), [3, 8, 13]
    prosody = torch.zeros(1, SPAN, 3)
    prosody[0, stressed, :2] = 1.0
    written = {}
    for gain in (0.0, 8.0, -8.0):
        sets = [f"amygdala.prosody_gain={gain}", "hippocampus.controller=salient", "hippocampus.writes_per_span=3"]
        brain = tiny_brain(sets)
        out = brain.scan(ids, brain.init_state(1), prosody)
        memory = hippocampus(brain.commit(out.state)[0])
        written[gain] = set(memory.origins[0][memory.strengths[0] > 0].int().tolist())
        quiet = brain.scan(ids, brain.init_state(1)).state.buffer.salience
        moved = (out.state.buffer.salience - quiet)[0, stressed]
        assert (moved * gain > 0).all() if gain else moved.abs().max() < 0.2  # the affect that prosody makes, alone
    assert written[8.0] == set(stressed) != written[0.0] and not written[-8.0] & set(stressed)


def test_the_salient_controller_weighs_surprise_by_salience(tiny_brain, tokens):
    brain = tiny_brain(["hippocampus.controller=salient", "hippocampus.writes_per_span=5"])
    out = brain.scan(tokens(3, SPAN), brain.init_state(3))
    memory = hippocampus(brain.commit(out.state)[0])
    buffer = out.state.buffer
    for row in range(3):
        worth = buffer.salience[row] * (buffer.surprise[row] + 1e-3) * buffer.candidate[row]
        best = set(torch.topk(worth, 5).indices.tolist())
        assert set(memory.origins[row][memory.strengths[row] > 0].int().tolist()) == best


def test_the_tagged_controller_weighs_surprise_by_what_a_pair_is_foretold_to_be_worth(tiny_brain, tokens):
    sets = ["hippocampus.tag=true", "hippocampus.controller=tagged", "hippocampus.writes_per_span=5"]
    brain = tiny_brain(sets)
    tag = brain.regions["hippocampus"].tag
    ids, chosen = tokens(3, SPAN), []
    for scale in (0.0, 3.0):
        with torch.no_grad():
            tag.weight[4:] = scale * torch.randn(len(tag.weight) - 4, generator=torch.Generator().manual_seed(1))
        out = brain.scan(ids, brain.init_state(3))
        buffer, memory = out.state.buffer, hippocampus(brain.commit(out.state)[0])
        told = torch.log(buffer.surprise + 0.05)
        rows = torch.stack([buffer.surprise, told, buffer.novelty, buffer.salience], -1)
        foretold = (torch.cat([rows, buffer.values, buffer.keys], -1) @ tag.weight).clamp(-2.5, 2.5)
        worth = torch.exp(foretold / 2) * (buffer.surprise + 1e-3) * buffer.candidate
        for row in range(3):
            best = set(torch.topk(worth[row], 5).indices.tolist())
            assert set(memory.origins[row][memory.strengths[row] > 0].int().tolist()) == best
            chosen.append(best)
    assert chosen[:3] != chosen[3:]


def test_the_random_controller_has_no_rhythm(tiny_brain, tokens):
    brain = tiny_brain(["hippocampus.controller=random", "hippocampus.writes_per_span=4", "hippocampus.slots=2000"])
    state = brain.init_state(1)
    with torch.no_grad():
        for seed in range(100):
            state = brain.commit(brain.scan(tokens(1, SPAN, seed=seed), state).state)[0]
    memory = hippocampus(state)
    places = memory.origins[0][memory.strengths[0] > 0].int().remainder(SPAN)
    counts = torch.bincount(places, minlength=SPAN).float()
    assert counts.min() > 8 and counts.max() < 50  # 25 each on average
