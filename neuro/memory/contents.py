"""What the memories of a stream hold, apart from its activity: to keep, empty, swap, save and load.

episodic: keys, values, strengths, origins of the slots (with a pointer ids, with phrases those, with segments begins), and the
          position that origins are counted by
procedural: fast weights, with the delta rule what the last commit wrote, and the fast bias where there is one
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from neuro.state import BrainState, FastBiasState, HippocampusState, ProceduralState, ReadoutState

EPISODIC = ("keys", "values", "strengths", "origins", "position")
OPTIONAL = ("ids", "phrases", "begins")  # of the episodic memory, where the brain has them
SLOTTED = ("keys", "values", "strengths", "origins", *OPTIONAL)  # what has a row for every slot
PROCEDURAL = ("fast", "last_step")
_EMPTY = {"episodic": ("strengths",), "procedural": (*PROCEDURAL, "bias")}  # what is zero in an empty memory


def held(state: BrainState) -> dict[str, Tensor]:
    """By name, the tensors of the memories that this brain has; none of them is copied."""
    tensors: dict[str, Tensor] = {}
    if isinstance(state.regions.hippocampus, HippocampusState):
        tensors |= {name: getattr(state.regions.hippocampus, name) for name in EPISODIC}
        optional = {name: getattr(state.regions.hippocampus, name) for name in OPTIONAL}
        tensors |= {name: tensor for name, tensor in optional.items() if isinstance(tensor, Tensor)}
    if isinstance(state.regions.cortex.procedural, ProceduralState):
        found = {name: getattr(state.regions.cortex.procedural, name) for name in PROCEDURAL}
        tensors |= {name: tensor for name, tensor in found.items() if isinstance(tensor, Tensor)}
    if isinstance(state.regions.readout, ReadoutState) and isinstance(state.regions.readout.bias, FastBiasState):
        tensors["bias"] = state.regions.readout.bias.bias
    return tensors


def put(state: BrainState, tensors: Mapping[str, Tensor]) -> BrainState:
    """The same activity with these tensors, named as in `held`, in its memories."""
    regions = state.regions
    episodic: dict[str, Any] = {name: tensors[name] for name in (*EPISODIC, *OPTIONAL) if name in tensors}
    if episodic and isinstance(regions.hippocampus, HippocampusState):
        regions = regions._replace(hippocampus=regions.hippocampus._replace(**episodic))
    procedural = {name: tensors[name] for name in PROCEDURAL if name in tensors}
    if procedural and isinstance(regions.cortex.procedural, ProceduralState):
        after = regions.cortex.procedural._replace(**procedural)
        regions = regions._replace(cortex=regions.cortex._replace(procedural=after))
    readout = regions.readout
    if "bias" in tensors and isinstance(readout, ReadoutState) and isinstance(readout.bias, FastBiasState):
        regions = regions._replace(readout=readout._replace(bias=readout.bias._replace(bias=tensors["bias"])))
    return state._replace(regions=regions)


def emptied(state: BrainState, memory: str, rows: Tensor | None = None) -> BrainState:
    """The state with the "episodic" or "procedural" memory empty, or only those of the rows where ``rows`` [B] is true."""

    def empty(tensor: Tensor) -> Tensor:
        if rows is None:
            return torch.zeros_like(tensor)
        keep = (~rows).to(tensor.dtype)
        return tensor * keep.reshape(-1, *[1] * (tensor.dim() - 1))

    tensors = held(state)
    return put(state, {name: empty(tensors[name]) for name in _EMPTY[memory] if name in tensors})
