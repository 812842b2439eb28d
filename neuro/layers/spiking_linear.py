"""A linear layer with the neurons it drives: spikes in, spikes out, event-driven where few inputs fire.

    i_t = W s_t + b;  the neurons fire and reset as `backends.LifRule` says

Time-first. The product is taken over all steps at once; without gradients and with few spikes in, product and neurons are
one sweep (`backends.spike_linear`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from backends import LifRule, Ops
from backends.kernels.spikes import PackedWeight
from backends.spike_linear import spike_lif
from neuro.errors import NeuroError, UsageError
from neuro.state import LifState


class SpikingLinear(nn.Module):
    """[T,B,K] -> [T,B,N]; the membrane is carried from step to step.

    Args:
        decay: of the membrane per step, in [0, 1]: exp(-dt_ms / tau_mem_ms).
        threshold: above zero.
        backward_dtype: the type of the backward pass's dense products, e.g. bfloat16; the spikes are the same.

    Raises:
        UsageError: a decay or a threshold out of range.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        ops: Ops,
        decay: float = 0.9,
        threshold: float = 1.0,
        rule: LifRule | None = None,
        bias: bool = True,
        backward_dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not 0.0 <= decay <= 1.0:
            got = f"SpikingLinear: got decay={decay}, expected a number from 0 to 1."
            raise UsageError(got, "From milliseconds it is exp(-dt_ms / tau_mem_ms).")
        if not threshold > 0.0:
            got = f"SpikingLinear: got threshold={threshold}, expected a number above zero."
            raise UsageError(got, "Scale the weights instead of turning the threshold around.")
        start = nn.Linear(in_features, out_features, bias)
        self.weight, self.bias = start.weight, start.bias
        self.ops, self.decay, self.threshold = ops, decay, threshold
        self.rule, self.backward_dtype = rule or LifRule(), backward_dtype
        self._packed = PackedWeight()

    def init_state(self, batch: int, device: torch.device) -> LifState:
        return LifState(torch.zeros(batch, self.weight.shape[0], device=device, dtype=self.weight.dtype))

    def scan(self, spikes: Tensor, state: LifState) -> tuple[Tensor, LifState]:
        """(spikes [T,B,K], state of [B,N]) -> (spikes [T,B,N], state).

        Raises:
            UsageError: batch-first spikes, another width, a state of another batch.
            NeuroError: on the CPU, a membrane that is no longer finite.
        """
        self._check(spikes, state)
        out, v = spike_lif(
            spikes,
            self.weight,
            self.bias,
            state.v,
            self.decay,
            self.threshold,
            self.rule,
            self.ops.lif_scan,
            self._packed,
            self.backward_dtype,
        )
        if v.device.type == "cpu" and not (torch.compiler.is_compiling() or torch.jit.is_tracing()):
            _check_finite(spikes, v)
        return out, LifState(v)

    def step(self, spikes: Tensor, state: LifState) -> tuple[Tensor, LifState]:
        """One step of `scan`: (spikes [B,K], state) -> (spikes [B,N], state)."""
        out, state = self.scan(spikes.unsqueeze(0), state)
        return out[0], state

    def _check(self, spikes: Tensor, state: LifState) -> None:
        outputs, inputs = self.weight.shape
        if spikes.dim() != 3 or spikes.shape[0] == 0 or spikes.shape[2] != inputs:
            got = f"SpikingLinear: got spikes {list(spikes.shape)}, expected [T,B,{inputs}] with T >= 1."
            raise UsageError(got, "Give it time first; `step` takes one step [B,K].")
        batch = state.v.shape[0]
        if state.v.shape == (spikes.shape[1], outputs):
            return
        if state.v.shape[1:] == (outputs,) and batch == spikes.shape[0]:
            got = (
                f"SpikingLinear: got batch-first spikes {list(spikes.shape)} for a state of {batch}, expected [T,B,K]."
            )
            raise UsageError(got, "Transpose them: spikes.transpose(0, 1).")
        got = f"SpikingLinear: got a state {list(state.v.shape)} for spikes {list(spikes.shape)}"
        want = f"expected [{spikes.shape[1]},{outputs}]."
        raise UsageError(f"{got}, {want}", f"Begin with init_state({spikes.shape[1]}, device).")


def _check_finite(spikes: Tensor, v: Tensor) -> None:
    # A membrane keeps what was not finite to the end, and is smaller than the spikes by the number of steps.
    if bool(v.detach().sum().isfinite()) or bool(v.isfinite().all()):
        return
    bad = int((~spikes.isfinite()).sum())
    if bad:
        got = f"SpikingLinear: got {bad} spikes that are NaN or infinite, expected finite ones."
        raise NeuroError(got, "Look for the first layer whose output is not finite.")
    got = "SpikingLinear: got a membrane that is NaN or infinite from finite spikes, expected finite weights and state."
    raise NeuroError(got, "Lower the learning rate or clip the gradients, and begin with init_state.")
