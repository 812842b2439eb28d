"""Sparse network of excitatory and inhibitory neurons with an external drive: model A of Brunel 2000,
doi:10.1023/A:1008925309027.

    tau dv/dt = -v                           tau 20 ms
    v > 20 mV: spike, v = 10 mV for 2 ms
    spike: v += J or v -= g J in its targets, 1.5 ms later; lost where the target is refractory
    drive: v += J at the spikes of a Poisson process of its own in every neuron, of rate eta threshold / (J tau)

Four of five neurons excite; every neuron is reached by a tenth of each kind, C of them excitatory. Figure 8 of the paper:
(g, eta) of (3, 2) synchronous regular, (6, 4) synchronous irregular and fast, (5, 2) asynchronous irregular, (4.5, 0.9)
synchronous irregular and slow.

differs: J = 100 mV / C, the paper's 0.1 mV at its own 12,500 neurons (C = 1000), so that the mean input is the same at
every size (its variance grows as the network shrinks). A spike that arrives in a step is tested against the threshold at
the end of the next one.
"""

from __future__ import annotations

import math

import numpy as np

from neuro.errors import UsageError
from sims.networks.circuit import Circuit, check, generator, steps
from sims.networks.poisson import drive
from sims.networks.synapses import Array, fixed_in_degree

TAU_MS, REFRACTORY_MS, DELAY_MS = 20.0, 2.0, 1.5
THRESHOLD_MV, RESET_MV = 20.0, 10.0
CONNECTED, MEAN_INPUT_MV = 0.1, 100.0
MOST = 40_000  # neurons: 160 million synapses


def circuit(neurons: int, dt_ms: float = 0.1, seed: int = 0, g: float = 5.0, eta: float = 2.0) -> Circuit:
    """The network with membranes uniform between reset and threshold.

    Args:
        g: an inhibitory synapse over an excitatory one.
        eta: the drive over that which alone brings the mean membrane to the threshold.

    Raises:
        UsageError: fewer than 10 neurons or more than MOST, a step that is not positive or longer than the delay, a negative
            g or eta.
    """
    check("brunel", neurons, MOST, dt_ms, DELAY_MS, "the delay of a spike")
    for name, value, usual in (("g", g, 5), ("eta", eta, 2)):
        if not (math.isfinite(value) and value >= 0):
            raise UsageError(
                f"brunel: got {name} = {value:g}, expected 0 or more.", f"Give a --{name} such as {usual}."
            )
    excitatory = round(0.8 * neurons)
    from_excitatory = max(1, round(CONNECTED * excitatory))
    from_inhibitory = max(1, round(CONNECTED * (neurons - excitatory)))
    synapses = fixed_in_degree(neurons, excitatory, from_excitatory, from_inhibitory, generator(seed, 0))
    jump = MEAN_INPUT_MV / from_excitatory
    state = RESET_MV + generator(seed, 1).random((1, neurons)) * (THRESHOLD_MV - RESET_MV)
    return Circuit(
        model="brunel",
        synapses=synapses,
        state=state,
        dt_ms=dt_ms,
        threshold=THRESHOLD_MV,
        reset=RESET_MV,
        refractory=steps(REFRACTORY_MS, dt_ms),
        delay=steps(DELAY_MS, dt_ms),
        excite=jump,
        inhibit=-g * jump,
        constants=(float(np.exp(-(dt_ms * 1e-3) / (TAU_MS * 1e-3))),),
        sweep=sweep,
        drive=drive(eta * THRESHOLD_MV / (jump * TAU_MS) * dt_ms, seed),
    )


def sweep(state: Array, circuit: Circuit, step: int) -> None:
    assert circuit.drive is not None
    v = state[0]
    v[:] = circuit.constants[0] * v + v.dtype.type(circuit.excite) * circuit.drive.counts(len(v), step).astype(v.dtype)
