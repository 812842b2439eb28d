"""Place fields along a line, by one analysis for recorded and for modelled units: maps, information, width, decoding.

Frames are F moments with their place on the line (0 to 1), their length in seconds and the speed along the line; units are
spike times.

    information = sum_x p(x) r(x)/r log2(r(x)/r), bits per spike, r = sum_x p(x) r(x)
    decoded place = argmax_x  sum_u n_u log r_u(x) - tau sum_u r_u(x)

(Skaggs et al. 1993, NIPS 5; Zhang et al. 1998, doi:10.1152/jn.1998.79.2.1017.)

Few spikes carry information by chance. The same map from spike trains shifted in a circle along the session, rest included,
says how much: its mean is what ``corrected`` takes off, its 99th percentile is what a tuned unit must exceed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from neuro.errors import UsageError

_SILENT = 1e-3  # spikes per second: the least rate the decoder believes in
_PAUSE_S = 1.0  # after which another run begins


class Frames(NamedTuple):
    """Moments in order; not evenly spaced where some are left out."""

    time_s: np.ndarray  # [F]
    seconds: np.ndarray  # [F] that each lasts
    place: np.ndarray  # [F] in 0..1
    speed: np.ndarray  # [F] along the line, in the path's units per second
    point: np.ndarray  # [F,2] where the animal was, in the path's units

    def where(self, which: np.ndarray) -> Frames:
        """Those of a bool [F]."""
        return Frames(*(column[which] for column in self))


Spikes = Sequence[np.ndarray]  # times in seconds of each unit, in order


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How units are analysed; the defaults are those of the reference figures."""

    bins: int = 40
    smooth_bins: float = 1.5  # sd of the Gaussian over the line
    shifts: int = 200
    least_shift_s: float = 10.0  # in either direction
    percentile: float = 99.0
    least_spikes: int = 50  # of a unit that is judged
    most_hz: float = 7.0  # mean rate above which a unit is taken for an interneuron
    window_s: float = 0.5  # of the decoder, running for nine tenths of it
    seed: int = 0


class Statistics(NamedTuple):
    """Per unit [U], and of the population."""

    spikes: np.ndarray
    mean_hz: np.ndarray
    peak_hz: np.ndarray
    information: np.ndarray  # bits per spike, as measured
    corrected: np.ndarray  # less the mean of the shifted
    width: np.ndarray  # share of the line at half of the peak or more, around the peak
    judged: np.ndarray  # bool: enough spikes, and no interneuron
    tuned: np.ndarray  # bool: judged, and beyond the percentile of its shifts
    rates_hz: np.ndarray  # [U,bins]
    occupancy_s: np.ndarray  # [bins]


class Decoded(NamedTuple):
    """Windows of the second half, places from the first half's maps."""

    time_s: np.ndarray  # [W]
    place: np.ndarray  # [W], where it was
    guess: np.ndarray  # [W]
    error: np.ndarray  # [W], share of the line
    chance: float  # median error of guesses dealt out at random


def line(path_s: np.ndarray, path: np.ndarray, until_s: float, smooth_frames: float = 10.0) -> Frames:
    """All moments of the first ``until_s`` seconds of a path.

    Args:
        path_s: [P] seconds.
        path: [P,2]; its first principal axis is the line.
        until_s: seconds from the first position on.
        smooth_frames: sd of the Gaussian over positions.

    Raises:
        UsageError: fewer than two positions.
    """
    first = path_s - path_s[0] < until_s if len(path_s) else np.zeros(0, bool)
    if first.sum() < 2:
        got = f"line: got {first.sum()} positions in {until_s:g} s, expected two or more."
        raise UsageError(got, "Give a longer path.")
    time, points = path_s[first], path[first]
    centred = points - points.mean(0)
    axis = np.linalg.svd(centred, full_matrices=False)[2][0]
    along = _smoothed(centred @ axis, smooth_frames)
    times = time + 1e-9 * np.arange(len(time))  # a repeated time stamp has no speed
    speed = np.abs(np.gradient(along, times))
    point = _smoothed(points.T, smooth_frames).T
    return Frames(time, np.diff(time, append=time[-1]), (along - along.min()) / np.ptp(along), speed, point)


def counted(spikes: Spikes, frames: Frames) -> np.ndarray:
    """Spikes of each unit in each frame -> [F,U]."""
    out = np.zeros((len(frames.time_s), len(spikes)))
    for unit, times in enumerate(spikes):
        at = np.searchsorted(frames.time_s, times, side="right") - 1
        inside = (at >= 0) & (times < frames.time_s[at] + frames.seconds[at])
        out[:, unit] = np.bincount(at[inside], minlength=len(out))
    return out


