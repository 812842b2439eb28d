"""The door to snntorch and norse: their neurons as ours and back, spike for spike from rest; what cannot be said raises.

    snntorch 1.0                                      here
    Leaky subtract, reset_delay=True (its default)    LIF soft, delayed, detached
    Leaky zero, reset_delay=True                      LIF hard, detached       (only the membrane it returns is unreset)
    Leaky zero, reset_delay=False                     LIF hard, not detached
    Leaky none                                        LIF none
    Leaky learn_beta                                  PLIF                     (the decay within rounding, behind a sigmoid)
    Lapicque with R = 1                               LIF with decay_input; subtract and zero are delayed
    Synaptic subtract or zero, reset_delay=True       Synaptic soft or hard, delayed, detached
    Synaptic zero, reset_delay=False                  Synaptic hard, not detached

    norse 1.1                                         here
    LIFBoxCell with reset_value or reset_subtract     LIF hard or soft with decay_input, not detached
    LIFCell, LIF                                      Synaptic hard with decay_input, not detached
    IAFCell, IAF                                      IF hard, not detached

All of theirs fire above the threshold, not at it (``strict``). Not sayable: subtract with ``reset_delay=False``, which after
a spike that leaves the membrane above the threshold raises the threshold of the next step. norse's SuperSpike ignores
its alpha in the backward pass: it is fast_sigmoid with slope 1. What we hand out is taken off snntorch's list of every
neuron ever made, which would keep it alive; its ``utils.reset`` was a no-op for it.
"""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from backends import LifRule, Surrogate
from backends.surrogate import spike
from neuro.errors import UsageError
from neuro.extras import require
from neuro.neurons.base import Constant, Neuron
from neuro.neurons.integrate_and_fire import IF
from neuro.neurons.lif import LIF
from neuro.neurons.parametric import PLIF
from neuro.neurons.synaptic import Synaptic

# our kind -> (snntorch's function, its argument)
_SNNTORCH_SURROGATES = {"fast_sigmoid": ("fast_sigmoid", "slope"), "arctan": ("atan", "alpha")}


@dataclasses.dataclass(frozen=True)
class SpikeFunction:
    """A spike of ours where snntorch takes a ``spike_grad``."""

    surrogate: Surrogate
    strict: bool

    def __call__(self, x: Tensor) -> Tensor:
        return spike(x, self.surrogate, self.strict)


def from_snntorch(neuron: Any, neurons: int, dt_ms: float = 1.0) -> Neuron:
    """A neuron of snntorch as one of ours.

    Args:
        neuron: a module of snntorch, Leaky, Synaptic or Lapicque.
        neurons: the width of the layer, which snntorch does not know.
        dt_ms: the step; snntorch counts in steps.

    Raises:
        MissingError: snntorch is not installed.
        UsageError: a network, a neuron with its state inside, or a feature that ours do not have.
    """
    snn: Any = require("snntorch", "snn")
    if not isinstance(neuron, snn.SpikingNeuron):
        parts = neuron.modules() if isinstance(neuron, nn.Module) else ()
        inside = [module for module in parts if isinstance(module, snn.SpikingNeuron)]
        if any(module.init_hidden for module in inside):
            _global_state(type(neuron).__name__)
        _refuse(
            "from_snntorch",
            f"got {type(neuron).__name__}, expected one neuron",
            "Convert its Leaky, Synaptic and Lapicque layers one by one.",
        )
    name = type(neuron).__name__
    if neuron.init_hidden:
        _global_state(f"{name}(init_hidden=True)")
    if type(neuron) not in (snn.Leaky, snn.Synaptic, snn.Lapicque):
        what = (
            "its recurrent weights are a layer of their own"
            if name in ("RLeaky", "RSynaptic")
            else "it is another model"
        )
        _refuse(
            "from_snntorch",
            f"got {name}, expected Leaky, Synaptic or Lapicque: {what}",
            "Feed spikes back through a Linear and step, as docs/neurons.md shows."
            if name in ("RLeaky", "RSynaptic")
            else "Build the model from neuro.neurons.",
        )
    for feature, used in {
        "inhibition=True": neuron.inhibition,
        "state_quant": bool(neuron.state_quant),
        "surrogate_disable=True": neuron.surrogate_disable,
        "graded_spikes_factor other than 1": bool((neuron.graded_spikes_factor != 1).any()),
    }.items():
        if used:
            _refuse(
                "from_snntorch", f"got {name} with {feature}, expected none", "Leave it out: ours have no such thing."
            )
    surrogate, strict = _from_spike_grad(neuron.spike_grad)
    how, late = neuron.reset_mechanism, getattr(neuron, "reset_delay", True)
    if how == "subtract" and not late:
        _refuse(
            "from_snntorch",
            f"got {name} with reset_mechanism='subtract' and reset_delay=False, which raises the threshold after a spike that "
            "leaves the membrane above it; expected reset_delay=True",
            'Take reset_delay=True, or here LifRule("soft"), equal until the membrane passes twice the threshold.',
        )
    if how == "zero" and not bool((neuron.threshold > 0).all()):
        _refuse("from_snntorch", f"got {name} with a threshold of 0 or less, expected more", "Shift the potentials.")
    # Leaky clears the membrane before it decays it: the reset at once, seen a step later.
    delayed = how != "none" and late and not (how == "zero" and type(neuron) is snn.Leaky)
    reset = {"subtract": "soft", "zero": "hard", "none": "none"}[how]
    rule = LifRule(reset, delayed, strict, detach_reset=late or how == "none", surrogate=surrogate)
    common: dict[str, Any] = {
        "threshold": neuron.threshold.detach(),
        "learn_threshold": isinstance(neuron.threshold, nn.Parameter),
        "rule": rule,
        "dt_ms": dt_ms,
    }
    if type(neuron) is snn.Lapicque:
        if isinstance(neuron.beta, nn.Parameter) or bool((neuron.R != 1).any()):
            _refuse(
                "from_snntorch",
                "got Lapicque with R other than 1 or learn_beta, expected R=1",
                "Scale its input by R; its beta does not enter its update.",
            )
        decay = 1.0 - neuron.time_step.double() / neuron.C.double()
        return LIF(neurons, beta=decay, decay_input=True, **common)
    beta = neuron.beta.detach().clamp(0, 1)
    if type(neuron) is snn.Synaptic:
        if isinstance(neuron.alpha, nn.Parameter) or isinstance(neuron.beta, nn.Parameter):
            _refuse("from_snntorch", "got Synaptic with a learned decay, expected fixed ones", "Leave learn_* out.")
        return Synaptic(neurons, alpha=neuron.alpha.detach().clamp(0, 1), beta=beta, **common)
    return (PLIF if isinstance(neuron.beta, nn.Parameter) else LIF)(neurons, beta=beta, **common)


