"""A NIR graph, torch-free: nodes by name and edges, with shapes, an order and recurrent edges of our own.

A graph has one Input, at least one Output, and edges that hand on values as they are; what several edges bring to a node is
added. Shapes have no batch axis. Times are in seconds; NIR does not store the time step, ours do, as ``dt`` in the metadata.

Recurrent edges: among nodes that all reach one another, the edges back to where paths from the Input come in (of several
such nodes, those fewest edges away from it), and then likewise in what is left. Names and order play no part. A recurrent
edge hands on what its source gave a step before, 0 at the first.

Source: Pedersen et al. 2024, doi:10.1038/s41467-024-52259-9.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from neuro.errors import UsageError, nearest
from neuro.nir_nodes import INTEGRATORS, SPIKING, Delay, Input, Node, Output, Scale, Shape, Threshold

Edge = tuple[str, str]


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
    """Nodes by name, and edges.

    Raises:
        UsageError: no or several Inputs, no Output, an edge to nowhere or twice, a node that nothing reaches, shapes that
            disagree or that nothing tells.
    """

    nodes: dict[str, Node]
    edges: tuple[Edge, ...]
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "edges", tuple((str(a), str(b)) for a, b in self.edges))
        for name in self.nodes:
            if not name or "/" in name or name == ".":
                raise UsageError(f"NIR graph: got a node named '{name}', expected a name without '/'.", "Rename it.")
        seen: set[Edge] = set()
        for edge in self.edges:
            for end in edge:
                if end not in self.nodes:
                    raise UsageError(
                        f"NIR graph: got an edge '{edge[0]}' to '{edge[1]}', expected nodes of the graph.",
                        nearest(end, list(self.nodes)),
                    )
            if edge in seen:
                raise UsageError(f"NIR graph: got the edge '{edge[0]}' to '{edge[1]}' twice.", "Give it once.")
            seen.add(edge)
        inputs = [name for name, node in self.nodes.items() if isinstance(node, Input)]
        if len(inputs) != 1:
            got = ", ".join(inputs) or "none"
            raise UsageError(f"NIR graph: got {len(inputs)} Inputs ({got}), expected one.", "Join or add Inputs.")
        if not any(isinstance(node, Output) for node in self.nodes.values()):
            raise UsageError("NIR graph: got no Output, expected one or more.", "Add one after the last node.")
        for source, target in self.edges:
            if isinstance(self.nodes[target], Input) or isinstance(self.nodes[source], Output):
                raise UsageError(
                    f"NIR graph: got an edge '{source}' to '{target}', expected none into an Input or out of an Output.",
                    "Take the edge out.",
                )
        lost = [name for name in self.nodes if name not in self._distances]
        if lost:
            raise UsageError(
                f"NIR graph: got '{lost[0]}', which nothing leads to from the Input '{inputs[0]}'.",
                "Connect it or take it out.",
            )
        self.shapes  # noqa: B018  (disagreeing shapes raise here)

    @cached_property
    def input(self) -> str:
        return next(name for name, node in self.nodes.items() if isinstance(node, Input))

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(name for name, node in self.nodes.items() if isinstance(node, Output))

    @cached_property
    def before(self) -> dict[str, tuple[str, ...]]:
        """Sources of each node, in the order of the edges."""
        found: dict[str, list[str]] = {name: [] for name in self.nodes}
        for source, target in self.edges:
            found[target].append(source)
        return {name: tuple(sources) for name, sources in found.items()}

    @cached_property
    def after(self) -> dict[str, tuple[str, ...]]:
        """Targets of each node, in the order of the edges."""
        found: dict[str, list[str]] = {name: [] for name in self.nodes}
        for source, target in self.edges:
            found[source].append(target)
        return {name: tuple(targets) for name, targets in found.items()}

    @cached_property
    def recurrent(self) -> frozenset[Edge]:
        """Edges that hand on what their source gave a step before."""
        found: set[Edge] = set()
        parts = _circles(list(self.nodes), self.edges)
        while parts:
            part = parts.pop()
            inside = {(a, b) for a, b in self.edges if a in part and b in part} - found
            entries = {b for a, b in self.edges if b in part and a not in part}
            closest = min(self._distances[name] for name in entries)
            doors = {name for name in entries if self._distances[name] == closest}
            back = {(a, b) for a, b in inside if b in doors}
            found |= back
            parts += _circles(sorted(part), inside - back)
        return frozenset(found)

    @cached_property
    def order(self) -> tuple[str, ...]:
        """Every node after its sources, recurrent edges left out."""
        waiting = {name: sum((a, name) not in self.recurrent for a in self.before[name]) for name in self.nodes}
        ready = [name for name, count in waiting.items() if not count]
        for name in ready:
            for target in self.after[name]:
                if (name, target) not in self.recurrent:
                    waiting[target] -= 1
                    if not waiting[target]:
                        ready.append(target)
        assert len(ready) == len(self.nodes)
        return tuple(ready)

    @cached_property
    def shapes(self) -> dict[str, tuple[Shape, Shape]]:
        """(what comes into each node, what goes out)."""
        coming: dict[str, Shape] = {}
        going: dict[str, Shape] = {}
        changed = True
        while changed:
            changed = False
            for name, node in self.nodes.items():
                if name in going:
                    continue
                known = [going[a] for a in self.before[name] if a in going]
                shape = node.input_shape_of()
                shape = known[0] if shape is None and known else shape
                try:
                    out = node.output_shape(shape)
                except UsageError as error:
                    raise UsageError(f"NIR graph, node '{name}': {error.what}", error.do) from error
                if shape is not None and out is not None:
                    coming[name], going[name], changed = shape, out, True
        for name in self.nodes:
            if name not in going:
                raise UsageError(f"NIR graph: nothing tells the shape of '{name}'.", "Give the Input its shape.")
        for source, target in self.edges:
            if going[source] != coming[target]:
                raise UsageError(
                    f"NIR graph: got '{source}' of shape {list(going[source])} before '{target}', which takes "
                    f"{list(coming[target])}.",
                    "Shapes have no batch axis, and every neuron has its own constants; correct one of the two.",
                )
        return {name: (coming[name], going[name]) for name in self.nodes}

    @cached_property
    def _distances(self) -> dict[str, int]:
        """Edges from the Input, of the nodes it reaches, in breadth-first order."""
        near = {self.input: 0}
        for name in (queue := [self.input]):
            for target in self.after[name]:
                if target not in near:
                    near[target] = near[name] + 1
                    queue.append(target)
        return near


class Emitter(NamedTuple):
    """Neurons as a chip has them: what gives spikes or, with no threshold after it, only holds a potential."""

    name: str  # the node whose spikes (or potentials) go out
    membrane: str  # the node that holds the potential, often the same
    reset: str  # the Scale that takes a spike off the potential a step later, or ""


def emitters(graph: Graph) -> tuple[Emitter, ...]:
    """The neurons of a graph, in order. A Threshold after an integrator is one with it, and so is a Scale from there back to
    the integrator: the reset by subtraction, which no single NIR node can say."""
    found, behind = [], {}
    for name in graph.order:
        sources = graph.before[name]
        if type(graph.nodes[name]) is Threshold and len(sources) == 1:
            if type(graph.nodes[sources[0]]) in INTEGRATORS and sources[0] not in behind:
                behind[sources[0]] = name
    for name in graph.order:
        kind = type(graph.nodes[name])
        if name in behind.values():
            membrane = graph.before[name][0]
            resets = [s for s in graph.after[name] if type(graph.nodes[s]) is Scale]
            resets = [s for s in resets if graph.before[s] == (name,) and graph.after[s] == (membrane,)]
            found.append(Emitter(name, membrane, resets[0] if resets else ""))
        elif kind in SPIKING or (kind in INTEGRATORS and name not in behind):
            found.append(Emitter(name, name, ""))
    return tuple(found)


def sequence(shape: Sequence[int], nodes: Iterable[Node], dt: float | None = None) -> Graph:
    """A graph of nodes one after another, Input and Output added; names are the kind and the place, "1_lif".

    Raises:
        UsageError: as `Graph`.
    """
    inside = {f"{i}_{type(node).__name__.lower()}": node for i, node in enumerate(nodes)}
    names = ["input", *inside, "output"]
    out: Shape | None = tuple(int(n) for n in shape)
    first = Input(out)  # type: ignore[arg-type]
    for node in inside.values():
        out = node.output_shape(out)
    every: dict[str, Node] = {"input": first, **inside, "output": Output(out or ())}
    return Graph(every, tuple(itertools.pairwise(names)), {} if dt is None else {"dt": float(dt)})


def step_of(graph: Graph, dt: float | None) -> float:
    """The time step in seconds: the one given, else the graph's own.

    Raises:
        UsageError: neither, or no positive number.
    """
    value = graph.metadata.get("dt") if dt is None else dt
    if value is None:
        raise UsageError(
            "NIR graph: got no time step, expected one: it is not stored with this graph.", "Give dt in seconds."
        )
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = float("nan")
    if not 0.0 < found < float("inf"):
        raise UsageError(f"NIR graph dt: got {value!r}, expected more than 0.", "Give the step in seconds.")
    return found


def euler_rate(name: str, node: Node, constant: str, dt: float) -> np.ndarray:
    """dt / tau of a node's time constant, at most 1: what forward Euler moves in one step.

    Raises:
        UsageError: a step longer than the time constant.
    """
    tau: np.ndarray = node.arrays()[constant]
    if (tau < dt * (1 - 1e-9)).any():
        raise UsageError(
            f"NIR graph, node '{name}': got {constant} {tau.min():g} s with dt {dt:g}, "
            "expected a step no longer than it.",
            "Euler's rule would overshoot: take a smaller dt.",
        )
    return np.minimum(dt / tau.astype(np.float64), 1.0)


def delay_steps(name: str, node: Delay, dt: float) -> np.ndarray:
    """Whole steps of a Delay, in the shape of its nodes.

    Raises:
        UsageError: a delay that is no whole number of steps.
    """
    exact = node.delay / dt
    whole = np.round(exact)
    if (np.abs(exact - whole) > 1e-6 * np.maximum(1.0, exact)).any():
        worst = node.delay.ravel()[np.abs(exact - whole).argmax()]
        raise UsageError(
            f"NIR graph, node '{name}': got a delay of {worst:g} s at dt {dt:g}, expected whole steps.",
            "Take a dt that divides it.",
        )
    return whole.astype(np.int64)


def _circles(names: Sequence[str], edges: Iterable[Edge]) -> list[set[str]]:
    """The parts whose nodes all reach one another along an edge or more (Kosaraju's two sweeps)."""
    after: dict[str, list[str]] = {name: [] for name in names}
    before: dict[str, list[str]] = {name: [] for name in names}
    for a, b in edges:
        after[a].append(b)
        before[b].append(a)
    done: list[str] = []
    seen: set[str] = set()
    for name in names:
        stack = [(name, iter(after[name]))] if name not in seen else []
        seen.add(name)
        while stack:
            at, targets = stack[-1]
            target = next((b for b in targets if b not in seen), None)
            if target is None:
                done.append(at)
                stack.pop()
            else:
                seen.add(target)
                stack.append((target, iter(after[target])))
    found, taken = [], set[str]()
    for name in reversed(done):
        part, queue = set[str](), [name] if name not in taken else []
        while queue:
            at = queue.pop()
            if at not in taken:
                taken.add(at)
                part.add(at)
                queue += before[at]
        if len(part) > 1 or (part and name in after[name]):
            found.append(part)
    return found
