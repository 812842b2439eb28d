"""CA3 as an associative memory: a part of a pattern brings back the whole, over its recurrent synapses.

Patterns of `ACTIVE` of `NEURONS` cells are stored by clipped Hebbian learning: a synapse is there when its two cells share
a pattern (Willshaw, Buneman and Longuet-Higgins 1969, doi:10.1038/222960a0). Cells leak and fire; a volley reaches the
others one gamma cycle later, and with it inhibition in proportion to its size (Gibson and Robinson 1992,
doi:10.1016/S0893-6080(05)80042-5): a cell fires where its input h exceeds 1 + `INHIBITION` times the volley. Potentials
are noisy. A cue makes some cells of a pattern fire, and some that are not of it; after `CYCLES` volleys the last is
compared with the pattern.

differs: learning is done before the run, a volley's delay stands for the gamma cycle, and every pair may have a synapse.

Lesion: no recurrent synapses. A full cue is still there, a part of one is not completed, as in mice without NMDA receptors
in CA3 (Nakazawa et al. 2002, doi:10.1126/science.1071795).
"""

from __future__ import annotations

import numpy as np

from sims.circuits.outcome import Outcome, brian

NEURONS = 400
ACTIVE = 20
INHIBITION = 0.6
NOISE = 0.2
TAU_MS = 10.0
GAMMA_MS = 20.0
CYCLES = 4
DT_MS = 2.0
CUES = 10
LOADS = (50, 100, 150, 200, 250, 300, 400)
KEPT = (1.0, 0.5, 0.25, 0.1)
WRONG = (0, 2, 4, 6, 8, 10)


def run(seed: int, lesion: bool = False) -> Outcome:
    """Recall against load (half a cue), against the part of the cue and against wrong cells in it (100 patterns).

    Raises:
        MissingError: brian2 is not installed.
    """
    whole = recall(seed, 100, [(kept, 0) for kept in KEPT], lesion)
    wrong = recall(seed, 100, [(0.5, number) for number in WRONG], lesion)
    loads = np.array([recall(seed, load, [(0.5, 0)], lesion)[0] for load in LOADS])
    return Outcome(
        {
            "overlap_full_cue": float(whole[0]),
            "overlap_half_cue": float(whole[1]),
            "overlap_half_cue_4_wrong": float(wrong[2]),
            "critical_load": critical(loads),
        },
        {
            "loads": np.array(LOADS),
            "by_load": loads,
            "kept": np.array(KEPT),
            "by_kept": whole,
            "wrong": np.array(WRONG),
            "by_wrong": wrong,
        },
    )


def critical(overlaps: np.ndarray) -> float:
    """Patterns at which the overlap falls through 0.75, between two loads by a straight line; nan where it never does."""
    for place in range(1, len(LOADS)):
        before, after = overlaps[place - 1], overlaps[place]
        if before >= 0.75 > after:
            return float(np.interp(-0.75, [-before, -after], [LOADS[place - 1], LOADS[place]]))
    return float("nan")


def predicted_load() -> float:
    """The load at which half a cue brings up `critical`'s overlap, from one volley of independent binomial inputs.

    A cell outside has h ~ Binomial(cue, q) + noise with q = 1 - (1 - (ACTIVE / NEURONS)^2)^load, Willshaw's share of synapses.
    """
    cue, outside = ACTIVE // 2, NEURONS - ACTIVE
    overlaps = []
    for load in LOADS:
        q = 1 - (1 - (ACTIVE / NEURONS) ** 2) ** load
        draws = np.random.default_rng(0)
        h = draws.binomial(cue, q, 200_000) + NOISE * draws.standard_normal(200_000)
        spurious = outside * float((h > 1 + INHIBITION * cue).mean())
        overlaps.append(np.sqrt(ACTIVE / (ACTIVE + spurious)))
    return critical(np.array(overlaps))


def recall(seed: int, load: int, cues: list[tuple[float, int]], lesion: bool = False) -> np.ndarray:
    """Mean cosine of the last volley with the pattern, for each (part of the pattern kept, wrong cells added)."""
    draws = np.random.default_rng([seed, load])
    patterns = np.zeros((load, NEURONS), bool)
    for row in patterns:
        row[draws.choice(NEURONS, ACTIVE, replace=False)] = True
    joined = (patterns.T.astype(int) @ patterns.astype(int)) > 0
    np.fill_diagonal(joined, False)

    # Nobody fires in the last cycle of a trial, so that no volley reaches the next.
    trial_ms = GAMMA_MS * (CYCLES + 2)
    wanted, cells, times = [], [], []
    for number, (kept, wrong) in enumerate(cue for cue in cues for _ in range(CUES)):
        pattern = patterns[draws.integers(load)]
        inside = draws.choice(np.flatnonzero(pattern), round(kept * ACTIVE), replace=False)
        outside = draws.choice(np.flatnonzero(~pattern), wrong, replace=False)
        chosen = np.concatenate([inside, outside])
        wanted.append(pattern)
        cells.append(chosen)
        times.append(np.full(len(chosen), number * trial_ms + DT_MS))

    brian2 = brian(seed)
    ms = brian2.ms
    space = {"tau": TAU_MS * ms, "inhibition": INHIBITION, "noise": NOISE, "trial": trial_ms * ms}
    space["live"] = GAMMA_MS * (CYCLES + 1) * ms
    cells_ = brian2.NeuronGroup(
        NEURONS,
        "dv/dt = -v/tau : 1",
        threshold="v > 1 and t % trial < live",
        reset="v = 0",
        method="exact",
        dt=DT_MS * ms,
        namespace=space,
    )
    cells_.run_regularly("v = noise*randn()", dt=GAMMA_MS * ms, when="start")
    cue = brian2.SpikeGeneratorGroup(
        NEURONS, np.concatenate(cells), np.concatenate(times) * ms, dt=DT_MS * ms, sorted=False
    )
    given = brian2.Synapses(cue, cells_, on_pre="v_post += 10", dt=DT_MS * ms)
    given.connect(j="i")
    parts = [cells_, cue, given]
    if not lesion:
        excite = brian2.Synapses(cells_, cells_, on_pre="v_post += 1", delay=GAMMA_MS * ms, dt=DT_MS * ms)
        excite.connect(i=np.nonzero(joined)[0], j=np.nonzero(joined)[1])
        parts.append(excite)
        inhibit = brian2.Synapses(
            cells_, cells_, on_pre="v_post -= inhibition", delay=GAMMA_MS * ms, dt=DT_MS * ms, namespace=space
        )
        inhibit.connect()
        parts.append(inhibit)
    monitor = brian2.SpikeMonitor(cells_)
    brian2.Network(*parts, monitor).run(len(wanted) * trial_ms * ms, namespace={})
    when, who = np.asarray(monitor.t / ms), np.asarray(monitor.i)
    found = []
    for number, pattern in enumerate(wanted):
        begin = number * trial_ms + (0 if lesion else CYCLES * GAMMA_MS)
        last = np.zeros(NEURONS, bool)
        last[who[(when >= begin - 0.5) & (when < begin + GAMMA_MS - 0.5)]] = True
        found.append(float((last & pattern).sum() / np.sqrt(max(last.sum(), 1) * ACTIVE)))
    return np.array(found).reshape(len(cues), CUES).mean(1)
