"""Energy the machine itself measured: the RAPL counters of Linux, where they can be read."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

ROOT = Path("/sys/class/powercap")
JOULES_PER_UJ = 1e-6


class RaplMeter:
    """Joules of all processor packages while the block runs.

    The counters include everything on the machine, idle power too. Each wraps at its own ``max_energy_range_uj``; a block
    so long that a counter wraps more than once reads too low.
    """

    def __init__(self, root: Path = ROOT) -> None:
        # "intel-rapl:1" may also be psys, the whole platform, which contains the packages: never add the two.
        self._domains = [path for path in sorted(root.glob("intel-rapl:*")) if _is_package(path)]
        self._before: list[int] | None = None
        self._joules: float | None = None

    def available(self) -> tuple[bool, str]:
        """(readable, why)."""
        if not self._domains:
            return False, "this machine shows no RAPL counters; energy is modelled and says so"
        if self._read() is None:
            return False, "RAPL counters exist but only the administrator may read them; energy is modelled and says so"
        return True, f"{len(self._domains)} processor packages can be measured"

    def __enter__(self) -> RaplMeter:
        self._before, self._joules = self._read(), None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        after, ranges = self._read(), self._read("max_energy_range_uj")
        if self._before is None or after is None or ranges is None:
            return
        rows = zip(self._before, after, ranges, strict=True)
        total_uj = sum(end - start + (wrap if end < start else 0) for start, end, wrap in rows)
        self._joules = total_uj * JOULES_PER_UJ

    def reading(self) -> tuple[float | None, str | None]:
        """(joules, source) of the block, or (None, None) where nothing could be read."""
        return (None, None) if self._joules is None else (self._joules, "RAPL, all packages, idle included")

    def _read(self, file: str = "energy_uj") -> list[int] | None:
        try:
            return [int((domain / file).read_text()) for domain in self._domains] or None
        except (OSError, ValueError):
            return None


def _is_package(domain: Path) -> bool:
    try:
        return (domain / "name").read_text().startswith("package")
    except OSError:
        return False