def to_snntorch(neuron: Neuron) -> nn.Module:
    """One of ours as snntorch's Leaky, Lapicque (``decay_input``) or Synaptic, with explicit state.

    Raises:
        MissingError: snntorch is not installed.
        UsageError: a neuron, reset or input that snntorch does not have.
    """
    snn: Any = require("snntorch", "snn")
    if not isinstance(neuron, LIF | IF | Synaptic):
        _refuse(
            "to_snntorch",
            f"got {type(neuron).__name__}, expected IF, LIF, PLIF or Synaptic",
            "snntorch has no other in common.",
        )
    rule, box = neuron.rule, getattr(neuron, "decay_input", False)
    mechanism, late = _snntorch_reset(neuron, box)
    arguments: dict[str, Any] = {
        "threshold": _given(neuron.threshold),
        "learn_threshold": isinstance(neuron.threshold, nn.Parameter),
        "spike_grad": _to_spike_grad(snn, rule),
        "reset_mechanism": mechanism,
    }
    if isinstance(neuron, Synaptic):
        if box:
            _refuse(
                "to_snntorch", "got Synaptic with decay_input, expected none", "Scale the input by 1 - beta instead."
            )
        made = snn.Synaptic(_given(neuron.alpha), _given(neuron.decay), reset_delay=late, **arguments)
    elif box:
        decay = neuron.decay
        if not isinstance(decay, float) or decay >= 1.0:
            _refuse(
                "to_snntorch",
                "got decay_input with many, learned or no decay, expected one",
                "Scale the input instead.",
            )
        made = snn.Lapicque(R=1.0, C=1.0 / (1.0 - decay), **arguments)
    else:
        beta = _given(neuron.decay if isinstance(neuron, LIF) else 1.0)
        made = snn.Leaky(beta, learn_beta=isinstance(neuron, PLIF), reset_delay=late, **arguments)
    snn.SpikingNeuron.instances[:] = [kept for kept in snn.SpikingNeuron.instances if kept is not made]
    return made


