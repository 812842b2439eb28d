"""What slides over a picture, in NumPy: convolutions and pools of a NIR graph, forwards and, for whole numbers, backwards.

No kernel reaches into the padding: a synapse that would begin there does not exist. Axes: C channels, G groups, K kernel.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from neuro.nir_graph import Conv, Shape, SumPool2d, Window


def windows(x: np.ndarray, node: Window) -> np.ndarray:
    """[C,*shape] -> [C,*positions,*K]: what each position of the kernel sees, zeros in the padding."""
    strides, dilations = node.steps
    padded = np.pad(x, ((0, 0), *node.pads))
    spans = tuple(d * (k - 1) + 1 for k, d in zip(node.kernel, dilations, strict=True))
    axes = tuple(range(1, x.ndim))
    seen: np.ndarray = sliding_window_view(padded, spans, axis=axes)  # type: ignore[call-overload]
    steps = (slice(None), *(slice(None, None, s) for s in strides), *(slice(None, None, d) for d in dilations))
    return seen[steps]


def convolve(x: np.ndarray, weight: np.ndarray, node: Conv) -> np.ndarray:
    """[C,*shape], [out,C/G,*K] -> [out,*positions], without the bias; in the type of the two."""
    seen, groups, axes = windows(x, node), node.groups, len(node.kernel)
    inner = tuple(range(1, axes + 2))
    each = (0, *range(axes + 1, 2 * axes + 1))
    parts = zip(np.split(seen, groups), np.split(weight, groups), strict=True)
    return np.concatenate([np.tensordot(w, part, (inner, each)) for part, w in parts])


def pool(x: np.ndarray, node: SumPool2d) -> np.ndarray:
    """[C,H,W] -> [C,*positions]: the sum of each window."""
    return windows(x, node).sum((-2, -1))


def conv_fan_out(node: Conv, shape: Shape) -> np.ndarray:
    """int64 [C,*shape]: how many weights other than 0 each input meets."""
    there = np.stack(np.split(node.weight != 0, node.groups)).sum(1, dtype=np.int64)  # [G,C/G,*K]
    there = there.reshape(shape[0], *node.kernel)
    return _scatter(node, shape, lambda at: there[(slice(None), *at)].reshape(-1, *(1,) * len(node.kernel)))


def spread(cost: np.ndarray, node: SumPool2d, shape: Shape) -> np.ndarray:
    """int64 [C,*shape]: the costs [C,*positions] of all windows an input lies in."""
    return _scatter(node, shape, lambda at: cost)


def _scatter(node: Window, shape: Shape, value: Callable[[Shape], np.ndarray]) -> np.ndarray:
    """The sum over places of the kernel of a value [C,*positions], at the input that each position sees there."""
    strides, dilations = node.steps
    positions = node.slid(shape[1:])
    padded = np.zeros((shape[0], *(n + sum(pads) for n, pads in zip(shape[1:], node.pads, strict=True))), np.int64)
    for at in itertools.product(*map(range, node.kernel)):
        rows = zip(at, dilations, strides, positions, strict=True)
        places = tuple(slice(k * d, k * d + s * (n - 1) + 1, s) for k, d, s, n in rows)
        padded[(slice(None), *places)] += value(at)
    inside = zip(node.pads, shape[1:], strict=True)
    return padded[(slice(None), *(slice(before, before + n) for (before, _), n in inside))]
