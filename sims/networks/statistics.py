"""What networks are compared by: rates, irregularity of the intervals, and how far neurons fire together."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from sims.networks.simulate import Spikes
from sims.networks.synapses import Array

BIN_MS = 5.0
PAIRED = 200  # neurons whose pairwise correlations are taken: the work grows with their square


@dataclass(frozen=True)
class Summary:
    """Of a run, or a part of it.

    Args:
        excitatory_hz, inhibitory_hz: mean rates.
        cv: mean over neurons of the coefficient of variation of their intervals: 0 is a clock, 1 a Poisson process. None
            where no neuron fired three times.
        correlation: mean Pearson correlation of the counts in bins of 5 ms over pairs of up to 200 neurons that fired, evenly
            spread. None where no two of them fired unevenly.
        events: synaptic events.
    """

    excitatory_hz: float
    inhibitory_hz: float
    cv: float | None
    correlation: float | None
    events: int

    def to_dict(self) -> dict[str, float | int | None]:
        return dataclasses.asdict(self)


def summary(spikes: Spikes) -> Summary:
    counts = np.bincount(spikes.neurons, minlength=spikes.num_neurons)
    excitatory, inhibitory = counts[: spikes.num_excitatory], counts[spikes.num_excitatory :]
    irregular, together = cvs(spikes), correlations(spikes)
    return Summary(
        excitatory_hz=float(excitatory.mean() / spikes.seconds),
        inhibitory_hz=float(inhibitory.mean() / spikes.seconds),
        cv=float(irregular.mean()) if len(irregular) else None,
        correlation=float(together.mean()) if len(together) else None,
        events=spikes.num_events,
    )


def cvs(spikes: Spikes) -> Array:
    """The coefficient of variation of the intervals of every neuron with two intervals or more, float64."""
    order = np.argsort(spikes.neurons, kind="stable")
    neurons, steps = spikes.neurons[order], spikes.steps[order]
    same = neurons[1:] == neurons[:-1]
    intervals, owner = np.diff(steps)[same].astype(float), neurons[1:][same]
    counts = np.bincount(owner, minlength=spikes.num_neurons)
    chosen = counts >= 2
    mean = np.bincount(owner, intervals, spikes.num_neurons)[chosen] / counts[chosen]
    square = np.bincount(owner, intervals**2, spikes.num_neurons)[chosen] / counts[chosen]
    return np.sqrt(np.maximum(square - mean**2, 0.0)) / mean


def correlations(spikes: Spikes) -> Array:
    """Pearson correlations of binned counts over the pairs, float64 [pairs]."""
    width = max(1, round(BIN_MS / spikes.dt_ms))
    bins = spikes.num_steps // width
    fired = np.unique(spikes.neurons)
    chosen = fired[np.unique(np.linspace(0, len(fired) - 1, min(PAIRED, len(fired))).astype(int))]
    if bins < 2 or len(chosen) < 2:
        return np.empty(0)
    place = np.full(spikes.num_neurons, -1)
    place[chosen] = np.arange(len(chosen))
    row, column = place[spikes.neurons], spikes.steps // width
    kept = (row >= 0) & (column < bins)
    counts = np.bincount(row[kept] * bins + column[kept], minlength=len(chosen) * bins).reshape(len(chosen), bins)
    uneven = counts[counts.std(1) > 0]
    if len(uneven) < 2:
        return np.empty(0)
    return np.corrcoef(uneven)[np.triu_indices(len(uneven), 1)]


def population_hz(spikes: Spikes) -> tuple[Array, Array]:
    """(middle of each bin of 1 ms in seconds, rate of the whole network there)."""
    width = max(1, round(1.0 / spikes.dt_ms))
    bins = -(-spikes.num_steps // width)
    counts = np.bincount(spikes.steps // width, minlength=bins)
    steps = np.minimum(width, spikes.num_steps - width * np.arange(bins))  # the last bin may be shorter
    seconds = spikes.dt_ms * 1e-3
    return (np.arange(bins) * width + steps / 2) * seconds, counts / (steps * seconds * spikes.num_neurons)
