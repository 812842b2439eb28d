"""What published runs say about a platform: a trend, how far the runs lie from it, predictions between and beyond them.

    calls     ln y = ln hypot(a + b layers, c macs batch)    joules or seconds per call of a processor
    steps     ln y = ln (a + b macs), seconds: ln a          watts, and seconds per step of a chip whose host paces the steps
    synops    ln y = ln (a synops), seconds: ln a            joules per inference, seconds per step
    spikes    ln y = ln (a spikes)                           joules per inference

In a call launches and work overlap, so the larger counts: in the three published batch series a call of eight costs less than
a call of one, which a sum cannot say.

A processor's host launches each layer. A stick is given the whole graph in one call, so that b is 0 there (``whole_graph``
of its table). What others borrow of b is from fits that have it, a stick's too.

Runs are compared on a logarithmic scale. Their distance from the trend is a smooth field over the logarithms of the inputs
(exponential covariance of range `REACH`) plus the noise of a run: a prediction between two runs lies between them, and one
beyond them widens. Trend and field are fitted together by generalised least squares (universal kriging: Cressie, Statistics
for Spatial Data, 1993, section 3.4). Few runs say little about their own scatter, so its scale is shared with the other
platforms of the form as if `POOL` of their runs had been measured here, and the draws are Student's t. What a platform's own
runs leave open (b without a second depth, c without a batch series, everything without a run) is taken from the other
platforms of its form, with their spread; a then by its idle power, and with an error that its watts share.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import zlib
from collections.abc import Collection, Mapping

import numpy as np

from sims.energy.streams import DRAWS, normal
from sims.energy.technologies import Run, Technology, technologies

REACH = 4.0  # a factor of 55 in size or batch: runs farther apart than that tell each other little
POOL = 4  # runs that the other platforms count for
# Least spread of a logarithm between platforms: of a call's joules; of its watts, which follow idle power more closely, and
# of its shape (b / a, c / a).
APART, SHAPED = 1.0, 0.5
_FEATURES = 16
MANY = 30  # degrees of freedom where no run is a platform's own: the spread between platforms as it is
VAGUE = 3.0  # standard deviation of a logarithm about which nothing is known
FORMS = ("calls", "steps", "synops", "spikes")
SERIES = ("dynamic", "pace")  # pace: watts above idle of a processor, seconds per step of a chip
NOISE = 1.0  # variance of a run, in that of the field over one logarithmic unit
BEFORE = 0.05**2  # variance of a run before any is seen, as if in `POOL` runs
_ROUNDS = 40


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What one inference is: ``macs`` and ``layers`` of one pass, ``synops`` and ``spikes`` of all its steps."""

    macs: float = 0.0
    layers: float = 0.0
    synops: float = 0.0
    spikes: float = 0.0
    batch: int = 1
    steps: int = 1


@dataclasses.dataclass(frozen=True)
class Fit:
    """One series of one platform. Variances are before scaling."""

    form: str
    series: str
    theta: np.ndarray  # logarithms of the trend's parameters
    spread: np.ndarray  # their covariance
    points: np.ndarray  # logarithms of the runs' inputs, [runs, features]
    sessions: np.ndarray
    slopes: np.ndarray  # of the trend's logarithm at the runs, [runs, parameters]
    rest: np.ndarray  # ln(measured / trend)
    inverse: np.ndarray  # of the runs' covariance
    squares: float  # of the rest, whitened
    own: float  # runs less the parameters that they settle
    scale: float = BEFORE  # variance of the field over one logarithmic unit
    freedom: int = POOL
    layered: bool = True  # whether layers cost something of themselves
    watts: float = 0.0  # correlation of the first parameter with that of the pace

    def at(self, inputs: Inputs) -> tuple[float, np.ndarray, float]:
        """(ln of the prediction, how it moves with each parameter, variance of field and run)."""
        value, slope = _trend(self.theta, *_columns(self.form, self.series, inputs, self.layered))
        if not len(self.rest):
            return value, slope, REACH + NOISE
        # A prediction continues the session of the nearest run.
        away = np.linalg.norm(self.points - _point(self.form, inputs), axis=1)
        session = self.sessions == self.sessions[len(away) - 1 - int(np.argmin(away[::-1]))]
        near = _covariance(np.hypot(away, ~session))
        weights = near @ self.inverse
        left = max(0.0, REACH - float(weights @ near))
        return value + float(weights @ self.rest), slope - weights @ self.slopes, left + NOISE

    def draws(self, name: str, inputs: Inputs, seed: int) -> np.ndarray:
        """Predictions. Parameters and the field are drawn once per name: networks that are alike stray alike."""
        value, slope, left = self.at(inputs)
        platform, name = name, f"{name}.{self.series}"
        root = np.linalg.cholesky(self.spread + 1e-12 * np.eye(len(self.theta)))
        deviation = math.sqrt(left) * _stray(name, _point(self.form, inputs), seed)
        weights = slope @ root
        for k, weight in enumerate(weights):
            own = math.sqrt(1 - self.watts**2) if k == 0 else 1.0
            deviation = deviation + weight * own * normal(f"{name}.parameter.{k}", seed)
        if self.watts:
            deviation = deviation + weights[0] * self.watts * normal(f"{platform}.pace.parameter.0", seed)
        squares = sum((normal(f"{name}.scale.{k}", seed) ** 2 for k in range(self.freedom)), np.zeros(len(deviation)))
        return np.exp(value + math.sqrt(self.scale) * deviation * np.sqrt(self.freedom / squares))


