"""Clusters of neurons onto the cores of a mesh: a Hilbert curve, then swaps while hops fall; and what the links carry."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from sims.mapping.limits import Mesh
from sims.mapping.network import Floats, Ints

_SITES = 1536  # beyond this no swaps are tried: their table has a number for each pair
_PASSES = 60


@dataclasses.dataclass(frozen=True)
class Sites:
    """Where cores are: chip, and tile coordinates counted through all chips [cores]."""

    chip: Ints
    x: Ints
    y: Ints


def sites(mesh: Mesh, cores: int, chips: int) -> Sites:
    """The places of ``chips`` chips of ``cores`` cores."""
    number = np.arange(chips * cores)
    chip, tile = number // cores, number % cores // mesh.per_tile
    x, y = (tile // mesh.rows, tile % mesh.rows) if mesh.by_columns else (tile % mesh.columns, tile // mesh.columns)
    return Sites(chip, chip * mesh.columns + x, y)


def place(flow: Any, mesh: Mesh, cores: int, chips: int) -> Ints:
    """A core for each cluster, so that packets times hops are few.

    Args:
        flow: packets per step from cluster to cluster, [clusters, clusters].

    The better of plain numbering and a Hilbert curve is refined by swaps of two cores' contents, each core's best in turn,
    until none helps: never worse than plain numbering.
    """
    at = sites(mesh, cores, chips)
    clusters, number = len(flow), chips * cores
    both = flow + flow.T
    curve = np.concatenate([chip * cores + _curve(mesh, cores) for chip in range(chips)])
    starts = [np.arange(clusters), curve[:clusters]]
    best = min(starts, key=lambda where: _hops(flow, at, where))
    if number > _SITES or clusters < 2:
        return best
    distance = (np.abs(at.x[:, None] - at.x) + np.abs(at.y[:, None] - at.y)).astype(np.float64)
    where = np.concatenate([best, np.setdiff1d(np.arange(number), best)])
    weight = np.zeros((number, number))
    weight[:clusters, :clusters] = both
    np.fill_diagonal(weight, 0)
    tolerance = 1e-9 * max(1.0, float(weight.sum()))
    for _ in range(_PASSES):
        cost = weight @ distance[where]  # [contents, sites]: hops of a content, were it at that site
        own, moved = cost[np.arange(number), where], cost[:, where]
        gain = own[:, None] + own[None, :] - moved - moved.T - 2 * weight * distance[where][:, where]
        partners = gain[:clusters].argmax(axis=1)
        gains = gain[np.arange(clusters), partners]
        swapped = False
        for a in np.argsort(-gains, kind="stable"):
            if gains[a] <= tolerance:
                break
            b = partners[a]
            pull, far = weight[a] - weight[b], distance[where[a]][where] - distance[where[b]][where]
            if pull @ far - pull[a] * far[a] - pull[b] * far[b] > tolerance:  # it may not pay any more
                where[a], where[b] = where[b], where[a]
                swapped = True
        if not swapped:
            break
    return where[:clusters]


def _hops(flow: Floats, at: Sites, where: Ints) -> float:
    x, y = at.x[where], at.y[where]
    return float((flow * (np.abs(x[:, None] - x) + np.abs(y[:, None] - y))).sum())


def _curve(mesh: Mesh, cores: int) -> Ints:
    """The cores of one chip along Hilbert curves over squares, side by side along the longer axis."""
    short, long = sorted((mesh.columns, mesh.rows))
    side = 1 << max(0, short - 1).bit_length()
    order = []
    for block in range(-(-long // side)):
        for number in range(side * side):
            along, across = _hilbert(side, number)
            along += block * side
            x, y = (along, across) if mesh.columns >= mesh.rows else (across, along)
            if x < mesh.columns and y < mesh.rows:
                order.append(mesh.rows * x + y if mesh.by_columns else mesh.columns * y + x)
    found = (np.array(order)[:, None] * mesh.per_tile + np.arange(mesh.per_tile)).ravel()
    return found[found < cores]


def _hilbert(side: int, number: int) -> tuple[int, int]:
    """Coordinates of a step of the curve from (0, 0) to (side - 1, 0)."""
    x = y = 0
    size = 1
    while size < side:
        right = 1 & (number // 2)
        up = 1 & (number ^ right)
        if not up:
            if right:
                x, y = size - 1 - x, size - 1 - y
            x, y = y, x
        x, y = x + size * right, y + size * up
        number //= 4
        size *= 2
    return x, y


def links(source: Ints, target: Ints, packets: Any, at: Sites) -> dict[str, Any]:
    """Packets over each link between neighbouring tiles; they go along x first, then along y.

    Returns:
        east, west, north (to larger y) and south: [y, x] of the tile at the lower end of the link.
    """
    wide, high = int(at.x.max(initial=0)) + 1, int(at.y.max(initial=0)) + 1
    x0, x1, y0, y1 = at.x[source], at.x[target], at.y[source], at.y[target]
    found = {}
    # Packets enter the count of a line of links at its lower end and leave it at the upper.
    for names, start, stop, line, size in (
        (("east", "west"), x0, x1, y0, (high, wide)),
        (("north", "south"), y0, y1, x1, (wide, high)),
    ):
        for name, low, up in zip(names, (start, stop), (stop, start), strict=True):
            uses = low < up
            change = np.zeros(size, packets.dtype)
            np.add.at(change, (line[uses], low[uses]), packets[uses])
            np.subtract.at(change, (line[uses], up[uses]), packets[uses])
            carried = change.cumsum(axis=1)
            found[name] = carried if name in ("east", "west") else carried.T
    return found
