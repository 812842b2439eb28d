"""A thalamocortical loop that goes from waking to slow waves and back as its neuromodulator is taken away and given.

Cortical cells excite one another and the thalamus, the thalamus excites the cortex, and interneurons inhibit both. A cortical
spike leaves behind adaptation, a slow potassium current. Acetylcholine and noradrenaline take most of it away and depolarise
cortex and thalamus (McCormick 1992, doi:10.1016/0301-0082(92)90012-4; Hill and Tononi 2005, doi:10.1152/jn.00915.2004).
With the modulator the cortex fires steadily. Without it the loop takes itself up from a few chance spikes, adaptation brings
it down, and wears off: the slow oscillation, under one cycle a second (Steriade, Nunez and Amzica 1993,
doi:10.1523/JNEUROSCI.13-08-03252.1993).

differs: while it is up the cortex fires at about half the rate of waking, against as much in cats (Steriade, Timofeev and
Grenier 2001, doi:10.1152/jn.2001.85.5.1969), as without the modulator it is driven less and adapts. Relay cells do not burst
and there is no reticular nucleus: no spindles, and no delta of the thalamus's own. The modulator is a switch. A synapse adds
a current, and excitation decays in 30 ms, between AMPA's and NMDA's: faster, the up state breaks into bursts.

Lesion: no adaptation. Nothing brings the loop down: without the modulator it stays up.
"""

from __future__ import annotations

import numpy as np

from sims.circuits.outcome import Outcome, brian

CELLS = {"cortex": 160, "inter": 40, "thalamus": 40}
PHASES_S = (4, 12, 4)
WAKE_DRIVE = 0.7
SLEEP_DRIVE = 0.5
NOISE = 0.2
# Drive, in thresholds, of a target whose sources fire at 10 Hz.
SYNAPSES = {
    ("cortex", "cortex"): 0.5,
    ("cortex", "inter"): 0.5,
    ("cortex", "thalamus"): 0.3,
    ("thalamus", "cortex"): 0.1,
    ("inter", "cortex"): -0.2,
    ("inter", "thalamus"): -0.1,
}
EXCITATION_MS = 30.0
INHIBITION_MS = 5.0
JOINED = 0.25
ADAPTATION = 0.04
ADAPTATION_MS = 800.0
KEPT = 0.1
DT_MS = 1.0
BIN_MS = 10
UP_HZ = 5.0
DOWN_HZ = 2.0
SLOW_HZ = (0.1, 1.0)