def from_norse(cell: Any, neurons: int) -> Neuron:
    """A neuron of norse as one of ours; seconds and inverse time constants become milliseconds.

    Args:
        cell: a module of norse, LIFBoxCell, LIFCell, LIF, IAFCell or IAF; its step is taken over.
        neurons: the width of the layer, which norse does not know.

    Raises:
        MissingError: norse is not installed.
        UsageError: another model, a leak potential, or a surrogate that ours do not have.
    """
    norse: Any = require("norse.torch", "norse")
    name = type(cell).__name__
    if type(cell) not in (norse.LIFBoxCell, norse.LIFCell, norse.LIF, norse.IAFCell, norse.IAF):
        _refuse(
            "from_norse",
            f"got {name}, expected LIFBoxCell, LIFCell, LIF, IAFCell or IAF",
            "Recurrent ones: feed spikes back through a Linear and step, as docs/neurons.md shows.",
        )
    p, dt = cell.p, float(cell.dt)
    if float(torch.as_tensor(p.alpha)) != 1.0 and p.method == "triangle":
        _refuse("from_norse", f"got method 'triangle' with alpha {float(p.alpha):g}, expected 1", "Set alpha to 1.")
    kinds = {"super": "fast_sigmoid", "triangle": "triangular"}
    if p.method not in kinds:
        _refuse("from_norse", f"got method '{p.method}', expected super or triangle", "Choose one of these surrogates.")
    subtract = getattr(p, "reset_method", None)
    subtracts = subtract is not None and subtract.__name__ == "reset_subtract"
    v_reset = torch.as_tensor(p.v_reset)
    if v_reset.unique().numel() > 1:
        _refuse("from_norse", "got a v_reset for each neuron, expected one", "Shift the potentials of each neuron.")
    if bool((torch.as_tensor(getattr(p, "v_leak", 0.0)) != 0).any()):
        _refuse(
            "from_norse",
            "got v_leak other than 0, expected 0",
            "Measure v_th and v_reset from v_leak: subtract it from them.",
        )
    rule = LifRule(
        "soft" if subtracts else "hard",
        strict=True,
        v_reset=0.0 if subtracts else float(v_reset.reshape(-1)[0]),
        detach_reset=False,
        surrogate=Surrogate(kinds[p.method], 1.0),
    )
    common: dict[str, Any] = {"threshold": torch.as_tensor(p.v_th), "rule": rule, "dt_ms": 1000.0 * dt}
    if type(cell) in (norse.IAFCell, norse.IAF):
        return IF(neurons, **common)
    beta = _norse_decay("tau_mem_inv", p.tau_mem_inv, dt)
    if type(cell) is norse.LIFBoxCell:
        return LIF(neurons, beta=beta, decay_input=True, **common)
    return Synaptic(
        neurons, alpha=_norse_decay("tau_syn_inv", p.tau_syn_inv, dt), beta=beta, decay_input=True, **common
    )


def to_norse(neuron: Neuron) -> nn.Module:
    """One of ours as norse's LIFBoxCell, LIFCell or IAFCell.

    Raises:
        MissingError: norse is not installed.
        UsageError: a neuron, reset, threshold, surrogate or input that norse does not have, or a learned constant.
    """
    norse: Any = require("norse.torch", "norse")
    if type(neuron) not in (LIF, IF, Synaptic):
        _refuse(
            "to_norse", f"got {type(neuron).__name__}, expected IF, LIF or Synaptic", "norse has no other in common."
        )
    assert isinstance(neuron, LIF | IF | Synaptic)
    rule, slope = neuron.rule, (neuron.rule.surrogate.kind, neuron.rule.surrogate.slope)
    soft_box = rule.reset == "soft" and isinstance(neuron, LIF)
    for what, wrong, do in (
        ("a threshold that fires at it", not rule.strict, "Take strict=True."),
        ("a detached reset", rule.detach_reset, "Take detach_reset=False."),
        ("a delayed reset", rule.delayed, "Leave delayed out."),
        (f"a {rule.reset} reset", rule.reset != "hard" and not soft_box, 'Take reset="hard"; LIF may also be soft.'),
        ("a current that jumps by itself", not getattr(neuron, "decay_input", True), "Take decay_input=True."),
        ("a learned threshold", isinstance(neuron.threshold, nn.Parameter), "Leave learn_threshold out."),
        (
            f"the surrogate {slope[0]} of slope {slope[1]:g}",
            slope not in (("fast_sigmoid", 1.0), ("triangular", 1.0)),
            'norse has Surrogate("fast_sigmoid", 1.0) and Surrogate("triangular", 1.0).',
        ),
    ):
        if wrong:
            _refuse("to_norse", f"got {neuron.name} with {what}, expected what norse can say", do)
    method = "super" if slope[0] == "fast_sigmoid" else "triangle"
    dt = neuron.dt_ms / 1000.0
    common = {"v_th": _given(neuron.threshold), "method": method, "alpha": torch.tensor(1.0)}
    v_reset = _given(rule.v_reset)
    if isinstance(neuron, IF):
        return norse.IAFCell(norse.IAFParameters(v_reset=v_reset, **common), dt=dt)
    common |= {"tau_mem_inv": _given((1.0 - neuron.decay) / dt), "v_leak": _given(0.0)}
    if isinstance(neuron, LIF):
        resets: Any = require("norse.torch.functional.reset", "norse")
        how = resets.reset_subtract if rule.reset == "soft" else resets.reset_value
        return norse.LIFBoxCell(norse.LIFBoxParameters(v_reset=v_reset, reset_method=how, **common), dt=dt)
    alpha = _given((1.0 - neuron.alpha) / dt)
    return norse.LIFCell(norse.LIFParameters(tau_syn_inv=alpha, v_reset=v_reset, **common), dt=dt)


