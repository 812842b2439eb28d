"""The firing rate below which spikes are cheaper than a dense layer, with the same memory on both sides.

One layer of n neurons with f inputs each, per inference. Dense: f n (e_w / B + e_x + e_mac): a batch of B shares its weights.
Spiking, s spikes a synapse: f n s (e_w + e_ac + e_Vr + e_Vw) + n T e_upd. They cost the same at

    s* = (e_w / B + e_x + e_mac - e_upd T / f) / (e_w + e_ac + e_Vr + e_Vw)

s is steps times rate. Dampfhoffer et al. (IEEE TETCI 7(3), 2023, doi:10.1109/TETCI.2022.3214509) find 0.15 to 1.38 over kinds
of hardware. differs: one neuron update per neuron and step is charged to the spiking side, none to the dense one.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from neuro.errors import UsageError
from sims.energy.price import drawn
from sims.energy.streams import DRAWS, Interval, interval
from sims.energy.technologies import technology


@dataclasses.dataclass(frozen=True)
class Costs:
    """Joules (or any one unit) of a layer's operations; numbers, or draws `[DRAWS]`."""

    weight: float | np.ndarray  # reading one
    input: float | np.ndarray  # reading one activation, dense side
    mac: float | np.ndarray
    accumulate: float | np.ndarray
    state_read: float | np.ndarray
    state_write: float | np.ndarray
    update: float | np.ndarray = 0.0  # of a neuron at a step, whether or not it spikes


@dataclasses.dataclass(frozen=True)
class BreakEven:
    """Spikes a synapse and inference at which both cost the same; 0 where updates alone cost more than the dense layer."""

    spikes_per_synapse: Interval
    rate: Interval  # the same, per step
    chance_of_none: float  # share of the draws in which no firing rate is low enough


def seneca(seed: int = 0) -> Costs:
    """FP16 on SENECA, operands from its data memory; inputs of a dense layer stay in registers (10.3389/fnins.2023.1187252)."""
    table = technology("seneca")
    load, store, add = (drawn(table.constant(kind), table, seed) for kind in ("load16", "store16", "fp16_op"))
    return Costs(
        weight=load,
        input=0.0,
        mac=add,
        accumulate=add,
        state_read=load,
        state_write=store,
        update=load + add + store,  # inferred: the membrane read, decayed and written
    )


def break_even(fan_out: int, fan_in: int, steps: int, costs: Costs, batch: int = 1) -> BreakEven:
    """s* of one layer.

    Args:
        fan_out: neurons of the layer.
        fan_in: inputs of each, over which an update is shared.
        steps: time steps of an inference.
        costs: of the operations.
        batch: inferences that share a weight on the dense side.

    Raises:
        UsageError: sizes, steps or a batch below 1, or a negative cost.
    """
    for name, value in (("fan_out", fan_out), ("fan_in", fan_in), ("steps", steps), ("batch", batch)):
        if value < 1:
            raise UsageError(f"break_even: got {name}={value}, expected at least 1.", "Give 1 or more.")
    for name, cost in dataclasses.asdict(costs).items():
        if np.any(np.asarray(cost) < 0):
            raise UsageError(f"break_even: got a negative cost of {name}, expected at least 0.", "Correct the cost.")
    synapses = float(fan_in) * fan_out
    dense = synapses * (costs.weight / batch + costs.input + costs.mac)
    updates = float(fan_out) * steps * costs.update
    spike = synapses * (costs.weight + costs.accumulate + costs.state_read + costs.state_write)
    if not np.all(np.asarray(spike) > 0):
        raise UsageError("break_even: got a synaptic operation without cost, expected above 0.", "Give its costs.")
    draws = np.broadcast_to((dense - updates) / spike, (DRAWS,))
    least = np.maximum(draws, 0.0)
    return BreakEven(interval(least), interval(least / steps), float(np.mean(draws <= 0)))