def run(seed: int, lesion: bool = False) -> Outcome:
    """Awake, asleep and awake again, for `PHASES_S` seconds.

    Raises:
        MissingError: brian2 is not installed.
    """
    cortex, thalamus = rates(seed, lesion)
    edges = np.cumsum(PHASES_S)[:2] * 1000 // BIN_MS
    awake, asleep, again = np.split(cortex, edges)
    settled = np.concatenate([awake[len(awake) // 4 :], again[len(again) // 4 :]])
    up, rises = states(asleep)
    return Outcome(
        {
            "slow_hz": rises / PHASES_S[1],
            "down_share_asleep": 1 - float(up.mean()),
            "down_share_awake": 1 - float(states(settled)[0].mean()),
            "up_over_awake": float(asleep[up].mean() / settled.mean()) if up.any() else float("nan"),
            "slow_power_ratio": slow_power(asleep) / slow_power(settled),
            "awake_hz": float(settled.mean()),
        },
        {"seconds": np.arange(len(cortex)) * BIN_MS * 1e-3, "cortex": cortex, "thalamus": thalamus, "edges": edges},
    )


def states(rate: np.ndarray) -> tuple[np.ndarray, int]:
    """Hz in bins -> (whether up [bins], how often it rose): up from over `UP_HZ` until under `DOWN_HZ`, over 50 ms."""
    smooth = np.convolve(np.pad(rate, 2, "edge"), np.ones(5) / 5, "valid")
    crossed = np.where(smooth > UP_HZ, 1, np.where(smooth < DOWN_HZ, -1, 0))
    last = np.maximum.accumulate(np.where(crossed != 0, np.arange(len(rate)), 0))
    up = crossed[last] > 0
    return up, int((up[1:] & ~up[:-1]).sum())


def slow_power(rate: np.ndarray) -> float:
    """Power of the rate between `SLOW_HZ`, Hz^2 / Hz."""
    spectrum = 2 * np.abs(np.fft.rfft(rate - rate.mean())) ** 2 * BIN_MS * 1e-3 / len(rate)
    hz = np.fft.rfftfreq(len(rate), BIN_MS * 1e-3)
    return float(spectrum[(hz >= SLOW_HZ[0]) & (hz <= SLOW_HZ[1])].mean())


def rates(seed: int, lesion: bool) -> tuple[np.ndarray, np.ndarray]:
    """Hz of the cortex's cells and of the thalamus's [bins]."""
    brian2 = brian(seed)
    ms, dt = brian2.ms, DT_MS * brian2.ms
    ends = np.cumsum(list(CELLS.values()))
    places = {name: np.arange(end - CELLS[name], end) for name, end in zip(CELLS, ends, strict=True)}
    wakes = np.repeat([1.0, 0.0, 1.0], PHASES_S)
    space = {"wake": brian2.TimedArray(wakes, dt=1 * brian2.second), "noise": NOISE, "tau_a": ADAPTATION_MS * ms}
    space |= {
        "asleep": SLEEP_DRIVE,
        "more": WAKE_DRIVE - SLEEP_DRIVE,
        "tau_e": EXCITATION_MS * ms,
        "tau_i": INHIBITION_MS * ms,
    }
    space |= {"jump": 0.0 if lesion else ADAPTATION, "lost": 1 - KEPT}
    cells = brian2.NeuronGroup(
        ends[-1],
        """
        dv/dt = (driven*(asleep + more*wake(t)) + h - g - a - v)/tau + noise*sqrt(2/tau)*xi : 1 (unless refractory)
        dh/dt = -h/tau_e : 1
        dg/dt = -g/tau_i : 1
        da/dt = -a/tau_a : 1
        tau : second (constant)
        driven : 1 (constant)
        adapts : 1 (constant)
        """,
        threshold="v > 1",
        reset="v = 0; a += adapts*jump*(1 - lost*wake(t))",
        refractory=2 * ms,
        method="euler",
        dt=dt,
        namespace=space,
    )
    cells.tau, cells.driven = 20 * ms, 1
    cells.tau[places["inter"]], cells.driven[places["inter"]] = 10 * ms, 0
    cells.adapts[places["cortex"]] = 1
    draws = np.random.default_rng(seed)
    weights = np.zeros((ends[-1], ends[-1]))
    for (source, target), strength in SYNAPSES.items():
        there = np.ix_(places[source], places[target])
        joined = draws.random((CELLS[source], CELLS[target])) < JOINED
        decay_ms = EXCITATION_MS if strength > 0 else INHIBITION_MS
        weights[there] = joined * strength * 100 / (decay_ms * JOINED * CELLS[source])
    synapses = brian2.Synapses(
        cells, cells, "excite : 1\ninhibit : 1", on_pre="h_post += excite; g_post += inhibit", delay=2 * ms, dt=dt
    )
    pre, post = np.nonzero(weights)
    synapses.connect(i=pre, j=post)
    synapses.excite, synapses.inhibit = weights[pre, post].clip(0), -weights[pre, post].clip(None, 0)
    monitor = brian2.SpikeMonitor(cells)
    brian2.Network(cells, synapses, monitor).run(len(wakes) * brian2.second, namespace={})
    when, who = np.asarray(monitor.t / ms), np.asarray(monitor.i)
    bins = len(wakes) * 1000 // BIN_MS
    cortex, thalamus = (
        np.bincount((when[np.isin(who, places[name])] // BIN_MS).astype(int), minlength=bins) / CELLS[name]
        for name in ("cortex", "thalamus")
    )
    return cortex * 1e3 / BIN_MS, thalamus * 1e3 / BIN_MS
