"""Sharp-wave ripples: a run along a track, played again about twenty times faster over the synapses that the run left.

While the animal runs, place cells fire in their fields, earlier in theta as a field is crossed, so that within each theta
cycle they fire in the order of their fields. Pairing by time (Bi and Poo 1998, doi:10.1523/JNEUROSCI.18-24-10464.1998) makes
the forward synapses the stronger. At rest the cells at the start of the track are set off together, and the rest follow in
order (Lee and Wilson 2002, doi:10.1016/S0896-6273(02)01096-6; Davidson, Kloosterman and Wilson 2009,
doi:10.1016/j.neuron.2009.07.027). Place cells drive fast interneurons, which inhibit them and one another: the ripple
(140 to 220 Hz in CA1: Sullivan et al. 2011, doi:10.1523/JNEUROSCI.0294-11.2011).

An event's score is the rank correlation of time and place over its spikes; it is a replay when that is above what 95 % of
`SHUFFLES` shuffles of the cells' places give. Compression is the speed of the event (slope of place on time, over replays)
over that of the run, its linearity the variance of place that such a line explains. The ripple is the peak of the mean
spectrum of the interneurons' rate over the first `RIPPLE_MS` of each event.

differs: the spikes of the run are drawn, not simulated. An event is set off from outside, always at the start: there is no
replay from elsewhere and none backwards. A place cell fires once in an event, and excitation between place cells is slow
(18 ms): over that of AMPA receptors alone the same synapses would carry the wave along too fast. One network stands for CA3
and CA1.

Lesion: no synapses between place cells. Nothing follows the cells that are set off.
"""

from __future__ import annotations

import numpy as np

from sims.circuits.outcome import Outcome, brian

CELLS = 160
INTERNEURONS = 20
TRACK_CM = 160.0
SPEED_CM_S = 40.0
FIELD_CM = 10.0
THETA_HZ = 8.0
LAPS = 10
PEAK_HZ = 60.0
PAIRING_MS = 20.0
EVENTS = 10
EVENT_MS = 600
BEGIN_MS = 50
FIRST = 12
STRENGTH = 0.44
TO_INTERNEURONS = 1.5
TO_CELLS = 0.04
AMONG = 0.5
NOISE = 0.2
DT_MS = 0.5
SHUFFLES = 500
RIPPLE_MS = 150
RIPPLE_HZ = (80.0, 300.0)


def run(seed: int, lesion: bool = False) -> Outcome:
    """Learn from `LAPS` laps, then `EVENTS` events.

    Raises:
        MissingError: brian2 is not installed.
    """
    draws = np.random.default_rng(seed)
    weights = learnt(draws)
    (times, cells), others = _events(seed, weights, lesion)
    scores, replays, speeds, lines, lengths, shares = [], [], [], [], [], []
    for event in range(EVENTS):
        mine = (times >= event * EVENT_MS + BEGIN_MS) & (times < (event + 1) * EVENT_MS)
        when, who = times[mine], cells[mine]
        found, null = score(when, who, draws)
        scores.append(found)
        replays.append(found > null)
        if found > null:
            speeds.append(np.polyfit(when * 1e-3, who * TRACK_CM / CELLS, 1)[0] / SPEED_CM_S)
            lines.append(np.corrcoef(when, who)[0, 1] ** 2)
            lengths.append(np.ptp(when))
            shares.append(len(np.unique(who)) / CELLS)
    counts = np.histogram(others, bins=EVENTS * EVENT_MS, range=(0, EVENTS * EVENT_MS))[0]
    rate = (counts / INTERNEURONS * 1e3).reshape(EVENTS, EVENT_MS)
    peak, power = ripple(rate[:, BEGIN_MS : BEGIN_MS + RIPPLE_MS])
    first = times < EVENT_MS
    return Outcome(
        {
            "replays": float(np.mean(replays)),
            "score": float(np.mean(scores)),
            "compression": float(np.mean(speeds)) if speeds else float("nan"),
            "linearity": float(np.mean(lines)) if speeds else float("nan"),
            "cells_share": float(np.mean(shares)) if speeds else float("nan"),
            "event_ms": float(np.mean(lengths)) if speeds else float("nan"),
            "ripple_hz": peak,
            "ripple_power": power,
        },
        {"ms": times[first], "place": cells[first] * TRACK_CM / CELLS, "weights": weights, "rate": rate[0]},
    )


