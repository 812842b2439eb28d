"""MATLAB 5.0 files, as far as spike sortings need them: real arrays of numbers, cells and structs, deflated or not.

Source: MathWorks, MAT-File Format (version 5). Text, sparse arrays, objects, complex numbers and files of version 7.3 (HDF5)
are refused.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from neuro.errors import FormatError

_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_MATRIX, _DEFLATED = 14, 15
_CELL, _STRUCT, _FIRST_NUMERIC = 1, 2, 6
_COMPLEX = 8


def read(path: Path) -> dict[str, Any]:
    """The variables by name: number arrays in their shape, cells as object arrays, structs as object arrays of dicts.

    Raises:
        FormatError: not such a file, cut, or of a kind that is not read.
    """
    data = path.read_bytes()
    if len(data) < 128 or data[126:128] not in (b"IM", b"MI"):
        raise FormatError(f"{path}: expected a MATLAB 5.0 file.", "Save it with -v7, or use another copy.")
    order = "<" if data[126:128] == b"IM" else ">"
    found = {}
    try:
        for kind, body in _elements(data[128:], order):
            if kind == _DEFLATED:
                ((kind, body),) = _elements(zlib.decompress(body), order)
            if kind == _MATRIX:
                name, value = _matrix(body, order)
                found[name] = value
    except (zlib.error, ValueError, KeyError, StopIteration) as error:
        raise FormatError(f"{path}: cut, or of a kind that is not read ({error!r}).", "Use another copy.") from error
    return found


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """(type, bytes) one after the other; each is padded to 8 bytes unless it is deflated."""
    at, byteorder = 0, ("little" if order == "<" else "big")
    while at < len(data):
        first, second = (int.from_bytes(data[at + i : at + i + 4], byteorder) for i in (0, 4))  # type: ignore[arg-type]
        if first >> 16:  # a small element: its size in the upper half, its bytes in the second word
            kind, size, start, end = first & 0xFFFF, first >> 16, at + 4, at + 8
        else:
            kind, size, start = first, second, at + 8
            end = start + (size if kind == _DEFLATED else -(-size // 8) * 8)
        if start + size > len(data):
            raise ValueError(f"{size} bytes at {start} of {len(data)}")
        yield kind, data[start : start + size]
        at = end


def _matrix(body: bytes, order: str) -> tuple[str, Any]:
    """(name, value); an empty body is an empty array."""
    if not body:
        return "", np.zeros((0, 0))
    parts = _elements(body, order)
    flags = _numbers(next(parts), order)
    shape = tuple(_numbers(next(parts), order).tolist())
    name = next(parts)[1].decode("ascii")
    kind = int(flags[0]) & 0xFF
    if kind == _CELL:
        return name, _objects([_matrix(body, order)[1] for _, body in parts], shape)
    if kind == _STRUCT:
        width = int(_numbers(next(parts), order)[0])
        packed = next(parts)[1]
        fields = [packed[i : i + width].split(b"\0")[0].decode("ascii") for i in range(0, len(packed), width)]
        values = [_matrix(body, order)[1] for _, body in parts]
        count = len(fields)
        rows = [dict(zip(fields, values[i * count : (i + 1) * count], strict=True)) for i in range(math.prod(shape))]
        return name, _objects(rows, shape)
    if kind < _FIRST_NUMERIC or int(flags[0]) >> 8 & _COMPLEX:
        raise ValueError(f"array of class {kind}, flags {int(flags[0]) >> 8}")
    return name, _numbers(next(parts), order).reshape(shape, order="F")


def _numbers(element: tuple[int, bytes], order: str) -> np.ndarray:
    return np.frombuffer(element[1], order + _NUMBERS[element[0]])


def _objects(values: list[Any], shape: tuple[int, ...]) -> np.ndarray:
    out = np.empty(len(values), object)
    for i, value in enumerate(values):  # numpy would unpack arrays of one shape
        out[i] = value
    return out.reshape(shape, order="F")
