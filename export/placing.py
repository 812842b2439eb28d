"""A folder put in place whole, or not at all: what stood there stays until the new one is complete."""

from __future__ import annotations

import contextlib
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
            f"{out}: cannot write ({error.strerror or error}).",
            "Choose a folder you may write to, with free space.",
        ) from error
