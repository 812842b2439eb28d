"""What memories hold: kept, emptied and swapped without touching activity."""

from __future__ import annotations

import torch

from neuro.memory import contents


def lived(tiny_brain, tokens, drive, seed=0, sets=()):
    brain = tiny_brain(sets)
    return brain, drive(brain, tokens(3, 40, seed=seed)).state


def test_emptying_rows_leaves_the_others(tiny_brain, tokens, drive):
    _, state = lived(tiny_brain, tokens, drive)
    rows = torch.tensor([True, False, True])
    episodic, procedural = contents.emptied(state, "episodic", rows), contents.emptied(state, "procedural", rows)
    strengths = episodic.regions.hippocampus.strengths
    assert not strengths[rows].any() and torch.equal(strengths[1], state.regions.hippocampus.strengths[1])
    assert torch.equal(episodic.regions.cortex.procedural.fast, state.regions.cortex.procedural.fast)
    fast = procedural.regions.cortex.procedural.fast
    assert not fast[rows].any() and torch.equal(fast[1], state.regions.cortex.procedural.fast[1])
    assert torch.equal(procedural.regions.hippocampus.strengths, state.regions.hippocampus.strengths)


def test_a_brain_without_memories_holds_nothing(tiny_brain, tokens, drive):
    _, state = lived(tiny_brain, tokens, drive, sets=["hippocampus.enabled=false", "procedural.enabled=false"])
    assert contents.held(state) == {}
    assert contents.emptied(state, "episodic") == state and contents.put(state, {}) == state
