"""The integer leaky integrate-and-fire neuron of Loihi, bit by bit.

    c_t = trunc(c_{t-1} (4096 - (du + 1)) / 4096) + 64 x_t     wrapped to 24 bits    (x: integer weights times spikes)
    v_t = trunc(v_{t-1} (4096 - dv) / 4096) + c_t              held within +-(2^23 - 1)
    s_t = 1 where v_t > 64 vth,  then v_t = 0                  trunc rounds towards zero

du = 4095 leaves nothing of the old current. On the chip a spike is seen by others one step later; here it is not delayed.

Source: the fixed-point LIF process of lava-nc 0.10 (BSD-3-Clause); reproduces the golden vectors of lava-dl. Bias, weight
exponents and refractory periods are not modelled. Integers: no gradient.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from neuro.errors import UsageError

_BITS = 12
_WRAP, _HOLD = 1 << 23, (1 << 23) - 1


class LoihiState(NamedTuple):
    c: Tensor  # [B, N] int64 synaptic current
    v: Tensor  # [B, N] int64 membrane potential after reset


def init_state(batch: int, neurons: int, device: torch.device | None = None) -> LoihiState:
    """At rest."""
    return LoihiState(*(torch.zeros(batch, neurons, dtype=torch.int64, device=device) for _ in range(2)))


def step(x: Tensor, state: LoihiState, vth: int, du: int, dv: int) -> tuple[Tensor, LoihiState]:
    """(x [B,N] int64, state) -> (spikes [B,N] int64, state).

    Raises:
        UsageError: x is not int64, or a constant does not fit the chip's bits.
    """
    _check(x, vth, du, dv)
    return _step(x, state, vth, du, dv)


def scan(x: Tensor, state: LoihiState, vth: int, du: int, dv: int) -> tuple[Tensor, LoihiState]:
    """(x [T,B,N] int64, state) -> (spikes [T,B,N] int64, state); raises as `step`."""
    _check(x, vth, du, dv)
    spikes = []
    for x_t in x.unbind(0):
        s, state = _step(x_t, state, vth, du, dv)
        spikes.append(s)
    return torch.stack(spikes), state


def _step(x: Tensor, state: LoihiState, vth: int, du: int, dv: int) -> tuple[Tensor, LoihiState]:
    c = _kept(state.c, du + 1) + (x << 6)
    c = ((c + _WRAP) & (2 * _WRAP - 1)) - _WRAP
    v = (_kept(state.v, dv) + c).clamp(-_HOLD, _HOLD)
    s = (v > (vth << 6)).to(torch.int64)
    return s, LoihiState(c, v * (1 - s))


def _kept(value: Tensor, lost: int) -> Tensor:
    return value.sign() * ((value.abs() * ((1 << _BITS) - lost)) >> _BITS)


def _check(x: Tensor, vth: int, du: int, dv: int) -> None:
    if x.dtype != torch.int64:
        raise UsageError(
            f"loihi: got input of {x.dtype}, expected torch.int64.", "Multiply integer weights and spikes."
        )
    for name, value, most in (("du", du, 4095), ("dv", dv, 4096), ("vth", vth, 131071)):
        if not 0 <= value <= most:
            raise UsageError(f"loihi {name}: got {value}, expected 0 to {most}.", "Quantize it to the chip's bits.")
