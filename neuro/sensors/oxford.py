"""The "Oxford" pair of spike trains: 200 inputs, and 200 outputs whose raster is a picture.

Shrestha & Orchard 2018, SLAYER, arXiv:1810.08646.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from neuro.errors import FormatError
from neuro.sensors import events
from neuro.sensors.files import locate

NEURONS = 200
DURATION_MS = 1900


def load(root: str | Path | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(input, output), each uint8 [1900, 200]: 1 in the millisecond in which a neuron fires.

    Raises:
        MissingError: the files are not there.
        FormatError: they are cut, or name neurons beyond 200 or times beyond 1.9 s.
    """
    return _raster(locate("oxford-spikes/input.bs1", root)), _raster(locate("oxford-spikes/output.bs1", root))


def _raster(path: Path) -> np.ndarray:
    found = events.decode(path.read_bytes(), str(path))
    number, last_ms = int(found.address.max()), int(found.time_us.max()) / 1000
    if number >= NEURONS or last_ms >= DURATION_MS:
        raise FormatError(
            f"{path}: got neuron {number} and {last_ms:.0f} ms, expected below {NEURONS} and {DURATION_MS}.",
            "Use another copy.",
        )
    return events.raster(found.address, found.time_us, NEURONS, DURATION_MS, DURATION_MS * 1000)
