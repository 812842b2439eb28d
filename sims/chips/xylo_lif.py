"""The integer network of Xylo, bit by bit: input events, recurrent hidden neurons with several spikes a step, output neurons.

    i = i + 2^a W x_t, then + 2^b R s_{t-1}        one source after the other, held within 16 bits after each
    i = decay(i, d_syn)                            decay(a, d) = a - (a >> d), by 1 where a > 0 and a >> d is 0
    v = v + ((i - (v - decay(v, d_mem))) + bias)   held within 16 bits after each sum
    s_t = v // threshold within 0 to 31,  v = v - s_t threshold
    output: the same with s_{t-1} in place of x_t, no recurrence, and at most one spike a step

An input brings at most 15 events a step. A shift of 0 empties the synapse before the membrane sees it: a synapse that hands
its input on needs 1 at least.

The rule was found by probing the outputs of SynSense's simulator (xylosim 0.1.3, v2 of the core), whose spikes and states it
reproduces, saturation and bias with them (tests/units/test_chip_xylo.py); that the simulator equals the silicon is the
maker's word. Second synapse and aliases are not modelled.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from neuro.errors import UsageError

LOW, HIGH = -(1 << 15), (1 << 15) - 1
MOST_EVENTS, MOST_SPIKES = 15, 31


@dataclasses.dataclass(frozen=True)
class XyloNetwork:
    """I inputs, H hidden and O output neurons; integers."""

    w_in: np.ndarray  # [I,H] -128 to 127
    w_rec: np.ndarray  # [H,H] from a hidden neuron (first axis) to another
    w_out: np.ndarray  # [H,O]
    threshold: np.ndarray  # [H] from 1
    threshold_out: np.ndarray  # [O]
    dash_syn: np.ndarray  # [H] bit shifts, 0 to 15
    dash_mem: np.ndarray  # [H]
    dash_syn_out: np.ndarray  # [O]
    dash_mem_out: np.ndarray  # [O]
    bias: np.ndarray  # [H] 16 bits
    bias_out: np.ndarray  # [O]
    shifts: tuple[int, int, int] = (0, 0, 0)  # a, b and the output's: weights are shifted left

    def __post_init__(self) -> None:
        inputs, hidden, outputs = self.w_in.shape[0], self.w_rec.shape[0], self.w_out.shape[-1]
        shapes: dict[str, tuple[int, ...]] = {
            "w_in": (inputs, hidden),
            "w_rec": (hidden, hidden),
            "w_out": (hidden, outputs),
        }
        ends = {"w_in": (-128, 127), "w_rec": (-128, 127), "w_out": (-128, 127)}
        for name, low, high in (
            ("threshold", 1, HIGH),
            ("dash_syn", 0, 15),
            ("dash_mem", 0, 15),
            ("bias", LOW, HIGH),
        ):
            shapes |= {name: (hidden,), f"{name}_out": (outputs,)}
            ends |= {name: (low, high), f"{name}_out": (low, high)}
        for name, shape in shapes.items():
            array, (low, high) = getattr(self, name), ends[name]
            if array.shape != shape or array.dtype.kind not in "iu":
                got = f"xylo {name}: got {array.dtype} {list(array.shape)}, expected integers {list(shape)}."
                raise UsageError(got, "Quantize it to the chip's bits.")
            if array.size and not low <= int(array.min()) <= int(array.max()) <= high:
                got = f"xylo {name}: got {int(array.min())} to {int(array.max())}, expected {low} to {high}."
                raise UsageError(got, "Quantize it to the chip's bits.")
        if len(self.shifts) != 3 or not all(0 <= shift <= 15 for shift in self.shifts):
            raise UsageError(f"xylo shifts: got {self.shifts}, expected three of 0 to 15.", "Scale the weights.")


class XyloRun(NamedTuple):
    """What a network did."""

    hidden: np.ndarray  # [T,B,H] spikes, 0 to 31
    output: np.ndarray  # [T,B,O] spikes, 0 or 1
    state: tuple[
        np.ndarray, np.ndarray, np.ndarray, np.ndarray
    ]  # i and v of hidden, i and v of output, after the last step
    held: int  # updates of currents and membranes that the ends of 16 bits cut
    dropped: int  # input events above 15 a step


def simulate(network: XyloNetwork, events: np.ndarray) -> XyloRun:
    """(events [T,B,I], integers from 0) -> spikes, from rest.

    Raises:
        UsageError: events of another shape or kind, or below 0.
    """
    inputs, hidden, outputs = network.w_in.shape[0], network.w_rec.shape[0], network.w_out.shape[1]
    if events.ndim != 3 or events.shape[2] != inputs or events.dtype.kind not in "iu":
        got = f"xylo: got events {events.dtype} {list(events.shape)}, expected integers [T, B, {inputs}]."
        raise UsageError(got, "Give counts of events, time first.")
    if events.size and int(events.min()) < 0:
        raise UsageError(f"xylo: got {int(events.min())} events, expected 0 or more.", "Count events.")
    steps, batch = events.shape[:2]
    heard = np.minimum(events, MOST_EVENTS).astype(np.int64)
    w_in, w_rec, w_out = (
        weight.astype(np.int64) << shift
        for weight, shift in zip((network.w_in, network.w_rec, network.w_out), network.shifts, strict=True)
    )
    i, v, s = (np.zeros((batch, hidden), np.int64) for _ in range(3))
    i_out, v_out = (np.zeros((batch, outputs), np.int64) for _ in range(2))
    fired, answered = np.zeros((steps, batch, hidden), np.uint8), np.zeros((steps, batch, outputs), np.uint8)
    held = 0
    for t in range(steps):
        i_out, held = _arrived(i_out, s, w_out, held)
        i_out, v_out, s_out, held = _updated(
            i_out, v_out, network.dash_syn_out, network.dash_mem_out, network.bias_out, network.threshold_out, 1, held
        )
        i, held = _arrived(i, heard[t], w_in, held)
        i, held = _arrived(i, s, w_rec, held)
        i, v, s, held = _updated(
            i, v, network.dash_syn, network.dash_mem, network.bias, network.threshold, MOST_SPIKES, held
        )
        fired[t], answered[t] = s, s_out
    return XyloRun(fired, answered, (i, v, i_out, v_out), held, int((events.astype(np.int64) - heard).sum()))


def _arrived(i: np.ndarray, spikes: np.ndarray, weight: np.ndarray, held: int) -> tuple[np.ndarray, int]:
    """Currents [B,N] with spikes [B,K] over weights [K,N] added, one source after the other."""
    total = i + spikes @ weight
    up, down = i + spikes @ np.maximum(weight, 0), i + spikes @ np.minimum(weight, 0)
    rows = np.nonzero((up > HIGH).any(1) | (down < LOW).any(1))[0]  # in the others no order of sources meets an end
    if len(rows):
        exact = i[rows]
        for source in np.nonzero(spikes[rows].any(0))[0]:
            exact = np.clip(exact + spikes[rows, source, None] * weight[source], LOW, HIGH)
        held += int((exact != total[rows]).sum())
        total[rows] = exact
    return total, held


def _updated(
    i: np.ndarray,
    v: np.ndarray,
    dash_syn: np.ndarray,
    dash_mem: np.ndarray,
    bias: np.ndarray,
    threshold: np.ndarray,
    most: int,
    held: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """-> (i, v after reset, spikes, held)."""
    i = i - _lost(i, dash_syn)
    lost = _lost(v, dash_mem)
    free = v - lost + i + bias
    change = np.clip(i - np.where(lost == LOW, -LOW, lost), LOW, HIGH)  # -(-2^15) is -2^15 in 16 bits
    change = np.clip(change + bias, LOW, HIGH)
    v = np.clip(v + change, LOW, HIGH)
    held += int((v != free).sum())
    s = np.clip(v // threshold, 0, most)
    return i, v - s * threshold, s, held


def _lost(a: np.ndarray, dash: np.ndarray) -> np.ndarray:
    shifted = a >> dash
    return np.where((a > 0) & (shifted == 0), 1, shifted)