def poisson(rates: np.ndarray, frames: Frames, totals: np.ndarray, random: np.random.Generator) -> list[np.ndarray]:
    """Spikes of Poisson neurons whose totals [U] are given: conditioned on them, each spike falls as the rates have it.

    Args:
        rates: [F,U], each column up to a factor.
    """
    mass = rates * frames.seconds[:, None]
    found = []
    for share, total in zip((mass / mass.sum(0)).T, totals.astype(int), strict=True):
        at = random.choice(len(share), total, p=share)
        found.append(np.sort(frames.time_s[at] + random.random(total) * frames.seconds[at]))
    return found


def maps(counts: np.ndarray, frames: Frames, protocol: Protocol = Protocol()) -> tuple[np.ndarray, np.ndarray]:
    """(rates in spikes per second [U,bins], occupancy in seconds [bins]); both smoothed before they are divided."""
    at = _bins(frames, protocol)
    occupancy = _smoothed(np.bincount(at, frames.seconds, protocol.bins), protocol.smooth_bins)
    spikes = np.stack([np.bincount(at, column, protocol.bins) for column in counts.T])
    return _smoothed(spikes, protocol.smooth_bins) / np.maximum(occupancy, 1e-9), occupancy


def information(rates: np.ndarray, occupancy: np.ndarray) -> np.ndarray:
    """Bits per spike [...] of rates [..., bins] under an occupancy [bins]; 0 for a silent unit."""
    share = occupancy / occupancy.sum()
    mean = (rates * share).sum(-1, keepdims=True)
    relative = rates / np.where(mean > 0, mean, 1.0)
    return (share * relative * np.log2(np.where(relative > 0, relative, 1.0))).sum(-1)


def width(rates: np.ndarray) -> np.ndarray:
    """Share of the line [U], in one piece around the peak, at half of the peak or more."""
    bins, out = rates.shape[1], []
    for row in rates:
        high, peak = row >= row.max() / 2, int(row.argmax())
        left = peak - int(np.argmin(np.append(high[: peak + 1][::-1], False))) + 1
        right = peak + int(np.argmin(np.append(high[peak:], False)))
        out.append((right - left) / bins)
    return np.array(out)


def statistics(
    spikes: Spikes, frames: Frames, session_s: tuple[float, float], protocol: Protocol = Protocol()
) -> Statistics:
    """Maps, information with its shifts, widths, and which units are tuned.

    Args:
        frames: those to be analysed, of running.
        session_s: start and end of what spikes are shifted along.
    """
    counts = counted(spikes, frames)
    rates, occupancy = maps(counts, frames, protocol)
    found = information(rates, occupancy)
    shifted = _shifted_information(spikes, frames, session_s, protocol)
    total = counts.sum(0)
    mean_hz = total / frames.seconds.sum()
    judged = (total >= protocol.least_spikes) & (mean_hz < protocol.most_hz)
    tuned = judged & (found > np.percentile(shifted, protocol.percentile, axis=0))
    corrected = found - shifted.mean(0)
    return Statistics(total, mean_hz, rates.max(1), found, corrected, width(rates), judged, tuned, rates, occupancy)


def decode(
    spikes: Spikes, frames: Frames, split_s: float, protocol: Protocol = Protocol(), guesses: int = 200
) -> Decoded:
    """Maps from the frames before ``split_s``, places of the windows after it; a flat prior.

    Args:
        split_s: on the frames' clock.
        guesses: how often they are dealt out at random, for the chance.

    Raises:
        UsageError: nothing lies before or after the split.
    """
    counts = counted(spikes, frames)
    early, late = _halves(frames, split_s)
    rates, _ = maps(counts[early], frames.where(early), protocol)
    numbers, fired, seconds, place = _windows(counts[late], frames.where(late), split_s, protocol)
    guess = _guessed(rates, fired, seconds, protocol)
    random = np.random.default_rng(protocol.seed)
    chance = np.median([np.median(np.abs(random.permutation(guess) - place)) for _ in range(guesses)])
    return Decoded(split_s + numbers * protocol.window_s, place, guess, np.abs(guess - place), float(chance))


