"""Sound as spikes of auditory fibres: gammatone bands, compression in decibels, fibres of several thresholds per band.

Bands are evenly spaced on the ERB-rate scale (Glasberg & Moore 1990, doi:10.1016/0378-5955(90)90170-T). The squared response of
a gammatone filter of order 4 (Patterson et al. 1987) is laid over the power spectrum of 25 ms windows every 10 ms (after Ellis
2009, "Gammatone-like spectrograms"): that keeps a band's energy and gives up its phase. Hair cells come with fibres of high,
medium and low thresholds (Liberman 1978, doi:10.1121/1.381736); here a fibre fires once a bin while its band is above its own.
"""

from __future__ import annotations

import functools

import numpy as np

WINDOW_S, HOP_S = 0.025, 0.010
FLOOR_DB = -60.0  # below the loudest band of the recording: silence


def levels(samples: np.ndarray, rate_hz: int, bands: int, low_hz: float = 100.0) -> np.ndarray:
    """float32 [frames, bands]: decibels of each band below the loudest one of the recording, at least `FLOOR_DB`.

    Silence before and after (40 dB below the loudest frame) is cut off. The reference is of the whole recording: speakers'
    loudness says nothing about the digit, and a causal gain control would have to be learned first.
    """
    size, hop = round(WINDOW_S * rate_hz), round(HOP_S * rate_hz)
    sound = samples.astype(np.float64)
    sound = np.pad(sound - sound.mean(), (0, max(0, size - len(sound))))
    framed = np.lib.stride_tricks.sliding_window_view(sound, size)[::hop] * np.hanning(size)
    points = 1 << (size - 1).bit_length()
    power = np.abs(np.fft.rfft(framed, points)) ** 2 @ _weights(rate_hz, bands, points, low_hz)
    energy = 10.0 * np.log10(power.sum(1) + 1e-9)
    loud = np.nonzero(energy > energy.max() - 40.0)[0]
    decibels = 10.0 * np.log10(power[loud[0] : loud[-1] + 1] + 1e-9)
    return np.maximum(decibels - decibels.max(), FLOOR_DB).astype(np.float32)


def resampled(frames: np.ndarray, bins: int, bend: float = 1.0) -> np.ndarray:
    """[bins, bands] of [frames, bands], linear in time: a word takes so many bins however slowly it is said.

    ``bend`` above 1 dwells on the beginning, below 1 on the end.
    """
    return _between(frames, np.linspace(0.0, 1.0, bins) ** bend * (len(frames) - 1.0))


def fibres(decibels: np.ndarray, thresholds_db: tuple[float, ...]) -> np.ndarray:
    """uint8 [..., bins, fibres, bands] of 0 and 1 from [..., bins, bands]: a fibre of each threshold per band."""
    return (decibels[..., None, :] > np.asarray(thresholds_db, np.float32)[:, None]).astype(np.uint8)


def varied(decibels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Another voice saying the same, [frames', bands]: a vocal tract of another length (bands moved by up to 1.5), another
    loudness (up to 5 dB) and tilt (up to 6 dB at the ends), up to a tenth of the frames cut from each end."""
    bands = decibels.shape[1]
    place = np.clip(np.arange(bands) + generator.uniform(-1.5, 1.5), 0, bands - 1)
    louder, tilt = generator.uniform(-5, 5), generator.uniform(-6, 6) * np.linspace(-1, 1, bands)
    first, last = generator.integers(0, len(decibels) // 10 + 1, 2)
    moved = _between(decibels[first : len(decibels) - last].T, place).T
    return moved + (louder + tilt).astype(np.float32)


def _between(rows: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Rows at fractional places, linear."""
    below = np.floor(place).astype(np.int64)
    part = (place - below)[:, None].astype(np.float32)
    return rows[below] * (1.0 - part) + rows[np.minimum(below + 1, len(rows) - 1)] * part


@functools.cache
def _weights(rate_hz: int, bands: int, points: int, low_hz: float) -> np.ndarray:
    """[points / 2 + 1, bands]: squared magnitude of gammatone filters of order 4, each with peak 1."""
    low, high = (21.4 * np.log10(4.37e-3 * hz + 1.0) for hz in (low_hz, 0.9 * rate_hz / 2))
    centre = (10.0 ** (np.linspace(low, high, bands) / 21.4) - 1.0) / 4.37e-3
    width = 1.019 * 24.7 * (4.37e-3 * centre + 1.0)
    hz = np.fft.rfftfreq(points, 1.0 / rate_hz)[:, None]
    return (1.0 + ((hz - centre) / width) ** 2) ** -4
