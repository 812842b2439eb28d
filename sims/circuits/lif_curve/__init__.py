"""The rate of a leaky integrate-and-fire neuron against its drive, without and with noise.

    tau dv/dt = drive - v + sigma sqrt(2 tau) xi(t),   a spike and v = 0 at v > 1,   then t_ref at 0

Without noise the rate is 1 / (t_ref + tau ln(drive / (drive - 1))), none up to a drive of 1 (Lapicque 1907; Brunel and van
Rossum 2007, doi:10.1007/s00422-007-0189-6). With white noise of variance sigma^2 the rate is Siegert's,
1 / (t_ref + tau sqrt(pi) int exp(u^2) (1 + erf u) du) from -drive / (sigma sqrt 2) to (1 - drive) / (sigma sqrt 2)
(Brunel 2000, doi:10.1023/A:1008925309027). A path looked at every dt misses crossings between, as if the threshold were
0.5826 sigma sqrt(2 dt / tau) higher (Broadie, Glasserman and Kou 1997, doi:10.1111/1467-9965.00035): the prediction has it.

Lesion: no noise. Below a drive of 1 nobody fires.
"""

from __future__ import annotations

import math

import numpy as np

from sims.circuits.outcome import Outcome, brian

TAU_MS = 20.0
REFRACTORY_MS = 2.0
SIGMA = 0.25
DT_MS = 0.1
DRIVES = np.array([0.6, 0.7, 0.8, 0.9, 1.02, 1.1, 1.25, 1.5, 2.0, 3.0])
COPIES = 40
SECONDS = 1.0


def run(seed: int, lesion: bool = False) -> Outcome:
    """`COPIES` neurons at each drive for `SECONDS`, once without and once with noise, from random potentials.

    Raises:
        MissingError: brian2 is not installed.
    """
    still = np.array([lapicque(drive) for drive in DRIVES])
    noisy = np.array([siegert(drive) for drive in DRIVES])
    plain = rates(DRIVES, 0.0, SECONDS, seed)
    moved = plain if lesion else rates(DRIVES, SIGMA, SECONDS, seed)
    fires, below = still > 0, DRIVES < 1
    return Outcome(
        {
            "error_without_noise": float(np.abs(plain[fires] / still[fires] - 1).max()),
            "below_threshold_hz": float(moved[below].mean()),
            "ratio_below_threshold": float(moved[below].sum() / noisy[below].sum()),
            "ratio_above_threshold": float(moved[~below].sum() / noisy[~below].sum()),
        },
        {"drive": DRIVES, "plain": plain, "noisy": moved, "lapicque": still, "siegert": noisy},
    )


def lapicque(drive: float) -> float:
    """Hz without noise."""
    return 1e3 / (REFRACTORY_MS + TAU_MS * math.log(drive / (drive - 1))) if drive > 1 else 0.0


def siegert(drive: float, sigma: float = SIGMA, dt_ms: float = DT_MS) -> float:
    """Hz with noise, looked at every ``dt_ms``; 0 for a continuous path."""
    threshold = 1 + 0.5826 * sigma * math.sqrt(2 * dt_ms / TAU_MS)
    u = np.linspace(-drive, threshold - drive, 4001) / (sigma * math.sqrt(2))
    # exp(u^2) (1 + erf u) without overflow at the deep end, where it tends to 1 / (sqrt(pi) |u|)
    f = np.array([math.exp(x * x) * math.erfc(-x) if x > -20 else 1 / (math.sqrt(math.pi) * -x) for x in u])
    return 1e3 / (REFRACTORY_MS + TAU_MS * math.sqrt(math.pi) * float(np.trapezoid(f, u)))


def rates(drives: np.ndarray, sigma: float, seconds: float, seed: int) -> np.ndarray:
    """Hz at each drive, the mean of its copies; without noise from the intervals, as a count is coarse."""
    steps, neurons = spikes(np.repeat(drives, COPIES), sigma, seconds, seed)
    if sigma:
        return np.bincount(neurons // COPIES, minlength=len(drives)) / (seconds * COPIES)
    found = np.zeros(len(drives))
    for place in range(len(drives)):
        mine = steps[neurons == place * COPIES]
        if len(mine) > 1:
            found[place] = (len(mine) - 1) / ((mine[-1] - mine[0]) * DT_MS * 1e-3)
    return found


def spikes(
    drives: np.ndarray,
    sigma: float,
    seconds: float,
    seed: int,
    dt_ms: float = DT_MS,
    refractory_ms: float = REFRACTORY_MS,
    start: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """(step, neuron) of every spike of neurons with a constant drive each, or drives [T,N] that change every step."""
    brian2 = brian(seed)
    dt, tau = dt_ms * brian2.ms, TAU_MS * brian2.ms
    drives = np.atleast_2d(drives)
    given = brian2.TimedArray(drives, dt=dt if len(drives) > 1 else seconds * brian2.second)
    noise = "+ sigma*sqrt(2/tau)*xi" if sigma else ""
    group = brian2.NeuronGroup(
        drives.shape[1],
        f"drive = given(t, i) : 1\ndv/dt = (drive - v)/tau {noise} : 1 (unless refractory)",
        threshold="v > 1",
        reset="v = 0",
        refractory=refractory_ms * brian2.ms,
        method="euler" if sigma else "exponential_euler",
        dt=dt,
        namespace={"tau": tau, "sigma": sigma, "given": given},
    )
    group.v = np.random.default_rng(seed).random(drives.shape[1]) if start is None else start
    monitor = brian2.SpikeMonitor(group)
    brian2.Network(group, monitor).run(seconds * brian2.second, namespace={})
    return np.rint(np.asarray(monitor.t / dt)).astype(np.int64), np.asarray(monitor.i).astype(np.int64)
