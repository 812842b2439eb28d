"""Adaptive leaky integrate-and-fire: every spike raises the threshold, which then decays.

    u_t = decay v_{t-1} + i_t
    s_t = 1 where u_t >= threshold + strength a_{t-1}
    v_t = u_t - threshold s_t            (hard: u_t (1 - s_t) + v_reset s_t; none: u_t)
    a_t = rho a_{t-1} + s_t,             rho = 1 - dt / tau_adapt

Source: Bellec et al. 2020, doi:10.1038/s41467-020-17236-y (equations 6 to 8), whose soft reset takes off the threshold at
rest. ``detach_reset`` cuts the reset only: the spike in a_t keeps its gradient.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from backends import LifRule
from backends.surrogate import spike
from neuro.neurons.base import SOFT, Constant, Neuron, Number, at_once, decay_of, fold, reset


class AdaptiveState(NamedTuple):
    v: Tensor  # [B, N] membrane potential after reset
    a: Tensor  # [B, N] adaptation: a decaying count of spikes


def step(
    current: Tensor,
    state: AdaptiveState,
    decay: Constant,
    rho: Constant,
    strength: Constant,
    threshold: Constant = 1.0,
    rule: LifRule = SOFT,
) -> tuple[Tensor, AdaptiveState]:
    """(current [B,N], state) -> (spikes [B,N], state)."""
    u = decay * state.v + current
    s = spike(u - (threshold + strength * state.a), rule.surrogate, rule.strict)
    return s, AdaptiveState(reset(u, s, threshold, rule), rho * state.a + s)


def scan(
    current: Tensor,
    state: AdaptiveState,
    decay: Constant,
    rho: Constant,
    strength: Constant,
    threshold: Constant = 1.0,
    rule: LifRule = SOFT,
) -> tuple[Tensor, AdaptiveState]:
    """(current [T,B,N], state) -> (spikes [T,B,N], state)."""
    return fold(lambda i, carried: step(i, carried, decay, rho, strength, threshold, rule), current, state)


class ALIF(Neuron):
    """Adaptive leaky integrate-and-fire neurons.

    Args:
        neurons: N.
        tau_mem_ms: membrane time constant, one or [N]; or ``beta``, the decay of a step itself.
        tau_adapt_ms: time constant of the threshold, one or [N].
        strength: how far a spike raises the threshold, one or [N].
        threshold: at rest, one or [N], learned with ``learn_threshold``.
        rule: how they fire and what a spike does to the membrane; not ``delayed``.

    Raises:
        UsageError: as `neuro.neurons.lif.LIF`, or a delayed reset.
    """

    state_type = AdaptiveState
    decay: Constant
    rho: Constant
    strength: Constant
    threshold: Constant

    def __init__(
        self,
        neurons: int,
        tau_mem_ms: Number | None = None,
        tau_adapt_ms: Number = 200.0,
        *,
        beta: Number | None = None,
        strength: Number = 0.2,
        threshold: Number = 1.0,
        rule: LifRule = SOFT,
        learn_threshold: bool = False,
        dt_ms: float = 1.0,
    ) -> None:
        super().__init__(neurons, dt_ms)
        self.rule = at_once("ALIF", rule)
        self._keep("decay", decay_of("ALIF tau_mem_ms", tau_mem_ms, dt_ms, neurons, "beta", beta))
        self._keep("rho", decay_of("ALIF tau_adapt_ms", tau_adapt_ms, dt_ms, neurons, "rho", None))
        self._keep("strength", strength)
        self._keep("threshold", threshold, learn_threshold)

    def _step(self, current: Tensor, state: AdaptiveState) -> tuple[Tensor, AdaptiveState]:
        return step(current, state, self.decay, self.rho, self.strength, self.threshold, self.rule)
