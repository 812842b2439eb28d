"""Omniglot: handwritten characters of many alphabets, each by 20 people (Lake et al. 2015, doi:10.1126/science.aab3050).

105 x 105 pixels, ink 1. Two small background sets of five alphabets, to learn from, and 20 runs of one-shot
classification: 20 test characters against 20 examples, one of each class, all of one alphabet and by other hands; the
alphabets of the runs are in neither background set.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from neuro.errors import FormatError, UsageError
from neuro.sensors import png
from neuro.sensors.files import locate

SIDE = 105
BACKGROUNDS = ("small1", "small2")
RUNS = 20


class Background(NamedTuple):
    """Drawings of the alphabets to learn from."""

    images: np.ndarray  # uint8 [S,105,105], ink 1
    characters: np.ndarray  # int64 [S], numbered over all alphabets
    alphabets: np.ndarray  # int64 [S]
    names: tuple[str, ...]  # of the alphabets


class Run(NamedTuple):
    """One one-shot test."""

    examples: np.ndarray  # uint8 [20,105,105], one of each class
    tests: np.ndarray  # uint8 [20,105,105]
    answers: np.ndarray  # int64 [20]: the class of each test


def background(name: str, root: str | Path | None = None) -> Background:
    """The background set "small1" (136 characters) or "small2" (156), by alphabet, character and drawer.

    Raises:
        UsageError: another name.
        MissingError: the archive is not there.
        FormatError: it is truncated or foreign.
    """
    if name not in BACKGROUNDS:
        raise UsageError(f"background: got '{name}', expected one of {', '.join(BACKGROUNDS)}.", "Correct the name.")
    path = locate(f"omniglot/images_background_{name}.zip", root)
    files = {tuple(inside.split("/")[1:]): data for inside, data in _members(path).items()}
    if not files or any(len(key) != 3 for key in files):
        raise FormatError(f"{path}: expected pictures in alphabet/character/.", "Use another copy.")
    names = sorted({key[0] for key in files})
    characters = sorted({key[:2] for key in files})
    keys = sorted(files)
    return Background(
        np.stack([_ink(files[key], f"{path}, {'/'.join(key)}") for key in keys]),
        np.array([characters.index(key[:2]) for key in keys]),
        np.array([names.index(key[0]) for key in keys]),
        tuple(names),
    )


def runs(root: str | Path | None = None) -> list[Run]:
    """The 20 one-shot runs, in order.

    Raises:
        MissingError: the archive is not there.
        FormatError: it is truncated or foreign, or a run is not whole.
    """
    path = locate("omniglot/all_runs.zip", root)
    files = _members(path)
    found = []
    for number in range(1, RUNS + 1):
        folder = f"run{number:02d}"
        try:
            pairs = dict(line.split() for line in files[f"{folder}/class_labels.txt"].decode("ascii").splitlines())
            examples = [f"{folder}/training/class{k:02d}.png" for k in range(1, 21)]
            tests = [f"{folder}/test/item{k:02d}.png" for k in range(1, 21)]
            run = Run(
                np.stack([_ink(files[name], f"{path}, {name}") for name in examples]),
                np.stack([_ink(files[name], f"{path}, {name}") for name in tests]),
                np.array([examples.index(pairs[name]) for name in tests]),
            )
        except (KeyError, ValueError) as error:
            raise FormatError(f"{path}: {folder} is not whole ({error}).", "Use another copy.") from error
        found.append(run)
    return found


def _members(path: Path) -> dict[str, bytes]:
    """Pictures and labels of an archive by name."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [n for n in archive.namelist() if n.endswith((".png", ".txt")) and not n.startswith("__MACOSX")]
            return {name: archive.read(name) for name in names}
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise FormatError(f"{path}: not a whole zip archive ({error}).", "Use another copy.") from error


def _ink(data: bytes, where: str) -> np.ndarray:
    picture = png.decode(data, where)
    if picture.shape != (SIDE, SIDE):
        raise FormatError(f"{where}: got {list(picture.shape)} pixels, expected {SIDE} x {SIDE}.", "Use another copy.")
    return 1 - (picture > 0).astype(np.uint8)
