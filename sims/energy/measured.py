"""Energy the machine itself measured: the RAPL counters of Linux, where they can be read."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

ROOT = Path("/sys/class/powercap")


class RaplMeter:
    """Joules of all processor packages while the block runs.

    The counters include everything on the machine, idle power too. Each wraps at its own ``max_energy_range_uj``.
    """

    def __init__(self, root: Path = ROOT) -> None:
        self._domains = [path for path in sorted(root.glob("intel-rapl:*")) if path.name.count(":") == 1]
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
        after = self._read()
        if self._before is None or after is None:
            return
        total = 0
        for domain, start, end in zip(self._domains, self._before, after, strict=True):
            wrap = int((domain / "max_energy_range_uj").read_text()) if end < start else 0
            total += end - start + wrap
        self._joules = total * 1e-6

    def reading(self) -> tuple[float | None, str | None]:
        """(joules, source) of the block, or (None, None) where nothing could be read."""
        return (None, None) if self._joules is None else (self._joules, "RAPL, all packages, idle included")

    def _read(self) -> list[int] | None:
        try:
            return [int((domain / "energy_uj").read_text()) for domain in self._domains] or None
        except (OSError, ValueError):
            return None
