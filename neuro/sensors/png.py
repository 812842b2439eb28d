"""PNG pictures of one grey channel, without a library (W3C PNG specification, third edition, 2025).

Read are bit depths 1, 2, 4 and 8, all five row filters, not interlaced; colour, palettes and 16 bits are refused.
"""

from __future__ import annotations

import zlib

import numpy as np

from neuro.errors import FormatError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def decode(data: bytes, where: str) -> np.ndarray:
    """The samples uint8 [rows, columns], as stored: 0 and 1 at a bit depth of 1.

    Raises:
        FormatError: not a PNG, cut, of a checksum that differs, or of a kind that is not read.
    """
    again = "Use another copy of the file."
    if data[:8] != _SIGNATURE:
        raise FormatError(f"{where}: got {data[:8]!r} first, expected a PNG file.", again)
    at, header, packed, ended = 8, b"", b"", False
    while at + 12 <= len(data) and not ended:
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        body, check = data[at + 8 : at + 8 + size], data[at + 8 + size : at + 12 + size]
        if int.from_bytes(check, "big") != zlib.crc32(kind + body) or len(check) < 4:
            raise FormatError(f"{where}: got a chunk {kind!r} whose checksum differs.", again)
        header = body if kind == b"IHDR" else header
        packed += body if kind == b"IDAT" else b""
        ended = kind == b"IEND"
        at += 12 + size
    if not ended or len(header) != 13:
        raise FormatError(f"{where}: got a PNG file without its end.", again)
    columns, rows = (int.from_bytes(header[i : i + 4], "big") for i in (0, 4))
    depth, colour, _, _, interlaced = header[8:]
    if colour or interlaced or depth not in (1, 2, 4, 8):
        got = f"colour type {colour}, {depth} bits, interlace {interlaced}"
        raise FormatError(f"{where}: got {got}, expected grey of 8 bits or less, not interlaced.", "Convert the file.")
    width = -(-columns * depth // 8)
    try:
        lines = np.frombuffer(zlib.decompress(packed), np.uint8)
    except zlib.error as error:
        raise FormatError(f"{where}: its pixels cannot be inflated ({error}).", again) from error
    if lines.size != rows * (width + 1):
        raise FormatError(f"{where}: got {lines.size} bytes of pixels, expected {rows * (width + 1)}.", again)
    plain = _unfiltered(lines.reshape(rows, width + 1), where)
    bits = np.unpackbits(plain, axis=1).reshape(rows, -1, depth)[:, :columns]
    return np.packbits(bits, axis=2)[..., 0] >> (8 - depth)


def _unfiltered(lines: np.ndarray, where: str) -> np.ndarray:
    """lines [rows, 1 + bytes], the filter's number first -> bytes [rows, bytes]."""
    before, out = np.zeros(lines.shape[1] - 1, np.uint8), []
    for kind, line in zip(lines[:, 0].tolist(), lines[:, 1:], strict=True):
        match kind:
            case 0:
                row = line
            case 1:
                row = np.cumsum(line, dtype=np.uint8)
            case 2:
                row = line + before
            case 3 | 4:
                row = _serial(line.tolist(), before.tolist(), kind)
            case _:
                raise FormatError(f"{where}: got row filter {kind}, expected 0 to 4.", "Use another copy of the file.")
        out.append(row)
        before = row
    return np.stack(out)


def _serial(line: list[int], above: list[int], kind: int) -> np.ndarray:
    """The filters in which a byte needs the one before it: 3 (mean) and 4 (Paeth)."""
    row: list[int] = []
    for i, value in enumerate(line):
        a, b, c = (row[i - 1], above[i], above[i - 1]) if i else (0, above[i], 0)
        guess = (a + b) // 2
        if kind == 4:
            guess = min((a, b, c), key=lambda x: abs(a + b - c - x))  # the first of equals: a, then b, then c
        row.append((value + guess) & 255)
    return np.array(row, np.uint8)
