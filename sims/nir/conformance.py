"""Small graphs with what they must give, for any simulator that reads NIR: one feature each, the answer from its equation.

The answers come from plain loops over the equations of the nodes that are written here a second time, case by case, and share
no line with `sims.nir.simulate`. They stand for forward Euler with the reset in the same step, the current of the same step
into the membrane of a CubaLIF, a recurrent edge that is one step late, and z = 1 where v > v_threshold. Weights are multiples
of 1/16, so that sums in any order and in float32 are exact; no membrane comes as close to a threshold as float32 rounds
(`Answer.closest`), so a spike that differs is a matter of meaning and not of rounding.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from neuro import nir_graph as nir
from neuro.nir_graph import Graph, Node

DT, STEPS = 1e-4, 100
TAU = 8.0  # steps
Array = np.ndarray
Step = Callable[[Array], Array]


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a graph gives: values [T, *shape], and how close a membrane came to its threshold."""

    values: Array
    closest: float


@dataclasses.dataclass(frozen=True)
class Case:
    """A graph, one sample of spikes [T, *shape], and its answer; ``analog``: the Output carries potentials."""

    name: str
    about: str
    graph: Graph
    inputs: Array
    answer: Answer
    analog: bool


class _Neurons:
    """Membranes by forward Euler; without a threshold the potential goes out."""

    def __init__(self, node: Any, v_threshold: Array | None = None) -> None:
        self.node, self.v, self.closest = node, np.zeros(node.r.shape), math.inf
        self.threshold = getattr(node, "v_threshold", v_threshold)
        self.i = np.zeros(node.r.shape)

    def __call__(self, x: Array) -> Array:
        n = self.node
        if isinstance(n, nir.CubaLI):
            self.i = self.i + DT / n.tau_syn.astype(float) * (n.w_in * x - self.i)
            self.v = self.v + DT / n.tau_mem.astype(float) * (n.v_leak - self.v + n.r * self.i)
        elif isinstance(n, nir.LI):
            self.v = self.v + DT / n.tau.astype(float) * (n.v_leak - self.v + n.r * x)
        else:
            self.v = self.v + DT * n.r.astype(float) * x
        if self.threshold is None:
            return self.v
        self.closest = min(self.closest, float(np.abs(self.v - self.threshold).min()))
        z = (self.v > self.threshold).astype(float)
        if hasattr(n, "v_reset"):
            self.v = np.where(z > 0, n.v_reset, self.v)
        return z


class _Maker:
    """Constants of one case, drawn from its number."""

    def __init__(self, number: int) -> None:
        self.random = np.random.Generator(np.random.PCG64(number))

    def weight(self, *shape: int, low: int = -6, high: int = 12, gain: float = 1.0) -> Array:
        return (gain * self.random.integers(low, high, shape, endpoint=True) / 16).astype(np.float32)

    def spikes(self, *shape: int, rate: float = 0.3) -> Array:
        return (self.random.random((STEPS, *shape)) < rate).astype(np.float32)

    def affine(self, out: int, inputs: int, gain: float = 1.0) -> nir.Affine:
        return nir.Affine(self.weight(out, inputs, gain=gain), self.weight(out, low=0, high=2, gain=gain))


def _full(shape: int | tuple[int, ...], value: float) -> Array:
    return np.full(shape, value, np.float32)


def _lif(shape: int | tuple[int, ...], tau: Any = 8e-4, r: Any = 1.0, **changed: Any) -> nir.LIF:
    """A step adds dt / tau, 1 / `TAU`, of a current to the potential: the form that most simulators read."""
    given: dict[str, Any] = {"tau": tau, "r": r, "v_leak": 0.0, "v_threshold": 0.97, "v_reset": 0.0} | changed
    arrays: dict[str, Any] = {k: v if isinstance(v, np.ndarray) else _full(shape, v) for k, v in given.items()}
    return nir.LIF(**arrays)


def _cuba(r: float = TAU, w_in: float = TAU / 2) -> nir.CubaLIF:
    tau_syn, tau_mem, zero = _full(8, 4e-4), _full(8, 8e-4), _full(8, 0.0)
    return nir.CubaLIF(tau_syn, tau_mem, _full(8, r), zero, _full(8, w_in), _full(8, 0.97), zero)


def _cubali() -> nir.CubaLI:
    n = _cuba()
    return nir.CubaLI(n.tau_syn, n.tau_mem, n.r, n.v_leak, n.w_in)


