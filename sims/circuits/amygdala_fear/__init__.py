"""Fear that is learnt and extinguished in the amygdala, and comes back where it was learnt: extinction is not erasure.

Two populations hear a tone over plastic synapses: fear cells, helped by the context of conditioning, and extinction cells,
helped by the context of extinction (Herry et al. 2008, doi:10.1038/nature07166; Vlachos et al. 2011,
doi:10.1371/journal.pcbi.1001104). A shock drives the fear cells and gates their learning. Fear without the shock it announces
drives the extinction cells and gates theirs, in proportion to the fear cells' firing (an omission signal, as of dopamine
neurons in Salinas-Hernandez et al. 2018, doi:10.7554/eLife.38818), so that it ends as fear does. Each learns by pairing: a
spike adds to a synapse what its fibre's trace holds, up to a bound. Extinction cells inhibit fear cells.

Fear is the fear cells' rate in the first half of the tone, before the shock is due. Conditioning is in context A, extinction
in B; tests are without learning. Renewal is fear in A after extinction over fear in A before it. Fear cells' synapses
change under the shock alone, so that extinction spares them by construction; what is shown is that their trace is hidden by
inhibition that depends on context.

differs: context is a steady current and not learnt, and intercalated cells are the extinction cells' inhibitory synapses.

Lesion: extinction cells do not inhibit fear cells, as without intercalated cells (Likhtik et al. 2008,
doi:10.1038/nature07167).
"""

from __future__ import annotations

import numpy as np

from sims.circuits.outcome import Outcome, brian

CELLS = 40
FIBRES = 60
FIBRE_HZ = 40.0
FEAR, EXTINCTION = 0, 1
START = 0.008
BOUND = (0.035, 0.016)
CONTEXT = 0.5
SHOCK = 1.5
OMISSION = 0.8
LEARNING = 0.001
INHIBITION = 4.0
NOISE = 0.1
DT_MS = 0.5
TRIAL_MS = 300
HALF_MS = 100
# trials: (phase, number, context B, shock, learning)
PROTOCOL = (
    ("before", 4, False, False, False),
    ("conditioning", 8, False, True, True),
    ("conditioned in A", 4, False, False, False),
    ("conditioned", 4, True, False, False),
    ("extinction", 20, True, False, True),
    ("extinguished", 4, True, False, False),
    ("renewed", 4, False, False, False),
)


def run(seed: int, lesion: bool = False) -> Outcome:
    """The whole protocol, one trial after another.

    Raises:
        MissingError: brian2 is not installed.
    """
    phases = np.array([name for name, number, *_ in PROTOCOL for _ in range(number)])
    fear, extinction, weights = _trials(seed, lesion)
    mean = {name: float(fear[phases == name].mean()) for name, *_ in PROTOCOL}
    return Outcome(
        {
            "before_hz": mean["before"],
            "conditioned_hz": mean["conditioned"],
            "extinguished_share": mean["extinguished"] / mean["conditioned"],
            "renewed_share": mean["renewed"] / mean["conditioned in A"],
        },
        {
            "fear": fear,
            "extinction": extinction,
            "weights": weights,
            "starts": np.cumsum([0, *(number for _, number, *_ in PROTOCOL)]),
        },
    )


def _trials(seed: int, lesion: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(Hz of fear cells, of extinction cells, in the first half of the tone [trials], mean weights after it [trials,2])."""
    brian2 = brian(seed)
    ms, dt = brian2.ms, DT_MS * brian2.ms
    part = HALF_MS * ms
    rows = np.array([flags for _, number, *flags in PROTOCOL for _ in range(number)], float)
    in_b, shocked, learns = rows.T
    parts = TRIAL_MS // HALF_MS
    tone, due = np.tile([1, 1, 0], len(rows)), np.tile([0, 1, 0], len(rows))
    signals = {
        "tone": tone,
        "context": np.stack([np.repeat(1 - in_b, parts), np.repeat(in_b, parts)], 1),
        "shock": due * np.repeat(shocked, parts),
        "missed": due * np.repeat((1 - shocked) * learns, parts),
    }
    space = {name: brian2.TimedArray(values, dt=part) for name, values in signals.items()}
    space |= {"tau": 20 * ms, "tau_i": 10 * ms, "tau_o": 50 * ms, "tau_x": 20 * ms, "noise": NOISE}
    space |= {"help": CONTEXT, "strength": SHOCK, "omission": OMISSION, "eta": LEARNING}
    space |= {"inhibit": INHIBITION / CELLS, "heard": 1 / CELLS, "fibre": FIBRE_HZ * brian2.Hz}
    cells = brian2.NeuronGroup(
        2 * CELLS,
        """
        gate = int(kind == 0)*shock(t) + int(kind == 1)*missed(t)*o : 1
        given = help*context(t, kind) + int(kind == 0)*strength*shock(t) + int(kind == 1)*omission*missed(t)*o : 1
        dv/dt = (given - g - v)/tau + noise*sqrt(2/tau)*xi : 1 (unless refractory)
        dg/dt = -g/tau_i : 1
        do/dt = -o/tau_o : 1
        kind : integer (constant)
        """,
        threshold="v > 1",
        reset="v = 0",
        refractory=2 * ms,
        method="euler",
        dt=dt,
        namespace=space,
    )
    kinds = np.repeat([FEAR, EXTINCTION], CELLS)
    cells.kind = kinds
    fibres = brian2.NeuronGroup(FIBRES, "hz = fibre*tone(t) : Hz", threshold="rand() < hz*dt", dt=dt, namespace=space)
    plastic = brian2.Synapses(
        fibres,
        cells,
        "w : 1\nbound : 1 (constant)\ndx/dt = -x/tau_x : 1 (event-driven)",
        on_pre="v_post += w; x += 1",
        on_post="w = clip(w + eta*gate_post*x, 0, bound)",
        dt=dt,
        namespace=space,
    )
    plastic.connect()
    target = np.asarray(plastic.j)
    plastic.w, plastic.bound = START, np.array(BOUND)[kinds[target]]
    feared = brian2.Synapses(cells, cells, on_pre="o_post += heard", dt=dt, namespace=space)
    feared.connect(condition="kind_pre == 0 and kind_post == 1")
    network = brian2.Network(cells, fibres, plastic, feared)
    if not lesion:
        quiet = brian2.Synapses(cells, cells, on_pre="g_post += inhibit", dt=dt, namespace=space)
        quiet.connect(condition="kind_pre == 1 and kind_post == 0")
        network.add(quiet)
    monitor = brian2.SpikeMonitor(cells)
    weights = brian2.NetworkOperation(
        lambda: found.append([float(np.asarray(plastic.w)[kinds[target] == kind].mean()) for kind in (0, 1)]),
        dt=TRIAL_MS * ms,
        when="start",
    )
    found: list[list[float]] = []
    network.add(monitor, weights)
    network.run(len(rows) * TRIAL_MS * ms, namespace={})
    found.append([float(np.asarray(plastic.w)[kinds[target] == kind].mean()) for kind in (0, 1)])
    when, who = np.asarray(monitor.t / ms), np.asarray(monitor.i)
    early = when % TRIAL_MS < HALF_MS
    trial = (when // TRIAL_MS).astype(int)
    fear, other = (
        np.bincount(trial[early & (kinds[who] == kind)], minlength=len(rows)) / (CELLS * HALF_MS * 1e-3)
        for kind in (FEAR, EXTINCTION)
    )
    return fear, other, np.array(found[1:])
