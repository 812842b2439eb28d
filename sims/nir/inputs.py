"""What a NIR graph is run on: a sample from a file, or spikes drawn at a rate."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from neuro.errors import FormatError, MissingError, UsageError
from neuro.nir_graph import Graph


def read(path: str | Path) -> np.ndarray:
    """The array of a .npy file, or the only one of an .npz: [T, *shape of the Input].

    Raises:
        MissingError: no such file.
        FormatError: it is neither, damaged, holds objects, or several arrays.
    """
    give = "Give a .npy, or an .npz of one array: time first, then the Input's shape."
    if not Path(path).exists():
        raise MissingError(f"{path}: no such file.", give)
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return found
        with found:
            names = list(found)
            if len(names) != 1:
                raise FormatError(f"{path}: got {len(names)} arrays, expected one.", give)
            return found[names[0]]
    except (OSError, ValueError, EOFError, KeyError, MemoryError) as error:
        # What numpy says of a file that is none of its own recommends unpickling it, which nobody should.
        why = "not a whole file of numpy, or one of objects" if isinstance(error, ValueError) else str(error)
        raise FormatError(f"{path}: no array of numbers ({why}).", give) from error


def draw(graph: Graph, steps: int, rate: float, seed: int = 0) -> np.ndarray:
    """Spikes [T, *shape of the Input], each with probability ``rate`` at each step, independent.

    Raises:
        UsageError: no step, or a rate outside 0 to 1.
    """
    if steps < 1 or not 0.0 <= rate <= 1.0:
        raise UsageError(
            f"NIR input: got {steps} steps at a rate of {rate:g}, expected 1 step or more and a rate of 0 to 1.",
            "Give spikes per step and input.",
        )
    return (np.random.default_rng(seed).random((steps, *graph.shapes[graph.input][0])) < rate).astype(np.float64)
