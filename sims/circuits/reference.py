"""A circuit of `sims.networks` in Brian2: its equations written anew, its synapses, state and external spikes the same.

Potentials are plain numbers in mV. Brian2 solves the equations by itself (exact where they are linear, else Euler), with
its usual order within a step: states, thresholds, synapses, resets.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from neuro.extras import require
from sims.networks.circuit import Circuit
from sims.networks.synapses import Array

_CUBA = """
dv/dt = (ge + gi - (v - rest)) / tau : 1 (unless refractory)
dge/dt = -ge / tau_e : 1
dgi/dt = -gi / tau_i : 1
"""
_COBA = """
dv/dt = (ge * (0 - v) + gi * (inhibitory - v) + (rest - v)) / tau : 1 (unless refractory)
dge/dt = -ge / tau_e : 1
dgi/dt = -gi / tau_i : 1
"""
_BRUNEL = """
dv/dt = -v / tau : 1 (unless refractory)
"""
_EQUATIONS = {"cuba": (_CUBA, "exact"), "coba": (_COBA, "euler"), "brunel": (_BRUNEL, "exact")}
_NAMES = {"cuba": ("ge", "gi"), "coba": ("ge", "gi"), "brunel": ("v", "v")}


def in_numpy(circuit: Circuit, seconds: float) -> tuple[Array, Array]:
    """(step, neuron) of every spike, by Brian2's own numpy code, in order of time and of neurons.

    Raises:
        MissingError: brian2 is not installed.
    """
    brian2 = require("brian2", "sims")
    brian2.prefs.codegen.target = "numpy"
    network, monitor = _build(brian2, circuit, seconds)
    network.run(seconds * brian2.second)
    return _ordered(np.rint(np.asarray(monitor.t / brian2.ms) / circuit.dt_ms), np.asarray(monitor.i))


class Standalone:
    """The circuit as a program that Brian2 writes in C++ and compiles (cpp_standalone with its own options).

    Args:
        folder: where the program and its results lie.

    Raises:
        MissingError: brian2 is not installed.
    """

    def __init__(self, circuit: Circuit, seconds: float, folder: Path) -> None:
        brian2 = require("brian2", "sims")
        self._circuit, self._folder = circuit, folder.resolve()
        from brian2.devices import reset_device

        brian2.set_device("cpp_standalone", build_on_run=False)
        try:
            started = time.perf_counter()
            network, self._monitor = _build(brian2, circuit, seconds)
            network.run(seconds * brian2.second)
            brian2.device.build(directory=str(self._folder), compile=True, run=False)
            self.build_seconds = time.perf_counter() - started
        finally:
            brian2.device.reinit()
            reset_device()

    def run(self) -> float:
        """Run the program -> seconds of processor time that its loop over the steps took."""
        subprocess.run([str(self._folder / "main")], cwd=self._folder, check=True, capture_output=True)
        return float((self._folder / "results" / "last_run_info.txt").read_text().split()[0])

    def spikes(self) -> tuple[Array, Array]:
        """(step, neuron) of every spike of the last run, in order of time and of neurons."""
        found = self._folder / "results"
        (times,) = found.glob("_dynamic_array_spikes_t_*")
        (neurons,) = found.glob("_dynamic_array_spikes_i_*")
        dt = self._circuit.dt_ms * 1e-3
        return _ordered(np.rint(np.fromfile(times) / dt), np.fromfile(neurons, np.int32))


def _ordered(steps: Array, neurons: Array) -> tuple[Array, Array]:
    order = np.lexsort((neurons, steps))
    return steps[order].astype(np.int64), neurons[order].astype(np.int64)


def _build(brian2: ModuleType, circuit: Circuit, seconds: float) -> tuple[Any, Any]:
    """(Brian2's network, its monitor of spikes)."""
    from sims.networks import brunel, coba, cuba

    ms, dt = brian2.ms, circuit.dt_ms * brian2.ms
    home = {"cuba": cuba, "coba": coba, "brunel": brunel}[circuit.model]
    equations, method = _EQUATIONS[circuit.model]
    namespace = {"tau": home.TAU_MS * ms, "threshold": circuit.threshold, "reset": circuit.reset}
    namespace |= {"excite": circuit.excite, "inhibit": circuit.inhibit}
    if circuit.model != "brunel":
        namespace |= {"tau_e": home.TAU_E_MS * ms, "tau_i": home.TAU_I_MS * ms, "rest": home.REST_MV}
    if circuit.model == "coba":
        namespace["inhibitory"] = home.INHIBITORY_MV
    neurons = brian2.NeuronGroup(
        circuit.neurons,
        equations,
        threshold="v > threshold",
        reset="v = reset",
        refractory=home.REFRACTORY_MS * ms,
        method=method,
        dt=dt,
        namespace=namespace,
        name="neurons",
    )
    for name, values in zip(("v", "ge", "gi"), circuit.state, strict=False):
        setattr(neurons, name, values)
    parts = [neurons]
    sources, targets = circuit.synapses.sources(), circuit.synapses.targets
    for kind, weight, variable, chosen in zip(
        ("excitatory", "inhibitory"),
        ("excite", "inhibit"),
        _NAMES[circuit.model],
        (sources < circuit.synapses.excitatory, sources >= circuit.synapses.excitatory),
        strict=True,
    ):
        synapses = brian2.Synapses(
            neurons,
            neurons,
            on_pre=f"{variable} += {weight}",
            delay=circuit.delay * dt,
            dt=dt,
            namespace=namespace,
            name=kind,
        )
        synapses.connect(i=sources[chosen], j=targets[chosen].astype(np.int64))
        parts.append(synapses)
    if circuit.drive is not None:
        steps = round(seconds * 1e3 / circuit.dt_ms)
        counts = np.stack([circuit.drive.counts(circuit.neurons, step) for step in range(steps)])
        namespace["counts"] = brian2.TimedArray(counts.astype(float), dt=dt)
        neurons.run_regularly("v += excite * counts(t, i)", when="groups", order=1, dt=dt)
    monitor = brian2.SpikeMonitor(neurons, name="spikes")
    return brian2.Network(*parts, monitor), monitor
