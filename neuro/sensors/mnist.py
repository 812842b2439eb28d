"""MNIST in its original files (LeCun et al. 1998, doi:10.1109/5.726791): idx, big-endian, gzipped."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from neuro.errors import FormatError
from neuro.sensors.files import locate

PARTS = ("train", "t10k")


def load(part: str, root: str | Path | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(images uint8 [S,28,28], labels uint8 [S]) of the part "train" (60,000) or "t10k" (10,000).

    Raises:
        MissingError: the files are not there.
        FormatError: they are truncated or foreign, or do not fit each other.
    """
    images = read_idx(locate(f"mnist/{part}-images-idx3-ubyte.gz", root), 3)
    labels = read_idx(locate(f"mnist/{part}-labels-idx1-ubyte.gz", root), 1)
    if len(images) != len(labels):
        raise FormatError(f"mnist {part}: got {len(images)} images and {len(labels)} labels.", "Use another copy.")
    return images, labels


def read_idx(path: Path, axes: int) -> np.ndarray:
    """An idx file of bytes with so many axes.

    Raises:
        FormatError: it is not one, or it is cut.
    """
    again = "Use another copy of the file."
    try:
        data = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise FormatError(f"{path}: not a whole gzip file ({error}).", again) from error
    start = 4 + 4 * axes
    if data[:4] != bytes((0, 0, 8, axes)) or len(data) < start:
        raise FormatError(f"{path}: got {data[:4]!r} first, expected an idx file of bytes with {axes} axes.", again)
    shape = tuple(int(n) for n in np.frombuffer(data, ">i4", axes, 4))
    if min(shape) < 0 or len(data) != start + math.prod(shape):
        got = f"{len(data) - start} bytes for a shape of {list(shape)}"
        raise FormatError(f"{path}: got {got}, expected {math.prod(shape)}.", again)
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
