"""Ports: the state's field paths as names of graph inputs and outputs, and what a fresh stream holds there.

A graph takes ``state.<path>`` and gives back ``next.<path>`` where it changed it. The names differ because inside one
ONNX graph a name stands for one value; the manifest maps each to the other.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import Tensor

from neuro.brain import Brain
from neuro.memory import contents
from neuro.state import BrainState, leaves

INTO, OUT = "state.", "next."
BATCH, LENGTH = "batch", "length"  # the free axes, by name
# Free axes of the ports that are no state, by name and rank: a prefill's have a length.
TOKEN_AXES = {
    (name, rank): (BATCH, LENGTH) for name, rank in (("tokens", 2), ("prosody", 3), ("logits", 3), ("spikes", 3))
}


@dataclasses.dataclass(frozen=True)
class Port:
    """One tensor of the carried state.

    ``shape``: sizes, with `BATCH` for the dynamic axis. ``initial``: what a fresh stream holds, either one number for the
    whole tensor or nested lists that broadcast to one row of it.
    """

    name: str
    dtype: str
    shape: tuple[str | int, ...]
    initial: Any


def state_ports(brain: Brain) -> list[Port]:
    """Every leaf of the state in field order; the first axis is the batch, except for the scalar clock."""
    ports = []
    for path, leaf in leaves(brain.init_state(1)):
        row = leaf[0] if leaf.dim() else leaf
        first = row.flatten()[0].item() if row.numel() else 0.0
        initial = first if bool((row == first).all()) else row.tolist()
        shape = (BATCH, *leaf.shape[1:]) if leaf.dim() else ()
        ports.append(Port(INTO + path, str(leaf.dtype).removeprefix("torch."), shape, initial))
    return ports


def memory_ports(brain: Brain) -> list[str]:
    """Those of them that hold what was learned: keep these and start the others afresh, and a new document begins."""
    state = brain.init_state(1)
    held = {id(tensor) for tensor in contents.held(state).values()}
    return [INTO + path for path, leaf in leaves(state) if id(leaf) in held]


def changed(before: BrainState, after: BrainState) -> list[str]:
    """Paths whose tensor is another object afterwards: the only ones a graph needs to give back."""
    pairs = zip(leaves(before), leaves(after), strict=True)
    return [path for (path, old), (_, new) in pairs if new is not old]


def pick(state: BrainState, paths: list[str]) -> list[Tensor]:
    """The tensors at ``paths``, in that order."""
    found = dict(leaves(state))
    return [found[path] for path in paths]
