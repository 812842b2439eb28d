"""What every neuron shares: the face of the module, constants that are numbers or tensors, and errors that teach.

Axes: T steps, B batch, N neurons. A layer is `init_state`, `step` [B,N] and `scan` [T,B,N], time first; the state is a
NamedTuple of tensors [B,N] that the caller keeps. scan == fold(step): a run may be cut anywhere.

Euler's rule turns a time constant into the decay of a step: decay = 1 - dt / tau, so 0 < dt <= tau.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from backends import LifRule
from neuro.errors import UsageError

Number = float | Sequence[float] | Tensor
"""A constant as the user gives it: one for the layer, or one for each neuron [N]."""

Constant = float | Tensor
"""A constant as a neuron uses it: a number, or a tensor that broadcasts to [B,N]."""

SOFT = LifRule()


class Neuron(nn.Module):
    """N neurons of one model.

    Attributes:
        neurons: N.
        dt_ms: the step, in milliseconds.
        state_type: the NamedTuple of the model.
        trailing: further axes of its tensors, [B,N,...].

    Raises:
        UsageError: no neuron, or a step that is not a positive number.
    """

    state_type: Any
    trailing: tuple[int, ...] = ()

    def __init__(self, neurons: int, dt_ms: float) -> None:
        super().__init__()
        self.name = type(self).__name__
        if not neurons >= 1 or neurons % 1:
            raise UsageError(
                f"{self.name}: got {neurons} neurons, expected a whole number of at least 1.", "Give the layer's width."
            )
        if not 0.0 < dt_ms < float("inf"):
            raise UsageError(f"{self.name} dt_ms: got {dt_ms}, expected more than 0.", "Give the step in milliseconds.")
        self.neurons, self.dt_ms = neurons, float(dt_ms)

    def init_state(self, batch: int, device: torch.device | None = None, dtype: torch.dtype | None = None) -> Any:
        """The state at rest of ``batch`` rows: zeros, unless the model says otherwise."""
        fields = self.state_type._fields
        return self.state_type(*(torch.zeros(batch, self.neurons, device=device, dtype=dtype) for _ in fields))

    def step(self, current: Tensor, state: Any) -> tuple[Tensor, Any]:
        """One step: (current [B,N], state) -> (spikes [B,N], state).

        Raises:
            UsageError: shapes or types that do not fit the state, or NaN.
        """
        self._check(current, state, "step")
        spikes, after = self._step(current, state)
        self._check_numbers(current, after, "step")
        return spikes, after

    def scan(self, current: Tensor, state: Any) -> tuple[Tensor, Any]:
        """T steps: (current [T,B,N], state) -> (spikes [T,B,N], state).

        Raises:
            UsageError: shapes or types that do not fit the state, batch-first input, or NaN.
        """
        self._check(current, state, "scan")
        spikes, after = self._scan(current, state)
        self._check_numbers(current, after, "scan")
        return spikes, after

    def forward(self, *args: Any, **options: Any) -> NoReturn:
        """Refused: the state would have nowhere to go.

        Raises:
            UsageError: always.
        """
        raise UsageError(
            f"{self.name}: got a call, expected scan or step, which take the state and give it back.",
            "Write spikes, state = layer.scan(current, layer.init_state(batch)).",
        )

    def extra_repr(self) -> str:
        return f"{self.neurons}, dt_ms={self.dt_ms:g}"

    def _step(self, current: Tensor, state: Any) -> tuple[Tensor, Any]:
        spikes, state = self._scan(current.unsqueeze(0), state)
        return spikes[0], state

    def _scan(self, current: Tensor, state: Any) -> tuple[Tensor, Any]:
        return fold(self._step, current, state)

    def _keep(self, name: str, value: Number, learn: bool = False) -> None:
        """Keep a constant: a number stays one; [N] becomes a buffer; what is learned a parameter, [1] or [N]."""
        kept = per_neuron(f"{self.name} {name}", value, self.neurons)
        if learn:
            self.register_parameter(name, nn.Parameter(torch.as_tensor(kept, dtype=_dtype(kept)).reshape(-1).clone()))
        elif isinstance(kept, Tensor):
            self.register_buffer(name, kept.clone())
        else:
            setattr(self, name, kept)

    def _spread(self, constant: Constant) -> Constant:
        """A learned [1] as the operators take it: [N]."""
        return constant.expand(self.neurons) if isinstance(constant, Tensor) else constant

    def _check(self, current: Tensor, state: Any, what: str) -> None:
        where = f"{self.name}.{what}"
        if not isinstance(state, self.state_type):
            raise UsageError(
                f"{where}: got a state of type {type(state).__name__}, expected {self.state_type.__name__}.",
                "Make it with init_state(batch).",
            )
        if not isinstance(current, Tensor) or not current.is_floating_point():
            got = str(current.dtype) if isinstance(current, Tensor) else type(current).__name__
            raise UsageError(f"{where}: got current of {got}, expected floating point.", "Convert it with .float().")
        rows, axes = state[0].shape[0], 3 if what == "scan" else 2
        shape, n = list(current.shape), self.neurons
        form = f"[T,{rows},{n}]" if axes == 3 else f"[{rows},{n}]"
        if any(leaf.shape != (rows, n, *self.trailing) for leaf in state):
            got = ", ".join(f"{name} {list(leaf.shape)}" for name, leaf in zip(state._fields, state, strict=True))
            expected = ",".join(["B", *map(str, (n, *self.trailing))])
            raise UsageError(
                f"{where}: got a state of {got}, expected [{expected}].", "Make it with init_state(batch)."
            )
        if current.dim() != axes or shape[-1] != n or 0 in shape:
            raise UsageError(
                f"{where}: got current {shape}, expected {form}.",
                "Give every step, row and neuron a value." if axes == 3 else "Use scan for several steps.",
            )
        if shape[-2] != rows and shape[0] == rows:
            raise UsageError(
                f"{where}: got current {shape}: its first axis is the state's batch of {rows}, so it is batch-first; "
                f"expected time first, {form}.",
                "Transpose it: current.transpose(0, 1).",
            )
        if shape[-2] != rows:
            raise UsageError(
                f"{where}: got current {shape} and a state of batch {rows}, expected one batch.",
                f"Make the state with init_state({shape[-2]}).",
            )
        if any(leaf.dtype != current.dtype or leaf.device != current.device for leaf in state):
            got = f"{state[0].dtype} on {state[0].device}"
            raise UsageError(
                f"{where}: got current of {current.dtype} on {current.device} and a state of {got}, expected one type.",
                "Make the state with init_state(batch, current.device, current.dtype).",
            )

    def _check_numbers(self, current: Tensor, state: Any, what: str) -> None:
        # NaN never leaves a state once it is in one, so the last step tells of all of them.
        if torch.compiler.is_compiling() or not any(bool(leaf.isnan().any()) for leaf in state):
            return
        if current.isnan().any():
            place = current.isnan().nonzero()[0].tolist()
            raise UsageError(
                f"{self.name}.{what}: got NaN in the current at {place}, expected numbers.",
                "Look for a division by 0 or an overflow before this layer.",
            )
        raise UsageError(
            f"{self.name}.{what}: got a state that became NaN, expected numbers.",
            f"The state came in broken, the current is infinite, or dt_ms={self.dt_ms:g} is too long for Euler's rule.",
        )


def fold(step: Callable[[Tensor, Any], tuple[Tensor, Any]], current: Tensor, state: Any) -> tuple[Tensor, Any]:
    """The plain loop: a step for each of [T,B,N] (unbound once: indexing a tensor with a gradient costs T^2)."""
    spikes = []
    for current_t in current.unbind(0):
        s, state = step(current_t, state)
        spikes.append(s)
    return torch.stack(spikes), state


def reset(u: Tensor, s: Tensor, threshold: Constant, rule: LifRule) -> Tensor:
    """The membrane after its spikes, at once (`LifRule`'s table; delayed resets run in ``Ops.lif_scan`` only)."""
    s = s.detach() if rule.detach_reset else s
    if rule.reset == "soft":
        return u - threshold * s
    return u * (1.0 - s) + rule.v_reset * s if rule.reset == "hard" else u


def is_rule(name: str, rule: LifRule) -> LifRule:
    """The rule, if it is one.

    Raises:
        UsageError: it is something else, such as the name of a reset.
    """
    if not isinstance(rule, LifRule):
        form = f'LifRule("{rule}")' if rule in ("soft", "hard", "none") else "LifRule()"
        raise UsageError(f"{name} rule: got {rule!r}, expected a LifRule.", f"Take {form} of backends.")
    return rule


def at_once(name: str, rule: LifRule) -> LifRule:
    """The rule, where a model has no delayed reset.

    Raises:
        UsageError: it asks for one, or is no rule.
    """
    if is_rule(name, rule).delayed:
        raise UsageError(f"{name} rule: got a delayed reset, expected one at once.", "Leave delayed out.")
    return rule


def per_neuron(where: str, value: Number, neurons: int) -> Constant:
    """A number as it is, or a tensor [N].

    Raises:
        UsageError: another number of values, one that is not finite, or what is no number.
    """
    if isinstance(value, int | float):
        if value != value or abs(value) == float("inf"):
            raise UsageError(f"{where}: got {value}, expected a finite number.", "Correct the value.")
        return float(value)
    try:
        found = value.detach() if isinstance(value, Tensor) else torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"{where}: got {value!r}, expected numbers.", "Give a number, or one per neuron.") from error
    if not found.is_floating_point() or not isinstance(value, Tensor):
        found = found.to(torch.get_default_dtype())
    if found.numel() == 1:
        return per_neuron(where, found.item(), neurons)
    if found.shape != (neurons,):
        raise UsageError(
            f"{where}: got shape {list(found.shape)}, expected one number or [{neurons}].", "Give one per neuron."
        )
    if not bool(found.isfinite().all()):
        raise UsageError(f"{where}: got {found.tolist()}, expected finite numbers.", "Correct the values.")
    return found


