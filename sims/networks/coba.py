"""Conductance-based integrate-and-fire network: benchmark 1 of Brette et al. 2007, doi:10.1007/s10827-007-0038-6.

    tau dv/dt   = ge (Ee - v) + gi (Ei - v) + (El - v)     tau   20 ms, El -60 mV, Ee 0 mV, Ei -80 mV
    tau_e dge/dt = -ge                                     tau_e  5 ms
    tau_i dgi/dt = -gi                                     tau_i 10 ms
    v > -50 mV: spike, v = -60 mV for 5 ms
    spike: ge += 0.6 or gi += 6.7 in its targets, at the end of the same step

Conductances in units of the leak (10 nS). Four of five neurons excite. Steps of Euler. Nothing drives it: the activity
sustains itself after the initial conductances. differs: 80 synapses a neuron on average at every size (2 % of 4,000),
where the paper has one size; initial conductances below zero are zero.
"""

from __future__ import annotations

import numpy as np

from sims.networks.circuit import Circuit, check, generator, steps
from sims.networks.synapses import Array, independent

TAU_MS, TAU_E_MS, TAU_I_MS, REFRACTORY_MS = 20.0, 5.0, 10.0, 5.0
REST_MV, INHIBITORY_MV, THRESHOLD_MV, RESET_MV = -60.0, -80.0, -50.0, -60.0
EXCITE, INHIBIT = 0.6, 6.7
SYNAPSES = 80
MOST = 1_000_000  # neurons


def circuit(neurons: int, dt_ms: float = 0.1, seed: int = 0) -> Circuit:
    """The network with normal initial membranes and conductances.

    Raises:
        UsageError: fewer than 10 neurons or more than MOST, or a step that is not positive or longer than tau_e.
    """
    check("coba", neurons, MOST, dt_ms, TAU_E_MS, "the excitatory time constant")
    excitatory = round(0.8 * neurons)
    synapses = independent(neurons, excitatory, min(1.0, SYNAPSES / neurons), generator(seed, 0))
    normal = generator(seed, 1).standard_normal((3, neurons))
    state = np.stack([REST_MV + (5 * normal[0] - 5), 1.5 * normal[1] + 4, 12 * normal[2] + 20])
    state[1:] = np.maximum(state[1:], 0.0)
    dt = dt_ms * 1e-3
    return Circuit(
        model="coba",
        synapses=synapses,
        state=state,
        dt_ms=dt_ms,
        threshold=THRESHOLD_MV,
        reset=RESET_MV,
        refractory=steps(REFRACTORY_MS, dt_ms),
        delay=0,
        excite=EXCITE,
        inhibit=INHIBIT,
        constants=(dt / (TAU_MS * 1e-3), REST_MV, INHIBITORY_MV, -dt / (TAU_E_MS * 1e-3), -dt / (TAU_I_MS * 1e-3)),
        sweep=sweep,
    )


def sweep(state: Array, circuit: Circuit, step: int) -> None:
    v, ge, gi = state
    c0, c1, c2, c3, c4 = circuit.constants
    v[:] = (c0 * ((c1 + (((-ge) * v) + (gi * (c2 - v)))) - v)) + v
    ge[:] = (c3 * ge) + ge
    gi[:] = (c4 * gi) + gi
