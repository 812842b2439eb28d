"""Prosody of recorded speech: pitch, energy and duration, by frame and by word; the only door to librosa (extra "audio").

Pitch is pYIN (Mauch and Dixon 2014, doi:10.1109/ICASSP.2014.6853678) as librosa has it. Rates above 16 kHz are brought down to
16 kHz first: a voice's pitch lies below 500 Hz.
"""

from __future__ import annotations

import dataclasses
import math
import numbers

import numpy as np

from neuro.errors import UsageError
from neuro.extras import require

FRAME_S, HOP_S = 0.048, 0.010
LOW_HZ, HIGH_HZ = 60.0, 420.0
QUIET_DB = -30.0  # below the loudest frame: not voiced
SILENCE_DB = -75.0  # of full scale, loudest frame: nothing is there
THRESHOLDS = (
    2.0,
    8.0,
)  # pYIN's beta prior of its threshold, of mean 0.2: the tighter default misses more voiced frames
_MOST_HZ = 16_000
_FAR_BEYOND = 8.0  # floats of full scale 1 that clip elsewhere reach past it, by 18 dB at the very most


@dataclasses.dataclass(frozen=True)
class Track:
    """A recording by frames of `HOP_S` [F]."""

    f0_hz: np.ndarray  # float32, NaN where not voiced
    energy_db: np.ndarray  # float32, of full scale
    clipped: float  # share of the samples at full scale: from a percent on, energy is too low and pitch less sure

    @property
    def voiced(self) -> np.ndarray:
        return np.isfinite(self.f0_hz)

    @property
    def seconds(self) -> float:
        return len(self.f0_hz) * HOP_S


def track(samples: np.ndarray, rate_hz: int) -> Track:
    """Pitch and energy of one channel.

    Args:
        samples: [n], integers of 8, 16 or 32 bits at their type's full scale (unsigned ones around its middle, as 8-bit WAV
            has them) or floats in -1..1, of which a few may lie beyond it.
        rate_hz: 4,000 or more.

    Raises:
        MissingError: librosa is not installed.
        UsageError: no sample, several channels, values of another kind, at another scale or not finite, or a rate too low for
            speech.
    """
    samples = np.asarray(samples)
    if samples.dtype.kind not in "iuf" or (samples.dtype.kind in "iu" and samples.dtype.itemsize > 4):
        raise UsageError(
            f"prosody: got samples of {samples.dtype}, expected floats or integers of 8, 16 or 32 bits.",
            "Give them as the recording has them, such as int16.",
        )
    if samples.ndim != 1 or not len(samples):
        raise UsageError(
            f"prosody: got samples of shape {list(samples.shape)}, expected [n] with n of at least 1.",
            "Give one channel that is not empty.",
        )
    if not isinstance(rate_hz, numbers.Real) or not math.isfinite(rate_hz) or rate_hz < 4000:
        raise UsageError(f"prosody: got a rate of {rate_hz!r} Hz, expected at least 4000.", "Record at a higher rate.")
    sound = _in_full_scale(samples)
    clipped = float((np.abs(sound) >= 1.0 - 1.5 / 32768).mean())
    sound = sound - sound.mean()
    librosa = require("librosa", "audio")
    if rate_hz > _MOST_HZ:
        sound, rate_hz = librosa.resample(sound, orig_sr=rate_hz, target_sr=_MOST_HZ), _MOST_HZ
    frame, hop = 2 * round(FRAME_S * rate_hz / 2), round(HOP_S * rate_hz)
    energy = _energy(sound, frame, hop)
    f0 = np.full(len(energy), np.nan, np.float32)
    if energy.max() > SILENCE_DB:
        pitch, voiced, _ = librosa.pyin(
            np.pad(sound, (0, max(0, frame - len(sound)))),
            fmin=LOW_HZ,
            fmax=HIGH_HZ,
            sr=rate_hz,
            frame_length=frame,
            hop_length=hop,
            beta_parameters=THRESHOLDS,
            fill_na=None,
        )
        loud = energy > max(energy.max() + QUIET_DB, SILENCE_DB)
        f0 = np.where(voiced[: len(energy)] & loud, pitch[: len(energy)], np.nan).astype(np.float32)
    return Track(f0, energy, clipped)


def words(found: Track, spans_s: np.ndarray) -> np.ndarray:
    """float32 [W, 3], the prosody of words: pitch, energy, duration, each against the whole recording.

    Pitch in octaves from the median of all voiced frames (0 where none is voiced), energy in units of 10 dB from the median of
    the loud frames, duration in octaves from the median of the words. A recording without a voice is all zeros but the last.

    Args:
        spans_s: [W, 2], begin and end of each word in seconds.

    Raises:
        UsageError: a word that does not end after it begins, or lies outside the recording.
    """
    spans_s = np.asarray(spans_s, float).reshape(-1, 2)
    wrong = ~((spans_s[:, 0] >= 0.0) & (spans_s[:, 1] > spans_s[:, 0]) & (spans_s[:, 0] < found.seconds))
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise UsageError(
            f"prosody: word {first + 1} spans {spans_s[first].tolist()} s of a recording of {found.seconds:.2f} s.",
            "Give begin and end inside the recording, in seconds.",
        )
    loud = found.energy_db > max(float(found.energy_db.max()) + QUIET_DB, SILENCE_DB)
    pitch_0 = float(np.median(found.f0_hz[found.voiced])) if found.voiced.any() else 1.0
    energy_0 = float(np.median(found.energy_db[loud])) if loud.any() else 0.0
    lengths = spans_s[:, 1] - spans_s[:, 0]
    out = np.zeros((len(spans_s), 3), np.float32)
    for row, (begin, end), length in zip(out, spans_s, lengths, strict=True):
        part = slice(int(begin / HOP_S), max(int(begin / HOP_S) + 1, math.ceil(end / HOP_S)))
        voiced, heard = found.voiced[part], loud[part]
        if voiced.any():
            row[0] = math.log2(float(np.median(found.f0_hz[part][voiced])) / pitch_0)
        if heard.any():
            row[1] = (float(found.energy_db[part][heard].mean()) - energy_0) / 10.0
        row[2] = math.log2(length / float(np.median(lengths)))
    return out


def _in_full_scale(samples: np.ndarray) -> np.ndarray:
    """float32 [n] in -1..1 and, of floats, a little beyond."""
    if samples.dtype.kind in "iu":
        bounds = np.iinfo(samples.dtype)
        middle = 0.0 if samples.dtype.kind == "i" else (bounds.max + 1.0) / 2.0
        return ((samples.astype(np.float64) - middle) / (bounds.max - middle)).astype(np.float32)
    sound = samples.astype(np.float32)
    if not np.isfinite(sound).all():
        raise UsageError("prosody: got samples that are not finite.", "Use another copy of the recording.")
    loudest = float(np.abs(sound).max())
    if loudest > _FAR_BEYOND:
        raise UsageError(
            f"prosody: got floats up to {loudest:.6g}, expected -1 to 1.", "Divide by the recording's full scale."
        )
    return sound


def _energy(sound: np.ndarray, frame: int, hop: int) -> np.ndarray:
    """Decibels of full scale of each frame, centred as pYIN's are, one every ``hop`` samples."""
    padded = np.pad(sound, (frame // 2, max(frame // 2, frame - len(sound))))
    framed = np.lib.stride_tricks.sliding_window_view(padded, frame)[::hop][: 1 + len(sound) // hop]
    return (10.0 * np.log10(np.square(framed, dtype=np.float64).mean(1) + 1e-12)).astype(np.float32)
