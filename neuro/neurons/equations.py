"""Any of our neurons as Brian2 equations: strings, so that nothing here needs Brian2.

    e = brian2_equations(neuron)
    group = NeuronGroup(neuron.neurons, e.model, threshold=e.threshold, reset=e.reset, method=e.method, dt=dt_ms * ms)
    for name, values in e.values.items():
        setattr(group, name, values)

With the same step Brian2's Euler rule then does what `scan` does, spike for spike up to rounding. ``current``, the
expression of the input, defaults to ``current(t, i)``: a TimedArray of that name in the namespace, [T,N] for one row, in
the unit our neuron takes (a jump of the membrane per step; for Izhikevich and AdEx a current). Variables have no unit;
those of AdEx are in mV and pA. A constant that differs between neurons becomes a variable, listed in ``values``.
The initial state is not part of the equations: set it as `init_state` does.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from backends import LifRule
from neuro.errors import UsageError
from neuro.neurons.adaptive import ALIF
from neuro.neurons.adex import AdEx
from neuro.neurons.base import Constant, Neuron
from neuro.neurons.gif import GIF
from neuro.neurons.integrate_and_fire import IF
from neuro.neurons.izhikevich import THRESHOLD_MV, Izhikevich
from neuro.neurons.lif import LIF
from neuro.neurons.parallel import Parallel
from neuro.neurons.synaptic import Synaptic


class Brian2Equations(NamedTuple):
    model: str
    threshold: str
    reset: str
    method: str
    values: dict[str, list[float]]  # per-neuron constants, to be set on the group


def brian2_equations(neuron: Neuron, current: str = "current(t, i)") -> Brian2Equations:
    """The equations of a neuron.

    Raises:
        UsageError: a neuron whose step is no differential equation of a fixed set of variables (`SlidingParallel`).
    """
    write = _Writer(neuron, current)
    if isinstance(neuron, LIF):
        gain = "*(1 - decay)" if neuron.decay_input else ""
        write.constant("decay", neuron.decay)
        return write.membrane("decay*v", f"I{gain}", neuron.threshold, neuron.rule)
    if isinstance(neuron, IF):
        return write.membrane("v", "I", neuron.threshold, neuron.rule)
    if isinstance(neuron, Parallel):
        write.constant("decay", neuron.decay)
        return write.membrane("decay*v", "I", neuron.threshold, LifRule("none"))
    if isinstance(neuron, Synaptic):
        gain = "*(1 - decay)" if neuron.decay_input else ""
        write.constant("decay", neuron.decay)
        write.constant("alpha", neuron.alpha)
        write.next("g", "alpha*g + I")  # Brian2 keeps i for the index
        return write.membrane("decay*v", f"(alpha*g + I){gain}", neuron.threshold, neuron.rule)
    if isinstance(neuron, ALIF):
        for name, value in (("decay", neuron.decay), ("rho", neuron.rho), ("strength", neuron.strength)):
            write.constant(name, value)
        write.next("a", "rho*a")
        write.next("before", "a")  # the threshold is that of the step before, Brian2 looks after the update
        done = write.membrane("decay*v", "I", neuron.threshold, neuron.rule, " + strength*before")
        return done._replace(reset=f"{done.reset}; a += 1" if done.reset else "a += 1")
    if isinstance(neuron, GIF):
        write.constant("decay", neuron.decay)
        done = write.membrane("decay*v", "I", neuron.threshold, neuron.rule)
        # At a threshold exactly floor counts it; a strict neuron counts one less. A SpikeMonitor records n with the spike.
        found = "ceil(v/theta) - 1" if neuron.rule.strict else "floor(v/theta)"
        return done._replace(model=f"{done.model}\nn = clip({found}, 0, {neuron.levels}) : 1", reset="v -= theta*n")
    if isinstance(neuron, Izhikevich):
        for name in ("a", "b", "c", "d"):
            write.constant(name, getattr(neuron, name))
        write.lines += ["dv/dt = (0.04*v**2 + 5*v + 140 - w + I)/ms : 1", "dw/dt = a*(b*v - w)/ms : 1"]
        return write.done(f"v >= {THRESHOLD_MV!r}", "v = c; w += d")
    if isinstance(neuron, AdEx):
        names = {
            "capacitance_pf": "C",
            "leak_ns": "g",
            "rest_mv": "E",
            "slope_mv": "D",
            "threshold_mv": "V_t",
            "reset_mv": "V_r",
            "peak_mv": "V_p",
            "tau_w_ms": "tau_w",
            "coupling_ns": "coupling",
            "jump_pa": "jump",
        }
        for name, short in names.items():
            write.constant(short, getattr(neuron.constants, name))
        write.lines += [
            "dv/dt = (g*(E - v) + g*D*exp((v - V_t)/D) - w + I)/C/ms : 1",
            "dw/dt = (coupling*(v - E) - w)/tau_w/ms : 1",
        ]
        return write.done("v >= V_p", "v = V_r; w += jump")
    raise UsageError(
        f"brian2_equations: got {type(neuron).__name__}, expected a neuron with a state of one step.",
        "A window over past inputs is a convolution: simulate it with scan.",
    )


class _Writer:
    """Collects the lines of a model; ``I`` is the input, ``theta`` the threshold."""

    def __init__(self, neuron: Neuron, current: str) -> None:
        self.lines = [f"I = {current} : 1"]
        self.values: dict[str, list[float]] = {}

    def constant(self, name: str, value: Constant) -> None:
        if isinstance(value, Tensor):
            found = value.detach().double()
            if bool((found == found.reshape(-1)[0]).all()):
                value = float(found.reshape(-1)[0])
            else:
                self.lines.append(f"{name} : 1 (constant)")
                self.values[name] = found.tolist()
                return
        self.lines.append(f"{name} = {value!r} : 1")

    def next(self, name: str, value: str) -> None:
        """The value after a step, as the derivative that Euler's rule turns into it."""
        self.lines.append(f"d{name}/dt = ({value} - {name})/dt : 1")

    def membrane(self, kept: str, added: str, threshold: Constant, rule: LifRule, raised: str = "") -> Brian2Equations:
        """v and its spikes, ``kept`` of the last v and ``added`` to it, under a rule; ``raised`` goes to the threshold."""
        self.constant("theta", threshold)
        over = f"v {'>' if rule.strict else '>='} theta{raised}"
        reset = {"soft": "v -= theta", "hard": f"v = {rule.v_reset!r}", "none": ""}[rule.reset]
        if rule.delayed:
            self.lines.append(f"r = int({over}) : 1  # the spike of the step before")
            after = "{u} - theta*r" if rule.reset == "soft" else f"({{u}})*(1 - r) + {rule.v_reset!r}*r"
            self.next("v", after.format(u=f"{kept} + {added}"))
            return self.done(over, "")
        self.next("v", f"{kept} + {added}")
        return self.done(over, reset)

    def done(self, threshold: str, reset: str) -> Brian2Equations:
        return Brian2Equations("\n".join(self.lines), threshold, reset, "euler", self.values)
