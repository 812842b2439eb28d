"""Products with weights and of activations: how many, how many are left, and which neurons' spikes made them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from sims.counting import connections
from sims.counting.arithmetic import spread
from sims.counting.connections import Convolution
from sims.counting.movement import Rule, bits
from sims.counting.tags import COUNTS, DENSE, Drive, Tag, sparsest

if TYPE_CHECKING:
    from sims.counting.counter import Counting


def product(c: Counting, x: Tensor, weight: Tensor, out: Tensor, axis: int = 0) -> None:
    """x [...,K] times a weight [N,K] (``axis`` 0, that of the outputs) or [K,N] (1)."""
    tag, by = c.tags.get(x), c.weight(weight)
    outputs, inputs = by.shape[axis], by.shape[1 - axis]
    key = (tag.kind, tag.source, axis)
    if tag.shared is None and key in by.again:
        sums = by.again[key]
        sums[0] += 1
        sums[1] += x.numel()
        sums[2] += c.arrived(x, tag)
        driven(c, out, tag, inputs)
        return
    values, most = x.numel(), outputs
    c.multiplied(by)
    if c.meta:
        c.mac_of(tag, values * outputs, None, most, by.bits, by.path)
    else:
        fans = by.fans(axis)
        if fans is not None:
            most = fans.most
        if tag.shared is None and (fans is None or fans.least == most):
            c.mac_of(tag, values * outputs, c.arrived(x, tag) * most, most, by.bits, by.path)
            by.again[key] = [0, 0, 0]  # kept with a parameter; of others nobody asks again
        else:
            c.mac(tag, values * outputs, x, lambda x: _met(c, x, tag, fans, most), most, by.bits, by.path)
    driven(c, out, tag, inputs)


def _met(c: Counting, x: Tensor, tag: Tag, fans: connections.Fans | None, most: int) -> int:
    """Products that are left of x [...,K]."""
    if fans is None or fans.least == most:
        return c.arrived(x, tag) * most
    inputs = len(fans.each)
    rows = x.numel() // max(1, inputs)
    if c.nonzero(x) == x.numel() and tag.kind != COUNTS:
        return rows * fans.total
    arrived = connections.columns(c.events(x, tag).reshape(rows, inputs), 0)
    return int((arrived * fans.each).sum())


def driven(c: Counting, out: Tensor, tag: Tag, inputs: int) -> None:
    """Neurons that read ``out`` have so many inputs of that signal."""
    if c.spiking:
        c.tags.put(out, Tag(DENSE, None, Drive(tag.signal, inputs, tag.source)))


def linear(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    product(c, args[0], args[1], out)
    c.reads(args[2] if len(args) > 2 else kwargs.get("bias"))


def quantized_linear(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    weight, bias = args[1].unpack()
    c.quantized(weight)
    product(c, args[0], weight, out)
    c.reads(bias)


def of(a: int, b: int) -> Rule:
    """The product of the arguments at ``a`` and ``b``, added to the one before them if there is one."""

    def rule(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
        matrices(c, args[a], args[b], out)
        if a:
            c.reads(args[0])
            scales = (kwargs.get("beta", 1) not in (0, 1)) + (kwargs.get("alpha", 1) != 1)
            c.emit("elementwise", scales * out.numel())

    return rule


def matrices(c: Counting, a: Tensor, b: Tensor, out: Tensor) -> None:
    """a [...,N,K] @ b [...,K,M] of one batch; vectors for either."""
    of_a, of_b = c.tags.get(a), c.tags.get(b)
    if b.dim() == 2 and of_b.weight is not None and of_a.weight is None:
        product(c, a, b, out, 1)
        return
    if a.dim() == 2 and b.dim() <= 2 and of_a.weight is not None and of_b.weight is None:
        product(c, b.t(), a, out, 0) if of_b.shared is None else product(c, b, a, out, 0)
        return
    inputs = a.shape[-1]
    outputs = 1 if b.dim() == 1 else b.shape[-1]
    rows = a.numel() // max(1, inputs)
    tag = sparsest(of_a, of_b)
    first = tag is of_a
    left: Callable[[Tensor], int] | None = None
    if not c.meta:

        def left(x: Tensor) -> int:
            y, z = (x, b) if first else (a, x)
            arrived_a, arrived_b = c.arrived(y, of_a), c.arrived(z, of_b)
            if not arrived_a or not arrived_b:
                return 0
            # Where one factor has no zero, every event of the other meets all of a row or column of it.
            if arrived_a == y.numel() and of_a.kind != COUNTS:
                return arrived_b * (1 if a.dim() == 1 else a.shape[-2])
            if arrived_b == z.numel() and of_b.kind != COUNTS:
                return arrived_a * outputs
            y, z = y.unsqueeze(0) if y.dim() == 1 else y, z.unsqueeze(-1) if z.dim() == 1 else z
            return connections.products(c.events(y, of_a), z, lambda rows: c.events(rows, of_b))

    targets = outputs if first else rows // max(1, math.prod(a.shape[:-2]))
    c.mac(tag, rows * inputs * outputs, a if first else b, left, targets, bits(a))
    for x, by in ((a, of_a), (b, of_b)):
        if by.weight is not None:
            c.multiplied(c.weight(x))
    driven(c, out, tag, inputs)


def grouped(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    """Rows [T,K] in groups, each with its own of the matrices [E,K,N]: of experts, only those that have rows are read."""
    a, b = args[:2]
    ends = args[2] if len(args) > 2 else kwargs.get("offs")
    if a.dim() != 2 or b.dim() != 3 or ends is None:
        c.uncounted("aten::_grouped_mm of other shapes")
        return
    tag, by = c.tags.get(a), c.weight(b)
    each, rows, used, effective = b[0].numel(), a.shape[0], b.shape[0], None
    if not c.meta:
        edges = [0, *ends.tolist()]
        rows, used, effective = edges[-1], 0, 0
        x = c.events(a, tag)
        for group, (first, last) in enumerate(itertools.pairwise(edges)):
            used += last > first
            effective += connections.products(x[first:last], b[group])
    c.mac_of(tag, rows * each, effective, b.shape[2], by.bits, by.path)
    c.multiplied_unseen(by.name, used * each * b.element_size(), by.path)
    driven(c, out, tag, a.shape[1])


def any_convolution(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    """aten::convolution, on which every other stands."""
    x, weight, bias, stride, padding, dilation, transposed, _, groups = args[:9]
    convolution(c, x, weight, bias, stride, padding, dilation, groups, out, transposed)


def plain_convolution(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    """conv1d and its like, whose padding may be a word: "same" begins half of it before the input, the lesser half."""
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    given = dict(zip(names, args, strict=False)) | kwargs
    weight, dilation, padding = given["weight"], given.get("dilation", 1), given.get("padding", 0)
    if isinstance(padding, str):
        moves = spread(dilation, weight.dim() - 2)
        same = [d * (k - 1) // 2 for d, k in zip(moves, weight.shape[2:], strict=True)]
        padding = same if padding == "same" else 0
    stride, groups = given.get("stride", 1), given.get("groups", 1)
    convolution(c, given["input"], weight, given.get("bias"), stride, padding, dilation, groups, out)


def convolution(
    c: Counting,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int | Sequence[int],
    padding: int | Sequence[int],
    dilation: int | Sequence[int],
    groups: int,
    out: Tensor,
    transposed: bool = False,
) -> None:
    """x [B,C,...] or without a batch [C,...]; weight [O,C/g,...], or [C,O/g,...] where it is transposed."""
    axes = weight.dim() - 2
    shape = tuple(x.shape) if x.dim() == axes + 2 else (1, *x.shape)
    moves = [spread(value, axes) for value in (stride, padding, dilation)]
    rule = Convolution(moves[0], moves[1], moves[2], transposed, groups, tuple(out.shape[-axes:]))
    tag, by = c.tags.get(x), c.weight(weight)
    count, fans, alike = by.convolved(rule, shape)
    left: Callable[[Tensor], int] | None = None
    if fans is not None:

        def left(x: Tensor) -> int:
            arrived = c.arrived(x, tag)
            if fans.least == fans.most:
                return arrived * fans.most
            if arrived == x.numel() and tag.kind != COUNTS:
                return fans.total * shape[0] * alike
            events = c.events(x, tag).reshape(-1, fans.each.numel())
            return int((connections.columns(events, 0).cpu() * fans.each).sum())

    c.multiplied(by)
    c.mac(tag, count, x, left, fans.most if fans else 0, by.bits, by.path)
    c.reads(bias)
    driven(c, out, tag, weight[0].numel() if not transposed else weight.numel() // max(1, weight.shape[1] * groups))
