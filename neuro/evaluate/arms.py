"""The arms of a memory's trial: same weights, same text, only what the memories hold differs.

REAL keeps both memories, OFF empties both after every commit, the arms between keep one. SHUFFLED, another stream's
memory, is made where there is another stream: `neuro/evaluate/repeat.py`, `neuro/evaluate/perplexity.py`.
"""

from __future__ import annotations

from collections.abc import Collection

import torch

from neuro.brain import Brain
from neuro.state import BrainState, HippocampusState, ProceduralState

ARMS: dict[str, tuple[str, ...]] = {
    "real": ("episodic", "procedural"),
    "episodic": ("episodic",),
    "procedural": ("procedural",),
    "off": (),
}
LABELS = {
    "real": "memory on",
    "episodic": "episodic memory only",
    "procedural": "procedural memory only",
    "shuffled": "memory of another part",
    "off": "memory off",
}


def memories(brain: Brain) -> list[str]:
    """The memories this brain has."""
    has = {"episodic": brain.config.hippocampus.enabled, "procedural": brain.config.fast_rank > 0}
    return [name for name, enabled in has.items() if enabled]


def of(brain: Brain) -> list[str]:
    """The arms that differ for this brain, REAL first and OFF last."""
    on = memories(brain)
    return list(ARMS) if len(on) == 2 else ["real", "off"] if on else ["real"]


def keep_only(state: BrainState, memories: Collection[str]) -> BrainState:
    """The same state with every memory emptied but those named ("episodic", "procedural")."""
    regions = state.regions
    if "episodic" not in memories and isinstance(regions.hippocampus, HippocampusState):
        empty = torch.zeros_like(regions.hippocampus.strengths)
        regions = regions._replace(hippocampus=regions.hippocampus._replace(strengths=empty))
    if "procedural" not in memories and isinstance(regions.cortex.procedural, ProceduralState):
        fast = torch.zeros_like(regions.cortex.procedural.fast)
        procedural = regions.cortex.procedural._replace(fast=fast)
        regions = regions._replace(cortex=regions.cortex._replace(procedural=procedural))
    return state._replace(regions=regions)


def without_memory(state: BrainState) -> BrainState:
    """The same state with both memories empty."""
    return keep_only(state, ())


def with_memories_of(state: BrainState, other: BrainState) -> BrainState:
    """The same activity with what both memories of another stream of this brain hold."""
    regions, source = state.regions, other.regions
    memory, procedural = regions.hippocampus, regions.cortex.procedural
    if isinstance(memory, HippocampusState) and isinstance(source.hippocampus, HippocampusState):
        held = {name: getattr(source.hippocampus, name) for name in ("keys", "values", "strengths")}
        regions = regions._replace(hippocampus=memory._replace(**held))
    if isinstance(procedural, ProceduralState) and isinstance(source.cortex.procedural, ProceduralState):
        procedural = procedural._replace(fast=source.cortex.procedural.fast)
        regions = regions._replace(cortex=regions.cortex._replace(procedural=procedural))
    return state._replace(regions=regions)