def decay_of(
    where: str, tau_ms: Number | None, dt_ms: float, neurons: int, alias: str, direct: Number | None
) -> Constant:
    """The decay of a step, of a time constant in milliseconds or given ``direct``, by its ``alias``.

    ``where`` is the class and the constant's name, such as "LIF tau_mem_ms". A decay that is given is used bit for bit.

    Raises:
        UsageError: both, neither, a time constant below dt, or a decay outside 0 to 1.
    """
    if (tau_ms is None) == (direct is None):
        got = "neither" if direct is None else "both"
        raise UsageError(f"{where} and {alias}: got {got}, expected one of them.", f"{alias} is 1 - dt_ms / tau.")
    if direct is not None:
        decay = per_neuron(f"{where.split()[0]} {alias}", direct, neurons)
        if not bool(torch.all((torch.as_tensor(decay) >= 0) & (torch.as_tensor(decay) <= 1))):
            raise UsageError(
                f"{where.split()[0]} {alias}: got {_show(decay)}, expected 0 to 1.", "It is what a step leaves of it."
            )
        return decay
    assert tau_ms is not None
    tau = per_neuron(where, tau_ms, neurons)
    least = float(torch.as_tensor(tau).min())
    if least <= 0:
        raise UsageError(f"{where}: got {least:g}, expected more than 0.", "Time constants are in milliseconds.")
    if least < dt_ms:
        raise UsageError(
            f"{where}: got {least:g} with a step of {dt_ms:g} ms, expected a step no longer than the time constant.",
            "Euler's rule would overshoot: take a smaller dt_ms.",
        )
    return 1.0 - dt_ms / tau


def logit(name: str, decay: Constant) -> nn.Parameter:
    """The parameter, [1] or [N], whose sigmoid is a decay.

    Raises:
        UsageError: a decay of exactly 0 or 1.
    """
    start = torch.as_tensor(decay, dtype=torch.float64).reshape(-1)
    if not bool(((start > 0) & (start < 1)).all()):
        raise UsageError(
            f"{name}: got a decay of {start.tolist()}, expected more than 0 and less than 1.",
            "Start from a tau_mem_ms above dt_ms.",
        )
    return nn.Parameter(torch.logit(start).to(_dtype(decay)))


def _dtype(value: Constant) -> torch.dtype:
    return value.dtype if isinstance(value, Tensor) else torch.get_default_dtype()


def _show(value: Constant) -> str:
    return str(value.tolist()) if isinstance(value, Tensor) else f"{value:g}"
