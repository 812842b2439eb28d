"""`count`: one run of any module as a `neuro.workload.Workload`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from neuro.errors import UsageError
from neuro.workload import UNITS, Workload
from sims.counting.counter import Counting
from sims.counting.movement import tensors
from sims.counting.owned import has_forward


def count(
    module: nn.Module,
    inputs: Any,
    *,
    signals: Mapping[str, str] | None = None,
    allow_uncounted: bool = False,
    unit: str = "sample",
    samples: int | None = None,
    input_signal: str = "dense",
    call: Callable[..., Any] | None = None,
) -> Workload:
    """Run a module once, as it is and without gradients, and count what it did. It is left as it was.

    ``seconds`` of the phase are those of the counted run. A zero that a module writes around its input itself (and not by
    the padding of a convolution) is an input like others. A forward that takes gradients of its own cannot be counted.

    Args:
        inputs: a tensor, a tuple of positional arguments, or a dict of named ones. On the meta device everything follows
            from shapes: no effective counts, no spikes.
        signals: {"path of a submodule": what its output is: "binary", "graded" or "dense"}; nothing is guessed from
            values. Spiking modules of ours and of snntorch declare themselves.
        allow_uncounted: list operators without a rule in `Workload.uncounted` instead of raising.
        unit: what is counted by, "sample" or "token".
        samples: how many of them this is; None: the first axis of the first tensor, or of tokens its first two.
        input_signal: what the tensors of ``inputs`` are.
        call: (module, *inputs) instead of the module's own ``forward``.

    Raises:
        UsageError: no module, no forward, inputs of another form, or ``signals`` that name nothing that ran.
        NeuroError: an operator that does arithmetic and has no rule, or a binary signal that is not.
    """
    counting = Counting(module, signals=signals, allow_uncounted=allow_uncounted)
    if call is None and not has_forward(module):
        got = f"count: got a {type(module).__name__} without a forward, expected a module that can be called."
        raise UsageError(got, "Give call=lambda module, x: ..., or use sims.counting.Counting around your own call.")
    if unit not in UNITS:
        raise UsageError(f"count unit: got '{unit}', expected one of {', '.join(UNITS)}.", "Correct the name.")
    named = dict(inputs) if isinstance(inputs, Mapping) else {}
    given = () if named else (tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,))
    found = tensors([*given, *named.values()])
    if not found:
        got = f"count: got inputs of {type(inputs).__name__} without a tensor, expected a tensor, a tuple or a dict."
        raise UsageError(got, "Give what the module is called with.")
    if samples is None:
        axes = found[0].shape[: 2 if unit == "token" else 1]
        samples = max(1, math.prod(axes))
    with counting:
        counting.given(found, input_signal)
        call(module, *given, **named) if call else module(*given, **named)
    return counting.workload(samples, unit)
