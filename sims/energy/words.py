"""Numbers as a reader wants them: three digits, a unit that fits, intervals, and columns that line up."""

from __future__ import annotations

from collections.abc import Sequence

from sims.energy.price import Interval

_JOULES = ((1.0, "J"), (1e-3, "mJ"), (1e-6, "uJ"), (1e-9, "nJ"), (1e-12, "pJ"))
_SECONDS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"))
_COUNTS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def joules(interval: Interval) -> str:
    """For example "3.1 mJ (90 %: 1.2 to 8.9)"."""
    return _with_unit(interval, _JOULES)


def seconds(interval: Interval) -> str:
    return _with_unit(interval, _SECONDS)


def ratio(interval: Interval) -> str:
    return f"{number(interval.median)} (90 %: {number(interval.lo)} to {number(interval.hi)})"


def number(x: float) -> str:
    """Three digits, no unit."""
    return f"{x:.0f}" if abs(x) >= 100 else f"{x:.3g}"


def count(x: float) -> str:
    """Three digits, thousands as k, M or G; nothing that happened is a dash."""
    if not x:
        return "-"
    scale, unit = next(((scale, unit) for scale, unit in _COUNTS if abs(x) >= scale), (1.0, ""))
    return number(x / scale) + unit


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]


def _with_unit(interval: Interval, scales: Sequence[tuple[float, str]]) -> str:
    factor, unit = next((scale for scale in scales if interval.median >= scale[0]), scales[-1])
    median, lo, hi = (number(x / factor) for x in (interval.median, interval.lo, interval.hi))
    return f"{median} {unit} (90 %: {lo} to {hi})"
