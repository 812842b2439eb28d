"""Current-based integrate-and-fire network: Vogels and Abbott 2005, doi:10.1523/JNEUROSCI.3508-05.2005, as benchmark 2 of
Brette et al. 2007, doi:10.1007/s10827-007-0038-6.

    tau dv/dt   = ge + gi + (El - v)         tau   20 ms, El -49 mV
    tau_e dge/dt = -ge                       tau_e  5 ms
    tau_i dgi/dt = -gi                       tau_i 10 ms
    v > -50 mV: spike, v = -60 mV for 5 ms
    spike: ge += 1.62 mV or gi -= 9 mV in its targets, at the end of the same step

Four of five neurons excite. Solved exactly within a step. differs: 80 synapses a neuron on average at every size (2 % of
4,000), where the paper has one size.
"""

from __future__ import annotations

import numpy as np

from sims.networks.circuit import Circuit, check, generator, steps
from sims.networks.synapses import Array, independent

TAU_MS, TAU_E_MS, TAU_I_MS, REFRACTORY_MS = 20.0, 5.0, 10.0, 5.0
REST_MV, THRESHOLD_MV, RESET_MV = -49.0, -50.0, -60.0
EXCITE_MV, INHIBIT_MV = 60 * 0.27 / 10, -20 * 4.5 / 10
SYNAPSES = 80
MOST = 1_000_000  # neurons


def circuit(neurons: int, dt_ms: float = 0.1, seed: int = 0) -> Circuit:
    """The network at rest in its synapses, membranes uniform between reset and threshold.

    Raises:
        UsageError: fewer than 10 neurons or more than MOST, or a step that is not positive or longer than tau_e.
    """
    check("vogels-abbott", neurons, MOST, dt_ms, TAU_E_MS, "the excitatory time constant")
    excitatory = round(0.8 * neurons)
    synapses = independent(neurons, excitatory, min(1.0, SYNAPSES / neurons), generator(seed, 0))
    state = np.zeros((3, neurons))
    state[0] = RESET_MV + generator(seed, 1).random(neurons) * (THRESHOLD_MV - RESET_MV)
    return Circuit(
        model="cuba",
        synapses=synapses,
        state=state,
        dt_ms=dt_ms,
        threshold=THRESHOLD_MV,
        reset=RESET_MV,
        refractory=steps(REFRACTORY_MS, dt_ms),
        delay=0,
        excite=EXCITE_MV,
        inhibit=INHIBIT_MV,
        constants=constants(dt_ms),
        sweep=sweep,
    )


def constants(dt_ms: float) -> tuple[float, ...]:
    """c of v = c0 + ((c1 ge + c2 gi) + c3 v), ge *= c4, gi *= c5, each calculated as Brian2's exact updater does."""
    dt, tau, tau_e, tau_i = (x * 1e-3 for x in (dt_ms, TAU_MS, TAU_E_MS, TAU_I_MS))
    keep, keep_e, keep_i = (float(np.exp(-dt / t)) for t in (tau, tau_e, tau_i))
    grown, grown_e, grown_i = (float(np.exp(dt / t)) for t in (tau, tau_e, tau_i))
    from_e = ((tau_e * keep_e) * (-grown_e + grown)) * keep / (-tau + tau_e)
    from_i = ((tau_i * keep_i) * (-grown_i + grown)) * keep / (-tau + tau_i)
    return REST_MV - REST_MV * keep, from_e, from_i, keep, keep_e, keep_i


def sweep(state: Array, circuit: Circuit, step: int) -> None:
    v, ge, gi = state
    c0, c1, c2, c3, c4, c5 = circuit.constants
    v[:] = c0 + ((c1 * ge + c2 * gi) + c3 * v)
    ge *= c4
    gi *= c5
