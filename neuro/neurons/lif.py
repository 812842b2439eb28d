"""Leaky integrate-and-fire.

    u_t = decay v_{t-1} + i_t,   s_t = 1 where u_t >= threshold,   decay = 1 - dt / tau_mem
    v_t = u_t - threshold s_t                    soft reset (the default)
    v_t = u_t (1 - s_t) + v_reset s_t            hard
    v_t = u_t                                    none

Strict thresholds and the reset one step later are `backends.LifRule`'s. With ``decay_input`` the current counts as a
potential that the membrane relaxes to, i_t -> (1 - decay) i_t: Euler's rule for tau dv/dt = i - v. The whole time loop is
one operator, ``Ops.lif_scan``.

differs: the exact solution decays by exp(-dt / tau); for that give ``beta=math.exp(-dt / tau)``.
"""

from __future__ import annotations

from torch import Tensor

from backends import LifRule, Ops, native
from neuro.neurons.base import SOFT, Constant, Neuron, Number, decay_of, is_rule
from neuro.state import LifState


def scan(
    current: Tensor,
    state: LifState,
    decay: Constant,
    threshold: Constant = 1.0,
    rule: LifRule = SOFT,
    ops: Ops = native.OPS,
) -> tuple[Tensor, LifState]:
    """(current [T,B,N], state) -> (spikes [T,B,N], state)."""
    spikes, v = ops.lif_scan(current, state.v, decay, threshold, rule)
    return spikes, LifState(v)


def step(
    current: Tensor,
    state: LifState,
    decay: Constant,
    threshold: Constant = 1.0,
    rule: LifRule = SOFT,
    ops: Ops = native.OPS,
) -> tuple[Tensor, LifState]:
    """(current [B,N], state) -> (spikes [B,N], state): a scan of one step."""
    spikes, state = scan(current.unsqueeze(0), state, decay, threshold, rule, ops)
    return spikes[0], state


class LIF(Neuron):
    """Leaky integrate-and-fire neurons.

    Args:
        neurons: N.
        tau_mem_ms: membrane time constant, one or [N]; or ``beta``, the decay of a step itself.
        threshold: one or [N], learned with ``learn_threshold``.
        rule: how they fire and what a spike does.
        decay_input: the current is multiplied by 1 - decay.

    Raises:
        UsageError: both or neither of ``tau_mem_ms`` and ``beta``, one outside its range, or of another length.
    """

    state_type = LifState
    decay: Constant
    threshold: Constant

    def __init__(
        self,
        neurons: int,
        tau_mem_ms: Number | None = None,
        *,
        beta: Number | None = None,
        threshold: Number = 1.0,
        rule: LifRule = SOFT,
        decay_input: bool = False,
        learn_threshold: bool = False,
        dt_ms: float = 1.0,
        ops: Ops = native.OPS,
    ) -> None:
        super().__init__(neurons, dt_ms)
        self.rule, self.ops, self.decay_input = is_rule(self.name, rule), ops, decay_input
        self._keep_decay(decay_of(f"{self.name} tau_mem_ms", tau_mem_ms, dt_ms, neurons, "beta", beta))
        self._keep("threshold", threshold, learn_threshold)

    @property
    def tau_mem_ms(self) -> Constant:
        """The time constant that the decay stands for; infinite where nothing leaks."""
        decay = self.decay
        if isinstance(decay, Tensor):
            return self.dt_ms / (1.0 - decay)
        return self.dt_ms / (1.0 - decay) if decay < 1.0 else float("inf")

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, reset={self.rule.reset}"

    def _keep_decay(self, decay: Constant) -> None:
        self._keep("decay", decay)

    def _scan(self, current: Tensor, state: LifState) -> tuple[Tensor, LifState]:
        decay = self.decay
        if self.decay_input:
            current = current * (1.0 - decay)
        return scan(current, state, decay, self._spread(self.threshold), self.rule, self.ops)
