"""What each torch operator costs, by name: a rule takes (counting, args, kwargs, out) and tells what was done.

Conventions: a bias that a product begins with, conversions between types, views, copies, selections and random numbers are
free. One operation for each element unless said otherwise:

    mac            products with weights, of matrices, convolutions, recurrent layers, attention
    accumulate     sums: reductions, means, prefix sums, bags
    elementwise    add, multiply, shift
    transcendental exp, log, tanh, sqrt, division by a tensor and their like
    compare        relu, clamp, max, sorting (n log2 n) and top-k (n log2 k)

A softmax of n is n exponentials and a division, 2 n elementwise, n - 1 sums and comparisons; a normalisation of n two
passes of sums, 3 n elementwise, 2 n more with weights, and a square root.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sims.counting import connections
from sims.counting.connections import Convolution
from sims.counting.tags import BINARY, COUNTS, DENSE, GRADED, PLAIN, Tag, sparsest

if TYPE_CHECKING:
    from sims.counting.counter import Counting

Rule = Callable[["Counting", Any, Any, Any], None]


def find(func: Any) -> Rule | None:
    """The rule of an operator; None: it has none of its own."""
    full = func._schema.name
    name = full.removeprefix("aten::")
    for known in (name, name.removesuffix("_")):
        if known in RULES:
            return RULES[known]
    if full.startswith("prim::") or _is_view(func._schema):
        return _keep
    return None


def _is_view(schema: Any) -> bool:
    returns = schema.returns
    return bool(returns) and all(r.alias_info is not None and not r.alias_info.is_write for r in returns)


def _tensors(found: Any) -> list[Tensor]:
    if isinstance(found, Tensor):
        return [found]
    return [x for part in found for x in _tensors(part)] if isinstance(found, (tuple, list)) else []


def _bits(x: Tensor) -> int:
    return 8 * x.element_size()


# Free operators, and what they do to tags.


def _free(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    if isinstance(out, Tensor) and args and out is args[0] and c.tags.get(out) is not PLAIN:
        c.tags.put(out, PLAIN)


def _keep(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    tag = c.tags.get(args[0]) if args else PLAIN
    if tag is not PLAIN:
        for x in _tensors(out):
            c.tags.put(x, tag)


def _copy(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    tag = c.tags.get(args[1])
    c.tags.put(out, tag if tag.weight is None else PLAIN)


def _join(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    tags = [c.tags.get(x) for x in args[0]]
    if all(tag is PLAIN for tag in tags):
        return
    kinds = {tag.kind for tag in tags}
    if any(tag.weight is not None for tag in tags):
        for x in args[0]:
            c.reads(x)
        return
    kind = kinds.pop() if len(kinds) == 1 else (DENSE if DENSE in kinds else GRADED)
    sources = {tag.source for tag in tags}
    drives = {tag.drive for tag in tags}
    source = sources.pop() if len(sources) == 1 and kind != DENSE else None
    if source is None and kind != DENSE and len(sources) > 1:
        source = c.merged(tags)
    c.tags.put(out, Tag(kind, source, drives.pop() if len(drives) == 1 else None))


def _pad(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    value = args[2] if len(args) > 2 else kwargs.get("value", 0)
    if not value:
        _keep(c, args, kwargs, out)


def _where(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    if len(args) == 3:
        tags = [c.tags.get(x) for x in args[1:] if isinstance(x, Tensor) or x != 0]
        if tags and all(tag == tags[0] and tag.weight is None for tag in tags):
            c.tags.put(out, tags[0])


def _masked_fill(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    value = args[2]
    tag = c.tags.get(args[0])
    zero = not isinstance(value, Tensor) and value == 0
    if tag is not PLAIN or out is args[0]:
        c.tags.put(out, tag if zero and tag.weight is None else PLAIN)


def _rows(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    """gather, index and their like read what they give."""
    tag, size = c.tags.get(args[0]), out.numel() * out.element_size()
    if tag.weight is not None:
        c.move("weights", size, 0, c.owner(tag))
    elif tag is not PLAIN:
        c.tags.put(out, tag)
    else:
        c.move("memory", size, 0)


def _store(values: int) -> Rule:
    def rule(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
        """scatter, index_put and their like write ``values`` rows of what they are given."""
        given = args[values] if len(args) > values else kwargs.get("src", kwargs.get("values"))
        index = next((x for x in _tensors(args[1:values]) if not x.is_floating_point()), None)
        count = given.numel() if isinstance(given, Tensor) and given.dim() else (0 if index is None else index.numel())
        c.move("memory", 0, count * out.element_size())
        if kwargs.get("accumulate", len(args) > 3 and args[3] is True):
            c.emit("accumulate", count)
        _free(c, args, kwargs, out)

    return rule


def _adding_store(values: int) -> Rule:
    stored = _store(values)

    def rule(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
        stored(c, args, kwargs, out)
        given = args[values]
        c.emit("accumulate", given.numel() if isinstance(given, Tensor) else out.numel())

    return rule


def _embedding(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    tag, size = c.tags.get(args[0]), out.numel() * out.element_size()
    c.move("weights" if tag.weight is not None else "memory", size, 0, c.owner(tag))


def _embedding_bag(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    weight, indices, offsets = args[:3]
    mode = args[4] if len(args) > 4 else kwargs.get("mode", 0)
    weights = args[6] if len(args) > 6 else kwargs.get("per_sample_weights")
    y = out[0] if isinstance(out, tuple) else out
    rows, width = indices.numel(), weight.shape[1]
    full = y.shape[0]
    if indices.device.type != "meta" and offsets is not None:
        ends = torch.cat([offsets[1:], offsets.new_tensor([rows])]) if y.shape[0] == offsets.numel() else offsets[1:]
        full = int((ends > offsets[: ends.numel()]).sum())
    tag = c.tags.get(weight)
    c.move("weights" if tag.weight is not None else "memory", rows * width * weight.element_size(), 0, c.owner(tag))
    c.emit("compare" if mode == 2 else "accumulate", (rows - full) * width)
    c.emit("elementwise", full * width * (mode == 1) + (rows * width if weights is not None else 0))


# Arithmetic that is no product of matrices.


def _after(c: Counting, args: Any, out: Any) -> None:
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
        for x in _tensors(out):
            c.tags.put(x, Tag(drive=drive))
    else:
        _free(c, args, None, out)


def _each(**costs: int) -> Rule:
    """So many operations of a kind for each element that comes out."""

    def rule(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
        size = (out if isinstance(out, Tensor) else _tensors(out)[0]).numel()
        for kind, number in costs.items():
            c.emit(kind, number * size)
        _after(c, args, out)

    return rule


def _signal_keeping(rule: Rule) -> Rule:
    """For operators that map 0 to 0 and 1 to 1."""

    def kept(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
        tag = c.tags.get(args[0])
        rule(c, args, kwargs, out)
        if tag.kind != DENSE and tag.kind != COUNTS:
            for x in _tensors(out):
                c.tags.put(x, tag)

    return kept


def _mul(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    a, b = args[:2]
    tags = [c.tags.get(a), c.tags.get(b)]
    c.emit("elementwise", out.numel())
    _after(c, args, out)
    scalar = next((x for x in (a, b) if not isinstance(x, Tensor)), None)
    signal = next((tag for tag in tags if tag.kind in (BINARY, GRADED)), None)
    if signal is None:
        return
    if scalar is not None:
        c.tags.put(out, signal if scalar == 1 else signal._replace(kind=GRADED, drive=None))
    elif all(tag.kind == BINARY for tag in tags) or (b.dtype == torch.bool or a.dtype == torch.bool):
        c.tags.put(out, signal)


def _div(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    a, b = args[:2]
    tag = c.tags.get(a)
    by_number = not isinstance(b, Tensor) or b.dim() == 0
    c.emit("elementwise" if by_number else "transcendental", out.numel())
    _after(c, args, out)
    if by_number and tag.kind in (BINARY, GRADED):
        c.tags.put(out, tag._replace(kind=GRADED, drive=None))


def _pow(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    power = args[1] if isinstance(args[1], int | float) and args[1] in (1, 2, 3) else None
    c.emit("elementwise" if power else "transcendental", out.numel() * (int(power) - 1 if power else 1))
    _after(c, args, out)


def _clamp(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    low = args[1] if len(args) > 1 else kwargs.get("min")
    high = args[2] if len(args) > 2 else kwargs.get("max")
    c.emit("compare", out.numel() * ((low is not None) + (high is not None)))
    _after(c, args, out)


def _reduce(kind: str, finish: str | None = None, before: str | None = None) -> Rule:
    """n - m operations on n values that become m; one more each in the end, or n before."""

    def rule(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
        x = args[0]
        left = _tensors(out)[0].numel()
        c.emit(kind, max(0, x.numel() - left))
        if finish:
            c.emit(finish, left)
        if before:
            c.emit(before, x.numel())
        _after(c, args[:1], out)

    return rule


def _pairwise_or_reduce(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    """max and min: of two tensors, or along an axis."""
    if len(args) > 1 and isinstance(args[1], Tensor):
        c.emit("compare", out.numel())
        _after(c, args, out)
    else:
        _reduce("compare")(c, args, kwargs, out)
        tag = c.tags.get(args[0])
        if tag.kind in (BINARY, GRADED):
            c.tags.put(_tensors(out)[0], tag)


def _variance(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    n, m = args[0].numel(), _tensors(out)[0].numel()
    c.emit("accumulate", 2 * (n - m))
    c.emit("elementwise", 2 * n + 2 * m)
    _after(c, args[:1], out)


def _deviation(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    _variance(c, args, kwargs, out)
    c.emit("transcendental", _tensors(out)[0].numel())


def _prefix(kind: str) -> Rule:
    def rule(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
        x = args[0]
        axis = args[1] if len(args) > 1 else kwargs.get("dim", 0)
        n = x.shape[axis] if x.dim() else 1
        c.emit(kind, x.numel() - x.numel() // max(1, n))
        _after(c, args[:1], out)

    return rule


def _topk(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    c.emit("compare", args[0].numel() * max(1, math.ceil(math.log2(max(2, args[1])))))


def _sort(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    x = args[0]
    named = kwargs.get("dim", next((a for a in args[1:] if isinstance(a, int) and not isinstance(a, bool)), -1))
    n = x.shape[named] if x.dim() else 1
    c.emit("compare", x.numel() * math.ceil(math.log2(max(1, n))))


def _softmax(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
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


def _layer_norm(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    x, shape = args[0], args[1]
    affine = [w for w in (*args[2:4], kwargs.get("weight"), kwargs.get("bias")) if isinstance(w, Tensor)]
    normalisation(c, x.numel(), x.numel() // max(1, math.prod(shape)), len(affine))
    for weight in affine:
        c.reads(weight)


def _rms_norm(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    x, shape = args[0], args[1]
    weight = args[2] if len(args) > 2 else kwargs.get("weight")
    rows = x.numel() // max(1, math.prod(shape))
    c.emit("accumulate", x.numel() - rows)
    c.emit("elementwise", (2 + (weight is not None)) * x.numel())
    c.emit("transcendental", rows)
    c.reads(weight)


def _batch_norm(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
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
        c.tags.put(_tensors(out)[0], Tag(drive=drive))


def _group_norm(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    x, groups = args[0], args[1]
    affine = [w for w in args[2:4] if isinstance(w, Tensor)]
    normalisation(c, x.numel(), x.shape[0] * groups, len(affine))
    for weight in affine:
        c.reads(weight)


def _pool(kind: str, axes: int) -> Rule:
    """Windows of a pooling layer, without what hangs over the border."""

    def rule(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
        x, kernel = args[0], _spread(args[1], axes)
        given = dict(enumerate(args))
        stride = _spread(given.get(2, kwargs.get("stride")) or kernel, axes)
        padding = _spread(given.get(3, kwargs.get("padding", 0)), axes)
        dilation = _spread(given.get(4, kwargs.get("dilation", 1)), axes) if kind == "compare" else (1,) * axes
        y = _tensors(out)[0]
        sizes, sides = x.shape[-axes:], y.shape[-axes:]
        move = Convolution(stride, padding, dilation, False, 1, tuple(sides))
        met = math.prod(int(move.meets(i, sizes[i], kernel[i]).sum()) for i in range(axes))
        planes = x.numel() // max(1, math.prod(sizes))
        c.emit(kind, planes * (met - math.prod(sides)))
        _pooled(c, x, y, kind)

    return rule


def _adaptive_pool(kind: str, axes: int) -> Rule:
    def rule(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
        x, y = args[0], _tensors(out)[0]
        met = 1
        for size, side in zip(x.shape[-axes:], y.shape[-axes:], strict=True):
            met *= sum(-(-(i + 1) * size // side) - i * size // side for i in range(side))
        planes = x.numel() // max(1, math.prod(x.shape[-axes:]))
        c.emit(kind, planes * met - y.numel())
        _pooled(c, x, y, kind)

    return rule


def _pooled(c: Counting, x: Tensor, y: Tensor, kind: str) -> None:
    tag = c.tags.get(x)
    if kind == "accumulate":
        c.emit("elementwise", y.numel())
        if tag.kind in (BINARY, GRADED, COUNTS):
            tag = Tag(GRADED, tag.source)
    if tag is not PLAIN:
        c.tags.put(y, tag)


def _spread(value: Any, axes: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, Sequence) else (value,)
    return values * axes if len(values) == 1 else values


# Products.


def product(c: Counting, x: Tensor, weight: Tensor, out: Tensor, axis: int = 0, path: str | None = None) -> None:
    """x [...,K] times a weight [N,K] (``axis`` 0, that of the outputs) or [K,N] (1)."""
    outputs, inputs = weight.shape[axis], weight.shape[1 - axis]
    tag, of = c.tags.get(x), c.tags.get(weight)
    rows = x.numel() // max(1, inputs)
    effective: int | None = None
    if not c.meta:
        fans = c.weight_fans(weight, axis)
        if fans is None:
            effective = c.arrived(x, tag) * outputs
        else:
            arrived = c.events(x, tag).reshape(rows, inputs).to(torch.float64).sum(0).to(torch.int64)
            effective = int((arrived * fans).sum())
            outputs = int(fans.max()) if fans.numel() else 0
    c.multiplied(weight, of)
    c.mac(tag, rows * inputs * weight.shape[axis], effective, outputs, _bits(weight), path)
    c.reads(weight)
    _driven(c, out, tag, inputs)


def _driven(c: Counting, out: Tensor, tag: Tag, inputs: int) -> None:
    if c._spiking:
        c.tags.put(out, Tag(drive=(tag.signal, inputs)))


def _linear(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    product(c, args[0], args[1], out)
    c.reads(args[2] if len(args) > 2 else kwargs.get("bias"))


def _matrices(a: int, b: int) -> Rule:
    def rule(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
        matrices(c, args[a], args[b], out)
        if a and isinstance(args[0], Tensor):
            c.reads(args[0])
            beta, alpha = kwargs.get("beta", 1), kwargs.get("alpha", 1)
            c.emit("elementwise", out.numel() * ((beta not in (0, 1)) + (alpha != 1)))

    return rule


def matrices(c: Counting, a: Tensor, b: Tensor, out: Tensor) -> None:
    """a [...,N,K] @ b [...,K,M] of one batch; vectors for either."""
    of_a, of_b = c.tags.get(a), c.tags.get(b)
    if b.dim() == 2 and of_b.weight is not None and of_a.weight is None:
        product(c, a, b, out, 1)
        return
    if a.dim() == 2 and of_a.weight is not None and of_b.weight is None:
        product(c, b.transpose(0, 1) if b.dim() == 2 else b, a, out, 0) if b.dim() < 3 else None
        return
    inputs = a.shape[-1]
    outputs = 1 if b.dim() == 1 else b.shape[-1]
    rows = a.numel() // max(1, inputs)
    tag = sparsest(of_a, of_b)
    count, effective = rows * inputs * outputs, None
    if not c.meta:
        left, right = c.arrived(a, of_a), c.arrived(b, of_b)
        if left == a.numel() and right == b.numel():
            effective = count
        else:
            x, y = c.events(a, of_a), c.events(b, of_b)
            x = x.unsqueeze(0) if a.dim() == 1 else x
            y = y.unsqueeze(-1) if b.dim() == 1 else y
            effective = connections.products(x, y)
    c.mac(tag, count, effective, outputs if tag is of_a else rows // max(1, math.prod(a.shape[:-2])), _bits(a))
    for x in (a, b):
        if c.tags.get(x).weight is not None:
            c.multiplied(x, c.tags.get(x))
            c.reads(x)
    _driven(c, out, tag, inputs)


def _convolution(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    x, weight, bias, stride, padding, dilation, transposed, _, groups = args[:9]
    convolution(c, x, weight, bias, stride, padding, dilation, transposed, groups, out)


def convolution(
    c: Counting,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    groups: int,
    out: Tensor,
) -> None:
    """x [B,C,...] or without a batch [C,...]."""
    axes = weight.dim() - 2
    shape = tuple(x.shape) if x.dim() == axes + 2 else (1, *x.shape)
    moves = (_spread(value, axes) for value in (stride, padding, dilation))
    rule = Convolution(*moves, transposed=transposed, groups=groups, output=tuple(out.shape[-axes:]))
    tag, of = c.tags.get(x), c.tags.get(weight)
    count = connections.dense(rule, shape, weight.shape)
    effective, most = None, 0
    if not c.meta:
        full = c.nonzero(weight) == weight.numel()
        fans = c.fans_of(rule, shape, weight, full)
        most = int(fans.max()) if fans.numel() else 0
        arrived = c.arrived(x, tag)
        if arrived == x.numel() and tag.kind != COUNTS:
            effective = int(fans.sum()) * shape[0] * (shape[1] if full else 1)
        elif fans.numel() and int(fans.min()) == most:
            effective = arrived * most
        else:
            events = c.events(x, tag).reshape(-1 if full else shape[0], fans.numel())
            effective = int((events.to(torch.float64).sum(0).to(torch.int64) * fans.reshape(-1)).sum())
    c.multiplied(weight, of)
    c.mac(tag, count, effective, most, _bits(weight))
    c.reads(weight)
    c.reads(bias)
    _driven(c, out, tag, weight[0].numel() if not transposed else weight.numel() // max(1, weight.shape[1] * groups))


# Recurrent layers.

_GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


def _recurrent(kind: str) -> Rule:
    """lstm, gru and the plain ones, on a tensor or on packed sequences: counted from the weights."""

    def rule(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
        packed = isinstance(args[1], Tensor) and not args[1].is_floating_point() and args[1].dim() == 1
        x = args[0]
        hidden, weights, _, layers = args[2:6] if packed else args[1:5]
        both = args[8 if packed else 7]
        h = _tensors(hidden)[0]
        steps = x.shape[0] if packed else x.numel() // max(1, x.shape[-1])  # with every row of the batch
        each = len(weights) // (layers * (1 + both))
        y = _tensors(out)[0]
        given: Tensor | None = x
        for layer in range(layers):
            for direction in range(1 + both):
                first = (layer * (1 + both) + direction) * each
                own = weights[first : first + each]
                inward, back = own[0], own[1]
                effective: int | None = None
                if given is not None and not c.meta:
                    effective = _meeting(c, given, inward)
                c.mac(c.tags.get(x) if layer == 0 else PLAIN, steps * inward.numel(), effective, 0, _bits(inward))
                effective = None
                if layers == 1 and not both and not packed and not c.meta and each % 2 == 0:
                    effective = _carried(c, x, y, h, back, bool(args[-1]))
                c.mac(PLAIN, steps * back.numel(), effective, 0, _bits(back))
                if len(own) % 2:  # a projection of the hidden state
                    c.mac(PLAIN, steps * own[-1].numel(), None, 0, _bits(own[-1]))
                units = back.shape[0] // _GATES[kind]
                _update(c, kind, steps * units)
                for weight in own:
                    c.multiplied(weight, c.tags.get(weight)) if weight.dim() == 2 else None
                    c.reads(weight)
                carried = steps * units * x.element_size() * (2 if kind == "lstm" else 1)
                c.move("state", carried, carried)
            given = None

    return rule


def _update(c: Counting, kind: str, units: int) -> None:
    """Gates of so many units. The two products of a gate are added; their biases they begin with."""
    if kind == "lstm":  # 3 sigmoid and 2 tanh; f c + i g, o tanh(c)
        c.emit("transcendental", 5 * units)
        c.emit("elementwise", 8 * units)
    elif kind == "gru":  # 2 sigmoid and 1 tanh; r n, (1 - z) n + z h
        c.emit("transcendental", 3 * units)
        c.emit("elementwise", 7 * units)
    else:
        c.emit("transcendental" if kind == "rnn_tanh" else "compare", units)
        c.emit("elementwise", units)


def _meeting(c: Counting, x: Tensor, weight: Tensor) -> int:
    """Products left of x [...,K] and weight [N,K]."""
    fans = c.weight_fans(weight, 0)
    if fans is None:
        return c.nonzero(x) * weight.shape[0]
    return int((connections.columns(connections.mask(x).reshape(-1, x.shape[-1]), 0) * fans).sum())


def _carried(c: Counting, x: Tensor, y: Tensor, h: Tensor, weight: Tensor, batch_first: bool) -> int | None:
    """Products left of the hidden states of a layer, all but the last of what it gave and what it began with."""
    axis = 1 if batch_first and y.dim() == 3 else 0
    before = y.narrow(axis, 0, y.shape[axis] - 1)
    return _meeting(c, before, weight) + _meeting(c, h, weight)


# Attention.


def _attention(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    named = dict(zip(("q", "k", "v", "attn_mask", "dropout_p", "is_causal"), args, strict=False)) | kwargs
    q, k, v = args[:3]
    attention(c, q, k, v, named.get("attn_mask"), bool(named.get("is_causal", False)))


def _flash_attention(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    named = dict(zip(("q", "k", "v", "dropout_p", "is_causal"), args, strict=False)) | kwargs
    q, k, v = args[:3]
    attention(c, q, k, v, named.get("attn_mask"), bool(named.get("is_causal", False)))


def attention(
    c: Counting, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, computed: bool = False
) -> None:
    """q [...,H,L,K], k [...,G,S,K], v [...,G,S,M]: pairs that may meet, in both products.

    Args:
        mask: bool, True may meet; or what is added to the scores, -inf may not.
        computed: count the pairs that are hidden too: they are multiplied, and only ``effective`` leaves them out.
    """
    length, keys, width, out = q.shape[-2], k.shape[-2], q.shape[-1], v.shape[-1]
    heads = q.numel() // max(1, length * width)
    pairs = everything = heads * length * keys
    seen: Tensor | None = None
    if causal:
        pairs = heads * sum(min(i + 1, keys) for i in range(length))
        seen = torch.ones(length, keys, dtype=torch.bool).tril() if not c.meta else None
    elif mask is not None:
        if c.meta:
            c.unknown_mask()
        else:
            seen = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min
            seen = seen.expand(*q.shape[:-2], length, keys)
            pairs = connections.total(seen)
    tags = [c.tags.get(x) for x in (q, k, v)]
    left: tuple[int | None, int | None] = (None, None)
    if not c.meta:
        left = _attended(c, q, k, v, seen, pairs)
    count = everything if computed else pairs
    c.mac(sparsest(*tags[:2]), count * width, left[0], keys, _bits(k))
    c.mac(tags[2] if tags[2].weight is None else PLAIN, count * out, left[1], length, _bits(v))
    softmax(c, count, heads * length)
    c.emit("elementwise", count * (1 if mask is None or mask.dtype == torch.bool else 2))  # the scale, what is added
    kv = (k.numel() + v.numel()) * k.element_size()
    c.move("kv", kv, kv // max(1, keys) * min(length, keys))


def _attended(c: Counting, q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None, pairs: int) -> tuple[int, int]:
    """Products left of scores and of values, whose weights are never zero where a pair is seen."""
    width, out = q.shape[-1], v.shape[-1]
    full = [c.nonzero(x) == x.numel() for x in (q, k, v)]
    if all(full):
        return pairs * width, pairs * out
    k, v = (_for_heads(x, q) for x in (k, v))
    scores, values = pairs * width, pairs * out
    if not (full[0] and full[1]):
        a, b = connections.mask(q), connections.mask(k)
        if seen is None:
            scores = connections.products(a, b.transpose(-1, -2))
        else:
            met = a.to(torch.float64) @ b.to(torch.float64).transpose(-1, -2)
            scores = int((met * seen).sum().item())
    if not full[2]:
        weight = connections.mask(v).sum(-1)  # of each key
        each = torch.full((), q.shape[-2]) if seen is None else seen.sum(-2)
        values = int((weight * each).sum())
    return scores, values


def _for_heads(x: Tensor, q: Tensor) -> Tensor:
    """Keys or values with a head for each of the queries."""
    if x.dim() > 2 and x.shape[-3] != q.shape[-3]:
        return x.repeat_interleave(q.shape[-3] // x.shape[-3], -3)
    return x


def _native_attention(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    q, k, v, _, heads, inward, bias, outward, out_bias = args[:9]
    mask = args[9] if len(args) > 9 else kwargs.get("mask")
    _heads(c, q, k, v, heads, inward, bias, outward, out_bias, mask, None)


def _heads(
    c: Counting,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    heads: int,
    inward: Tensor,
    bias: Tensor | None,
    outward: Tensor,
    out_bias: Tensor | None,
    mask: Tensor | None,
    path: str | None,
) -> None:
    """Multi-head attention in one kernel, [B,L,D]. Nobody sees inside what is zero."""
    batch, length, width = q.shape
    keys = k.shape[1]
    for given, weight in zip((q, k, v), inward.chunk(3), strict=True):
        effective = None if c.meta else _meeting(c, given, weight)
        c.mac(
            c.tags.get(given), batch * given.shape[1] * weight.numel(), effective, weight.shape[0], _bits(weight), path
        )
    pairs = batch * heads * length * keys
    if mask is not None:
        if c.meta:
            c.unknown_mask()
        elif mask.dim() == 2 and mask.shape == (batch, keys) and (batch, keys) != (length, keys):
            pairs = heads * length * connections.total(~mask.to(torch.bool))
        else:
            hidden = mask.to(torch.bool)
            hidden = hidden if hidden.dim() == 4 else hidden.expand(batch, length, keys).unsqueeze(1)
            pairs = connections.total(~hidden.expand(batch, heads, length, keys))
    c.mac(PLAIN, 2 * pairs * (width // heads), None, 0, _bits(q), path)
    c.mac(PLAIN, batch * length * outward.numel(), None, 0, _bits(outward), path)
    softmax(c, pairs, batch * heads * length, path)
    c.emit("elementwise", pairs, path=path)
    for read in (inward, bias, outward, out_bias):
        c.reads(read)
    for weight in (inward, outward):
        c.multiplied(weight, c.tags.get(weight))
    kv = 2 * batch * keys * width * q.element_size()
    c.move("kv", kv, kv, path)


def _encoder_layer(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    x, width, heads, inward, bias, outward, out_bias, gelu, _, _ = args[:10]
    norms, (up, up_bias, down, down_bias) = args[10:14], args[14:18]
    mask = args[18] if len(args) > 18 else kwargs.get("mask")
    owner = {id(w): c.owner(c.tags.get(w)) for w in (inward, up, down, norms[0], norms[2])}
    _heads(c, x, x, x, heads, inward, bias, outward, out_bias, mask, owner[id(inward)])
    rows = x.numel() // width
    for weight in (up, down):
        c.mac(PLAIN, rows * weight.numel(), None, 0, _bits(weight), owner[id(weight)])
        c.multiplied(weight, c.tags.get(weight))
    c.emit("transcendental" if gelu else "compare", rows * up.shape[0])
    c.emit("elementwise", 2 * x.numel() + (2 * rows * up.shape[0] if gelu else 0))
    for weight in norms[::2]:
        normalisation(c, x.numel(), rows, 2, owner[id(weight)])
    for weight in (*norms, up, up_bias, down, down_bias):
        c.reads(weight)


# Integers.


def _quantized_linear(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
    x, packed = args[0], args[1]
    weight, bias = packed.unpack()
    c.quantized(weight)
    product(c, x, weight, out)
    c.reads(bias)


def _quantized_recurrent(kind: str) -> Rule:
    """A layer of 8-bit weights, or of 16: only shapes are seen."""

    def rule(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
        x, hidden, _, _, layers = args[:5]
        both = args[7]
        bits = 16 if kwargs.get("dtype") == torch.float16 else 8
        h = _tensors(hidden)[0]
        units, steps = h.shape[-1], x.numel() // max(1, x.shape[-1])
        for layer in range(layers):
            inputs = x.shape[-1] if layer == 0 else units * (1 + both)
            count = _GATES[kind] * units * (inputs + units)
            for _ in range(1 + both):
                c.mac(PLAIN, steps * count, None, 0, bits)
                _update(c, kind, steps * units)
                c.move("weights", count * bits // 8, 0)
                carried = steps * units * x.element_size() * (2 if kind == "lstm" else 1)
                c.move("state", carried, carried)
                c.multiplied(None, Tag(weight=f"{c.path}.{layer}"))

    return rule


RULES: dict[str, Rule] = {}
RULES |= dict.fromkeys(
    """empty empty_like empty_strided empty_permuted new_empty new_empty_strided zeros ones full zeros_like ones_like
    full_like new_zeros new_ones new_full arange linspace eye scalar_tensor tensor rand randn randint rand_like randn_like
    randint_like randperm bernoulli normal uniform exponential random multinomial poisson fill zero tril_indices
    triu_indices _local_scalar_dense item is_nonzero is_same_size nonzero nonzero_numpy set resize resize_as_ size stride
    numel dim sym_size sym_numel sym_stride sym_storage_offset is_floating_point _assert_async _assert_scalar
    _functional_assert_async result_type can_cast promote_types is_pinned _has_same_storage_numel _cudnn_init_dropout_state
    one_hot is_complex _nested_tensor_from_mask_left_aligned
    lift hann_window record_stream q_scale q_zero_point""".split(),
    _free,
)
RULES |= dict.fromkeys(
    """view _unsafe_view reshape _reshape_alias permute transpose t numpy_T expand slice select unsqueeze squeeze unbind
    split split_with_sizes chunk detach alias clone _to_copy to contiguous lift_fresh as_strided flip roll repeat tile narrow
    unfold flatten unflatten movedim swapaxes swapdims view_as reshape_as expand_as diagonal repeat_interleave type_as float
    im2col pixel_shuffle pixel_unshuffle channel_shuffle upsample_nearest1d upsample_nearest2d upsample_nearest3d
    reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d tril triu
    _conj resolve_conj resolve_neg real unsafe_split unsafe_chunk view_dtype diag diag_embed quantize_per_tensor
    quantize_per_tensor_dynamic dequantize int_repr rename meshgrid broadcast_tensors broadcast_to atleast_1d atleast_2d
    _nested_view_from_buffer positive""".split(),
    _keep,
)
RULES |= dict.fromkeys(["cat", "stack", "concat", "hstack", "vstack"], _join)
RULES |= dict.fromkeys(["gather", "index", "index_select", "take", "take_along_dim", "masked_select"], _rows)
RULES |= {"copy": _copy, "constant_pad_nd": _pad, "where": _where, "masked_fill": _masked_fill}
RULES |= {"scatter": _store(3), "index_put": _store(2), "_index_put_impl": _store(2), "index_copy": _store(3)}
RULES |= {"masked_scatter": _store(2), "slice_scatter": _store(1), "select_scatter": _store(1), "index_fill": _store(3)}
RULES |= {"scatter_add": _adding_store(3), "index_add": _adding_store(3), "scatter_reduce": _adding_store(3)}
RULES |= {"embedding": _embedding, "_embedding_bag": _embedding_bag, "_embedding_bag_forward_only": _embedding_bag}
RULES |= dict.fromkeys(
    """add sub rsub neg square floor ceil round trunc frac sign sgn heaviside bitwise_and bitwise_or bitwise_xor bitwise_not
    bitwise_left_shift bitwise_right_shift logical_and logical_or logical_xor logical_not remainder fmod floor_divide
    __and__ __or__ __xor__ __lshift__ __rshift__ true_divide_scalar ldexp fake_quantize_per_tensor_affine
    nan_to_num deg2rad""".split(),
    _each(elementwise=1),
)
RULES |= dict.fromkeys(
    """exp exp2 expm1 log log2 log10 log1p sqrt rsqrt reciprocal sin cos tan tanh sigmoid asin acos atan sinh cosh asinh acosh
    atanh erf erfc erfinv lgamma digamma atan2 logit special_i0 hypot xlogy""".split(),
    _each(transcendental=1),
)
RULES |= dict.fromkeys(
    """eq ne lt le gt ge maximum minimum fmax fmin threshold signbit isclose equal isfinite isnan isinf isneginf
    isposinf""".split(),
    _each(compare=1),
)
RULES |= {
    "relu": _signal_keeping(_each(compare=1)),
    "relu6": _each(compare=2),
    "abs": _signal_keeping(_each(elementwise=1)),
    "hardtanh": _each(compare=2),
    "leaky_relu": _each(compare=1, elementwise=1),
    "_prelu_kernel": _each(compare=1, elementwise=1),
    "hardsigmoid": _each(compare=2, elementwise=2),
    "hardswish": _each(compare=2, elementwise=3),
    "hardshrink": _each(compare=1),
    "softshrink": _each(compare=2, elementwise=1),
    "elu": _each(compare=1, transcendental=1, elementwise=1),
    "celu": _each(compare=1, transcendental=1, elementwise=2),
    "selu": _each(compare=1, transcendental=1, elementwise=2),
    "gelu": _each(transcendental=1, elementwise=3),
    "silu": _each(transcendental=1, elementwise=1),
    "mish": _each(transcendental=3, elementwise=1),
    "softplus": _each(transcendental=2, elementwise=1),
    "log_sigmoid_forward": _each(transcendental=2, elementwise=1),
    "nll_loss_forward": lambda c, args, kwargs, out: c.emit("elementwise", args[1].numel()),
    "softsign": _each(transcendental=1, elementwise=2),
    "glu": _each(transcendental=1, elementwise=1),
    "addcmul": _each(elementwise=2),
    "addcdiv": _each(elementwise=1, transcendental=1),
    "lerp": _each(elementwise=3),
    "logaddexp": _each(transcendental=2, elementwise=2),
    "dropout": _signal_keeping(lambda c, args, kwargs, out: _dropped(c, args, out, args[2])),
    "native_dropout": _signal_keeping(lambda c, args, kwargs, out: _dropped(c, args, out, args[2])),
    "feature_dropout": _signal_keeping(lambda c, args, kwargs, out: _dropped(c, args, out, args[2])),
    "alpha_dropout": _signal_keeping(lambda c, args, kwargs, out: _dropped(c, args, out, args[2])),
    "mul": _mul,
    "multiply": _mul,
    "div": _div,
    "true_divide": _div,
    "divide": _div,
    "pow": _pow,
    "clamp": _clamp,
    "clamp_min": _each(compare=1),
    "clamp_max": _each(compare=1),
    "clip": _clamp,
    "sum": _reduce("accumulate"),
    "nansum": _reduce("accumulate"),
    "mean": _reduce("accumulate", "elementwise"),
    "prod": _reduce("elementwise"),
    "amax": _pairwise_or_reduce,
    "amin": _pairwise_or_reduce,
    "max": _pairwise_or_reduce,
    "min": _pairwise_or_reduce,
    "aminmax": _reduce("compare"),
    "argmax": _reduce("compare"),
    "argmin": _reduce("compare"),
    "all": _reduce("compare"),
    "any": _reduce("compare"),
    "count_nonzero": _reduce("accumulate"),
    "var": _variance,
    "var_mean": _variance,
    "std": _deviation,
    "std_mean": _deviation,
    "norm": _reduce("accumulate", "transcendental", "elementwise"),
    "linalg_vector_norm": _reduce("accumulate", "transcendental", "elementwise"),
    "logsumexp": _reduce("accumulate", "transcendental", "transcendental"),
    "cumsum": _prefix("accumulate"),
    "cumprod": _prefix("elementwise"),
    "cummax": _prefix("compare"),
    "cummin": _prefix("compare"),
    "_cummax_helper": _prefix("compare"),
    "_cummin_helper": _prefix("compare"),
    "topk": _topk,
    "sort": _sort,
    "argsort": _sort,
    "kthvalue": _sort,
    "median": _sort,
    "mode": _sort,
    "_softmax": _softmax,
    "softmax": _softmax,
    "_safe_softmax": _softmax,
    "_log_softmax": _softmax,
    "log_softmax": _softmax,
    "layer_norm": _layer_norm,
    "native_layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "_fused_rms_norm": _rms_norm,
    "batch_norm": _batch_norm,
    "native_batch_norm": _batch_norm,
    "group_norm": _group_norm,
    "linear": _linear,
    "mm": _matrices(0, 1),
    "bmm": _matrices(0, 1),
    "mv": _matrices(0, 1),
    "dot": _matrices(0, 1),
    "vdot": _matrices(0, 1),
    "addmm": _matrices(1, 2),
    "addmv": _matrices(1, 2),
    "baddbmm": _matrices(1, 2),
    "convolution": _convolution,
    "_convolution": _convolution,
    "convolution_overrideable": _convolution,
    "scaled_dot_product_attention": _attention,
    "_scaled_dot_product_flash_attention_for_cpu": _flash_attention,
    "_scaled_dot_product_flash_attention": _flash_attention,
    "_native_multi_head_attention": _native_attention,
    "_transformer_encoder_layer_fwd": _encoder_layer,
    "quantized::linear_dynamic": _quantized_linear,
    "quantized::linear_dynamic_fp16": _quantized_linear,
}
RULES |= {kind: _recurrent(kind) for kind in _GATES}
RULES |= {f"quantized_{kind}": _quantized_recurrent(kind) for kind in ("lstm", "gru")}
for _axes in (1, 2, 3):
    RULES |= {
        f"max_pool{_axes}d": _pool("compare", _axes),
        f"max_pool{_axes}d_with_indices": _pool("compare", _axes),
        f"avg_pool{_axes}d": _pool("accumulate", _axes),
        f"adaptive_avg_pool{_axes}d": _adaptive_pool("accumulate", _axes),
        f"_adaptive_avg_pool{_axes}d": _adaptive_pool("accumulate", _axes),
        f"adaptive_max_pool{_axes}d": _adaptive_pool("compare", _axes),
    }


def _dropped(c: Counting, args: Any, out: Any, training: bool) -> None:
    y = _tensors(out)[0]
    if training:
        c.emit("elementwise", y.numel())
    elif c.tags.get(args[0]) is not PLAIN:
        c.tags.put(y, c.tags.get(args[0]))
