"""The limits of a chip that a placement must keep, read from the chip's file."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from sims.chips import Chip
from sims.mapping.network import Conv2d, Ints, Projection, Sparse

UNBOUNDED = 2**62


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one chip and one of its cores holds; a number that the chip's file does not state bounds nothing.

    A spike takes one in-axon on each core that holds targets of it, and one out-axon of its own core for each of them.
    The weights of one axon lie in one row: a header, weight by weight with the index of its target where not all targets
    follow in order, filled up to whole words.
    """

    cores: int
    neurons: int = UNBOUNDED
    in_axons: int = UNBOUNDED
    out_axons: int = UNBOUNDED
    bits: int = UNBOUNDED
    weight_bits: int = UNBOUNDED
    fan_in: int = UNBOUNDED
    fan_out: int = UNBOUNDED
    word_bits: int = 1
    header_bits: int = 0
    index_bits: int = 0

    def synapse_bits(self, projection: Projection) -> int:
        """Memory of one synapse; 0 where a shared kernel holds the weight."""
        if isinstance(projection, Conv2d):
            return 0
        return projection.weight_bits + (self.index_bits if isinstance(projection, Sparse) else 0)

    def row_bits(self, payload: Ints) -> Ints:
        """Memory of rows with so many bits of weights each."""
        whole = -(-(payload + self.header_bits) // self.word_bits) * self.word_bits
        return np.where(payload > 0, whole, 0)


@dataclasses.dataclass(frozen=True)
class Mesh:
    """Tiles of cores in a grid; tile ``rows * x + y`` holds the next ``per_tile`` cores. Further chips follow in x."""

    columns: int
    rows: int
    per_tile: int


def of(chip: Chip) -> Limits:
    given: dict[str, Any] = chip.limits
    return Limits(
        given["cores"],
        given["compartments_per_core"],
        given["in_axons_per_core"],
        given["out_axons_per_core"],
        given["synapse_bits_per_core"],
        given["weight_bits"],
    )


def mesh(chip: Chip) -> Mesh:
    return Mesh(8, 4, 4)