def _stray(name: str, point: np.ndarray, seed: int) -> np.ndarray:
    """A standard normal field over inputs, drawn `DRAWS` times: near 1 in correlation within a small part of `REACH`.

    Random Fourier features (Rahimi and Recht, NIPS 2007) of the covariance exp(-distance / REACH).
    """
    rng = np.random.default_rng([seed, zlib.crc32(f"{name}.field".encode())])
    # Its spectrum is a multivariate Cauchy distribution.
    waves = rng.standard_normal((_FEATURES, len(point))) / np.abs(rng.standard_normal((_FEATURES, 1))) / REACH
    angle = waves @ point
    mix = np.concatenate([np.cos(angle), np.sin(angle)]) / math.sqrt(_FEATURES)
    return sum((weight * normal(f"{name}.field.{k}", seed) for k, weight in enumerate(mix)), np.zeros(DRAWS))


@functools.lru_cache(maxsize=512)
def fits(leave_out: frozenset[str] = frozenset()) -> Mapping[tuple[str, str], Fit]:
    """All fits by (platform, series), without the runs or whole platforms named. No random numbers are drawn."""
    tables = {name: table for name, table in technologies().items() if table.model in FORMS}
    found: dict[tuple[str, str], Fit] = {}
    for series in SERIES:
        runs = {name: usable(table, series, leave_out) for name, table in tables.items()}
        found |= {(name, series): fit for name, fit in _fit_all(tables, runs, series).items()}
    for name, table in tables.items():
        joules, watts = found[name, "dynamic"], found[name, "pace"]
        if table.model == "calls" and not len(joules.rest):
            # Joules are watts times seconds: what its watts are off by, such a platform's joules are off by too.
            share = math.sqrt(watts.spread[0, 0] * watts.scale / (joules.spread[0, 0] * joules.scale))
            found[name, "dynamic"] = dataclasses.replace(joules, watts=min(1.0, share))
    return found


def usable(table: Technology, series: str, leave_out: Collection[str] = ()) -> list[Run]:
    """The runs a series is fitted to: of the setup that has most of them."""
    setups = [run.setup for run in table.runs]
    most = max(setups, key=setups.count, default="")
    left = [] if table.platform in leave_out else [r for r in table.runs if r.setup == most and r.id not in leave_out]
    return [run for run in left if _measured(table.model, series, run) is not None]


def setup_sigma(table: Technology) -> float:
    """Standard deviation of the logarithm between setups: the table's, or more where one network ran in two of them."""
    spread = table.setup.sigma
    for network in {run.network for run in table.runs}:
        mine = [run for run in table.runs if run.network == network and run.dynamic_j]
        means = [
            float(np.mean([math.log(run.dynamic_j or 1.0) for run in mine if run.setup == setup]))
            for setup in sorted({run.setup for run in mine})
        ]
        if len(means) > 1:
            spread = max(spread, float(np.std(means, ddof=1)))
    return spread


