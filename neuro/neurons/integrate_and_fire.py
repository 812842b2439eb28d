"""Integrate-and-fire: a membrane that does not leak.

    u_t = v_{t-1} + i_t,   s_t = 1 where u_t >= threshold,   v_t = u_t - threshold s_t   (resets as in `neuro.neurons.lif`)

The neuron of ANN-to-SNN conversion: under a constant current i in [0, threshold] and a soft reset it fires
floor(T i / threshold) times in T steps.
"""

from __future__ import annotations

from torch import Tensor

from backends import LifRule, Ops, native
from neuro.neurons import lif
from neuro.neurons.base import SOFT, Constant, Neuron, Number, is_rule
from neuro.state import LifState


def scan(
    current: Tensor, state: LifState, threshold: Constant = 1.0, rule: LifRule = SOFT, ops: Ops = native.OPS
) -> tuple[Tensor, LifState]:
    """(current [T,B,N], state) -> (spikes [T,B,N], state)."""
    return lif.scan(current, state, 1.0, threshold, rule, ops)


def step(
    current: Tensor, state: LifState, threshold: Constant = 1.0, rule: LifRule = SOFT, ops: Ops = native.OPS
) -> tuple[Tensor, LifState]:
    """(current [B,N], state) -> (spikes [B,N], state)."""
    return lif.step(current, state, 1.0, threshold, rule, ops)


class IF(Neuron):
    """Integrate-and-fire neurons.

    Args:
        neurons: N.
        threshold: one or [N], learned with ``learn_threshold``.
        rule: how they fire and what a spike does.
    """

    state_type = LifState
    threshold: Constant

    def __init__(
        self,
        neurons: int,
        *,
        threshold: Number = 1.0,
        rule: LifRule = SOFT,
        learn_threshold: bool = False,
        dt_ms: float = 1.0,
        ops: Ops = native.OPS,
    ) -> None:
        super().__init__(neurons, dt_ms)
        self.rule, self.ops = is_rule(self.name, rule), ops
        self._keep("threshold", threshold, learn_threshold)

    def _scan(self, current: Tensor, state: LifState) -> tuple[Tensor, LifState]:
        return scan(current, state, self._spread(self.threshold), self.rule, self.ops)
