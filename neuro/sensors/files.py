"""Where the data sets lie."""

from __future__ import annotations

import os
from pathlib import Path

from neuro.errors import MissingError


def locate(name: str, root: str | Path | None = None) -> Path:
    """The file ``name`` ("mnist/train-labels-idx1-ubyte.gz") under ``root``, or under the folder that NEURO_DATA names.

    Raises:
        MissingError: no folder is named, or the file is not there.
    """
    folder = root or os.environ.get("NEURO_DATA")
    if not folder:
        raise MissingError(
            f"{name}: got no data folder, expected the variable NEURO_DATA.",
            "Set NEURO_DATA to the folder that holds the data sets.",
        )
    path = Path(folder) / name
    if not path.is_file():
        raise MissingError(f"{path}: no such file.", f"Put {name} into the data folder, or correct NEURO_DATA.")
    return path
