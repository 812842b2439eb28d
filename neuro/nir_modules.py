"""Layers as NIR graphs and back: what fires the same is said, what cannot be said raises.

    here                                        NIR (g: 1, with decay_input 1 - decay)
    Linear, Conv1d, Conv2d, Flatten, AvgPool2d  Affine or Linear, Conv1d, Conv2d, Flatten, AvgPool2d
    LIF, PLIF hard                              LIF,      tau = dt / (1 - decay), r = g tau / dt, v_leak = 0
    IF hard, LIF with decay 1                   IF,       r = g / dt
    Synaptic hard                               CubaLIF,  tau_syn = dt / (1 - alpha), w_in = tau_syn / dt, the rest as LIF
    any with reset "none"                       LI or I, then Threshold; a synapse is a LI before it
    any with reset "soft"                       the same, and a Scale of -decay threshold / g from the Threshold back
    any with reset "soft", delayed              the same, and a Scale of -threshold / g

NIR's neurons only reset to a value. A reset by subtraction is therefore a recurrent edge, which hands on the spike a step
later and takes off what the decay has left of the threshold: the same potentials, in standard nodes. NIR's neurons fire
above the threshold; one that fires at it gets the next smaller number, in the type of the layers, and says so in the
node's metadata (``fires_at``: that type).

Surrogates, detached resets and what is learned are of training and not said. differs: decays come back within rounding.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from backends import LifRule
from neuro import nir_graph as nir
from neuro.errors import UsageError
from neuro.layers.spiking_linear import SpikingLinear
from neuro.neurons import IF, LIF, Neuron, Synaptic
from neuro.neurons.base import Constant
from neuro.nir_graph import Emitter, Graph, Node, Shape
from neuro.spiking_classifier import SpikingClassifier

CLOSE = 1e-6
"""Relative: files in float32 hold r = tau / dt only so far."""

FIRES_AT = "fires_at"


def from_modules(layers: nn.Sequential | Sequence[nn.Module | Node], shape: Sequence[int]) -> Graph:
    """Layers one after another as a graph; ``shape`` is that of one step without a batch. The step is that of the neurons.

    Raises:
        UsageError: a layer, reset or constant that NIR does not have, neurons of several steps, or shapes that disagree.
    """
    chain = [leaf for layer in layers for leaf in _leaves(layer)]
    steps = {layer.dt_ms for layer in chain if isinstance(layer, Neuron)}
    if len(steps) > 1:
        got = ", ".join(f"{dt:g}" for dt in sorted(steps))
        raise UsageError(f"from_modules: got neurons with steps of {got} ms, expected one.", "Give all the same dt_ms.")
    draft = _Draft(tuple(shape), max(steps, default=0.0) / 1000.0, _type_of(chain))
    return draft.all(chain)


def from_classifier(model: SpikingClassifier, dt_ms: float) -> Graph:
    """A spiking classifier as a graph whose Output is the readout of each step; the logits are its mean over time.

    Args:
        model: of spiking neurons that start at 0.
        dt_ms: the step, which the classifier counts by.

    Raises:
        UsageError: graded neurons, bursts, membranes that start elsewhere, or a step that is not positive.
    """
    config = model.config
    if config.burst > 1:
        got = f"got bursts of up to {config.burst} spikes a step"
        _refuse("from_classifier", f"{got}, expected 1", "A spike is one bit in NIR: train with burst=1.")
    if config.neuron != "spiking" or config.start:
        got = f"{config.neuron} neurons" if config.neuron != "spiking" else f"membranes that start at {config.start:g}"
        _refuse("from_classifier", f"got {got}, expected spiking ones that start at 0", "Train a classifier of these.")
    layers: list[nn.Module | Node] = []
    for projection in model.projections:
        charge = 1.0 if projection is model.projections[-1] else config.synapse_decay or 1.0
        weight, bias = charge * _array(projection.weight), charge * _array(projection.bias)
        if projection.config.kernel:
            layers.append(nir.Conv2d(weight, bias, stride=(projection.config.stride,)))
        else:
            layers += [nir.Flatten(0, -1)] if len(projection.shape) > 1 else []
            layers.append(nir.Affine(weight, bias))
        common: dict[str, Any] = {"beta": config.decay, "rule": model.rule, "dt_ms": dt_ms}
        common |= {"alpha": config.synapse_decay} if config.synapse_decay else {}
        layers.append((Synaptic if config.synapse_decay else LIF)(math.prod(projection.out), **common))
    draft = _Draft(config.shape, dt_ms / 1000.0, _type_of([model]))
    return draft.all(layers[:-1])  # the readout has no neurons


def to_modules(graph: Graph, dt: float | None = None) -> list[nn.Module]:
    """A chain of nodes as layers, in order. A neuron's layer sees its input flattened, as [T,B,N].

    Args:
        graph: without branches; loops are resets by subtraction (above) only.
        dt: the step in seconds; by default the one stored with the graph.

    Raises:
        UsageError: no step, a branch, or a node that no layer of ours says.
    """
    dt = nir.step_of(graph, dt)
    rows = nir.emitters(graph)
    resets = {row.reset for row in rows if row.reset}
    held = {row.membrane: row for row in rows}
    firing = {row.membrane for row in rows if type(graph.nodes[row.name]) in nir.SPIKING}
    kinds = [v.dtype for n in graph.nodes.values() for key, v in n.arrays().items() if key == "weight"]
    dtype = torch.float64 if np.float64 in kinds else torch.float32
    layers: list[nn.Module] = []
    following, name = _chain(graph, resets), graph.input
    while name not in graph.outputs:
        node, synapse = graph.nodes[name], None
        if type(node) is nir.LI and name not in firing and following[name] in firing:
            synapse, name = node, following[name]
        if name in held:
            layers.append(_neuron(graph, held[name], synapse, dt, dtype))
            name = held[name].name
        elif name != graph.input:
            layers.append(_layer(name, node))
        name = following[name]
    return layers


def _chain(graph: Graph, resets: set[str]) -> dict[str, str]:
    """The node after each, resets left out."""
    found = {}
    for name in graph.nodes:
        if name in resets:
            continue
        before = [a for a in graph.before[name] if a not in resets]
        after = [b for b in graph.after[name] if b not in resets]
        if len(before) != (name != graph.input) or len(after) != (name not in graph.outputs):
            _refuse(
                "to_modules",
                f"got '{name}' with {len(before)} edges in and {len(after)} out, expected a chain",
                "Run the graph with sims.nir.run, or cut it.",
            )
        found[name] = "".join(after)
    return found


class _Draft:
    """A chain under construction."""

    def __init__(self, shape: Shape, dt: float, dtype: type) -> None:
        self.nodes: dict[str, Node] = {"input": nir.Input(shape)}
        self.edges: list[nir.Edge] = []
        self.shape, self.dt, self.dtype, self.last = shape, dt, dtype, "input"

    def all(self, layers: Sequence[nn.Module | Node]) -> Graph:
        for place, layer in enumerate(layers):
            try:
                self.add(place, layer)
            except UsageError as error:
                raise UsageError(f"from_modules, layer {place}: {error.what}", error.do) from error
        self.put("output", nir.Output(self.shape))
        return Graph(self.nodes, tuple(self.edges), {"dt": self.dt} if self.dt else {})

    def put(self, name: str, node: Node) -> None:
        self.nodes[name] = node
        self.edges.append((self.last, name))
        self.last = name
        self.shape = node.output_shape(self.shape) or self.shape

    def add(self, place: int, layer: nn.Module | Node) -> None:
        if isinstance(layer, Neuron):
            self.fire(place, layer)
            return
        node = layer if isinstance(layer, Node) else _node(layer)
        self.put(f"{place}_{type(node).__name__.lower()}", node)

    def fire(self, place: int, neuron: Neuron) -> None:
        if not isinstance(neuron, LIF | IF | Synaptic):
            got = f"got {neuron.name}, expected IF, LIF, PLIF or Synaptic"
            _refuse(neuron.name, got, "NIR has no other in common.")
        if neuron.neurons != math.prod(self.shape):
            _refuse(
                neuron.name,
                f"got {neuron.neurons} neurons for a shape {list(self.shape)}, expected {math.prod(self.shape)}",
                "Give the layer's width.",
            )
        rule, shape, dt = neuron.rule, self.shape, self.dt
        decay = self.full(1.0 if isinstance(neuron, IF) else neuron.decay)
        gain = 1.0 - decay if getattr(neuron, "decay_input", False) else np.ones(shape)
        threshold = self.full(neuron.threshold)
        fires = threshold if rule.strict else np.nextafter(threshold.astype(self.dtype), self.dtype(-np.inf))
        fires = fires.astype(np.float64)
        told: dict[str, Any] = {} if rule.strict else {"metadata": {FIRES_AT: np.dtype(self.dtype).name}}
        reset: dict[str, Any] = {"v_threshold": fires, "v_reset": np.full(shape, rule.v_reset)}
        zero, leaks = np.zeros(shape), bool((decay < 1).all())
        if not leaks and (decay < 1).any():
            _refuse(neuron.name, "got some neurons with a decay of 1, expected all or none", "Split the layer.")
        constants: dict[str, Any] = {"r": gain / dt}
        if leaks:
            tau = dt / (1.0 - decay)
            constants = {"tau": tau, "r": gain * (tau / dt), "v_leak": zero}
        if isinstance(neuron, Synaptic):
            alpha = self.full(neuron.alpha)
            if (alpha >= 1).any():
                _refuse(neuron.name, "got a synapse that never decays, expected alpha below 1", "Give it a tau_syn_ms.")
            tau_syn = dt / (1.0 - alpha)
            if rule.reset == "hard" and leaks and not rule.delayed:
                cuba: dict[str, Any] = {"tau_syn": tau_syn, "tau_mem": constants.pop("tau"), "w_in": tau_syn / dt}
                self.put(f"{place}_cubalif", nir.CubaLIF(**cuba, **constants, **reset, **told))
                return
            self.put(f"{place}_synapse", nir.LI(tau_syn, tau_syn / dt, zero))
        if rule.reset == "hard":
            if rule.delayed:
                _refuse(neuron.name, "got a delayed hard reset, expected one at once", "Leave delayed out.")
            kind = nir.LIF if leaks else nir.IF
            self.put(f"{place}_{kind.__name__.lower()}", kind(**constants, **reset, **told))
            return
        held, fired, back = f"{place}_held", f"{place}_threshold", f"{place}_reset"
        self.put(held, (nir.LI if leaks else nir.I)(**constants))
        self.put(fired, nir.Threshold(fires, **told))
        if rule.reset == "soft":
            if (gain == 0).any():
                _refuse(neuron.name, "got decay_input without any leak, expected an input", "Leave decay_input out.")
            self.nodes[back] = nir.Scale(-(1.0 if rule.delayed else decay) * threshold / gain)
            self.edges += [(fired, back), (back, held)]

    def full(self, constant: Constant) -> np.ndarray:
        """float64 in the shape of the layer."""
        value = constant.detach().cpu().double().numpy() if isinstance(constant, Tensor) else np.float64(constant)
        flat = np.broadcast_to(np.ravel(value), (math.prod(self.shape),))
        return flat.reshape(self.shape).copy()


def _leaves(layer: nn.Module | Node) -> list[nn.Module | Node]:
    if isinstance(layer, nn.Sequential):
        return [leaf for inner in layer for leaf in _leaves(inner)]
    if isinstance(layer, SpikingLinear):
        weight = _array(layer.weight)
        product = nir.Linear(weight) if layer.bias is None else nir.Affine(weight, _array(layer.bias))
        return [product, layer.neuron]
    return [layer]


def _node(layer: nn.Module) -> Node:
    name = type(layer).__name__
    if type(layer) is nn.Linear:
        weight = _array(layer.weight)
        return nir.Linear(weight) if layer.bias is None else nir.Affine(weight, _array(layer.bias))
    if type(layer) is nn.Conv1d or type(layer) is nn.Conv2d:
        if layer.padding_mode != "zeros":
            _refuse(name, f"got padding_mode '{layer.padding_mode}', expected zeros", "NIR has no other.")
        weight = _array(layer.weight)
        bias = np.zeros(weight.shape[0], weight.dtype) if layer.bias is None else _array(layer.bias)
        padding: Any = layer.padding
        rest: dict[str, Any] = {"padding": padding, "dilation": layer.dilation, "groups": layer.groups}
        return (nir.Conv1d if type(layer) is nn.Conv1d else nir.Conv2d)(weight, bias, layer.stride, **rest)
    if type(layer) is nn.Flatten:
        if layer.start_dim < 1 or layer.end_dim == 0:
            _refuse(name, f"got start_dim {layer.start_dim}, which takes the batch in, expected 1 or more", "Raise it.")
        end = layer.end_dim
        return nir.Flatten(layer.start_dim - 1, end if end < 0 else end - 1)
    if type(layer) is nn.AvgPool2d:
        if layer.ceil_mode or layer.divisor_override or (layer.padding and not layer.count_include_pad):
            _refuse(
                name, "got ceil_mode, divisor_override or a mean without the padding, expected none", "NIR has none."
            )
        return nir.AvgPool2d(*(_pair(n) for n in (layer.kernel_size, layer.stride, layer.padding)))
    _refuse(
        name,
        f"got {name}, expected Linear, Conv1d, Conv2d, Flatten, AvgPool2d, SpikingLinear or a neuron",
        "NIR has no node for it: export the layers before and after it.",
    )


def _layer(name: str, node: Node) -> nn.Module:
    if isinstance(node, nir.Linear):
        made: Any = nn.Linear(node.weight.shape[1], node.weight.shape[0], bias=isinstance(node, nir.Affine))
    elif isinstance(node, nir.Conv):
        (out, each), groups = node.weight.shape[:2], node.groups
        kind: Any = nn.Conv1d if isinstance(node, nir.Conv1d) else nn.Conv2d
        made = kind(each * groups, out, node.kernel, node.stride, node.padding, node.dilation, groups)
    elif isinstance(node, nir.Flatten):
        first, last = node.start_dim, node.end_dim
        return nn.Flatten(first + 1 if first >= 0 else first, last + 1 if last >= 0 else last)
    elif isinstance(node, nir.AvgPool2d):
        return nn.AvgPool2d(_pair(node.kernel_size), _pair(node.stride), _pair(node.padding))
    else:
        _refuse(
            "to_modules",
            f"got '{name}' of type {type(node).__name__}, which no layer of ours is",
            "Run the graph with sims.nir.run.",
        )
    for key in ("weight", "bias"):
        if key in node.arrays():
            setattr(made, key, nn.Parameter(torch.from_numpy(np.array(getattr(node, key)))))
    return made


def _neuron(graph: Graph, row: Emitter, synapse: nir.LI | None, dt: float, dtype: torch.dtype) -> Neuron:
    where = f"to_modules, node '{row.membrane}'"
    node: Any = graph.nodes[row.membrane]
    if type(graph.nodes[row.name]) not in nir.SPIKING:
        _refuse(where, f"got {type(node).__name__}, which never fires, expected a neuron that does", "Add a Threshold.")
    if type(node) is nir.Threshold:
        _refuse(where, "got a Threshold without an integrator, expected one before it", "Put an I or LI before it.")
    size = math.prod(graph.shapes[row.membrane][0])
    cuba = isinstance(node, nir.CubaLI)
    no_leak = isinstance(node, nir.I | nir.IF)
    tau = np.full(size, np.inf) if no_leak else _flat(node.tau_mem if cuba else node.tau)
    if np.any(tau < dt * (1 - CLOSE)):
        _refuse(
            where, f"got tau {tau.min():g} s with dt {dt:g}, expected a step no longer than it", "Take a smaller dt."
        )
    if not no_leak and node.v_leak.any():
        _refuse(where, "got v_leak other than 0, expected 0", "Measure potentials from v_leak.")
    decay = np.maximum(1.0 - dt / tau, 0.0)
    gain = _flat(node.r) * (dt if no_leak else dt / tau)
    boxed = not no_leak and not np.allclose(gain, 1.0, CLOSE, 0.0)
    if not np.allclose(gain, 1.0 - decay if boxed else 1.0, CLOSE, 0.0):
        expected = f"{1 / dt:g} (1 / dt)" if no_leak else "1 or tau / dt"
        _refuse(
            where, f"got r {_flat(node.r)[0]:g}, expected {expected}", "Move the rest of r into the weights before."
        )
    common: dict[str, Any] = {"dt_ms": 1000.0 * dt}
    common |= _rule(where, graph, row, decay, gain, dtype)
    if not no_leak:
        common |= {"beta": _constant(decay, dtype), "decay_input": boxed}
    if not cuba and synapse is None:
        return (IF if no_leak else LIF)(size, **common)
    if no_leak:
        common["beta"] = 1.0
    tau_syn = _flat(node.tau_syn if cuba else synapse.tau)  # type: ignore[union-attr]
    charge = _flat(node.w_in if cuba else synapse.r)  # type: ignore[union-attr]
    rests = synapse is not None and synapse.v_leak.any()
    if np.any(tau_syn < dt * (1 - CLOSE)) or not np.allclose(charge * dt / tau_syn, 1.0, CLOSE, 0.0) or rests:
        _refuse(
            where,
            f"got a synapse of tau {tau_syn[0]:g} s with a factor of {charge[0]:g}, expected tau / dt and no rest",
            "Move the rest of the factor into the weights before.",
        )
    return Synaptic(size, alpha=_constant(np.maximum(1.0 - dt / tau_syn, 0.0), dtype), **common)


def _rule(
    where: str, graph: Graph, row: Emitter, decay: np.ndarray, gain: np.ndarray, dtype: torch.dtype
) -> dict[str, Any]:
    node: Any = graph.nodes[row.name]
    fires = _flat(node.threshold if row.name != row.membrane else node.v_threshold)
    if row.name == row.membrane:
        if np.ptp(node.v_reset):
            _refuse(where, "got a v_reset for each neuron, expected one", "Shift the potentials of each neuron.")
        return _firing(node, fires, dtype, LifRule("hard", strict=True, v_reset=float(node.v_reset.flat[0])))
    if not row.reset:
        return _firing(node, fires, dtype, LifRule("none", strict=True))
    scale: Any = graph.nodes[row.reset]
    taken = -_flat(scale.scale) * gain
    delayed = not np.allclose(taken, decay * fires, CLOSE, 0.0)
    if not np.allclose(taken, (1.0 if delayed else decay) * fires, CLOSE, 0.0):
        _refuse(
            where,
            f"got a reset by {taken[0]:g}, expected the threshold {fires[0]:g}, or what the decay leaves of it",
            "Correct the Scale.",
        )
    return _firing(node, fires, dtype, LifRule("soft", delayed=delayed, strict=True))


def _firing(node: Node, fires: np.ndarray, dtype: torch.dtype, rule: LifRule) -> dict[str, Any]:
    if node.metadata.get(FIRES_AT) in ("float32", "float64"):
        kind = np.dtype(node.metadata[FIRES_AT]).type
        fires = np.nextafter(fires.astype(kind), kind(np.inf)).astype(np.float64)
        rule = dataclasses.replace(rule, strict=False)
    return {"rule": rule, "threshold": _constant(fires, dtype)}


def _constant(value: np.ndarray, dtype: torch.dtype) -> float | Tensor:
    return float(value[0]) if not np.ptp(value) else torch.tensor(value, dtype=dtype)


def _flat(value: np.ndarray) -> np.ndarray:
    return value.astype(np.float64).reshape(-1)


def _array(value: Tensor) -> np.ndarray:
    if value.dtype not in (torch.float32, torch.float64, torch.float16):
        value = value.float()
    return value.detach().cpu().numpy().copy()


def _type_of(layers: Sequence[nn.Module | Node]) -> Any:
    """NumPy's type of the first weights, which are a module's or a node's; torch's own without any."""
    for layer in layers:
        values = layer.parameters() if isinstance(layer, nn.Module) else layer.arrays().values()
        for value in values:
            return np.float64 if value.dtype in (torch.float64, np.float64) else np.float32
    return np.float64 if torch.get_default_dtype() == torch.float64 else np.float32


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _refuse(where: str, what: str, do: str) -> NoReturn:
    raise UsageError(f"{where}: {what}.", do)
