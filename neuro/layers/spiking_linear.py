"""A linear layer with the neurons it drives: spikes in, spikes out, event-driven where few inputs fire.

    i_t = W s_t + b;  the neurons are those of `neuro.neurons`

Time-first. The product is taken over all steps at once. Without gradients, and with few spikes in, the product and neurons
with the membrane as their only state (LIF, IF) are one sweep (`backends.spike_linear`).
"""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from backends.kernels.spikes import PackedWeight
from backends.spike_linear import spike_lif, spike_linear
from neuro.errors import NeuroError, UsageError
from neuro.neurons import IF, LIF, Neuron
from neuro.state import LifState


class SpikingLinear(nn.Module):
    """[T,B,K] -> [T,B,N] with N the number of neurons; their state is carried from step to step.

    Args:
        in_features: K.
        neuron: what the currents drive.
        bias: add a current of its own to each neuron.
        backward_dtype: the type of the backward pass's dense products, e.g. bfloat16 (where the CPU has such products); the
            spikes are the same.

    Raises:
        UsageError: no input, or what is no neuron.
    """

    def __init__(
        self, in_features: int, neuron: Neuron, bias: bool = True, backward_dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        if in_features < 1:
            raise UsageError(
                f"SpikingLinear: got {in_features} inputs, expected at least 1.", "Give their number first."
            )
        if not isinstance(neuron, Neuron):
            raise UsageError(
                f"SpikingLinear: got {type(neuron).__name__}, expected a neuron of neuro.neurons.",
                "Give one, such as LIF(128, tau_mem_ms=20.0).",
            )
        start = nn.Linear(in_features, neuron.neurons, bias)
        self.weight, self.bias = start.weight, start.bias
        self.neuron, self.backward_dtype = neuron, backward_dtype
        self._packed = PackedWeight()

    def init_state(self, batch: int) -> Any:
        """The neurons at rest, in the weight's type and place."""
        return self.neuron.init_state(batch, self.weight.device, self.weight.dtype)

    def scan(self, spikes: Tensor, state: Any) -> tuple[Tensor, Any]:
        """(spikes [T,B,K], state of [B,N]) -> (spikes [T,B,N], state).

        Raises:
            UsageError: batch-first spikes, another width, a state of another batch or type.
            NeuroError: a membrane that is no longer finite (on the CPU).
        """
        self._check(spikes, state)
        if not isinstance(self.neuron, LIF | IF) or (isinstance(self.neuron, LIF) and self.neuron.decay_input):
            current = spike_linear(spikes, self.weight, self.bias, self._packed, self.backward_dtype)
            return self.neuron.scan(current, state)
        decay = self.neuron.decay if isinstance(self.neuron, LIF) else 1.0
        out, v = spike_lif(
            spikes,
            self.weight,
            self.bias,
            state.v,
            decay,
            self.neuron._spread(self.neuron.threshold),
            self.neuron.rule,
            self.neuron.ops.lif_scan,
            self._packed,
            self.backward_dtype,
        )
        if v.device.type == "cpu" and not (torch.compiler.is_compiling() or torch.jit.is_tracing()):
            _check_finite(spikes, v)
        return out, LifState(v)

    def step(self, spikes: Tensor, state: Any) -> tuple[Tensor, Any]:
        """One step of `scan`: (spikes [B,K], state) -> (spikes [B,N], state)."""
        out, state = self.scan(spikes.unsqueeze(0), state)
        return out[0], state

    def forward(self, *args: Any, **options: Any) -> NoReturn:
        """Refused, as of a neuron.

        Raises:
            UsageError: always.
        """
        raise UsageError(
            "SpikingLinear: got a call, expected scan or step, which take the state and give it back.",
            "Write spikes, state = layer.scan(spikes, layer.init_state(batch)).",
        )

    def _check(self, spikes: Tensor, state: Any) -> None:
        outputs, inputs = self.weight.shape
        if spikes.dim() != 3 or 0 in spikes.shape or spikes.shape[2] != inputs:
            got = f"SpikingLinear: got spikes {list(spikes.shape)}, expected [T,B,{inputs}] with T >= 1."
            raise UsageError(got, "Give it time first; `step` takes one step [B,K].")
        if not isinstance(state, self.neuron.state_type):
            got = f"SpikingLinear: got a state of type {type(state).__name__}"
            raise UsageError(f"{got}, expected {self.neuron.state_type.__name__}.", "Begin with init_state(batch).")
        found, batch = state[0], spikes.shape[1]
        if found.shape[0] != batch and found.shape[0] == spikes.shape[0]:
            got = f"SpikingLinear: got batch-first spikes {list(spikes.shape)} for a state of {found.shape[0]}"
            raise UsageError(f"{got}, expected [T,B,K].", "Transpose them: spikes.transpose(0, 1).")
        if found.shape[:2] != (batch, outputs) or found.dtype != self.weight.dtype:
            got = f"SpikingLinear: got a state {list(found.shape)} of {found.dtype} for spikes {list(spikes.shape)}"
            want = f"expected [{batch},{outputs}] of {self.weight.dtype}."
            raise UsageError(f"{got}, {want}", f"Begin with init_state({batch}).")


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
