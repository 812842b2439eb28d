"""Connections of a layer as exact integers: how many there are, and how many of them a given input meets.

A connection is a weight that meets an input that exists: where a kernel hangs over the border it has none. The fan-out of
an input is the number of its connections whose weight is not zero, so that

    effective = sum over inputs that are not zero of their fan-out

Sums are int64, or of ones and zeros in a floating type that holds every integer up to their number.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Convolution(NamedTuple):
    """How a kernel moves, one number for each spatial axis. ``output``: sizes of what comes out."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool
    groups: int
    output: tuple[int, ...]

    def meets(self, axis: int, size: int, taps: int) -> np.ndarray:
        """[size, taps] of 0 and 1: whether the input at a place meets that tap of the kernel."""
        i, k = np.arange(size)[:, None], np.arange(taps)[None, :] * self.dilation[axis]
        s, p, out = self.stride[axis], self.padding[axis], self.output[axis]
        if self.transposed:
            o = i * s - p + k
            found = (o >= 0) & (o < out)
        else:
            o, rest = np.divmod(i + p - k, s)
            found = (rest == 0) & (o >= 0) & (o < out)
        return found.astype(np.int64)


@functools.lru_cache(maxsize=512)
def met(rule: Convolution, sizes: tuple[int, ...], taps: tuple[int, ...]) -> int:
    """Pairs of a place and a tap that meet, over all spatial axes."""
    sides = enumerate(zip(sizes, taps, strict=True))
    return math.prod(int(rule.meets(axis, size, number).sum()) for axis, (size, number) in sides)


def dense(rule: Convolution, inputs: Sequence[int], weight: Sequence[int]) -> int:
    """Connections of a convolution: inputs [B,C,...] and weight [O,C/g,...], or [C,O/g,...] where it is transposed."""
    outputs = weight[1] if rule.transposed else weight[0] // rule.groups  # that an input channel reaches
    return inputs[0] * inputs[1] * outputs * met(rule, tuple(inputs[2:]), tuple(weight[2:]))


class Fans(NamedTuple):
    """Fan-outs of inputs, and what is asked of them again and again."""

    each: Tensor  # int64, in one row
    least: int
    most: int
    total: int

    @classmethod
    def of(cls, each: Tensor) -> Fans:
        each = each.flatten()
        if not each.numel():
            return cls(each, 0, 0, 0)
        return cls(each, int(each.min()), int(each.max()), int(each.sum()))


@functools.lru_cache(maxsize=512)
def alike(rule: Convolution, sizes: tuple[int, ...], taps: tuple[int, ...], outputs: int) -> Fans:
    """Fan-outs of a channel where no weight is zero: every channel's."""
    found = np.full(1, outputs, np.int64)
    for axis, (size, number) in enumerate(zip(sizes, taps, strict=True)):
        found = np.multiply.outer(found, rule.meets(axis, size, number).sum(1)).reshape(-1)
    return Fans.of(torch.from_numpy(found))


def pruned(rule: Convolution, sizes: tuple[int, ...], weight: Tensor) -> Fans:
    """Fan-outs of a sample, channel by channel, where some weights are zero."""
    kernel = mask(weight).to("cpu", torch.int64)
    if rule.transposed:
        taps = kernel.sum(1)  # [C, taps...]
    else:
        taps = kernel.unflatten(0, (rule.groups, -1)).sum(1).flatten(0, 1)  # channel of group g is that of its kernels
    for axis, size in enumerate(sizes):  # a tap at a time: [C, taps, ...] -> [C, ..., places]
        meets = torch.from_numpy(rule.meets(axis, size, weight.shape[2 + axis]))
        taps = torch.tensordot(taps, meets, ([1], [1]))
    return Fans.of(taps)


def mask(x: Tensor) -> Tensor:
    """bool: what is not zero."""
    if x.is_quantized:
        return x.int_repr() != x.q_zero_point()
    return x.to(torch.bool)


def total(found: Tensor) -> int:
    """How many of a bool tensor are true."""
    # numpy counts bytes in registers: five times as quick as torch
    return int(np.count_nonzero(found.numpy())) if found.is_cpu else int(found.count_nonzero())


_FEW = 1 << 12  # values that are counted sooner than made bool
_NUMPY = (torch.float32, torch.float64)


def nonzero(x: Tensor) -> int:
    """How many values are not zero."""
    if x.dtype in _NUMPY and x.is_cpu and not x.requires_grad and x.numel() < _FEW:
        return int(np.count_nonzero(x.numpy()))
    return total(mask(x))


def columns(found: Tensor, axis: int) -> Tensor:
    """int64: how many are true along ``axis``, or the sum of whole numbers there."""
    # Sums of ones are exact in float32 up to 2^24 of them, and quicker than any sum of integers.
    few = found.dtype == torch.bool and found.shape[axis] <= 1 << 24
    return found.to(torch.float32 if few else torch.float64).sum(axis).to(torch.int64)


def is_binary(x: Tensor) -> bool:
    """Whether every value is 0 or 1."""
    if not x.is_floating_point():
        return x.dtype == torch.bool or bool(((x == 0) | (x == 1)).all())
    # x - x^2 is 0 at 0 and 1 alone; infinite and NaN leave NaN, which is not zero.
    return total(torch.addcmul(x, x, x, value=-1).to(torch.bool)) == 0


def products(a: Tensor, b: Tensor, events: Callable[[Tensor], Tensor] = mask) -> int:
    """Pairs left of a [...,N,K] @ b [...,K,M] of one batch shape.

    Args:
        a: bool, or how often each value arrives.
        b: itself, of which ``events`` makes the same. Only rows that meet anything are looked at.
    """
    left = columns(a, -2).flatten()
    met = left.nonzero().flatten()
    if met.numel() < left.numel():
        b = (b if b.is_contiguous() else events(b)).flatten(0, -2)[met]
        return int((left[met] * columns(events(b), -1)).sum())
    return int((left * columns(events(b), -1).flatten()).sum())