def learnt(draws: np.random.Generator) -> np.ndarray:
    """Weights [from, to] in 0 to 1 from pairs of spikes of `LAPS` laps: what forward pairs gained over backward ones."""
    seconds = TRACK_CM / SPEED_CM_S
    time = np.arange(0, seconds, 1e-3)
    centres = (np.arange(CELLS) + 0.5) * TRACK_CM / CELLS
    away = (time[:, None] * SPEED_CM_S - centres) / FIELD_CM
    phase = 2 * np.pi * THETA_HZ * time[:, None] + np.pi / 2 * away  # earlier in the cycle as the field is crossed
    rate = PEAK_HZ * np.exp(-(away**2) / 2) * np.exp(2 * (np.cos(phase) - 1))
    fired = (draws.random((LAPS, *rate.shape)) < rate * 1e-3).astype(np.float32)
    trace, keep = np.zeros_like(fired), np.float32(np.exp(-1 / PAIRING_MS))
    for step in range(1, len(time)):
        trace[:, step] = keep * (trace[:, step - 1] + fired[:, step - 1])
    forward = trace.reshape(-1, CELLS).T @ fired.reshape(-1, CELLS)
    gained = (forward - forward.T).clip(0)
    return gained / np.percentile(gained[gained > 0], 95)


def score(times: np.ndarray, cells: np.ndarray, draws: np.random.Generator) -> tuple[float, float]:
    """(rank correlation of time and place, what 95 % of the shuffles of places stay under); (0, 1) where all fire at once."""
    if len(np.unique(times)) < 2 or len(np.unique(cells)) < 2:
        return 0.0, 1.0
    order = _ranks(times)
    null = [np.corrcoef(order, _ranks(draws.permutation(CELLS)[cells]))[0, 1] for _ in range(SHUFFLES)]
    return float(np.corrcoef(order, _ranks(cells))[0, 1]), float(np.quantile(null, 0.95))


def ripple(rates: np.ndarray) -> tuple[float, float]:
    """Hz at every ms [events,ms] -> (Hz of the peak of the mean spectrum in `RIPPLE_HZ`, its power over the median)."""
    windowed = (rates - rates.mean(1, keepdims=True)) * np.hanning(rates.shape[1])
    power = (np.abs(np.fft.rfft(windowed)) ** 2).mean(0)
    power = np.convolve(power, np.ones(3) / 3, "same")
    hz = np.fft.rfftfreq(rates.shape[1], 1e-3)
    band = (hz >= RIPPLE_HZ[0]) & (hz <= RIPPLE_HZ[1])
    return float(hz[band][power[band].argmax()]), float(power[band].max() / np.median(power[1:]))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks, ties at their mean."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[place]


def _events(seed: int, weights: np.ndarray, lesion: bool) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """((ms, cell) of every spike of the place cells at rest, ms of the interneurons' spikes)."""
    brian2 = brian(seed)
    ms, dt = brian2.ms, DT_MS * brian2.ms
    space = {"out": TO_INTERNEURONS, "back": TO_CELLS, "among": AMONG}
    cells, others = (
        brian2.NeuronGroup(
            number,
            """
            dv/dt = (h - g - v)/tau + noise*sqrt(2/tau)*xi : 1 (unless refractory)
            dh/dt = -h/tau_e : 1
            dg/dt = -g/tau_i : 1
            """,
            threshold="v > 1",
            reset="v = 0",
            refractory=refractory * ms,
            method="euler",
            dt=dt,
            namespace={"noise": NOISE, "tau": tau * ms, "tau_e": tau_e * ms, "tau_i": tau_i * ms},
            name=name,
        )
        for name, number, tau, tau_e, tau_i, refractory in (
            ("place_cells", CELLS, 20, 18, 3, 20),
            ("interneurons", INTERNEURONS, 2, 2, 1.5, 1),
        )
    )
    starts = np.repeat(np.arange(EVENTS) * EVENT_MS + float(BEGIN_MS), FIRST)
    cue = brian2.SpikeGeneratorGroup(FIRST, np.tile(np.arange(FIRST), EVENTS), starts * ms, dt=dt)
    begin = brian2.Synapses(cue, cells, on_pre="v_post += 2", dt=dt)
    begin.connect(j="i")
    network = brian2.Network(cells, others, cue, begin)
    for source, target, effect in (
        (cells, others, "h_post += out"),
        (others, cells, "g_post += back"),
        (others, others, "g_post += among"),
    ):
        pairs = brian2.Synapses(source, target, on_pre=effect, delay=1 * ms, dt=dt, namespace=space)
        pairs.connect()
        network.add(pairs)
    if not lesion:
        forward = brian2.Synapses(cells, cells, "w : 1", on_pre="h_post += w", delay=2 * ms, dt=dt)
        source, target = np.nonzero(weights)
        forward.connect(i=source, j=target)
        forward.w = STRENGTH * weights[source, target]
        network.add(forward)
    heard = [brian2.SpikeMonitor(group) for group in (cells, others)]
    network.add(*heard)
    network.run(EVENTS * EVENT_MS * ms, namespace={})
    return (np.asarray(heard[0].t / ms), np.asarray(heard[0].i).astype(int)), np.asarray(heard[1].t / ms)
