"""Address events, five bytes each, big-endian: an address of 16 bits, a polarity bit, 23 bits of microseconds.

Of a camera the address is a byte x and a byte y (N-MNIST: Orchard et al. 2015, doi:10.3389/fnins.2015.00437); of a population
it is the number of a neuron.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from neuro.errors import FormatError, UsageError

BYTES = 5


@dataclasses.dataclass(frozen=True)
class Events:
    """Events of a recording; every array is [E]."""

    address: np.ndarray  # uint16: a neuron, or x * 256 + y
    polarity: np.ndarray  # bool: brighter (camera)
    time_us: np.ndarray  # int32

    @property
    def x(self) -> np.ndarray:
        return self.address >> 8

    @property
    def y(self) -> np.ndarray:
        return self.address & 0xFF

    def __len__(self) -> int:
        return len(self.address)


def decode(data: bytes, where: str) -> Events:
    """The events in ``data``.

    Raises:
        FormatError: cut inside an event, or without any.
    """
    if not data or len(data) % BYTES:
        raise FormatError(
            f"{where}: got {len(data)} bytes, expected whole events of {BYTES} bytes.",
            "It is truncated or foreign: use another copy.",
        )
    raw = np.frombuffer(data, np.uint8).reshape(-1, BYTES).astype(np.int32)
    time_us = (raw[:, 2] & 0x7F) << 16 | raw[:, 3] << 8 | raw[:, 4]
    return Events((raw[:, 0] << 8 | raw[:, 1]).astype(np.uint16), raw[:, 2] >= 0x80, time_us)


def raster(cells: np.ndarray, time_us: np.ndarray, size: int, bins: int, duration_us: int) -> np.ndarray:
    """uint8 [bins, size]: 1 where a cell had at least one event in a bin; events after ``duration_us`` are left out.

    Raises:
        UsageError: no bin, or a duration of less than a microsecond a bin.
    """
    if bins < 1 or duration_us < bins:
        raise UsageError(
            f"raster: got {bins} bins over {duration_us} us, expected at least 1 bin of at least 1 us.",
            "Give fewer bins or a longer duration.",
        )
    out = np.zeros((bins, size), np.uint8)
    inside = time_us < duration_us
    out[time_us[inside].astype(np.int64) * bins // duration_us, cells[inside]] = 1
    return out
