"""Texts of a Hugging Face dataset, or of a table on this disk: the one door to the `datasets` package."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from neuro.errors import MissingError, UsageError
from neuro.extras import require
from neuro.hf import hub

# By the end of a file's name: the loader of `datasets` that reads it.
_LOADERS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet", ".arrow": "arrow"}
_TEXT_TYPES = ("string", "large_string")


def read_documents(name: str) -> list[str]:
    """The texts of a dataset's training split, one per row; empty rows are left out.

    Args:
        name: ``NAME``, ``OWNER/NAME``, ``NAME/SUBSET`` or ``OWNER/NAME/SUBSET``; or a file (.json, .jsonl, .csv,
            .parquet, .arrow, also with .gz) or folder of one.

    Raises:
        MissingError: the extra is not installed, or there is no such dataset here and none can be had.
        UsageError: it needs a subset, has no training split, or no column is plainly the text.
    """
    library = require("datasets", "hf")
    path = Path(name)
    if path.exists():
        return _texts(_local(library, path), name)
    parts = name.split("/")
    if not all(parts) or len(parts) > 3:
        raise UsageError(f"dataset '{name}': expected NAME, OWNER/NAME or OWNER/NAME/SUBSET.", "Correct data.train.")
    if len(parts) == 3:
        return _texts(_load(library, name, "/".join(parts[:2]), parts[2]), name)
    try:
        rows = _load(library, name, name)
    except MissingError:
        if len(parts) == 1:
            raise
        try:
            rows = _load(library, name, *parts)
        except MissingError:
            rows = None
        if rows is None:
            raise  # as OWNER/NAME: what two parts mean first
    return _texts(rows, name)


def _local(library: ModuleType, path: Path) -> Any:
    if path.is_dir():
        return _load(library, str(path), str(path))
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if suffix not in _LOADERS:
        raise UsageError(
            f"dataset '{path}': got a file ending in '{suffix}', expected one of {', '.join(_LOADERS)}.",
            "Name a text file without 'hf:'.",
        )
    return _load(library, str(path), _LOADERS[suffix], data_files=str(path))


def _load(library: ModuleType, name: str, *args: str, **options: str) -> Any:
    try:
        with hub.quiet():
            return library.load_dataset(*args, split="train", **options)
    except ValueError as error:  # no such subset or split: the message lists those there are
        raise UsageError(f"dataset '{name}': {_line(error)}", "Write hf:OWNER/NAME/SUBSET.") from error
    except Exception as error:  # the library raises whatever its transport raises
        raise MissingError(
            f"dataset '{name}': cannot be had ({type(error).__name__}: {_line(error)}).",
            "Check the name and the connection, or name a local file.",
        ) from error


def _texts(rows: Any, name: str) -> list[str]:
    columns = [key for key, kind in rows.features.items() if getattr(kind, "dtype", None) in _TEXT_TYPES]
    if "text" not in columns and len(columns) != 1:
        raise UsageError(
            f"dataset '{name}': got the text columns {columns}, expected 'text' or only one.",
            "Save the column you mean as a text file and name that.",
        )
    column: Iterable[str | None] = rows["text" if "text" in columns else columns[0]]
    texts = [text for text in column if text]
    if not texts:
        raise UsageError(f"dataset '{name}': its training split holds no text.", "Name another dataset.")
    return texts


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or "no reason given"
