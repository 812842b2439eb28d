"""What a simulation needs to know of a network: its synapses, its state before the first step, and how a step moves it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from neuro.errors import UsageError
from sims.networks.poisson import Drive
from sims.networks.synapses import Array, Synapses

Sweep = Callable[[Array, "Circuit", int], None]


@dataclass(frozen=True)
class Circuit:
    """A network with one step's length built into its constants. Potentials in mV.

    Args:
        model: what the library calls it: cuba, coba or brunel.
        state: float64 [rows, neurons]: the membrane, and the two synaptic variables where the model has them.
        refractory: steps for which the membrane stays at the reset after a spike, at least 1.
        delay: steps from a spike to its effect; 0 is the end of the same step.
        excite, inhibit: what a spike adds to its target (the second negative where it is subtracted).
        constants: of the update; what each is stands in the model's file.
        sweep: the update in numpy, in place: (state, circuit, number of the step).
        drive: the external spikes, where the model has them.
    """

    model: str
    synapses: Synapses
    state: Array
    dt_ms: float
    threshold: float
    reset: float
    refractory: int
    delay: int
    excite: float
    inhibit: float
    constants: tuple[float, ...]
    sweep: Sweep
    drive: Drive | None = None

    @property
    def neurons(self) -> int:
        return self.synapses.neurons

    def rows(self) -> tuple[int, int]:
        """Rows of the state that an excitatory and an inhibitory spike reach."""
        return (1, 2) if len(self.state) == 3 else (0, 0)


def check(name: str, neurons: int, most: int, dt_ms: float, longest_ms: float, because: str) -> None:
    """Raises UsageError for a network too small to have both kinds of neurons or too large to hold, or for its step."""
    if not 10 <= neurons <= most:
        raise UsageError(
            f"{name}: got {neurons} neurons, expected 10 to {most}.",
            "Ask for a number in between, such as --neurons 4000.",
        )
    if not 0 < dt_ms <= longest_ms:
        raise UsageError(
            f"{name}: got dt = {dt_ms:g} ms, expected more than 0 and at most {longest_ms:g} ms ({because}).",
            "Give a step such as --dt 0.1.",
        )


def steps(span_ms: float, dt_ms: float) -> int:
    """How many steps a span is, to the nearest, at least 1."""
    return max(1, round(span_ms / dt_ms))


def generator(seed: int, purpose: int) -> np.random.Generator:
    """An independent stream of random numbers for each purpose: 0 the synapses, 1 the initial state."""
    return np.random.default_rng([seed, purpose])
