"""The spiking time loop compiled by numba, on a CPU without the C++ library: the plan and the numbers of `scan.cpp`.

It takes constants that are numbers, and a delayed reset only where that is detached; the rest runs as torch operators
(`backends.lif`): more arrays in one loop than LLVM compares are not vectorized. The first call of a rule compiles for some
seconds, once: what was compiled is kept on disk (`backends.kernels.loops_numba`).
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
from backends.surrogate import KINDS

_REALS = (torch.float32, torch.float64)
_EVERY = 16  # EVERY of loops_numba


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


def _forward(rule: LifRule) -> Callable[..., None]:
    from backends.kernels import loops_numba

    return loops_numba.forward(rule.delayed)


def _backward(rule: LifRule) -> Callable[..., None]:
    from backends.kernels import loops_numba

    return loops_numba.backward(KINDS.index(rule.surrogate.kind), rule.delayed, not rule.detach_reset)


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
        arrays = (_flat(current), v.view(-1).numpy(), spikes.flatten(1).numpy(), checkpoint.numpy())
        _forward(rule)(*arrays, numbers)
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
        arrays = (_flat(grad_spikes), _flat(current), grad.flatten(1).numpy(), carried.view(-1).numpy())
        _backward(ctx.rule)(*arrays, checkpoint.numpy(), ctx.numbers)
        return grad, carried, None, None, None


def lif_scan(
    current: Tensor, v0: Tensor, decay: float | Tensor, threshold: float | Tensor, rule: LifRule
) -> tuple[Tensor, Tensor]:
    """As `backends.contract.Ops.lif_scan`, for a call that `runs` accepts."""
    return _LifScan.apply(current, v0.expand(current.shape[1:]), decay, threshold, rule)
