"""The integer LIF layers of Loihi, bit by bit: stored weights, current, membrane, bias, and a step from layer to layer.

    stored weights: held within -256 to 255; in a group of both signs the lowest bit is 0
    x_t = W s_{t-1}                                              (a spike is heard one step after it was sent)
    c_t = trunc(c_{t-1} (4096 - (du + 1)) / 4096) + 64 x_t       wrapped to 24 bits
    v_t = trunc(v_{t-1} (4096 - dv) / 4096) + c_t + bias         held within +-(2^23 - 1); bias = mantissa 2^exponent
    s_t = 1 where v_t > 64 vth,  then v_t = 0                    trunc rounds towards zero

du = 4095 leaves nothing of the old current. The neuron is that of `neuro.neurons.loihi`, with the bias that it leaves out.

Source: the fixed-point LIF and dense processes of lava-nc (BSD-3-Clause); reproduces the golden vectors of lava-dl.
differs: lava-nc keeps a current of exactly 2^23, which 24 bits cannot hold; here it wraps to -2^23. Weight exponents,
refractory periods, noise and learning are not modelled.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from neuro.errors import UsageError

_BITS = 12
_WRAP, _HOLD = 1 << 23, (1 << 23) - 1
MOST_VTH = (1 << 17) - 1


@dataclasses.dataclass(frozen=True)
class LoihiLayer:
    """K inputs to N neurons; ``weight`` as it is stored (`stored`)."""

    weight: np.ndarray  # [N,K] -256 to 255
    vth: np.ndarray  # [N] 0 to 131,071
    du: int  # 0 to 4095
    dv: int  # 0 to 4096
    bias: np.ndarray  # [N] mantissas -4096 to 4095
    bias_exponent: int = 0  # 0 to 7

    def __post_init__(self) -> None:
        neurons = self.weight.shape[0]
        for name, low, high in (("weight", -256, 255), ("vth", 0, MOST_VTH), ("bias", -4096, 4095)):
            array = getattr(self, name)
            if array.dtype.kind not in "iu" or array.ndim != (2 if name == "weight" else 1) or len(array) != neurons:
                got = f"loihi {name}: got {array.dtype} {list(array.shape)}, expected integers of {neurons} neurons."
                raise UsageError(got, "Quantize it to the chip's bits.")
            if array.size and not low <= int(array.min()) <= int(array.max()) <= high:
                got = f"loihi {name}: got {int(array.min())} to {int(array.max())}, expected {low} to {high}."
                raise UsageError(got, "Quantize it to the chip's bits.")
        for name, high in (("du", 4095), ("dv", 4096), ("bias_exponent", 7)):
            if not 0 <= getattr(self, name) <= high:
                got = f"loihi {name}: got {getattr(self, name)}, expected 0 to {high}."
                raise UsageError(got, "Quantize it to the chip's bits.")


class LoihiRun(NamedTuple):
    """What layers did; layer l hears the input l + 1 steps late."""

    spikes: list[np.ndarray]  # of each layer [T,B,N], 0 or 1
    membranes: np.ndarray  # [B,N] of the last layer after the last step
    wrapped: int  # currents that ran over 24 bits
    held: int  # membranes that the ends cut


def stored(weight: np.ndarray) -> np.ndarray:
    """Integers [N,K] as the chip stores them in one group: held within -256 to 255, even where both signs occur."""
    held = np.clip(weight, -256, 255).astype(np.int64)
    return held >> 1 << 1 if held.size and held.min() < 0 < held.max() else held


def simulate(layers: Sequence[LoihiLayer], events: np.ndarray) -> LoihiRun:
    """(layers, events [T,B,K], counts from 0) -> spikes of every layer, from rest.

    Raises:
        UsageError: events or layers whose widths do not fit, or events that are no counts.
    """
    if events.ndim != 3 or events.dtype.kind not in "iu" or (events.size and int(events.min()) < 0):
        got = f"loihi: got events {events.dtype} {list(events.shape)}, expected counts [T, B, inputs] from 0."
        raise UsageError(got, "Give integers, time first.")
    spikes: list[np.ndarray] = []
    heard, wrapped, held = events, 0, 0
    membranes = np.zeros((events.shape[1], 0), np.int64)
    for number, layer in enumerate(layers):
        if layer.weight.shape[1] != heard.shape[2]:
            got = f"loihi layer {number}: got {layer.weight.shape[1]} inputs, expected {heard.shape[2]}."
            raise UsageError(got, "Give each layer as many inputs as the one before it has neurons.")
        late = np.concatenate([np.zeros_like(heard[:1]), heard[:-1]])
        heard, membranes, over, cut = _layer(layer, late)
        spikes.append(heard)
        wrapped, held = wrapped + over, held + cut
    return LoihiRun(spikes, membranes, wrapped, held)


def _layer(layer: LoihiLayer, events: np.ndarray) -> tuple[np.ndarray, np.ndarray, int, int]:
    steps, batch = events.shape[:2]
    weight = layer.weight.T.astype(np.float64)  # sums of products stay far below 2^53: exact, and a fast product
    x = (events.reshape(steps * batch, -1).astype(np.float64) @ weight).astype(np.int64).reshape(steps, batch, -1)
    c, v = (np.zeros((batch, len(layer.vth)), np.int64) for _ in range(2))
    bias, most = layer.bias.astype(np.int64) << layer.bias_exponent, layer.vth.astype(np.int64) << 6
    spikes, wrapped, held = np.zeros((steps, batch, len(layer.vth)), np.uint8), 0, 0
    for t in range(steps):
        free = _kept(c, layer.du + 1) + (x[t] << 6)
        c = ((free + _WRAP) & (2 * _WRAP - 1)) - _WRAP
        wrapped += int((c != free).sum())
        free = _kept(v, layer.dv) + c + bias
        v = np.clip(free, -_HOLD, _HOLD)
        held += int((v != free).sum())
        s = v > most
        spikes[t] = s
        v = np.where(s, 0, v)
    return spikes, v, wrapped, held


def _kept(value: np.ndarray, lost: int) -> np.ndarray:
    return np.sign(value) * ((np.abs(value) * ((1 << _BITS) - lost)) >> _BITS)
