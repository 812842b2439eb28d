"""What `neuro recall` says of the pointer is what the pointer did: its shares, its tokens, and where they were read."""

from __future__ import annotations

import pytest
import torch

from neuro import recall
from neuro.memory import contents
from neuro.session import Session
from neuro.transcript import Transcript

POINTS = ["hippocampus.pointer=true"]


def read(brain, tokens, times: int = 2) -> tuple[Session, int]:
    """A session that has read a text ``times`` over, and the token it reads next."""
    text = tokens(1, 2 * brain.config.plasticity_span)
    session = Session(brain, transcript=Transcript())
    for _ in range(times):
        session.feed(text)
    return session, int(text[0, 0])


def test_a_token_gets_what_its_slots_get(tiny_brain, tokens):
    brain = tiny_brain(POINTS, dtype=torch.float64).eval()
    session, token = read(brain, tokens)
    before = session.snapshot()
    share, found = recall.point(brain, session.state, token, most=3)
    for name, leaf in contents.held(before).items():
        assert torch.equal(leaf, contents.held(session.state)[name])
    with torch.no_grad():
        out = brain.scan(torch.tensor([[token]]), before)
    static = torch.log_softmax(brain.regions["readout"].ops.linear(out.aux.features, brain.embedding, None), -1)
    mixture = out.logits.double().softmax(-1)[0, 0]
    assert len(found) == 3 and 0 < share < 1
    assert [item.probability for item in found] == sorted((item.probability for item in found), reverse=True)
    memory = before.regions.hippocampus
    for item in found:
        alone = float(static[0, 0, item.token].detach().exp())
        assert float(mixture[item.token]) == pytest.approx((1 - share) * alone + item.probability, abs=1e-6)
        assert session.transcript.ids[item.origin] == item.token
        assert item.moments == int(((memory.ids[0] == item.token) & (memory.strengths[0] > 0)).sum()) > 0


def test_the_moment_named_is_the_one_that_gives_most(tiny_brain, tokens):
    """With sharp shares that is the moment whose key is nearest: what followed the same token in the same text."""
    brain = tiny_brain(POINTS, dtype=torch.float64).eval()
    with torch.no_grad():
        brain.regions["hippocampus"].pointer.log_scale.fill_(6.0)
    session, token = read(brain, tokens, times=3)
    share, found = recall.point(brain, session.state, token, most=1)
    state = session.state
    session.feed(torch.tensor([[token]]))
    (nearest,) = recall.explain(brain, session.state, most=1)
    memory = state.regions.hippocampus
    told = int(memory.ids[0][memory.origins[0] == nearest.origin][0])
    assert found[0].token == told and found[0].probability == pytest.approx(share, rel=0.05)
    assert found[0].origin == nearest.origin


def test_an_empty_memory_copies_nothing_and_a_brain_without_a_pointer_has_none(tiny_brain):
    brain = tiny_brain(POINTS).eval()
    assert recall.point(brain, brain.init_state(1), 5) == (0.0, [])
    for sets in ([], ["hippocampus.enabled=false"]):
        brain = tiny_brain(sets).eval()
        assert recall.point(brain, brain.init_state(1), 5) is None
