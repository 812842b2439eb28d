"""Bytes that a brain moves when nothing is cached between calls, by region and store: of steps, and of commits.

A call of many tokens reads the weights once and carries each row's state in and out once. A part is read where an operator
takes it and written where it comes out anew: what only commits change (fast weights, the fast bias, hormones, positions) is
read by steps and written by commits alone. The span buffer goes as one: all of it in and out at every call and commit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, cast

from torch import Tensor

from neuro.brain import Brain
from neuro.bus import CHANNELS
from neuro.layers.feedforward import DenseFeedforward
from neuro.memory import contents, phrases
from neuro.regions.base import Region
from neuro.regions.cortex import Cortex, CortexLayer
from neuro.state import leaves
from neuro.workload import Traffic

if TYPE_CHECKING:
    from neuro.accounting import Counted

FLOAT_BYTES = 4


class _Moves(NamedTuple):
    """How often a part of the state is moved: at every call of a row, and at every commit of one."""

    read: int
    written: int
    commit_read: int
    commit_written: int


_CARRIED = _Moves(1, 1, 0, 0)
_LEARNED = _Moves(1, 0, 1, 1)
_COMMITS = _Moves(0, 0, 1, 1)
_BOTH = _Moves(1, 1, 1, 1)
# By the path below `BrainState`; what is not here is carried from call to call and no commit's.
_MOVES = {
    "regions.endocrine.modulators": _LEARNED,
    "regions.cortex.procedural.fast": _LEARNED,
    "regions.cortex.procedural.last_step": _COMMITS,
    "regions.hippocampus.position": _COMMITS,
    "regions.hippocampus.segment.fast": _COMMITS,
    "regions.hippocampus.segment.slow": _COMMITS,
    "regions.hippocampus.segment.above": _COMMITS,
    "regions.readout.bias.bias": _LEARNED,
    "regions.readout.bias.said": _BOTH,
    "regions.readout.bias.expected": _BOTH,
}
_NAMES = {"regions.cortex.procedural.fast": "fast weights", "regions.cortex.procedural.last_step": "fast weights"}
_SLOTS = tuple(f"regions.hippocampus.{name}" for name in contents.SLOTTED)
_BUS = {"buffer": ("span buffer", _BOTH), "held": ("held values", _COMMITS), "logits": ("carried logits", _CARRIED)}


def traffic(brain: Brain, counted: Counted) -> tuple[Traffic, ...]:
    """Weights, state, memory slots and channels."""
    return (*_weights(brain, counted), *_state(brain, counted), *_slots(brain, counted), *_channels(brain, counted))


def _weights(brain: Brain, counted: Counted) -> list[Traffic]:
    steps: dict[str, int] = {}
    commits: dict[str, int] = {}
    for name, parameter in brain.named_parameters():
        region = name.split(".")[1] if name.startswith("regions.") else name
        if ".tag." in name and brain.config.hippocampus.controller != "tagged":
            continue  # nobody asks
        if region == "endocrine" or any(part in name for part in (".procedural.", ".decay_modulation.", ".tag.")):
            commits[region] = commits.get(region, 0) + parameter.numel()
        else:
            steps[region] = steps.get(region, 0) + parameter.numel()
    if brain.config.error_paths:
        commits["cortex"] += sum(parameter.numel() for parameter in _handing_back(brain))
    rows = [(name, "weights", FLOAT_BYTES * count * counted.calls) for name, count in steps.items()]
    rows += [
        (name, "weights of commits", FLOAT_BYTES * count * counted.commit_calls) for name, count in commits.items()
    ]
    return [Traffic(region, name, "weights", size, 0) for region, name, size in rows if size]


def _handing_back(brain: Brain) -> Iterator[Tensor]:
    """What errors pass on their way back: both matrices of each dense feed-forward, and its norm."""
    for layer in cast(list[CortexLayer], list(cast(Cortex, brain.regions["cortex"]).layers)):
        if isinstance(layer.feedforward, DenseFeedforward):
            yield from (layer.feedforward_norm.weight, layer.feedforward.up.weight, layer.feedforward.down.weight)


def _state(brain: Brain, counted: Counted) -> list[Traffic]:
    moved: dict[tuple[str, str, str], tuple[int, int]] = {}
    for path, leaf in leaves(brain.init_state(1)):
        top, *below = path.split(".")
        if path in ("started", "clock") or path in _SLOTS:
            continue
        if top in _BUS:
            region, store, (name, moves) = "bus", "state", _BUS[top]
        else:
            region, moves = below[0], _MOVES.get(path, _CARRIED)
            store = "kv" if region == "cortex" and path.endswith((".keys", ".values")) else "state"
            name = "fast bias" if path.startswith("regions.readout.bias.") else _NAMES.get(path, store)
        size = leaf.numel() * FLOAT_BYTES
        read, written = moved.get((region, name, store), (0, 0))
        moved[region, name, store] = (
            read + size * (moves.read * counted.row_calls + moves.commit_read * counted.commits),
            written + size * (moves.written * counted.row_calls + moves.commit_written * counted.commits),
        )
    return [Traffic(*key, read, written) for key, (read, written) in moved.items() if read or written]


def _slots(brain: Brain, counted: Counted) -> list[Traffic]:
    """A call reads every slot; a commit lets every strength decay and writes whole slots, and where they came from."""
    if "hippocampus" not in brain.regions:
        return []
    h, width = brain.config.hippocampus, brain.config.d_model
    # Contiguity asks which slot is of the token after which.
    led = phrases.WIDTH if h.phrase else 0
    one = h.key_width + led + width + 1 + h.pointer + bool(h.contiguity) + h.segments
    at_commit = h.slots * (1 + (h.key_width if h.rebind else 0))
    read = h.slots * one * counted.row_calls + at_commit * counted.commits
    written = h.slots * counted.commits + (h.key_width + led + width + 2 + h.pointer + h.segments) * counted.writes
    return [Traffic("hippocampus", "episodic slots", "memory", read * FLOAT_BYTES, written * FLOAT_BYTES)]


def _channels(brain: Brain, counted: Counted) -> list[Traffic]:
    """What regions write for one another inside a step, read once by each that declared it."""
    c = brain.config
    widths = {
        "D": c.d_model,
        "2": 2,
        "L": len(c.cortex.layers),
        "S": len(cast(Cortex, brain.regions["cortex"]).emitters),
        "K": c.hippocampus.key_width,
        "W": phrases.WIDTH,
        "V": c.vocab_size,
    }
    rows = []
    regions = [cast(Region, region) for region in brain.regions.values()]
    for region in regions:
        for name in region.writes:
            readers = sum(name in other.reads for other in regions)
            axes = CHANNELS[name].axes[1:-1].split(",")[2:]
            size = math.prod(widths[axis] for axis in axes) * FLOAT_BYTES * counted.tokens if readers else 0
            if size:
                rows.append(Traffic("bus", name, "bus", readers * size, size))
    return rows
