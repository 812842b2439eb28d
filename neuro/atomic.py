"""Writes that either happen whole or not at all: temporary file beside the target, fsync, rename, fsync the folder."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from neuro.errors import NeuroError

_STARTED = time.time()


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path; when the block ends well it becomes ``path``, otherwise ``path`` is left as it was.

    Raises:
        NeuroError: the folder cannot be written, or the disk is full.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        os.close(handle)
    except OSError as error:
        raise _cannot_write(target, error) from error
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
        _remove_stale(target)
        _sync_folder(target.parent)
    except OSError as error:
        raise _cannot_write(target, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def refuse_unwritable(path: str | Path, as_folder: bool = False) -> None:
    """Raise before a long computation what writing ``path``, or files in it, would raise after it.

    Args:
        as_folder: a folder is asked for, so a file of that name is in the way.

    Raises:
        NeuroError: what is there of the path is a file, or a folder that cannot be written to.
    """
    target = Path(path)
    there = target.absolute() if as_folder or target.is_dir() else target.absolute().parent
    while not there.exists():
        there = there.parent
    if not there.is_dir():
        raise _cannot_write(target, OSError(errno.ENOTDIR, f"{there} is a file, expected a folder"))
    if not os.access(there, os.W_OK | os.X_OK):
        raise _cannot_write(target, OSError(errno.EACCES, f"{there} cannot be written to"))


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text with ``\\n`` line ends, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def _remove_stale(target: Path) -> None:
    """Remove what killed processes left of the same target; younger files may be another writer's, at work."""
    mine = re.compile(re.escape(f".{target.name}.") + r"\w{8}")  # as mkstemp names them
    for path in target.parent.iterdir():
        if mine.fullmatch(path.name):
            with contextlib.suppress(OSError):  # gone already, or not ours to remove: no reason to fail a good write
                if path.stat().st_mtime < _STARTED:
                    path.unlink()


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return  # Windows cannot open a folder; its rename is journalled
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cannot_write(target: Path, error: OSError) -> NeuroError:
    return NeuroError(
        f"{target}: cannot write ({error.strerror or error}).", "Choose a folder you may write to, with free space."
    )
