"""A folder put in place whole, or not at all: what stood there stays until the new one is complete."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from neuro.errors import NeuroError


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
    except OSError as error:
        raise NeuroError(
            f"{out}: cannot write ({_why(error)}).",
            "Choose a folder you may write to, with free space.",
        ) from error


def _why(error: OSError) -> str:
    """What the system said; of a folder that was copied in part, of the first file: all of them say the same."""
    if isinstance(error, shutil.Error) and isinstance(error.args[0], list):
        return str(error.args[0][0][2]).rpartition("] ")[2].partition(":")[0]
    return error.strerror or str(error)