def _snntorch_reset(neuron: LIF | IF | Synaptic, box: bool) -> tuple[str, bool]:
    """(reset_mechanism, reset_delay) of a rule, as the class it becomes does them."""
    rule, leaky = neuron.rule, not isinstance(neuron, Synaptic) and not box
    if rule.v_reset:
        _refuse("to_snntorch", f"got v_reset {rule.v_reset:g}, expected 0", "Measure potentials from the reset.")
    if rule.reset == "none":
        return "none", True
    if rule.reset == "soft":
        if rule.delayed and rule.detach_reset:
            return "subtract", True
        expected = 'LifRule("soft", delayed=True)'
    elif leaky:
        if not rule.delayed:
            return "zero", rule.detach_reset
        expected = 'LifRule("hard")'
    else:
        if rule.delayed and rule.detach_reset:
            return "zero", True
        if not rule.delayed and not rule.detach_reset and not box:
            return "zero", False
        expected = 'LifRule("hard", delayed=True)'
    got = f"a {rule.reset} reset, {'delayed' if rule.delayed else 'at once'}, {'' if rule.detach_reset else 'not '}detached"
    _refuse("to_snntorch", f"got {neuron.name} with {got}, expected what snntorch can say", f"Take {expected}.")


def _from_spike_grad(function: Any) -> tuple[Surrogate, bool]:
    if isinstance(function, SpikeFunction):
        return function.surrogate, function.strict
    made_by = getattr(function, "__qualname__", "").split(".")[0]
    if getattr(function, "__module__", "") == "snntorch.surrogate":
        if made_by == "straight_through_estimator":
            return Surrogate("straight_through", 0.0), True
        for kind, (theirs, argument) in _SNNTORCH_SURROGATES.items():
            if made_by == theirs:
                return Surrogate(kind, float(inspect.getclosurevars(function).nonlocals[argument])), True
    _refuse(
        "from_snntorch",
        f"got the surrogate {made_by or function!r}, expected atan, fast_sigmoid or straight_through_estimator",
        "Choose one of these; snntorch's triangular has a gradient of one sign on each side of the threshold.",
    )


def _to_spike_grad(snn: Any, rule: LifRule) -> Any:
    surrogate = rule.surrogate
    if rule.strict and surrogate.kind in _SNNTORCH_SURROGATES:
        theirs, argument = _SNNTORCH_SURROGATES[surrogate.kind]
        return getattr(snn.surrogate, theirs)(**{argument: surrogate.slope})
    if rule.strict and surrogate == Surrogate("straight_through", 0.0):
        return snn.surrogate.straight_through_estimator()
    return SpikeFunction(surrogate, rule.strict)


def _given(constant: Constant) -> Tensor:
    """As a tensor of its own; a number in float64, which as a tensor without axes leaves float32 alone."""
    return constant.detach().clone() if isinstance(constant, Tensor) else torch.tensor(constant, dtype=torch.float64)


def _norse_decay(name: str, inverse: Any, dt: float) -> Tensor:
    decay = 1.0 - dt * torch.as_tensor(inverse).detach().double()
    if not bool(((decay >= 0) & (decay <= 1)).all()):
        _refuse(
            "from_norse",
            f"got {name} {torch.as_tensor(inverse).tolist()} with dt {dt:g}, expected a step no longer than the time constant",
            "Both are in seconds: take a smaller dt.",
        )
    return decay


def _global_state(what: str) -> NoReturn:
    _refuse(
        "from_snntorch",
        f"got {what}, whose membranes live in the modules and are cleared through a list of every neuron in the process; "
        "expected init_hidden=False",
        "Build it with init_hidden=False: init_state makes the state, step and scan carry it.",
    )


def _refuse(where: str, what: str, do: str) -> NoReturn:
    raise UsageError(f"{where}: {what}.", do)
