"""Operations of the commits: what it takes to hold the means, move the hormones and write each memory, by region.

``rows`` commits of one stream each, made in ``calls`` calls; what all rows of a call share is counted once a call. One
operation for each element, as in `sims.counting.rules`: a sum counts as additions, a division by a tensor as
transcendental, a sort of n as n log2 n comparisons. Held to the operators that torch runs (tests/laws/test_commit_counts.py).

Widths: D model, K key, V vocabulary, P span, M slots, C writes, H hormones, r rank of each projection.
"""

from __future__ import annotations

import math
from typing import cast

from neuro.brain import Brain
from neuro.config import HORMONES
from neuro.layers.feedforward import DenseFeedforward
from neuro.regions.cortex import Cortex, CortexLayer
from neuro.workload import Operation

# Of each pair, to tell which come first: `Hippocampus._priority`.
_PRIORITY = {"learned": 2, "surprise": 1, "salient": 2, "tagged": 4, "periodic": 1, "random": 7}


def operations(brain: Brain, rows: int, calls: int) -> list[Operation]:
    """What the commits did, each row with its region and the name of the part that did it."""
    found = _held(brain, rows)
    if "endocrine" in brain.regions:
        found += _endocrine(brain, rows)
    if brain.config.fast_rank:
        found += _procedural(brain, rows, calls) + _error_paths(brain, rows)
    if brain.config.fast_bias:
        vocabulary = brain.config.vocab_size
        found += _part(
            "readout",
            "fast bias",
            elementwise=(5 * vocabulary + 2) * rows,
            transcendental=(vocabulary + 1) * rows,
            compare=4 * vocabulary * rows,
        )
    if "hippocampus" in brain.regions:
        found += _episodic(brain, rows, calls)
    return found


def _part(region: str, name: str, **counts: int) -> list[Operation]:
    return [Operation(region, name, kind, "dense", count) for kind, count in counts.items() if count]


def _held(brain: Brain, rows: int) -> list[Operation]:
    """The means of affect (two numbers), surprise, novelty and spike rate over the tokens of the span."""
    span = brain.config.plasticity_span
    elementwise = 5 * span + 6 * (span - 1)  # weighted and added up; the tokens are counted
    return _part("bus", "held values", elementwise=elementwise * rows, transcendental=5 * rows, compare=5 * rows)


def _endocrine(brain: Brain, rows: int) -> list[Operation]:
    hormones, span = len(HORMONES), brain.config.plasticity_span
    return [
        *_part("endocrine", "level", mac=5 * hormones * rows),
        *_part(
            "endocrine",
            "self",
            elementwise=(3 * hormones + 2) * rows,
            transcendental=(3 * hormones + 1) * rows,
            compare=span * rows,
        ),
    ]


def _decay(region: str, rows: int) -> list[Operation]:
    """`DecayModulation`: how many tokens it is as if had gone by."""
    hormones = len(HORMONES)
    counts = {"mac": hormones * rows, "elementwise": (hormones + 2) * rows, "transcendental": rows}
    return _part(region, "decay_modulation", **counts)


