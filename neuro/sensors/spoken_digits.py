"""The Free Spoken Digit Dataset (Jackson et al., doi:10.5281/zenodo.1342401): six speakers, ten digits, fifty takes, 8 kHz."""

from __future__ import annotations

import dataclasses
import io
import re
import wave
import zipfile
import zlib
from pathlib import Path

import numpy as np

from neuro.errors import FormatError
from neuro.sensors.files import locate

ARCHIVE = "fsdd/recordings.zip"
RATE_HZ = 8000
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
_NAME = re.compile(r"(\d)_(\w+)_(\d+)\.wav")


@dataclasses.dataclass(frozen=True)
class Take:
    """One spoken digit; ``samples`` is int16 [n] at 8 kHz."""

    digit: int
    speaker: str
    index: int
    samples: np.ndarray


def load(root: str | Path | None = None) -> list[Take]:
    """All takes, by digit, speaker and index.

    Raises:
        MissingError: the archive is not there.
        FormatError: it is truncated or foreign, or a file is not such a recording.
    """
    path = locate(ARCHIVE, root)
    takes = []
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                match = _NAME.fullmatch(name.rpartition("/")[2])
                if match:
                    samples = samples_of(archive.read(name), f"{path}, {name}")
                    takes.append(Take(int(match[1]), match[2], int(match[3]), samples))
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise FormatError(f"{path}: not a whole archive of recordings ({error}).", "Use another copy.") from error
    if not takes:
        raise FormatError(f"{path}: no recording DIGIT_SPEAKER_INDEX.wav in it.", "Use another copy.")
    return sorted(takes, key=lambda take: (take.digit, take.speaker, take.index))


def samples_of(data: bytes, where: str) -> np.ndarray:
    """int16 [n] of a WAV file.

    Raises:
        FormatError: not mono, 16 bit, 8 kHz, or empty.
    """
    try:
        with wave.open(io.BytesIO(data)) as file:
            got = (file.getnchannels(), 8 * file.getsampwidth(), file.getframerate())
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    except (wave.Error, EOFError, ValueError) as error:
        raise FormatError(f"{where}: not a WAV file ({error}).", "Use another copy.") from error
    if got != (1, 16, RATE_HZ) or not len(samples):
        raise FormatError(
            f"{where}: got {got[0]} channels of {got[1]} bits at {got[2]} Hz and {len(samples)} samples, "
            f"expected 1 of 16 bits at {RATE_HZ} Hz.",
            "Convert it: one channel, 16 bits, 8 kHz.",
        )
    return samples
