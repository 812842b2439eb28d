"""Recurrent layers, counted from their weights: kernels fuse them, and fuse them differently for every type."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sims.counting import connections
from sims.counting.movement import Rule, bits, tensors
from sims.counting.tags import PLAIN

if TYPE_CHECKING:
    from sims.counting.counter import Counting

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


def recurrent(kind: str) -> Rule:
    """lstm, gru and the plain ones, on a tensor or on packed sequences: counted from the weights."""

    def rule(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
        packed = isinstance(args[1], Tensor) and not args[1].is_floating_point() and args[1].dim() == 1
        x = args[0]
        hidden, weights, _, layers = args[2:6] if packed else args[1:5]
        both = args[8 if packed else 7]
        h = tensors(hidden)[0]
        steps = x.shape[0] if packed else x.numel() // max(1, x.shape[-1])  # with every row of the batch
        each = len(weights) // (layers * (1 + both))
        y = tensors(out)[0]
        given: Tensor | None = x
        for layer in range(layers):
            for direction in range(1 + both):
                first = (layer * (1 + both) + direction) * each
                own = weights[first : first + each]
                inward, back = own[0], own[1]
                effective: int | None = None
                if given is not None and not c.meta:
                    effective = meeting(c, given, inward)
                by = c.tags.get(x) if layer == 0 else PLAIN
                c.mac_of(by, steps * inward.numel(), effective, inward.shape[0], bits(inward))
                effective = None
                if layers == 1 and not both and not packed and not c.meta and each % 2 == 0:
                    effective = carried(c, x, y, h, back, bool(args[-1]))
                c.mac_of(PLAIN, steps * back.numel(), effective, 0, bits(back))
                if len(own) % 2:  # a projection of the hidden state
                    c.mac_of(PLAIN, steps * own[-1].numel(), None, 0, bits(own[-1]))
                units = back.shape[0] // GATES[kind]
                update(c, kind, steps * units)
                for weight in own:
                    if weight.dim() == 2:
                        c.multiplied(c.weight(weight))
                    else:
                        c.reads(weight)
                moved = steps * units * x.element_size() * (2 if kind == "lstm" else 1)
                c.move("state", moved, moved)
            given = None

    return rule


def update(c: Counting, kind: str, units: int) -> None:
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


def meeting(c: Counting, x: Tensor, weight: Tensor) -> int:
    """Products left of x [...,K] and weight [N,K]."""
    fans = c.weight(weight).fans(0)
    if fans is None:
        return c.nonzero(x) * weight.shape[0]
    return int((connections.columns(connections.mask(x).reshape(-1, x.shape[-1]), 0) * fans.each).sum())


def carried(c: Counting, x: Tensor, y: Tensor, h: Tensor, weight: Tensor, batch_first: bool) -> int | None:
    """Products left of the hidden states of a layer, all but the last of what it gave and what it began with."""
    axis = 1 if batch_first and y.dim() == 3 else 0
    before = y.narrow(axis, 0, y.shape[axis] - 1)
    return meeting(c, before, weight) + meeting(c, h, weight)


def quantized_recurrent(kind: str) -> Rule:
    """A layer of 8-bit weights, or of 16: only shapes are seen."""

    def rule(c: Counting, args: Any, kwargs: Any, out: Any) -> None:
        x, hidden, _, _, layers = args[:5]
        both = args[7]
        bits = 16 if kwargs.get("dtype") == torch.float16 else 8
        h = tensors(hidden)[0]
        units, steps = h.shape[-1], x.numel() // max(1, x.shape[-1])
        for layer in range(layers):
            inputs = x.shape[-1] if layer == 0 else units * (1 + both)
            count = GATES[kind] * units * (inputs + units)
            for _ in range(1 + both):
                c.mac_of(PLAIN, steps * count, None, 0, bits)
                update(c, kind, steps * units)
                c.multiplied_unseen(f"{c.path}.{layer}", count * bits // 8)
                moved = steps * units * x.element_size() * (2 if kind == "lstm" else 1)
                c.move("state", moved, moved)

    return rule