def _fit_all(tables: Mapping[str, Technology], runs: Mapping[str, list[Run]], series: str) -> dict[str, Fit]:
    fitted: dict[str, Fit] = {}
    scales = {
        name: table.setup.sigma**2 if _by_events(table.model, series) else BEFORE for name, table in tables.items()
    }
    priors: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    vague = {name: _vague(table, runs[name], series) for name, table in tables.items()}
    for _ in range(4):
        before = fitted or {
            name: _fit(table.model, series, runs[name], vague[name], scales[name], not table.whole_graph)
            for name, table in tables.items()
        }
        fitted = {}
        for name, table in tables.items():
            others = {k: fit for k, fit in before.items() if k != name and fit.form == table.model and runs[k]}
            priors[name] = _borrowed(series, table, tables, runs, others, vague[name])
            fitted[name] = _fit(table.model, series, runs[name], priors[name], scales[name])
        for name, table in tables.items():
            alike = [fit for fit in fitted.values() if fit.form == table.model]
            if not _by_events(table.model, series):
                told = sum(fit.own for fit in alike)
                scales[name] = (POOL * BEFORE + sum(fit.squares for fit in alike)) / (POOL + told)
    for name in (name for name, table in tables.items() if table.whole_graph):
        fitted[name] = _fit("calls", series, runs[name], priors[name], scales[name], layered=False)
    return {name: _scaled(fit, scales[name]) for name, fit in fitted.items()}


def _scaled(fit: Fit, scale: float) -> Fit:
    if not len(fit.rest):
        return dataclasses.replace(fit, scale=scale, freedom=MANY)
    variance = (POOL * scale + fit.squares) / (POOL + fit.own)
    return dataclasses.replace(fit, scale=variance, freedom=POOL + round(fit.own))


def _by_events(form: str, series: str) -> bool:
    """Whether the runs are of one network or task each, so that only the published spread of setups tells their scatter."""
    return series == "dynamic" and form in ("synops", "spikes")


def _measured(form: str, series: str, run: Run) -> float | None:
    """Joules: per call (calls) or inference; watts of steps. Pace: watts above idle (calls), or seconds per step."""
    joules = run.dynamic_j
    if series == "pace":
        if run.time_s is None or form == "spikes":
            return None
        if form == "calls":
            return None if joules is None else joules / run.time_s
        return run.time_s / run.steps
    if joules is None:
        return None
    if form == "steps":
        return joules / run.time_s if run.time_s else None
    return joules * run.batch if form == "calls" else joules


def _inputs(run: Run) -> Inputs:
    return Inputs(run.macs or 0.0, run.layers or 0.0, run.synops or 0.0, run.spikes or 0.0, run.batch, run.steps)


