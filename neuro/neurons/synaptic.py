"""Current-based leaky integrate-and-fire: input charges a synapse, the synapse the membrane.

    i_t = alpha i_{t-1} + x_t,    alpha = 1 - dt / tau_syn
    u_t = decay v_{t-1} + i_t,    then as in `neuro.neurons.lif`: s_t, reset, ``decay_input``

The membrane sees the current of the same step. Two operators: ``Ops.affine_scan`` and ``Ops.lif_scan``.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from backends import LifRule, Ops, native
from neuro.neurons.base import SOFT, Constant, Neuron, Number, decay_of, is_rule


class SynapticState(NamedTuple):
    i: Tensor  # [B, N] synaptic current
    v: Tensor  # [B, N] membrane potential after reset


def scan(
    x: Tensor,
    state: SynapticState,
    alpha: Constant,
    decay: Constant,
    threshold: Constant = 1.0,
    rule: LifRule = SOFT,
    ops: Ops = native.OPS,
    gain: Constant = 1.0,
) -> tuple[Tensor, SynapticState]:
    """(input [T,B,N], state) -> (spikes [T,B,N], state); ``gain`` is what a unit of current adds to the membrane."""
    a = alpha.expand_as(x) if isinstance(alpha, Tensor) else x.new_full((1, 1, 1), alpha).expand_as(x)
    i = ops.affine_scan(a, x, state.i)
    drive = i if isinstance(gain, float) and gain == 1.0 else i * gain
    spikes, v = ops.lif_scan(drive, state.v, decay, threshold, rule)
    return spikes, SynapticState(i[-1], v)


def step(
    x: Tensor,
    state: SynapticState,
    alpha: Constant,
    decay: Constant,
    threshold: Constant = 1.0,
    rule: LifRule = SOFT,
    ops: Ops = native.OPS,
    gain: Constant = 1.0,
) -> tuple[Tensor, SynapticState]:
    """(input [B,N], state) -> (spikes [B,N], state): a scan of one step."""
    spikes, state = scan(x.unsqueeze(0), state, alpha, decay, threshold, rule, ops, gain)
    return spikes[0], state


class Synaptic(Neuron):
    """Current-based leaky integrate-and-fire neurons.

    Args:
        neurons: N.
        tau_syn_ms, tau_mem_ms: time constants, one or [N]; or ``alpha`` and ``beta``, the decays of a step themselves.
        threshold: one or [N], learned with ``learn_threshold``.
        rule: how they fire and what a spike does to the membrane; the synapse is never reset.
        decay_input: the membrane receives (1 - decay) i.

    Raises:
        UsageError: both or neither of a time constant and its alias, one outside its range, or of another length.
    """

    state_type = SynapticState
    alpha: Constant
    decay: Constant
    threshold: Constant

    def __init__(
        self,
        neurons: int,
        tau_syn_ms: Number | None = None,
        tau_mem_ms: Number | None = None,
        *,
        alpha: Number | None = None,
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
        self._keep("alpha", decay_of("Synaptic tau_syn_ms", tau_syn_ms, dt_ms, neurons, "alpha", alpha))
        self._keep("decay", decay_of("Synaptic tau_mem_ms", tau_mem_ms, dt_ms, neurons, "beta", beta))
        self._keep("threshold", threshold, learn_threshold)

    def _scan(self, current: Tensor, state: SynapticState) -> tuple[Tensor, SynapticState]:
        gain = 1.0 - self.decay if self.decay_input else 1.0
        threshold = self._spread(self.threshold)
        return scan(current, state, self.alpha, self.decay, threshold, self.rule, self.ops, gain)
