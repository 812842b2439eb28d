"""A rat on a linear track: spikes of sorted hippocampal units and the path, run and rest (nelpy example data).

One animal, one day: about 15 minutes of running and 15 of rest, 13 tetrodes, 31 units, the position 60 times a second in
pixels of a camera without a scale in centimetres.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from neuro.errors import FormatError
from neuro.sensors import matlab
from neuro.sensors.files import locate

SPIKES = "hippocampus-lineartrack/spikes.mat"
PATH = "hippocampus-lineartrack/trajectory.videoPositionTracking.gz"
_CLOCK_HZ = 30_000
_END = b"<End settings>\n"
_RECORD = np.dtype([("time", "<u4"), ("x", "<u2"), ("y", "<u2"), ("x2", "<u2"), ("y2", "<u2")])


class Recording(NamedTuple):
    """Times are seconds of the recording's clock."""

    spikes_s: tuple[np.ndarray, ...]  # float64 [spikes] of each unit, in order
    path_s: np.ndarray  # float64 [P]
    path_px: np.ndarray  # float64 [P,2]


def load(root: str | Path | None = None) -> Recording:
    """The recording, units in the file's order.

    Raises:
        MissingError: a file is not there.
        FormatError: one is cut or foreign.
    """
    again = "Use another copy of the file."
    path = locate(SPIKES, root)
    units = list(_times(matlab.read(path).get("spikes")))
    if not units:
        raise FormatError(f"{path}: got no unit with spikes, expected a variable 'spikes'.", again)
    path = locate(PATH, root)
    try:
        data = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise FormatError(f"{path}: not a whole gzip file ({error}).", again) from error
    header, found, body = data.partition(_END)
    if not found or f"clockrate: {_CLOCK_HZ}".encode() not in header or len(body) % _RECORD.itemsize or not body:
        got = f"{len(body)} bytes after a header of {len(header)}"
        raise FormatError(f"{path}: got {got}, expected records of {_RECORD.itemsize} bytes.", again)
    rows = np.frombuffer(body, _RECORD)
    return Recording(tuple(units), rows["time"] / _CLOCK_HZ, np.stack([rows["x"], rows["y"]], 1).astype(np.float64))


def _times(value: Any) -> Iterator[np.ndarray]:
    """The spike times of every unit: the fields called ``time`` in nested cells and structs."""
    if isinstance(value, dict):
        if value.get("time") is not None and value["time"].size:
            yield value["time"].ravel().astype(np.float64)
    elif isinstance(value, np.ndarray) and value.dtype == object:
        for inner in value.ravel():
            yield from _times(inner)