def _columns(form: str, series: str, x: Inputs, layered: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """What the parameters multiply: in the sum, and beside it."""
    if series == "pace":
        return np.ones(1), np.zeros(0)
    if form == "calls":
        return np.array([1.0, x.layers * layered]), np.array([x.macs * x.batch])
    if form == "steps":
        return np.array([1.0, x.macs]), np.zeros(0)
    return np.array([x.synops if form == "synops" else x.spikes]), np.zeros(0)


def _point(form: str, x: Inputs) -> np.ndarray:
    if form == "calls":
        return np.log([max(x.layers, 1.0), max(x.macs, 1.0) / max(x.layers, 1.0), x.batch])
    if form == "steps":
        return np.log([max(x.macs, 1.0), x.steps])
    return np.log([max(x.synops, x.spikes, 1.0), x.steps])


def _trend(theta: np.ndarray, sums: np.ndarray, beside: np.ndarray) -> tuple[float, np.ndarray]:
    """(ln y, its derivative by each parameter's logarithm)."""
    parts = np.exp(theta) * np.concatenate([sums, beside])
    whole, work = parts[: len(sums)].sum(), parts[len(sums) :].sum()
    square = whole**2 + work**2
    slope = np.concatenate([parts[: len(sums)] * whole, parts[len(sums) :] * work]) / square
    return 0.5 * math.log(square), slope


def _covariance(distance: np.ndarray) -> np.ndarray:
    return REACH * np.exp(-distance / REACH)


def _contrasts(size: int) -> np.ndarray:
    """Parameters as a prior sees them: the first, and the others relative to it."""
    matrix = np.eye(size)
    matrix[1:, 0] = -1.0
    return matrix


def _vague(table: Technology, runs: list[Run], series: str) -> tuple[np.ndarray, np.ndarray]:
    """(means, standard deviations) of the contrasts, from the size of the inputs and outputs alone."""
    every = runs or [Run("", "", "", {}, "", macs=1e6, layers=10.0, synops=1e6, spikes=1e6)]
    columns = np.array([np.concatenate(_columns(table.model, series, _inputs(run))) for run in every])
    measured = [value for run in runs if (value := _measured(table.model, series, run)) is not None]
    size = columns.shape[1]
    means = -np.log(np.maximum(columns, 1.0)).mean(axis=0)
    means[0] += np.log(measured).mean() if measured else math.log(1e-3)  # about a millijoule, a millisecond
    means[1:] -= 1.0  # the other parts take 1 / e of the first
    return means, np.full(size, VAGUE)


def _borrowed(
    series: str,
    table: Technology,
    tables: Mapping[str, Technology],
    runs: Mapping[str, list[Run]],
    others: Mapping[str, Fit],
    vague: tuple[np.ndarray, np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """The prior of the contrasts: what the other platforms of this form found where their runs told, else vague."""
    means, deviations = vague[0].copy(), vague[1].copy()
    for k in range(1, len(means)):
        told = [name for name in others if _tells(runs[name], table.model, k)]
        found = np.array([others[name].theta[k] - others[name].theta[0] for name in told])
        if len(found) >= 2:
            means[k], deviations[k] = found.mean(), max(SHAPED, found.std(ddof=1) * math.sqrt(1 + 1 / len(found)))
    if not runs[table.platform] and len(others) >= 3:
        power = np.log([tables[name].constant("static").si for name in others])
        found = np.array([fit.theta[0] for fit in others.values()])
        slope, offset = np.polyfit(power, found, 1)
        error = found - (slope * power + offset)
        x = math.log(table.constant("static").si)
        reach = 1 + 1 / len(found) + (x - power.mean()) ** 2 / ((power - power.mean()) ** 2).sum()
        means[0] = slope * x + offset
        least = SHAPED if series == "pace" else APART
        deviations[0] = max(least, math.sqrt((error**2).sum() / (len(found) - 2) * reach))
    return means, deviations


def _tells(runs: list[Run], form: str, k: int) -> bool:
    """Whether runs settle the k-th parameter: two depths (or sizes), two batches."""
    if form != "calls" or k == 1:
        return len({run.layers for run in runs}) > 1
    return len({run.batch for run in runs}) > 1


def _fit(
    form: str,
    series: str,
    runs: list[Run],
    prior: tuple[np.ndarray, np.ndarray],
    scale: float,
    layered: bool = True,
) -> Fit:
    means, deviations = prior
    contrasts, size = _contrasts(len(means)), len(means)
    precision = scale * (contrasts.T / deviations**2) @ contrasts
    centre = np.linalg.solve(contrasts, means)
    points = np.array([_point(form, _inputs(run)) for run in runs]).reshape(
        len(runs), -1 if runs else 3 if form == "calls" else 2
    )
    sessions = np.array([run.session for run in runs])
    away = np.linalg.norm(points[:, None] - points[None], axis=-1)
    distance = np.hypot(away, sessions[:, None] != sessions[None])
    inverse = np.linalg.inv(_covariance(distance) + NOISE * np.eye(len(runs)))
    target = np.log([_measured(form, series, run) or math.nan for run in runs])
    theta = centre.copy()
    for _ in range(_ROUNDS):
        rest, slopes = _against(theta, form, series, runs, target, size, layered)
        step = np.linalg.solve(
            slopes.T @ inverse @ slopes + precision, slopes.T @ inverse @ rest + precision @ (centre - theta)
        )
        theta = theta + np.clip(step, -1.0, 1.0)
    rest, slopes = _against(theta, form, series, runs, target, size, layered)
    told = slopes.T @ inverse @ slopes
    spread = np.linalg.inv(told + precision)
    own = len(runs) - float(np.trace(told @ spread))
    squares = float(rest @ inverse @ rest)
    return Fit(
        form, series, theta, spread, points, sessions, slopes, rest, inverse, squares, max(0.0, own), layered=layered
    )


def _against(
    theta: np.ndarray, form: str, series: str, runs: list[Run], target: np.ndarray, size: int, layered: bool
) -> tuple[np.ndarray, np.ndarray]:
    trends = [_trend(theta, *_columns(form, series, _inputs(run), layered)) for run in runs]
    values = np.array([value for value, _ in trends])
    return target - values, np.array([slope for _, slope in trends]).reshape(len(runs), size)
