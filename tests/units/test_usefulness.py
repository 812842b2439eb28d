"""What stored pairs were worth, against differences; and the tag that is fitted to it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from neuro.errors import UsageError
from neuro.memory import contents
from neuro.train import usefulness

SPAN, HORIZON = 16, 32
TAGGED = ["hippocampus.tag=true", "hippocampus.slots=64", "hippocampus.writes_per_span=16"]


def opened(brain):
    """A brain whose episodic memory speaks, for an untrained gate is shut, and without trust, which takes no gradient."""
    memory = brain.regions["hippocampus"].memory
    with torch.no_grad():
        memory.null.bias.fill_(0.0)
        memory.log_trust.fill_(-40.0)
    return brain


def test_worth_is_what_a_stronger_slot_saves_within_the_horizon(tiny_brain, tokens):
    brain, ids = opened(tiny_brain(TAGGED, dtype=torch.float64)), tokens(2, 2 * HORIZON)
    features, found = usefulness.worth(brain, ids, HORIZON)
    width = brain.config.d_model + brain.config.hippocampus.key_width
    assert features.shape == (2, HORIZON, 4 + width) and found.shape == (2, HORIZON)
    expected, step = torch.zeros(2 * HORIZON, dtype=torch.float64), 1e-5
    state = brain.init_state(1)
    with torch.no_grad():
        for start in range(0, 2 * HORIZON, SPAN):
            part, following = ids[:1, start : start + SPAN], ids[0, start + 1 : start + 1 + SPAN]
            held = state.regions.hippocampus
            for slot in range(held.strengths.shape[1]):
                origin = int(held.origins[0, slot])
                if held.strengths[0, slot] == 0 or start - origin > HORIZON:
                    continue
                costs = []
                for sign in (1.0, -1.0):
                    moved = held.strengths.clone()
                    moved[0, slot] *= torch.exp(torch.tensor(sign * step, dtype=torch.float64))
                    region = state.regions._replace(hippocampus=held._replace(strengths=moved))
                    logits = brain.scan(part, state._replace(regions=region)).logits[0, : len(following)]
                    costs.append(F.cross_entropy(logits, following, reduction="sum"))
                expected[origin] -= (costs[0] - costs[1]) / (2 * step)
            state = contents.emptied(brain.commit(brain.scan(part, state).state)[0], "procedural")
    assert not found[:, 0].any() and (found[0, 1:] != 0).all()
    torch.testing.assert_close(found[0], expected[:HORIZON], rtol=1e-5, atol=1e-9)


def test_the_tag_foretells_worth_and_nothing_else_of_the_brain_changes(tiny_brain, tokens):
    brain, ids = opened(tiny_brain(TAGGED)), tokens(6, 2 * HORIZON)
    before = {name: x.clone() for name, x in brain.state_dict().items()}
    learns = [p.requires_grad for p in brain.parameters()]
    assert usefulness.measure(brain, ids, HORIZON) == 6 * (HORIZON - 1)
    moved = {name for name, x in brain.state_dict().items() if not torch.equal(x, before[name])}
    assert moved == {"regions.hippocampus.tag.weight", "regions.hippocampus.tag.bias"}
    assert [p.requires_grad for p in brain.parameters()] == learns
    features, worth = usefulness.worth(brain, ids, HORIZON)
    tag = brain.regions["hippocampus"].tag
    said = (features[:, 1:] * tag.weight).sum(-1) + tag.bias
    assert abs(said.mean()) < 1e-4 and said.std().item() == pytest.approx(1.0, abs=1e-4)
    assert torch.corrcoef(torch.stack([said.flatten(), worth[:, 1:].flatten().clamp(-1, 1)]))[0, 1] > 0.1


@pytest.mark.parametrize(
    ("sets", "length", "message"),
    [
        (["hippocampus.tag=false", *TAGGED[1:]], 64, r"no tag\.\nSet hippocampus\.tag=true"),
        (["hippocampus.enabled=false"], 64, "no tag"),
        ([*TAGGED, "hippocampus.slots=63"], 64, "got 63 slots and 16 writes a span, expected at least 64 and 16"),
        ([*TAGGED, "hippocampus.writes_per_span=3"], 64, "got 64 slots and 3 writes"),
        (TAGGED, 63, "got 63 tokens a stream, expected at least 64"),
    ],
)
def test_what_cannot_be_judged_is_refused(tiny_brain, tokens, sets, length, message):
    with pytest.raises(UsageError, match=message):
        usefulness.measure(tiny_brain(sets), tokens(1, length), HORIZON)
