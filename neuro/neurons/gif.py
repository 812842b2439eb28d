"""Generalised integrate-and-fire with multi-bit spikes: one step emits a count of spikes, not a bit.

    u_t = decay v_{t-1} + i_t
    s_t = the number of k in 1..levels with u_t >= k threshold     (floor(u_t / threshold) between 0 and levels)
    v_t = u_t - threshold s_t

ds/du is the sum of the surrogate over the levels; at ``levels=1`` it is `neuro.neurons.lif` with a soft reset. A count
costs a synapse as many additions as it says spikes.

Source: Xing et al. 2024, arXiv:2407.04752 (one step stands for ``levels`` steps of a binary neuron). differs: no negative
spikes; the surrogate of the spike is not the straight-through estimator unless the rule says so.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from backends import LifRule, Surrogate
from neuro.errors import UsageError
from neuro.neurons.base import SOFT, Constant, Neuron, Number, decay_of, fold, is_rule


class GifState(NamedTuple):
    v: Tensor  # [B, N] membrane potential after reset


class _Counts(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u: Tensor, threshold: Tensor, levels: int, surrogate: Surrogate, strict: bool):  # type: ignore[override]
        ctx.save_for_backward(u, threshold)
        ctx.levels, ctx.surrogate = levels, surrogate
        counts = torch.zeros_like(u)
        for k in range(1, levels + 1):
            counts += u > k * threshold if strict else u >= k * threshold
        return counts

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        u, threshold = ctx.saved_tensors
        slope, moved = torch.zeros_like(u), torch.zeros_like(u)
        for k in range(1, ctx.levels + 1):
            at_k = ctx.surrogate.derivative(u - k * threshold)
            slope += at_k
            moved -= k * at_k
        return grad * slope, (grad * moved).sum_to_size(threshold.shape), None, None, None


def counts(u: Tensor, threshold: Constant, levels: int, surrogate: Surrogate, strict: bool = False) -> Tensor:
    """How many of the thresholds 1..levels times ``threshold`` are reached, as floating point; differentiable once."""
    return _Counts.apply(u, torch.as_tensor(threshold, dtype=u.dtype, device=u.device), levels, surrogate, strict)


def step(
    current: Tensor,
    state: GifState,
    decay: Constant,
    threshold: Constant = 1.0,
    levels: int = 4,
    rule: LifRule = SOFT,
) -> tuple[Tensor, GifState]:
    """(current [B,N], state) -> (counts [B,N], state)."""
    u = decay * state.v + current
    s = counts(u, threshold, levels, rule.surrogate, rule.strict)
    return s, GifState(u - threshold * (s.detach() if rule.detach_reset else s))


def scan(
    current: Tensor,
    state: GifState,
    decay: Constant,
    threshold: Constant = 1.0,
    levels: int = 4,
    rule: LifRule = SOFT,
) -> tuple[Tensor, GifState]:
    """(current [T,B,N], state) -> (counts [T,B,N], state)."""
    return fold(lambda i, carried: step(i, carried, decay, threshold, levels, rule), current, state)


class GIF(Neuron):
    """Integrate-and-fire neurons that emit counts 0..levels.

    Args:
        neurons: N.
        tau_mem_ms: membrane time constant, one or [N]; or ``beta``, the decay of a step itself.
        levels: the largest count; 2^bits - 1.
        threshold: of one spike, one or [N], learned with ``learn_threshold``.
        rule: a soft reset at once.

    Raises:
        UsageError: as `neuro.neurons.lif.LIF`; fewer than one level, or another reset.
    """

    state_type = GifState
    decay: Constant
    threshold: Constant

    def __init__(
        self,
        neurons: int,
        tau_mem_ms: Number | None = None,
        *,
        beta: Number | None = None,
        levels: int = 4,
        threshold: Number = 1.0,
        rule: LifRule = SOFT,
        learn_threshold: bool = False,
        dt_ms: float = 1.0,
    ) -> None:
        super().__init__(neurons, dt_ms)
        if levels < 1:
            raise UsageError(f"GIF levels: got {levels}, expected at least 1.", "1 is a binary spike.")
        if is_rule("GIF", rule).reset != "soft" or rule.delayed:
            got = f"a {'delayed ' if rule.delayed else ''}{rule.reset} reset"
            raise UsageError(f"GIF rule: got {got}, expected a soft one at once.", "A count takes off what it says.")
        self.levels, self.rule = levels, rule
        self._keep("decay", decay_of("GIF tau_mem_ms", tau_mem_ms, dt_ms, neurons, "beta", beta))
        self._keep("threshold", threshold, learn_threshold)

    def _step(self, current: Tensor, state: GifState) -> tuple[Tensor, GifState]:
        return step(current, state, self.decay, self.threshold, self.levels, self.rule)
