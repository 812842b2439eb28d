"""Adaptive exponential integrate-and-fire.

    C dv/dt = g (E - v) + g D exp((v - V_t) / D) - w + i,   tau_w dw/dt = a (v - E) - w        (mV, ms, nS, pF, pA)
    where v >= v_peak: a spike, v = v_reset, w = w + b

Euler's rule for both, from the values before the step; the threshold is looked at after it.

Source: Brette and Gerstner 2005, doi:10.1152/jn.00686.2005, and its parameters. differs: a spike is cut at V_t + 5 D rather
than at 20 mV, which moves it by less than a step and keeps the exponential, and its gradient, small.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import torch
from torch import Tensor

from backends import Surrogate
from backends.surrogate import spike
from neuro.errors import UsageError
from neuro.neurons.base import Constant, Neuron, Number, fold

SLOPE = Surrogate(slope=0.1)


class AdExState(NamedTuple):
    v: Tensor  # [B, N] mV
    w: Tensor  # [B, N] pA, adaptation


@dataclasses.dataclass(frozen=True)
class AdExConstants:
    """Of the equations above, with their units; the defaults are the paper's."""

    capacitance_pf: Constant = 281.0
    leak_ns: Constant = 30.0
    rest_mv: Constant = -70.6
    slope_mv: Constant = 2.0
    threshold_mv: Constant = -50.4
    reset_mv: Constant = -70.6
    peak_mv: Constant = -40.4
    tau_w_ms: Constant = 144.0
    coupling_ns: Constant = 4.0
    jump_pa: Constant = 80.5


def step(
    current: Tensor,
    state: AdExState,
    k: AdExConstants,
    dt_ms: float,
    surrogate: Surrogate = SLOPE,
    detach_reset: bool = True,
) -> tuple[Tensor, AdExState]:
    """(current [B,N] in pA, state) -> (spikes [B,N], state)."""
    v, w = state
    upswing = k.leak_ns * k.slope_mv * torch.exp((v - k.threshold_mv) / k.slope_mv)
    u = v + dt_ms / k.capacitance_pf * (k.leak_ns * (k.rest_mv - v) + upswing - w + current)
    w = w + dt_ms / k.tau_w_ms * (k.coupling_ns * (v - k.rest_mv) - w)
    s = spike(u - k.peak_mv, surrogate)
    r = s.detach() if detach_reset else s
    return s, AdExState(u * (1.0 - r) + k.reset_mv * r, w + k.jump_pa * r)


def scan(
    current: Tensor,
    state: AdExState,
    k: AdExConstants,
    dt_ms: float,
    surrogate: Surrogate = SLOPE,
    detach_reset: bool = True,
) -> tuple[Tensor, AdExState]:
    """(current [T,B,N] in pA, state) -> (spikes [T,B,N], state)."""
    return fold(lambda i, carried: step(i, carried, k, dt_ms, surrogate, detach_reset), current, state)


class AdEx(Neuron):
    """Adaptive exponential integrate-and-fire neurons.

    Args:
        neurons: N.
        constants: by the names of `AdExConstants`, each one number or [N]; ``peak_mv`` follows threshold and slope.
        surrogate: slope per mV.
        detach_reset: what a spike does to v and w is a constant of the backward pass.

    Raises:
        UsageError: an unknown constant, a time constant, capacitance or slope not above 0, or a tau_w below dt.
    """

    state_type = AdExState
    rest_mv: Constant
    threshold_mv: Constant
    slope_mv: Constant

    def __init__(
        self,
        neurons: int,
        *,
        surrogate: Surrogate = SLOPE,
        detach_reset: bool = True,
        dt_ms: float = 0.1,
        **constants: Number,
    ) -> None:
        super().__init__(neurons, dt_ms)
        self.surrogate, self.detach_reset = surrogate, detach_reset
        names = [field.name for field in dataclasses.fields(AdExConstants)]
        for name in constants:
            if name not in names:
                raise UsageError(f"AdEx: got '{name}', expected one of {', '.join(names)}.", "Correct the name.")
        for name in names:
            self._keep(name, constants.get(name, getattr(AdExConstants, name)))
        if "peak_mv" not in constants:
            self._keep("peak_mv", self.threshold_mv + 5.0 * self.slope_mv)
        for name, least in {"capacitance_pf": 0.0, "slope_mv": 0.0, "tau_w_ms": dt_ms}.items():
            found = float(torch.as_tensor(getattr(self, name)).min())
            if found <= 0 or found < least:
                more = f"at least dt_ms, {dt_ms:g}" if least else "more than 0"
                raise UsageError(f"AdEx {name}: got {found:g}, expected {more}.", "Correct the constant.")

    @property
    def constants(self) -> AdExConstants:
        return AdExConstants(**{field.name: getattr(self, field.name) for field in dataclasses.fields(AdExConstants)})

    def init_state(self, batch: int, device: torch.device | None = None, dtype: torch.dtype | None = None) -> AdExState:
        """v at rest, no adaptation."""
        w = torch.zeros(batch, self.neurons, device=device, dtype=dtype)
        return AdExState((w + self.rest_mv).to(w.dtype), w)

    def _step(self, current: Tensor, state: AdExState) -> tuple[Tensor, AdExState]:
        return step(current, state, self.constants, self.dt_ms, self.surrogate, self.detach_reset)
