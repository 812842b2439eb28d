"""A weight where it is used, with what is asked of it again and again."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from torch import Tensor

from sims.counting import connections
from sims.counting.connections import Convolution
from sims.counting.tags import Tag, version

if TYPE_CHECKING:
    from sims.counting.counter import Counting


class Weight:
    """A weight where it is used: whose it is, what it takes to read it, the fan-outs of its inputs.

    What happens to it again as it did before is only added up, and told when it is settled.

    Attributes:
        path: of the submodule that its products are counted of.
        again: by (signal, source, axis of the outputs): products since, the values in them, and those that arrived.
        readings: how often it was read beside products; all but one are still to tell.
    """

    def __init__(self, c: Counting, x: Tensor) -> None:
        self.x, self.version, self.tag, self._counting = x, version(x), c.tags.get(x), c
        owner = c.owner(self.tag)
        self.path = c.path if owner is None else owner
        self.again: dict[tuple[str, str | None, int], list[int]] = {}
        self.readings = 0
        self.shape, self.bits = tuple(x.shape), 8 * x.element_size()
        self.buffer = self.tag.weight in c.buffers
        self.name = self.tag.weight or f"{c.path} {list(x.shape)}"
        count = x.numel()
        if not x.is_contiguous():  # what is expanded lies there once
            count = math.prod(n for n, step in zip(x.shape, x.stride(), strict=True) if step)
        self.bytes = count * x.element_size()
        self._fans: dict[Any, Any] = {}

    def settle(self) -> None:
        """Tell what only was added up."""
        c = self._counting
        for (kind, source, axis), sums in self.again.items():
            products, values, arrived = sums
            sums[:] = 0, 0, 0
            if products:
                outputs, fans = self.shape[axis], self.fans(axis)
                most = outputs if fans is None else fans.most
                c.mac_of(Tag(kind, source), values * outputs, arrived * most, most, self.bits, self.path)
                c.multiplied(self, products)
        if self.readings > 1:
            c.move("weights", (self.readings - 1) * self.bytes, 0, self.path)
            self.readings = 1

    def full(self) -> bool:
        """No weight is zero."""
        return self._counting.nonzero(self.x) == self.x.numel()

    def fans(self, axis: int) -> connections.Fans | None:
        """Of a matrix with its outputs along ``axis``; None: every input reaches all of them."""
        if axis not in self._fans:
            found = None if self.full() else connections.columns(connections.mask(self.x), axis)
            self._fans[axis] = None if found is None else connections.Fans.of(found)
        return self._fans[axis]

    def convolved(self, rule: Convolution, shape: tuple[int, ...]) -> tuple[int, connections.Fans | None, int]:
        """(connections, fan-outs of a channel or sample, channels that are alike) of a convolution's inputs."""
        key = (rule, shape)
        if key not in self._fans:
            x, sizes = self.x, tuple(shape[2:])
            fans, channels = None, 1
            if not self._counting.meta and self.full():
                outputs = x.shape[1] if rule.transposed else x.shape[0] // rule.groups
                fans, channels = connections.alike(rule, sizes, tuple(x.shape[2:]), outputs), shape[1]
            elif not self._counting.meta:
                fans = connections.pruned(rule, sizes, x)
            self._fans[key] = connections.dense(rule, shape, x.shape), fans, channels
        return self._fans[key]
