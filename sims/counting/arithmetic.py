"""Arithmetic that is no product of matrices: elements, reductions, sorting, softmax, normalisation, pooling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sims.counting import connections
from sims.counting.connections import Convolution
from sims.counting.movement import Rule, free, tensors
from sims.counting.tags import BINARY, COUNTS, DENSE, GRADED, PLAIN, Shared, Tag

if TYPE_CHECKING:
    from sims.counting.counter import Counting


def after(c: Counting, args: Any, out: Any) -> None:
    """What arithmetic leaves of tags: what drives the neurons behind it."""
    drive = None
    for x in args:
        if isinstance(x, Tensor):
            tag = c.tags.get(x)
            if tag.weight is not None:
                c.reads(x)
            else:
                drive = drive or tag.drive
    if drive is not None:
        for x in tensors(out):
            c.tags.put(x, Tag(drive=drive))
    else:
        free(c, args, None, out)


def each(**costs: int) -> Rule:
    """So many operations of a kind for each element that comes out."""

    def rule(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
        size = (out if isinstance(out, Tensor) else tensors(out)[0]).numel()
        for kind, number in costs.items():
            c.emit(kind, number * size)
        after(c, args, out)

    return rule


def signal_keeping(rule: Rule) -> Rule:
    """For operators that map 0 to 0 and 1 to 1."""

    def kept(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
        tag = c.tags.get(args[0])
        rule(c, args, kwargs, out)
        if tag.kind != DENSE and tag.kind != COUNTS:
            for x in tensors(out):
                c.tags.put(x, tag)

    return kept


def mul(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    a, b = args[:2]
    tags = [c.tags.get(a), c.tags.get(b)]
    c.emit("elementwise", out.numel())
    after(c, args, out)
    scalar = next((x for x in (a, b) if not isinstance(x, Tensor)), None)
    signal = next((tag for tag in tags if tag.kind in (BINARY, GRADED)), None)
    if signal is None:
        return
    if scalar is not None:
        c.tags.put(out, signal if scalar == 1 else signal._replace(kind=GRADED, drive=None))
    elif all(tag.kind == BINARY for tag in tags) or (b.dtype == torch.bool or a.dtype == torch.bool):
        c.tags.put(out, signal)


def div(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    a, b = args[:2]
    tag = c.tags.get(a)
    by_number = not isinstance(b, Tensor) or b.dim() == 0
    c.emit("elementwise" if by_number else "transcendental", out.numel())
    after(c, args, out)
    if by_number and tag.kind in (BINARY, GRADED):
        c.tags.put(out, tag._replace(kind=GRADED, drive=None))


def pow(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    power = args[1] if isinstance(args[1], int | float) and args[1] in (1, 2, 3) else None
    c.emit("elementwise" if power else "transcendental", out.numel() * (int(power) - 1 if power else 1))
    after(c, args, out)


def clamp(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    low = args[1] if len(args) > 1 else kwargs.get("min")
    high = args[2] if len(args) > 2 else kwargs.get("max")
    c.emit("compare", out.numel() * ((low is not None) + (high is not None)))
    after(c, args, out)


def reduce(kind: str, finish: str | None = None, before: str | None = None) -> Rule:
    """n - m operations on n values that become m; one more each in the end, or n before."""

    def rule(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
        x = args[0]
        left = tensors(out)[0].numel()
        c.emit(kind, max(0, x.numel() - left))
        if finish:
            c.emit(finish, left)
        if before:
            c.emit(before, x.numel())
        after(c, args[:1], out)

    return rule


def pairwise_or_reduce(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    """max and min: of two tensors, or along an axis."""
    if len(args) > 1 and isinstance(args[1], Tensor):
        c.emit("compare", out.numel())
        after(c, args, out)
    else:
        reduce("compare")(c, args, kwargs, out)
        tag = c.tags.get(args[0])
        if tag.kind in (BINARY, GRADED) and tag.shared is None:
            c.tags.put(tensors(out)[0], tag)


def variance(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    n, m = args[0].numel(), tensors(out)[0].numel()
    c.emit("accumulate", 2 * (n - m))
    c.emit("elementwise", 2 * n + 2 * m)
    after(c, args[:1], out)


def deviation(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    variance(c, args, kwargs, out)
    c.emit("transcendental", tensors(out)[0].numel())


def prefix(kind: str) -> Rule:
    def rule(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
        x = args[0]
        axis = args[1] if len(args) > 1 else kwargs.get("dim", 0)
        n = x.shape[axis] if x.dim() else 1
        c.emit(kind, x.numel() - x.numel() // max(1, n))
        after(c, args[:1], out)

    return rule


def topk(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    c.emit("compare", args[0].numel() * max(1, math.ceil(math.log2(max(2, args[1])))))


def sort(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    x = args[0]
    named = kwargs.get("dim", next((a for a in args[1:] if isinstance(a, int) and not isinstance(a, bool)), -1))
    n = x.shape[named] if x.dim() else 1
    c.emit("compare", x.numel() * math.ceil(math.log2(max(1, n))))


def softmax_rule(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    x = args[0]
    axis = args[1] if len(args) > 1 else kwargs["dim"]
    softmax(c, x.numel(), x.numel() // max(1, x.shape[axis] if x.dim() else 1))


def softmax(c: Counting, values: int, rows: int, path: str | None = None) -> None:
    """``rows`` softmaxes of ``values`` numbers altogether."""
    c.emit("compare", values - rows, path=path)
    c.emit("accumulate", values - rows, path=path)
    c.emit("elementwise", 2 * values, path=path)
    c.emit("transcendental", values + rows, path=path)


def normalisation(c: Counting, values: int, rows: int, weights: int, path: str | None = None) -> None:
    """``rows`` of mean and variance over ``values`` numbers; ``weights``: how many of scale and shift there are."""
    c.emit("accumulate", 2 * (values - rows), path=path)
    c.emit("elementwise", (3 + weights) * values, path=path)
    c.emit("transcendental", rows, path=path)


def layer_norm(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    x, shape = args[0], args[1]
    affine = [w for w in (*args[2:4], kwargs.get("weight"), kwargs.get("bias")) if isinstance(w, Tensor)]
    normalisation(c, x.numel(), x.numel() // max(1, math.prod(shape)), len(affine))
    for weight in affine:
        c.reads(weight)


def rms_norm(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    x, shape = args[0], args[1]
    weight = args[2] if len(args) > 2 else kwargs.get("weight")
    rows = x.numel() // max(1, math.prod(shape))
    c.emit("accumulate", x.numel() - rows)
    c.emit("elementwise", (2 + (weight is not None)) * x.numel())
    c.emit("transcendental", rows)
    c.reads(weight)


def batch_norm(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    x, weight, bias, mean, variance, training = args[:6]
    affine = [w for w in (weight, bias) if isinstance(w, Tensor)]
    if training or mean is None:
        normalisation(c, x.numel(), x.shape[1], len(affine))
    else:  # a scale and a shift for each channel, made of what is stored
        c.emit("elementwise", 2 * x.numel() + len(affine) * x.shape[1])
        c.emit("transcendental", x.shape[1])
    drive = c.tags.get(x).drive
    for stored in (*affine, mean, variance):
        c.reads(stored)
    if drive is not None:
        c.tags.put(tensors(out)[0], Tag(drive=drive))


def group_norm(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    x, groups = args[0], args[1]
    affine = [w for w in args[2:4] if isinstance(w, Tensor)]
    normalisation(c, x.numel(), x.shape[0] * groups, len(affine))
    for weight in affine:
        c.reads(weight)


def pool(kind: str, axes: int) -> Rule:
    """Windows of a pooling layer, without what hangs over the border."""

    def rule(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
        x, kernel = args[0], spread(args[1], axes)
        given = dict(enumerate(args))
        stride = spread(given.get(2, kwargs.get("stride")) or kernel, axes)
        padding = spread(given.get(3, kwargs.get("padding", 0)), axes)
        dilation = spread(given.get(4, kwargs.get("dilation", 1)), axes) if kind == "compare" else (1,) * axes
        y = tensors(out)[0]
        sizes, sides = x.shape[-axes:], y.shape[-axes:]
        move = Convolution(stride, padding, dilation, False, 1, tuple(sides))
        met = connections.met(move, tuple(sizes), kernel)
        planes = x.numel() // max(1, math.prod(sizes))
        c.emit(kind, planes * (met - math.prod(sides)))
        pooled(c, args, kwargs, y, kind)

    return rule


def adaptive_pool(kind: str, axes: int) -> Rule:
    def rule(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
        x, y = args[0], tensors(out)[0]
        met = 1
        for size, side in zip(x.shape[-axes:], y.shape[-axes:], strict=True):
            met *= sum(-(-(i + 1) * size // side) - i * size // side for i in range(side))
        planes = x.numel() // max(1, math.prod(x.shape[-axes:]))
        c.emit(kind, planes * met - y.numel())
        pooled(c, args, kwargs, y, kind)

    return rule


def pooled(c: Counting, args: Any, kwargs: Any, y: Tensor, kind: str) -> None:
    """Maxima of spikes are spikes; their means are graded."""
    tag = c.tags.get(args[0])
    if kind == "accumulate":
        c.emit("elementwise", y.numel())
        tag = tag if tag.kind == DENSE else tag._replace(kind=GRADED)
    if tag.shared is not None:  # windows lie within a channel
        moved = tensors(c.func(tag.shared.owners.float(), *args[1:], **kwargs))[0]
        tag = tag._replace(shared=Shared(tag.shared.sources, moved.round()))
    if tag is not PLAIN:
        c.tags.put(y, tag)


def spread(value: Any, axes: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, Sequence) else (value,)
    return values * axes if len(values) == 1 else values


def dropped(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    """Dropout: nothing out of training, a product with a mask in it."""
    y, tag = tensors(out)[0], c.tags.get(args[0])
    training = args[2] if len(args) > 2 else kwargs.get("train", True)
    if training:
        c.emit("elementwise", y.numel())
        tag = tag if tag.kind == DENSE else tag._replace(kind=GRADED)
    if tag is not PLAIN:
        c.tags.put(y, tag)


def distances(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    """cdist: differences, squares and their sum for every pair."""
    terms = out.numel() * args[0].shape[-1]
    c.emit("elementwise", 2 * terms)
    c.emit("accumulate", terms - out.numel())
    c.emit("transcendental", out.numel())


def weight_norm(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    """Squares and their sum, a root and a division for each norm, and a product."""
    values, norms = args[0].numel(), args[1].numel()
    c.emit("elementwise", 2 * values)
    c.emit("accumulate", max(0, values - norms))
    c.emit("transcendental", 2 * norms)
    after(c, args[:2], out)


def search(edges: int) -> Rule:
    """searchsorted and bucketize: halving the edges, which are the argument at that place."""

    def rule(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
        c.emit("compare", out.numel() * math.ceil(math.log2(args[edges].shape[-1] + 1)))

    return rule


def is_in(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    """Every element held against every other."""
    known = args[1].numel() if isinstance(args[1], Tensor) else 1
    c.emit("compare", out.numel() * known)


def tally(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    """histc and bincount add each value to its bin."""
    c.emit("accumulate", args[0].numel())
