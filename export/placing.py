"""A folder put in place whole, or not at all: what stood there stays until the new one is complete."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from neuro.errors import NeuroError

_STALE_S = 6 * 3600  # longer than any export takes


@contextlib.contextmanager
def placed(out: Path) -> Iterator[Path]:
    """An empty folder ``new`` to fill; it becomes ``out`` when the block ends well. Its parent goes away in any case.

    Raises:
        NeuroError: nothing can be written there; ``out`` is then as it was.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent, ignore_cleanup_errors=True) as work:
            new, old = Path(work) / "new", Path(work) / "old"
            new.mkdir()
            yield new
            if out.exists():
                out.rename(old)
            try:
                new.rename(out)
            except OSError:
                if old.exists():
                    old.rename(out)
                raise
            _remove_stale(out)
    except OSError as error:
        raise NeuroError(
            f"{out}: cannot write ({_why(error)}).",
            "Choose a folder you may write to, with free space.",
        ) from error


def _remove_stale(out: Path) -> None:
    """Remove what killed exports left beside ``out``: hours old, since a younger one may be another's, at work."""
    mine = re.compile(re.escape(f".{out.name}.") + r"\w{8}")  # as tempfile names them
    for path in out.parent.iterdir():
        if mine.fullmatch(path.name) and path.is_dir():
            with contextlib.suppress(OSError):
                if max(part.stat().st_mtime for part in (path, *path.rglob("*"))) < time.time() - _STALE_S:
                    shutil.rmtree(path, ignore_errors=True)


def _why(error: OSError) -> str:
    """What the system said; of a folder that was copied in part, of the first file: all of them say the same."""
    if isinstance(error, shutil.Error) and isinstance(error.args[0], list):
        return str(error.args[0][0][2]).rpartition("] ")[2].partition(":")[0]
    return error.strerror or str(error)
