"""Spikes into values: counts, rates, first spikes, filtered traces, and what undoes `neuro.neurons.encoders`.

Time is the first axis, T steps.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from backends import Ops, native
from neuro.errors import UsageError


def count(spikes: Tensor) -> Tensor:
    """[T,...] -> [...]: how many spikes."""
    return spikes.sum(0)


def rate_hz(spikes: Tensor, dt_ms: float) -> Tensor:
    """[T,...] -> [...]: spikes per second.

    Raises:
        UsageError: a step that is not above 0.
    """
    if not 0.0 < dt_ms < math.inf:
        raise UsageError(f"rate_hz dt_ms: got {dt_ms}, expected more than 0.", "Give the step in milliseconds.")
    return spikes.mean(0) * (1000.0 / dt_ms)


def first_spike(spikes: Tensor) -> Tensor:
    """[T,...] -> [...] int64: the step of the first spike, T where there is none.

    Raises:
        UsageError: no step.
    """
    if not len(spikes):
        raise UsageError("first_spike: got no step of spikes, expected [T,...].", "Give at least one step.")
    fired = spikes > 0
    return torch.where(fired.any(0), fired.to(torch.int8).argmax(0), fired.shape[0])


def latency(spikes: Tensor) -> Tensor:
    """[T,...] -> [...]: the intensity whose `encoders.latency` these are, to within half a step; 0 without a spike."""
    steps = spikes.shape[0]
    value = 1.0 - first_spike(spikes).to(spikes.dtype) / max(1, steps - 1)
    return torch.where((spikes > 0).any(0), value, torch.zeros_like(value))


def delta(up: Tensor, down: Tensor, threshold: float, start: Tensor) -> Tensor:
    """What `encoders.delta` made, [T,...] each, and the signal's first value [...] -> the signal [T,...]."""
    return start + threshold * (up - down).cumsum(0)


def population(rates: Tensor, centres: Tensor) -> Tensor:
    """Rates or counts [...,M] of units at ``centres`` [M] -> their mean position [...]; NaN where all are silent.

    Unbiased where the units lie evenly and reach beyond the value on both sides.
    """
    return (rates * centres).sum(-1) / rates.sum(-1)


def trace(spikes: Tensor, tau_ms: float, dt_ms: float, ops: Ops = native.OPS) -> Tensor:
    """[T,B,N] -> [T,B,N]: spikes filtered with an exponential, r_t = exp(-dt / tau) r_{t-1} + s_t (a leaky readout).

    Raises:
        UsageError: a time constant or a step that is not above 0.
    """
    for name, value in (("tau_ms", tau_ms), ("dt_ms", dt_ms)):
        if not 0.0 < value < math.inf:
            raise UsageError(f"trace {name}: got {value}, expected more than 0.", "Give it in milliseconds.")
    decay = spikes.new_full((1, 1, 1), math.exp(-dt_ms / tau_ms)).expand_as(spikes)
    return ops.affine_scan(decay, spikes, torch.zeros_like(spikes[0]))
