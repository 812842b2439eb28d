"""The spiking time loop compiled by numba, on a CPU without the C++ library: the plan and the numbers of `scan.cpp`.

It takes constants that are numbers, and a delayed reset only where that is detached; the rest runs as torch operators
(`backends.lif`): more arrays in one loop than LLVM compares are not vectorized. The first call of a rule compiles for a
second or two; nothing is kept on disk.
"""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from backends.contract import LifRule

_REALS = (torch.float32, torch.float64)
_EVERY = 16  # steps between two membranes that the backward pass starts from again
_WIDTH = 16384  # channels carried at a time


@functools.cache
def here() -> bool:
    """Whether numba could be imported."""
    return importlib.util.find_spec("numba") is not None


def runs(current: Tensor, v0: Tensor, decay: float | Tensor, threshold: float | Tensor, rule: LifRule) -> bool:
    """Whether it takes this call: several steps on the CPU, one type, numbers for constants, no trace."""
    if isinstance(decay, Tensor) or isinstance(threshold, Tensor) or (rule.delayed and not rule.detach_reset):
        return False
    fits = current.dtype in _REALS and v0.dtype == current.dtype and current.device.type == v0.device.type == "cpu"
    return fits and current.shape[0] > 1 and not torch.compiler.is_compiling() and here()


@functools.cache
def _loops(kind: str, delayed: bool, attach: bool) -> tuple[Callable[..., None], Callable[..., None]]:
    """(forward, backward), compiled when first called."""
    import numba

    jit = numba.njit(nogil=True, error_model="numpy")

    if kind == "fast_sigmoid":

        @jit
        def derivative(x, slope, half, bend, one):
            distance = abs(x) * slope + one
            return one / (distance * distance)

    elif kind == "arctan":

        @jit
        def derivative(x, slope, half, bend, one):
            bent = x * bend
            return half / (bent * bent + one)

    elif kind == "triangular":

        @jit
        def derivative(x, slope, half, bend, one):
            return max(one - abs(x) * slope, one - one)

    else:

        @jit
        def derivative(x, slope, half, bend, one):
            return one if abs(x) * slope <= one else one - one

    @jit
    def forward(current, v, spikes, checkpoint, numbers):
        decay, fire, keep, shift, one = numbers[0], numbers[2], numbers[3], numbers[4], numbers[8]
        for first in range(0, v.size, _WIDTH):
            last = min(first + _WIDTH, v.size)
            membrane = v[first:last]
            for t in range(current.shape[0]):
                if t % _EVERY == 0 and checkpoint.size:
                    checkpoint[t // _EVERY, first:last] = membrane
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

    @jit
    def back(g, before, after, out, future, numbers):
        decay, threshold, fire, keep, shift = numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]
        slope, half, bend, one = numbers[5], numbers[6], numbers[7], numbers[8]
        for i in range(future.size):
            arriving, u = future[i], before[i]
            if delayed:
                arriving += derivative(after[i] - threshold, slope, half, bend, one) * g[i]
                stays = keep * arriving
                total = stays if u >= fire else arriving
            else:
                spike = derivative(u - threshold, slope, half, bend, one)
                if attach:
                    spike *= g[i] + ((keep - one) * u + shift) * arriving
                else:
                    spike *= g[i]
                stays = keep * arriving
                total = spike + (stays if u >= fire else arriving)
            out[i] = total
            future[i] = decay * total

    @jit
    def backward(grad_spikes, current, grad, carried, checkpoint, numbers):
        decay, fire, keep, shift = numbers[0], numbers[2], numbers[3], numbers[4]
        tokens = current.shape[0]
        # u of every step of a chunk; v, where the reset is delayed, before every step and after the last.
        kept = np.empty((_EVERY + 1, min(_WIDTH, carried.size)), current.dtype)
        # Looked up and not counted down: else LLVM compares the arrays of all steps at once, takes them to overlap, and
        # the loop over channels is not vectorized.
        places = np.arange(_EVERY)
        for first in range(0, carried.size, _WIDTH):
            last = min(first + _WIDTH, carried.size)
            width = last - first
            membrane = np.empty(width, current.dtype)
            for chunk in range((tokens - 1) // _EVERY, -1, -1):
                start, stop = chunk * _EVERY, min(chunk * _EVERY + _EVERY, tokens)
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
                    back(grad_spikes[t, first:last], before, after, grad[t, first:last], carried[first:last], numbers)

    return forward, backward


def _numbers(decay: float, threshold: float, rule: LifRule, dtype: torch.dtype) -> np.ndarray:
    """What the loops call numbers: an array, so that all are of the tensors' type."""
    real = np.float32 if dtype == torch.float32 else np.float64
    fire = np.nextafter(real(threshold), real(math.inf)) if rule.strict else real(threshold)
    keep = 0.0 if rule.reset == "hard" else 1.0
    shift = -threshold if rule.reset == "soft" else rule.v_reset
    k = rule.surrogate.slope
    return np.array([decay, threshold, fire, keep, shift, k, k / 2.0, math.pi / 2.0 * k, 1.0], real)


def _flat(x: Tensor) -> np.ndarray:
    """[T, B * N]: the tensor's own memory where it lies without gaps, else a copy."""
    return x.detach().contiguous().flatten(1).numpy()


class _LifScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, current: Tensor, v0: Tensor, decay: float, threshold: float, rule: LifRule):  # type: ignore[override]
        v = v0.clone(memory_format=torch.contiguous_format)
        spikes = torch.empty_like(current, memory_format=torch.contiguous_format)
        graph = any(ctx.needs_input_grad)
        checkpoint = v.new_empty(-(-current.shape[0] // _EVERY) if graph else 0, v.numel())
        numbers = _numbers(decay, threshold, rule, v.dtype)
        run, _ = _loops(rule.surrogate.kind, rule.delayed, not rule.detach_reset)
        run(_flat(current), v.view(-1).numpy(), spikes.flatten(1).numpy(), checkpoint.numpy(), numbers)
        if graph:
            ctx.save_for_backward(current, checkpoint)
            ctx.numbers, ctx.rule = numbers, rule
        return spikes, v

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_spikes: Tensor, grad_v: Tensor):  # type: ignore[override]
        current, checkpoint = ctx.saved_tensors
        grad = torch.empty_like(current, memory_format=torch.contiguous_format)
        carried = grad_v.clone(memory_format=torch.contiguous_format)
        _, run = _loops(ctx.rule.surrogate.kind, ctx.rule.delayed, not ctx.rule.detach_reset)
        arrays = (_flat(grad_spikes), _flat(current), grad.flatten(1).numpy(), carried.view(-1).numpy())
        run(*arrays, checkpoint.numpy(), ctx.numbers)
        return grad, carried, None, None, None


def lif_scan(
    current: Tensor, v0: Tensor, decay: float | Tensor, threshold: float | Tensor, rule: LifRule
) -> tuple[Tensor, Tensor]:
    """As `backends.contract.Ops.lif_scan`, for a call that `runs` accepts."""
    return _LifScan.apply(current, v0.expand(current.shape[1:]), decay, threshold, rule)
