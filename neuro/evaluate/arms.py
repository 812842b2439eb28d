"""The arms of a memory's trial: same weights, same text, only what the memories hold differs.

REAL keeps both memories, OFF empties both after every commit, the arms between keep one. SHUFFLED, another stream's
memory, is made where there is another stream: `neuro/evaluate/repeat.py`, `neuro/evaluate/perplexity.py` (and FOREIGN, which
holds nothing of its own at any time).
"""

from __future__ import annotations

from collections.abc import Collection

from neuro.brain import Brain
from neuro.memory import contents
from neuro.state import BrainState

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
    "foreign": "memory of another part alone",
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
    for name in ARMS["real"]:
        if name not in memories:
            state = contents.emptied(state, name)
    return state


def without_memory(state: BrainState) -> BrainState:
    """The same state with both memories empty."""
    return keep_only(state, ())


def with_memories_of(state: BrainState, other: BrainState) -> BrainState:
    """The same activity with what both memories of another stream of this brain hold."""
    return contents.put(state, contents.held(other))
