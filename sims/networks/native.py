"""The simulation loop in C++ (`network.cpp`), loaded with ctypes. Optional: `library` is None where it was not built."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path

import numpy as np

from backends.kernels import shared_library
from sims.networks.circuit import Circuit
from sims.networks.synapses import Array

_SKEW = 17 * 64
PADDING = 512  # a multiple of the widest strip
_VERSION = 1  # kVersion of network.cpp: a library that an older checkout left behind has another interface
_POINTER, _REAL, _INDEX = ctypes.c_void_p, ctypes.c_double, ctypes.c_int64


class _Run(ctypes.Structure):
    _fields_ = (
        *((name, _INDEX) for name in ("neurons", "excitatory", "first", "steps", "refractory", "delay", "history")),
        *((name, _POINTER) for name in ("offsets", "targets", "v", "e", "i", "spikes", "ends")),
        *((name, _REAL) for name in ("reset", "threshold", "excite", "inhibit")),
        ("constants", _REAL * 8),
        ("key", ctypes.c_uint64),
        ("cumulative", _POINTER),
        ("num_cumulative", _INDEX),
        ("base", _INDEX),
    )


def _load(folder: Path) -> tuple[ctypes.CDLL | None, str]:
    functions = {
        f"neuro_network_{model}_{real}_{target}": ((ctypes.POINTER(_Run), _INDEX), None)
        for model in ("cuba", "coba", "brunel")
        for real in ("float32", "float64")
        for target in ("uint16", "uint32")
    }
    return shared_library.load(folder, "network", _VERSION, functions)


@functools.cache
def library() -> ctypes.CDLL | None:
    """The built library, or None."""
    return _load(Path(__file__).parent)[0]


def status() -> tuple[bool, str]:
    """(built and loaded, the file or why not)."""
    return library() is not None, _load(Path(__file__).parent)[1]


class Loop:
    """The circuit's state in the library's own layout, and the steps that move it.

    Args:
        precision: float32 or float64.
        width: of the vectors in bytes, at most; 0 is the widest that the machine has.
    """

    def __init__(self, circuit: Circuit, precision: str, width: int = 0) -> None:
        self._circuit, self._width, synapses = circuit, width, circuit.synapses
        padded = -(-circuit.neurons // PADDING) * PADDING
        # Three rows in one block, each from a cache line on; beyond the neurons nothing is ever above a threshold. Were rows a
        # multiple of 4,096 bytes apart, a write to one would hold up reads of the others: up to three times slower.
        size = padded * np.dtype(precision).itemsize
        block = np.zeros(3 * (size + _SKEW) + 64, np.uint8)
        starts = (-block.ctypes.data % 64 + row * (size + _SKEW) for row in range(3))
        self._rows = [block[start : start + size].view(precision) for start in starts]
        self._rows[0][:] = np.nan
        for row, values in zip(self._rows, circuit.state, strict=False):
            row[: circuit.neurons] = values
        found = library()
        assert found is not None
        self._steps = getattr(found, f"neuro_network_{circuit.model}_{precision}_{synapses.targets.dtype}")
        v, e, i = (row.ctypes.data for row in self._rows)
        drive = circuit.drive
        self._run = _Run(
            neurons=circuit.neurons,
            excitatory=synapses.excitatory,
            refractory=circuit.refractory,
            delay=circuit.delay,
            offsets=synapses.offsets.ctypes.data,
            targets=synapses.targets.ctypes.data,
            v=v,
            e=e,
            i=i,
            reset=circuit.reset,
            threshold=circuit.threshold,
            excite=circuit.excite,
            inhibit=circuit.inhibit,
            constants=(_REAL * 8)(*circuit.constants),
            key=drive.key if drive else 0,
            cumulative=drive.cumulative.ctypes.data if drive else None,
            num_cumulative=len(drive.cumulative) if drive else 0,
            base=drive.base if drive else 0,
        )

    def state(self) -> Array:
        """[rows, neurons], a copy."""
        return np.stack([row[: self._circuit.neurons] for row in self._rows[: len(self._circuit.state)]])

    def advance(self, first: int, ends: Array, spikes: Array) -> None:
        """Take steps from number ``first``: fills what follows the history in both arrays.

        Args:
            ends: int64 [history + steps + 1], filled up to [history].
            spikes: neurons, of the synapses' type, with room for all that can fire and one more.
        """
        history = max(self._circuit.refractory, self._circuit.delay)
        self._run.first, self._run.history, self._run.steps = first, history, len(ends) - 1 - history
        self._run.spikes, self._run.ends = spikes.ctypes.data, ends.ctypes.data
        self._steps(ctypes.byref(self._run), self._width)  # ctypes releases the interpreter's lock for the call
