"""N-MNIST: MNIST digits on a screen before a moving event camera (Orchard et al. 2015, doi:10.3389/fnins.2015.00437).

34 x 34 pixels, two polarities, three saccades of 100 ms. The archive of 1,100 recordings: number k of 1 to 1,000 shows image
k - 1 of the MNIST training images, number 60,000 + k image k - 1 of the test images.
"""

from __future__ import annotations

import dataclasses
import lzma
import tarfile
from pathlib import Path

import numpy as np

from neuro.errors import FormatError
from neuro.sensors import events
from neuro.sensors.events import Events
from neuro.sensors.files import locate

ARCHIVE = "nmnist-small/NMNISTsmall.tar.xz"
SIDE = 34
SHAPE = (2, SIDE, SIDE)
DURATION_US = 300_000


@dataclasses.dataclass(frozen=True)
class Recording:
    """``number`` is that of the file; ``image`` its (part, index) in MNIST, part 0 for training and 1 for test images."""

    number: int
    label: int
    events: Events

    @property
    def image(self) -> tuple[int, int]:
        return (1, self.number - 60_001) if self.number > 60_000 else (0, self.number - 1)


def load(root: str | Path | None = None) -> list[Recording]:
    """All recordings, by number.

    Raises:
        MissingError: the archive is not there.
        FormatError: it is truncated or foreign, a recording is broken or has no label, or there is none.
    """
    path = locate(ARCHIVE, root)
    found: dict[int, Events] = {}
    labels: dict[int, int] = {}
    try:
        with tarfile.open(path, "r:xz") as archive:  # compressed as one stream: read in order
            for member in archive:
                name, file = Path(member.name), archive.extractfile(member)
                if file is None:
                    continue
                if name.suffix == ".bs2":
                    found[int(name.stem)] = camera(file.read(), f"{path}, {name.name}")
                elif name.suffix == ".txt":
                    labels |= _labels(file.read().decode("ascii"))
    except (tarfile.TarError, lzma.LZMAError, EOFError, OSError, ValueError) as error:
        raise FormatError(f"{path}: not the archive of N-MNIST recordings ({error}).", "Use another copy.") from error
    if not found:
        raise FormatError(f"{path}: no recording NUMBER.bs2 in it.", "Use another copy.")
    for number in found:
        if labels.get(number) not in range(10):
            raise FormatError(f"{path}: recording {number} has no label from 0 to 9.", "Use another copy.")
    return [Recording(number, labels[number], found[number]) for number in sorted(found)]


def camera(data: bytes, where: str) -> Events:
    """The events of one recording file.

    Raises:
        FormatError: cut, out of order, or outside of the camera's pixels.
    """
    got = events.decode(data, where)
    again = "Use an N-MNIST recording: five bytes an event, 34 x 34 pixels."
    if got.x.max() >= SIDE or got.y.max() >= SIDE:
        raise FormatError(f"{where}: got pixels up to ({got.x.max()}, {got.y.max()}), expected below {SIDE}.", again)
    back = np.nonzero(np.diff(got.time_us) < 0)[0]
    if len(back):
        at = f"event {back[0] + 1} at {got.time_us[back[0] + 1]} us after one at {got.time_us[back[0]]} us"
        raise FormatError(f"{where}: got {at}, expected times in order.", again)
    return got


def frames(recordings: list[Recording], bins: int, generator: np.random.Generator | None = None) -> np.ndarray:
    """uint8 [S, bins, 2, 34, 34] of 0 and 1: whether a pixel had an event of that polarity in that part of the 300 ms.

    With a generator every recording is turned (up to 12 degrees), scaled (up to 12 %) and moved (up to 2 pixels) at random,
    event by event; events that leave the camera are lost.
    """
    out = np.empty((len(recordings), bins, 2 * SIDE * SIDE), np.uint8)
    for row, recording in zip(out, recordings, strict=True):
        x, y = recording.events.x.astype(np.float32), recording.events.y.astype(np.float32)
        inside = np.ones(len(x), bool)
        if generator is not None:
            x, y = _moved(x, y, generator)
            inside = (x >= 0) & (x < SIDE) & (y >= 0) & (y < SIDE)
        cells = (recording.events.polarity * SIDE + y.astype(np.int64)) * SIDE + x.astype(np.int64)
        row[:] = events.raster(cells[inside], recording.events.time_us[inside], row.shape[1], bins, DURATION_US)
    return out.reshape(len(recordings), bins, *SHAPE)


def _moved(x: np.ndarray, y: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    angle, scale = np.deg2rad(generator.uniform(-12, 12)), generator.uniform(0.88, 1.12)
    dx, dy = generator.uniform(-2, 2, 2)
    middle = (SIDE - 1) / 2
    c, s = np.float32(scale * np.cos(angle)), np.float32(scale * np.sin(angle))
    x, y = x - middle, y - middle
    return np.rint(c * x - s * y + np.float32(middle + dx)), np.rint(s * x + c * y + np.float32(middle + dy))


def _labels(text: str) -> dict[int, int]:
    rows = (line.split() for line in text.split("\n") if line and not line.startswith("#"))
    return {int(row[0]): int(row[1]) for row in rows if len(row) == 2}