def _procedural(brain: Brain, rows: int, calls: int) -> list[Operation]:
    """The gradient of every fast weight, its step and its decay, each projection shortened twice."""
    config = brain.config
    span, width, rank, hormones = config.plasticity_span, config.d_model, config.fast_rank, len(HORMONES)
    projections = config.fast_projections
    weights = projections * rank * width
    mac = span * weights
    # Rate and modulation 2, decay and step 2, and 2 for each time that all are shortened, with the sum of their squares.
    elementwise = 8 * weights + 2 * (weights - projections) + 2 * projections + hormones + 2
    lives = projections if config.procedural.outward_half_life_tokens else 1  # what is kept of each, or of all
    transcendental, compare = 2 * projections + 2 * lives + 1, 4 * projections
    once = {"elementwise": projections * width + lives, "transcendental": projections * width + 1}  # rates, half-lives
    if config.procedural.natural:
        mac += len(config.errors_alike) * span * width * width
    if config.procedural.rule == "delta":
        pairs, keys = projections * span * span, projections * span
        # Keys against keys, and each token's update against those before it.
        mac += pairs * rank + projections * span * (span - 1) // 2 * width
        elementwise += 2 * keys * rank + keys * (rank - 1) + pairs + projections * (span - 1) * width + 2 * weights
        elementwise += span * width * (projections if config.error_paths else 1)
        transcendental, compare = transcendental + keys, compare + keys + 1
        once["transcendental"] += 2 * projections  # beta and momentum
    found = _part("cortex", "procedural.modulation", mac=hormones * rows)
    if config.modulates_decay:
        found += _decay("cortex", rows)
    return found + _part(
        "cortex",
        "procedural",
        mac=mac * rows,
        elementwise=elementwise * rows + once["elementwise"] * calls,
        transcendental=transcendental * rows + once["transcendental"] * calls,
        compare=compare * rows,
    )


def _error_paths(brain: Brain, rows: int) -> list[Operation]:
    """Errors handed back through each dense feed-forward and its norm, from every place of the span."""
    if not brain.config.error_paths:
        return []
    found, width, places = [], brain.config.d_model, brain.config.plasticity_span * rows
    for index, layer in enumerate(cast(Cortex, brain.regions["cortex"]).layers):
        part = cast(CortexLayer, layer).feedforward
        if isinstance(part, DenseFeedforward):
            hidden = part.down.in_features
            counts = {
                "mac": 2 * part.up.weight.numel() + part.down.weight.numel(),
                "elementwise": 8 * hidden + 14 * width + 2,
                "transcendental": hidden + 2,
            }
            each = {kind: count * places for kind, count in counts.items()}
            found += _part("cortex", f"layers.{index}.feedforward.back", **each)
    return found


def _episodic(brain: Brain, rows: int, calls: int) -> list[Operation]:
    """Which pairs come first, the decay of every slot, and which slots are the weakest; with rebinding which hold a key."""
    config, h = brain.config, brain.config.hippocampus
    span, slots, writes = config.plasticity_span, h.slots, h.writes_per_span
    # Origins, strengths and candidates of the pairs, then their order; the slots' decay and order; who is written.
    elementwise = (3 + _PRIORITY[h.controller]) * span + 2 + 2 * slots + 2 + writes + 2 * (writes - 1)
    compare = span + 1 + _sorted(span) + _sorted(slots) + 2 * writes
    if h.controller == "periodic":
        compare += span
    mac, transcendental = span * span, 1
    if h.controller == "tagged":
        elementwise += span * 2 * (4 + config.d_model + h.key_width)  # weighted, added up, and the bias
        transcendental += 2 * span
        compare += 2 * span
    if h.rebind:
        mac += writes * (slots + writes) * h.key_width
        elementwise += 6 * writes + 5 * writes**2 + writes * slots + writes - 1
        # Filled, closest, the same; of equal keys the newest; which slots are claimed, and which then are free.
        compare += slots + writes * (slots - 1) + 2 * writes + 3 * writes**2 + writes * slots
        compare += writes * (writes - 1) + (writes - 1) * slots
    found = _decay("hippocampus", rows) if config.modulates_decay else []
    # Six sums that decay, what enters them and what is usual; two means, a deviation; where one is above.
    if h.segments:
        elementwise, compare, transcendental = elementwise + 31 * span, compare + 5 * span, transcendental + 4 * span
    before = span * span * calls  # which places lie before which
    return found + _part(
        "hippocampus",
        "memory",
        mac=mac * rows,
        elementwise=elementwise * rows,
        transcendental=transcendental * rows,
        compare=compare * rows + before,
    )


def _sorted(count: int) -> int:
    return count * math.ceil(math.log2(count))