def decoding_errors(
    spikes: Spikes, frames: Frames, split_s: float, protocol: Protocol = Protocol(), draws: int = 1000
) -> np.ndarray:
    """Median errors of `decode` [draws] had the animal run other runs: those of both halves are drawn with replacement.

    A run is what lies between two pauses of more than a second; the maps are of the drawn runs of the first half, the windows
    those that begin in the drawn runs of the second.

    Raises:
        UsageError: nothing lies before or after the split.
    """
    counts = counted(spikes, frames)
    early, late = _halves(frames, split_s)
    before, after = frames.where(early), frames.where(late)
    numbers, fired, seconds, place = _windows(counts[late], after, split_s, protocol)
    window = np.floor((after.time_s - split_s) / protocol.window_s).astype(int)
    begins = _runs(after)[np.searchsorted(window, numbers)]
    runs, drawn = _runs(before), np.random.default_rng(protocol.seed)
    frames_of, windows_of = ([np.flatnonzero(x == run) for run in np.unique(x)] for x in (runs, begins))
    found = []
    for _ in range(draws):
        map_frames, tested = (
            np.concatenate([parts[i] for i in drawn.integers(len(parts), size=len(parts))])
            for parts in (frames_of, windows_of)
        )
        rates, _ = maps(counts[early][map_frames], before.where(map_frames), protocol)
        error = np.abs(_guessed(rates, fired[tested], seconds[tested], protocol) - place[tested])
        found.append(np.median(error))
    return np.array(found)


def directionality(spikes: Spikes, frames: Frames, onward: np.ndarray, protocol: Protocol = Protocol()) -> np.ndarray:
    """How much more each unit fires in one direction than in the other [U], 0 to 1: sum |r - s| / sum (r + s) of both maps.

    Args:
        onward: bool [F], frames in which the animal moved towards the end of the line.
    """
    counts = counted(spikes, frames)
    there, back = (maps(counts[which], frames.where(which), protocol)[0] for which in (onward, ~onward))
    return np.abs(there - back).sum(1) / np.maximum((there + back).sum(1), 1e-12)


def population_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Mean over places of the correlation between two population vectors, of rates [U,bins] and [U,bins]."""
    a, b = (rates - rates.mean(0) for rates in (one, other))
    norm = np.sqrt((a * a).sum(0) * (b * b).sum(0))
    return float(((a * b).sum(0) / np.maximum(norm, 1e-12)).mean())


def _halves(frames: Frames, split_s: float) -> tuple[np.ndarray, np.ndarray]:
    early = frames.time_s < split_s
    if not early.any() or early.all():
        got = f"decode: got {early.sum()} frames before the split and {(~early).sum()} after it"
        raise UsageError(f"{got}, expected some on both sides.", "Move split_s.")
    return early, ~early


def _windows(
    counts: np.ndarray, frames: Frames, start_s: float, protocol: Protocol
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Windows that are run nearly wholly: (number [W], spikes [W,U], seconds [W], mean place [W])."""
    window = np.floor((frames.time_s - start_s) / protocol.window_s).astype(int)
    numbers, index = np.unique(window, return_inverse=True)
    seconds = np.bincount(index, frames.seconds)
    fired = np.stack([np.bincount(index, column) for column in counts.T], 1)
    place = np.bincount(index, frames.place * frames.seconds) / np.maximum(seconds, 1e-12)
    whole = seconds > 0.9 * protocol.window_s
    return numbers[whole], fired[whole], seconds[whole], place[whole]


def _guessed(rates: np.ndarray, fired: np.ndarray, seconds: np.ndarray, protocol: Protocol) -> np.ndarray:
    rates = np.maximum(rates, _SILENT)
    fit = fired @ np.log(rates) - seconds[:, None] * rates.sum(0)
    return (fit.argmax(1) + 0.5) / protocol.bins


def _runs(frames: Frames) -> np.ndarray:
    """[F]: the number of the run that each frame lies in."""
    return np.cumsum(np.diff(frames.time_s, prepend=frames.time_s[0]) > _PAUSE_S)


def _bins(frames: Frames, protocol: Protocol) -> np.ndarray:
    return np.minimum((frames.place * protocol.bins).astype(int), protocol.bins - 1)


def _shifted_information(
    spikes: Spikes, frames: Frames, session_s: tuple[float, float], protocol: Protocol
) -> np.ndarray:
    """[shifts, U]; every unit is shifted alike."""
    random = np.random.default_rng(protocol.seed)
    start, length = session_s[0], session_s[1] - session_s[0]
    inside = [times[(times >= start) & (times < start + length)] - start for times in spikes]
    rows = []
    for shift in random.uniform(protocol.least_shift_s, length - protocol.least_shift_s, protocol.shifts):
        moved = [start + (times + shift) % length for times in inside]
        rows.append(information(*maps(counted(moved, frames), frames, protocol)))
    return np.stack(rows)


def _smoothed(values: np.ndarray, sd: float) -> np.ndarray:
    """A Gaussian over the last axis, cut at 4 sd, edges held."""
    reach = max(1, round(4 * sd))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sd) ** 2)
    kernel /= kernel.sum()
    padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(reach, reach)], mode="edge")
    return np.apply_along_axis(lambda row: np.convolve(row, kernel, "valid"), -1, padded)
