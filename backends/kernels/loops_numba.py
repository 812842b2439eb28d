"""The loops of `backends.kernels.lif_numba`; numba is imported with this module.

What numba compiles it keeps on disk: beside this file as Python keeps its bytecode, or in the user's cache folder where that
cannot be written to, or in $NUMBA_CACHE_DIR. It compiles anew when this file, numba or the processor is another one, and each
time where no folder can be written to. What differs between rules are numbers that a loop is closed over and no functions:
numba would take a function for another one in each process.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

EVERY = 16  # steps between two membranes that the backward pass starts from again
WIDTH = 16384  # channels carried at a time
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, compiled when first called, or read from where an earlier process left it."""
    try:
        return numba.njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # numba finds no folder to write to
        return numba.njit(**_OPTIONS)(function)


@compiled
def derivative(kind, x, slope, half, bend, one):
    if kind == 0:
        distance = abs(x) * slope + one
        return one / (distance * distance)
    if kind == 1:
        bent = x * bend
        return half / (bent * bent + one)
    if kind == 2:
        return max(one - abs(x) * slope, one - one)
    return one if abs(x) * slope <= one else one - one


@functools.cache
def forward(delayed: bool) -> Callable[..., None]:
    @compiled
    def run(current, v, spikes, checkpoint, numbers):
        decay, fire, keep, shift, one = numbers[0], numbers[2], numbers[3], numbers[4], numbers[8]
        for first in range(0, v.size, WIDTH):
            last = min(first + WIDTH, v.size)
            membrane = v[first:last]
            for t in range(current.shape[0]):
                if t % EVERY == 0 and checkpoint.size:
                    checkpoint[t // EVERY, first:last] = membrane
                x, s = current[t, first:last], spikes[t, first:last]
                for i in range(last - first):
                    u = decay * membrane[i] + x[i]
                    reset = keep * u + shift
                    if delayed:
                        after = reset if membrane[i] >= fire else u
                        s[i] = one if after >= fire else one - one
                        membrane[i] = after
                    else:
                        s[i] = one if u >= fire else one - one
                        membrane[i] = reset if u >= fire else u

    return run


@compiled
def back(kind, delayed, attach, g, before, after, out, future, numbers):
    decay, threshold, fire, keep, shift = numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]
    slope, half, bend, one = numbers[5], numbers[6], numbers[7], numbers[8]
    for i in range(future.size):
        arriving, u = future[i], before[i]
        if delayed:
            arriving += derivative(kind, after[i] - threshold, slope, half, bend, one) * g[i]
            stays = keep * arriving
            total = stays if u >= fire else arriving
        else:
            spike = derivative(kind, u - threshold, slope, half, bend, one)
            if attach:
                spike *= g[i] + ((keep - one) * u + shift) * arriving
            else:
                spike *= g[i]
            stays = keep * arriving
            total = spike + (stays if u >= fire else arriving)
        out[i] = total
        future[i] = decay * total


@functools.cache
def backward(kind: int, delayed: bool, attach: bool) -> Callable[..., None]:
    @compiled
    def run(grad_spikes, current, grad, carried, checkpoint, numbers):
        decay, fire, keep, shift = numbers[0], numbers[2], numbers[3], numbers[4]
        tokens = current.shape[0]
        # u of every step of a chunk; v, where the reset is delayed, before every step and after the last.
        kept = np.empty((EVERY + 1, min(WIDTH, carried.size)), current.dtype)
        # Looked up and not counted down: else LLVM compares the arrays of all steps at once, takes them to overlap, and
        # the loop over channels is not vectorized.
        places = np.arange(EVERY)
        for first in range(0, carried.size, WIDTH):
            last = min(first + WIDTH, carried.size)
            width = last - first
            membrane = np.empty(width, current.dtype)
            for chunk in range((tokens - 1) // EVERY, -1, -1):
                start, stop = chunk * EVERY, min(chunk * EVERY + EVERY, tokens)
                membrane[:] = checkpoint[chunk, first:last]
                for t in range(start, stop):
                    x, before = current[t, first:last], kept[t - start]
                    for i in range(width):
                        v = membrane[i]
                        u = decay * v + x[i]
                        reset = keep * u + shift
                        before[i] = v if delayed else u
                        membrane[i] = reset if (v if delayed else u) >= fire else u
                kept[stop - start, :width] = membrane
                for k in range(stop - start - 1, -1, -1):
                    place = places[k]
                    before, after, t = kept[place], kept[place + 1], start + place
                    out, future = grad[t, first:last], carried[first:last]
                    back(kind, delayed, attach, grad_spikes[t, first:last], before, after, out, future, numbers)

    return run
