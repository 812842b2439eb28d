"""Neurons without a reset: every step of a scan can be computed at once.

    Parallel:          h_t = decay h_{t-1} + i_t,                 decay = sigmoid(w), w learned, [1] or [N]
    SlidingParallel:   h_t = sum over k < taps of c_k i_{t-k},    c learned, [taps] or [N,taps]
    both:              s_t = 1 where h_t >= threshold

h is one ``Ops.affine_scan``, or a causal convolution over the last inputs. On a CPU this saves nothing: a sequential scan
already runs at the speed of memory; on a GPU it removes the loop over time.

Source: Fang et al. 2023, arXiv:2304.12760 (sliding PSN). differs: ``Parallel`` has its masked weights in closed form,
c_k = decay^k for every k, and so a state of one number; the threshold is not learned unless asked for.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backends import Ops, Surrogate, native
from backends.surrogate import spike
from neuro.errors import UsageError
from neuro.neurons.base import Constant, Neuron, Number, decay_of, logit

DEFAULT = Surrogate()


class ParallelState(NamedTuple):
    h: Tensor  # [B, N] leaky sum of what came


class SlidingState(NamedTuple):
    recent: Tensor  # [B, N, taps - 1] the last inputs, oldest first


def scan(
    current: Tensor,
    state: ParallelState,
    decay: Tensor,
    threshold: Constant = 1.0,
    surrogate: Surrogate = DEFAULT,
    ops: Ops = native.OPS,
) -> tuple[Tensor, ParallelState]:
    """(current [T,B,N], state) -> (spikes [T,B,N], state)."""
    h = ops.affine_scan(decay.expand_as(current), current, state.h)
    return spike(h - threshold, surrogate), ParallelState(h[-1])


def sliding_scan(
    current: Tensor,
    state: SlidingState,
    weights: Tensor,
    threshold: Constant = 1.0,
    surrogate: Surrogate = DEFAULT,
) -> tuple[Tensor, SlidingState]:
    """(current [T,B,N], state) -> (spikes [T,B,N], state); ``weights`` [N,taps], the newest input first."""
    taps = weights.shape[1]
    x = torch.cat([state.recent, current.permute(1, 2, 0)], -1)
    h = F.conv1d(x, weights.flip(1).unsqueeze(1), groups=weights.shape[0]).permute(2, 0, 1)
    return spike(h - threshold, surrogate), SlidingState(x[..., x.shape[-1] - (taps - 1) :])


class Parallel(Neuron):
    """Leaky neurons without reset; the decay is learned, one for the layer or one a neuron.

    Args:
        neurons: N.
        tau_mem_ms: where the decay starts, one or [N]; or ``beta``, the decay itself.
        threshold: one or [N], learned with ``learn_threshold``.

    Raises:
        UsageError: as `neuro.neurons.lif.LIF`; also a decay of exactly 0 or 1, which no sigmoid reaches.
    """

    state_type = ParallelState
    threshold: Constant

    def __init__(
        self,
        neurons: int,
        tau_mem_ms: Number | None = None,
        *,
        beta: Number | None = None,
        threshold: Number = 1.0,
        surrogate: Surrogate = DEFAULT,
        learn_threshold: bool = False,
        dt_ms: float = 1.0,
        ops: Ops = native.OPS,
    ) -> None:
        super().__init__(neurons, dt_ms)
        self.surrogate, self.ops = surrogate, ops
        self.w = logit("Parallel", decay_of("Parallel tau_mem_ms", tau_mem_ms, dt_ms, neurons, "beta", beta))
        self._keep("threshold", threshold, learn_threshold)

    @property
    def decay(self) -> Tensor:
        """[N], inside 0 to 1."""
        return torch.sigmoid(self.w).expand(self.neurons)

    def _scan(self, current: Tensor, state: ParallelState) -> tuple[Tensor, ParallelState]:
        return scan(current, state, self.decay, self.threshold, self.surrogate, self.ops)


class SlidingParallel(Neuron):
    """Neurons without reset that see the last ``taps`` inputs, through weights that are learned.

    Args:
        neurons: N.
        taps: how many steps they look back, this one included.
        shared: one row of weights for the layer, as in the paper; else one a neuron.
        threshold: one or [N], learned with ``learn_threshold``.

    The weights start at 2^-k, as in the paper.

    Raises:
        UsageError: no tap.
    """

    state_type = SlidingState
    threshold: Constant

    def __init__(
        self,
        neurons: int,
        taps: int = 4,
        *,
        shared: bool = True,
        threshold: Number = 1.0,
        surrogate: Surrogate = DEFAULT,
        learn_threshold: bool = False,
        dt_ms: float = 1.0,
    ) -> None:
        super().__init__(neurons, dt_ms)
        if taps < 1:
            raise UsageError(f"SlidingParallel taps: got {taps}, expected at least 1.", "1 sees this step only.")
        self.taps, self.surrogate, self.trailing = taps, surrogate, (taps - 1,)
        self.weights = nn.Parameter((0.5 ** torch.arange(taps)).repeat(1 if shared else neurons, 1))
        self._keep("threshold", threshold, learn_threshold)

    def init_state(
        self, batch: int, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> SlidingState:
        return SlidingState(torch.zeros(batch, self.neurons, self.taps - 1, device=device, dtype=dtype))

    def _scan(self, current: Tensor, state: SlidingState) -> tuple[Tensor, SlidingState]:
        weights = self.weights.expand(self.neurons, -1)
        return sliding_scan(current, state, weights, self.threshold, self.surrogate)

    def _check_numbers(self, current: Tensor, state: SlidingState, what: str) -> None:
        # The state forgets NaN after ``taps`` steps.
        super()._check_numbers(current, (current,), what)