def _if(shape: int | tuple[int, ...]) -> nir.IF:
    return nir.IF(_full(shape, 1 / DT), _full(shape, 0.97), _full(shape, 0.0))


def _dense(node: Any) -> Step:
    return lambda x: node.weight.astype(float) @ x + getattr(node, "bias", 0.0)


def _conv(node: nir.Conv) -> Step:
    """The sum over the kernel, one place of the output at a time."""
    rank, (stride, dilation) = node.dims, node.steps
    grid = [range(k) for k in node.kernel]

    def step(x: Array) -> Array:
        padded = np.pad(x, ((0, 0), *node.pads))
        out = np.zeros((node.weight.shape[0], *node.slid(x.shape[1:])))
        for at in np.ndindex(*out.shape[1:]):
            corner = [p * s for p, s in zip(at, stride, strict=True)]
            for k in np.ndindex(*(len(r) for r in grid)):
                seen = padded[(slice(None), *(corner[a] + k[a] * dilation[a] for a in range(rank)))]
                out[(slice(None), *at)] += node.weight[(slice(None), slice(None), *k)].astype(float) @ seen
        return out + node.bias.reshape(-1, *(1,) * rank)

    return step


def _pool(side: int, mean: bool) -> Step:
    def step(x: Array) -> Array:
        c, h, w = x.shape
        found = x.reshape(c, h // side, side, w // side, side).sum((2, 4))
        return found / side**2 if mean else found

    return step


def _late(steps: Array) -> Step:
    kept: list[Array] = []

    def step(x: Array) -> Array:
        kept.append(x)
        return np.array([kept[-1 - n][k] if n < len(kept) else 0.0 for k, n in enumerate(steps)])

    return step


def _chain(m: _Maker, shape: tuple[int, ...], parts: list[tuple[Node, Step | None]], rate: float = 0.3) -> Any:
    """A graph of nodes one after another; a neuron's step is its own."""
    nodes = [node for node, _ in parts]
    every: list[Any] = [_Neurons(node) if step is None else step for node, step in parts]

    def step(x: Array) -> Array:
        for part in every:
            x = part(x)
        return x

    return nir.sequence(shape, nodes, DT), m.spikes(*shape, rate=rate), step, every


def _one(m: _Maker, node: Node, gain: float = 1.0) -> Any:
    first = m.affine(8, 6, gain)
    return _chain(m, (6,), [(first, _dense(first)), (node, None)])


def _two(m: _Maker, between: list[tuple[Node, Step | None]], last: int = 5) -> Any:
    """LIF, something, LIF."""
    first, second = m.affine(8, 6, TAU), m.affine(last, 8, TAU)
    parts: list[tuple[Node, Step | None]] = [(first, _dense(first)), (_lif(8), None), *between]
    return _chain(m, (6,), [*parts, (second, _dense(second)), (_lif(last), None)])


def _graph(nodes: dict[str, Node], edges: list[tuple[str, str]]) -> Graph:
    return Graph(nodes, tuple(edges), {"dt": DT})


def _recurrent(m: _Maker, kind: str) -> Any:
    """A neuron whose spikes come back a step later through weights, some of them through a Delay as well."""
    gain, late = 0.5 if kind == "cuba" else TAU, np.arange(8) % 3
    first, back = m.affine(8, 6, gain), nir.Linear(m.weight(8, 8, low=-8, high=4, gain=gain))
    node: Any = _cuba() if kind == "cuba" else _lif(8)
    nodes: dict[str, Node] = {"input": nir.Input((6,)), "first": first, "neurons": node, "back": back}
    edges = [("input", "first"), ("first", "neurons"), ("back", "neurons")]
    if kind == "delay":
        nodes["late"] = nir.Delay((late * DT).astype(np.float32))
        edges += [("neurons", "late"), ("late", "back")]
    else:
        edges += [("neurons", "back")]
    edges.insert(0 if kind == "edges" else len(edges), ("neurons", "output"))
    neurons, delayed, last = _Neurons(node), _late(late), np.zeros(8)

    def step(x: Array) -> Array:
        nonlocal last
        z = neurons(_dense(first)(x) + last)
        last = _dense(back)(delayed(z) if kind == "delay" else z)  # arrives a step later
        return z

    return _graph(nodes | {"output": nir.Output((8,))}, edges), m.spikes(6), step, [neurons]


def _subtract(m: _Maker, leaky: bool) -> Any:
    """Reset by subtraction: the spike comes back as minus the threshold, less what a step leaves of it."""
    first, theta, decay = m.affine(8, 6), 0.97, 0.875 if leaky else 1.0
    held: Any = nir.LI(_full(8, 8e-4), _full(8, 8.0), _full(8, 0.0)) if leaky else nir.I(_full(8, 1 / DT))
    scale = nir.Scale(_full(8, -decay * theta))
    nodes: dict[str, Node] = {"input": nir.Input((6,)), "first": first, "held": held}
    nodes |= {"fires": nir.Threshold(_full(8, theta)), "reset": scale, "output": nir.Output((8,))}
    edges = [("input", "first"), ("first", "held"), ("held", "fires"), ("fires", "output")]
    v, near = np.zeros(8), _Neurons(held)

    def step(x: Array) -> Array:
        nonlocal v
        u = decay * v + _dense(first)(x)
        near.closest = min(near.closest, float(np.abs(u - np.float32(theta)).min()))
        z = (u > np.float32(theta)).astype(float)
        v = u - theta * z
        return z

    return _graph(nodes, [*edges, ("fires", "reset"), ("reset", "held")]), m.spikes(6), step, [near]


def _branch(m: _Maker) -> Any:
    """The spikes of one layer reach the last both through a second layer and past it."""
    first, second = m.affine(8, 6, TAU), m.affine(8, 8, TAU)
    a, b, c = _lif(8), _lif(8), _lif(8, v_threshold=0.171)
    nodes: dict[str, Node] = {"input": nir.Input((6,)), "first": first, "a": a, "second": second, "b": b, "c": c}
    edges = [("input", "first"), ("first", "a"), ("a", "second"), ("second", "b"), ("a", "c"), ("b", "c")]
    every = [_Neurons(a), _Neurons(b), _Neurons(c)]

    def step(x: Array) -> Array:
        z = every[0](_dense(first)(x))
        return every[2](z + every[1](_dense(second)(z)))

    return _graph(nodes | {"output": nir.Output((8,))}, [*edges, ("c", "output")]), m.spikes(6), step, every


def _picture(m: _Maker, pool: Node | None, step: Step | None) -> Any:
    weight, bias = m.weight(3, 2, 3, 3, low=-4, high=6, gain=TAU), m.weight(3, low=0, high=2, gain=TAU)
    conv = nir.Conv2d(weight, bias, (1, 1), (1, 1))
    parts: list[tuple[Node, Step | None]] = [(conv, _conv(conv)), (_lif((3, 4, 4)), None)]
    side = 4
    if pool is not None:
        parts, side = [*parts, (pool, step)], 2
    last = m.affine(5, 3 * side * side, TAU / 2)
    rest: list[tuple[Node, Step | None]] = [(nir.Flatten(0, -1), np.ravel), (last, _dense(last)), (_lif(5), None)]
    return _chain(m, (2, 4, 4), [*parts, *rest], 0.15)


def _sound(m: _Maker) -> Any:
    conv = nir.Conv1d(m.weight(4, 2, 3), m.weight(4, low=0, high=2), (2,), (1,))
    return _chain(m, (2, 9), [(conv, _conv(conv)), (_if((4, 5)), None)])


def _scaled(m: _Maker) -> Any:
    first, scale = m.affine(8, 6, TAU), nir.Scale(m.weight(8, low=4, high=20))
    return _chain(m, (6,), [(first, _dense(first)), (scale, lambda x: scale.scale * x), (_lif(8), None)])


def _stepped(m: _Maker) -> Any:
    first, second = m.affine(8, 6), m.affine(5, 8, TAU)
    node = nir.Threshold(_full(8, 0.47))
    fires: Step = lambda x: (x > node.threshold).astype(float)  # noqa: E731
    return _chain(m, (6,), [(first, _dense(first)), (node, fires), (second, _dense(second)), (_lif(5), None)])


def _unreset(m: _Maker) -> Any:
    """Weights around 0, or the potential would only rise."""
    first = nir.Affine(m.weight(8, 6, low=-8, high=8), m.weight(8, low=0, high=2))
    held = nir.LI(_full(8, 8e-4), _full(8, 8.0), _full(8, 0.0))
    node = nir.Threshold(_full(8, 0.97))
    neurons = _Neurons(held, node.threshold)
    graph, inputs, _, _ = _chain(m, (6,), [(first, _dense(first)), (held, None), (node, np.copy)])
    return graph, inputs, lambda x: neurons(_dense(first)(x)), [neurons]


def _delayed(m: _Maker) -> Any:
    late = np.arange(8) % 4
    return _two(m, [(nir.Delay((late * DT).astype(np.float32)), _late(late))])


_SPREAD = (np.linspace(4, 24, 8) * 1e-4).astype(np.float32)
_CASES: dict[str, tuple[str, int, Callable[[_Maker], Any]]] = {
    "lif": ("LIF, r = tau / dt", 0, lambda m: _one(m, _lif(8, r=TAU))),
    "lif_gain": ("LIF, r = 1, the factor in the weights", 0, lambda m: _one(m, _lif(8), TAU)),
    "lif_leak": ("LIF with a v_leak of 0.3", 0, lambda m: _one(m, _lif(8, v_leak=0.3), TAU)),
    "lif_reset": ("LIF with a v_reset of -0.5", 0, lambda m: _one(m, _lif(8, v_reset=-0.5), TAU)),
    "lif_taus": (
        "LIF, a tau for each neuron, r = tau / dt",
        0,
        lambda m: _one(m, _lif(8, _SPREAD, _SPREAD / np.float32(DT))),
    ),
    "lif_thresholds": (
        "LIF, a threshold for each neuron",
        0,
        lambda m: _one(m, _lif(8, v_threshold=np.linspace(0.61, 1.57, 8).astype(np.float32)), TAU),
    ),
    "lif_layers": ("two layers of LIF", 0, lambda m: _two(m, [])),
    "if": ("IF, r = 1 / dt", 0, lambda m: _one(m, _if(8))),
    "cubalif": ("CubaLIF, r = tau_mem / dt, w_in = tau_syn / dt", 1, lambda m: _one(m, _cuba(), 0.5)),
    "cubalif_gain": (
        "CubaLIF, r = w_in = 1, the factors in the weights",
        2,
        lambda m: _one(m, _cuba(1.0, 1.0), 16.0),
    ),
    "li": ("LI: potentials go out", 0, lambda m: _one(m, nir.LI(_full(8, 8e-4), _full(8, 1.0), _full(8, 0.0)))),
    "i": ("I: potentials go out", 0, lambda m: _one(m, nir.I(_full(8, 100.0)))),
    "cubali": ("CubaLI: potentials go out", 0, lambda m: _one(m, _cubali())),
    "recurrent": ("LIF, all to all, a step late", 0, lambda m: _recurrent(m, "lif")),
    "recurrent_edges": ("the same graph, its edges in another order", 0, lambda m: _recurrent(m, "edges")),
    "recurrent_cuba": ("CubaLIF, all to all, a step late", 0, lambda m: _recurrent(m, "cuba")),
    "recurrent_delay": ("LIF, back through a Delay of 0 to 2 steps", 0, lambda m: _recurrent(m, "delay")),
    "delay": ("a Delay of 0 to 3 steps between two layers", 0, _delayed),
    "branch": ("spikes through a layer and past it", 0, _branch),
    "conv2d": ("Conv2d with padding, LIF, Flatten", 1, lambda m: _picture(m, None, None)),
    "conv1d": ("Conv1d with stride 2 and padding, IF", 0, _sound),
    "sumpool": ("SumPool2d", 0, lambda m: _picture(m, nir.SumPool2d((2, 2), (2, 2)), _pool(2, False))),
    "avgpool": ("AvgPool2d", 0, lambda m: _picture(m, nir.AvgPool2d((2, 2), (2, 2)), _pool(2, True))),
    "scale": ("Scale", 0, _scaled),
    "threshold": ("Threshold without an integrator", 0, _stepped),
    "reset_none": ("LI and Threshold: no reset", 0, _unreset),
    "reset_soft": ("LI, Threshold and a Scale back: reset by subtraction", 0, lambda m: _subtract(m, True)),
    "reset_soft_if": ("the same of I", 0, lambda m: _subtract(m, False)),
}
NAMES = tuple(_CASES)


@cache
def case(name: str) -> Case:
    """The case of a name in `NAMES`."""
    about, number, make = _CASES[name]
    graph, inputs, step, parts = make(_Maker(number))
    values = np.stack([step(x.astype(np.float64)) for x in inputs])
    closest = min([part.closest for part in parts if isinstance(part, _Neurons)], default=math.inf)
    last = graph.nodes[graph.before[graph.outputs[0]][0]]
    return Case(name, about, graph, inputs, Answer(values, closest), type(last) in nir.INTEGRATORS)
