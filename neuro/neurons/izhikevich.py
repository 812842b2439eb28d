"""Izhikevich's simple model: two variables, most firing patterns of the cortex.

    dv/dt = 0.04 v^2 + 5 v + 140 - w + i,   dw/dt = a (b v - w)        (mV, ms)
    where v >= 30 mV: a spike, v = c, w = w + d

Euler's rule for both, from the values before the step; the threshold is looked at after it.

Source: Izhikevich 2003, doi:10.1109/TNN.2003.820440. differs: his program takes two half steps for v, and resets at the
start of the next step; w is his u. A step above 1 ms is unstable.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from backends import Surrogate
from backends.surrogate import spike
from neuro.errors import UsageError
from neuro.neurons.base import Constant, Neuron, Number, fold

THRESHOLD_MV = 30.0
LONGEST_STEP_MS = 1.0
SLOPE = Surrogate(slope=0.1)


class IzhikevichState(NamedTuple):
    v: Tensor  # [B, N] mV
    w: Tensor  # [B, N] recovery


def step(
    current: Tensor,
    state: IzhikevichState,
    a: Constant,
    b: Constant,
    c: Constant,
    d: Constant,
    dt_ms: float,
    surrogate: Surrogate = SLOPE,
    detach_reset: bool = True,
) -> tuple[Tensor, IzhikevichState]:
    """(current [B,N], state) -> (spikes [B,N], state)."""
    v, w = state
    u = v + dt_ms * (0.04 * v * v + 5.0 * v + 140.0 - w + current)
    w = w + dt_ms * (a * (b * v - w))
    s = spike(u - THRESHOLD_MV, surrogate)
    r = s.detach() if detach_reset else s
    return s, IzhikevichState(u * (1.0 - r) + c * r, w + d * r)


def scan(
    current: Tensor,
    state: IzhikevichState,
    a: Constant,
    b: Constant,
    c: Constant,
    d: Constant,
    dt_ms: float,
    surrogate: Surrogate = SLOPE,
    detach_reset: bool = True,
) -> tuple[Tensor, IzhikevichState]:
    """(current [T,B,N], state) -> (spikes [T,B,N], state)."""
    return fold(lambda i, carried: step(i, carried, a, b, c, d, dt_ms, surrogate, detach_reset), current, state)


class Izhikevich(Neuron):
    """Izhikevich neurons; regular spiking by default (fast spiking: a=0.1, d=2; chattering: c=-50, d=2).

    Args:
        neurons: N.
        a: per millisecond; b: per millivolt; c: mV after a spike; d: what a spike adds to w. Each one or [N].
        surrogate: slope per mV.
        detach_reset: what a spike does to v and w is a constant of the backward pass.
        dt_ms: at most 1 ms.

    Raises:
        UsageError: a longer step, or constants that do not fit the neurons.
    """

    state_type = IzhikevichState
    a: Constant
    b: Constant
    c: Constant
    d: Constant

    def __init__(
        self,
        neurons: int,
        *,
        a: Number = 0.02,
        b: Number = 0.2,
        c: Number = -65.0,
        d: Number = 8.0,
        surrogate: Surrogate = SLOPE,
        detach_reset: bool = True,
        dt_ms: float = 0.5,
    ) -> None:
        super().__init__(neurons, dt_ms)
        if dt_ms > LONGEST_STEP_MS:
            raise UsageError(
                f"Izhikevich dt_ms: got {dt_ms:g} ms, expected at most {LONGEST_STEP_MS:g}.",
                "Euler's rule is unstable above: in the end a neuron fires at every step.",
            )
        self.surrogate, self.detach_reset = surrogate, detach_reset
        for name, value in {"a": a, "b": b, "c": c, "d": d}.items():
            self._keep(name, value)

    def init_state(
        self, batch: int, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> IzhikevichState:
        """v = -65 mV and w = b v, where his program starts."""
        v = torch.full((batch, self.neurons), -65.0, device=device, dtype=dtype)
        return IzhikevichState(v, (self.b * v).to(v.dtype))

    def _step(self, current: Tensor, state: IzhikevichState) -> tuple[Tensor, IzhikevichState]:
        constants = (self.a, self.b, self.c, self.d)
        return step(current, state, *constants, self.dt_ms, self.surrogate, self.detach_reset)
