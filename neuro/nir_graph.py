"""NIR graphs, torch-free: read and written through the ``nir`` package, with shapes, an order and recurrent edges of our own.

A graph has one Input, at least one Output, and edges that hand on values as they are; what several edges bring to a node is
added. Shapes have no batch axis. Times are in seconds; NIR does not store the time step, ours do, as ``dt`` in the metadata.
Nested graphs are flattened: node ``a`` of graph ``b`` is ``b.a``.

Recurrent edges: among nodes that all reach one another, the edges back to where paths from the Input come in (of several
such nodes, those fewest edges away from it), and then likewise in what is left. Names and order play no part. A recurrent
edge hands on what its source gave a step before, 0 at the first.

Source: Pedersen et al. 2024, doi:10.1038/s41467-024-52259-9.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from neuro import atomic
from neuro.errors import FormatError, MissingError, UsageError, nearest
from neuro.extras import require
from neuro.nir_nodes import (
    IF,
    INTEGRATORS,
    LI,
    LIF,
    NODES,
    PRODUCTS,
    SPIKING,
    WIRING,
    Affine,
    AvgPool2d,
    Conv,
    Conv1d,
    Conv2d,
    CubaLI,
    CubaLIF,
    Delay,
    Flatten,
    I,
    Input,
    Linear,
    Node,
    Output,
    Scale,
    Shape,
    SumPool2d,
    Threshold,
    Window,
)

__all__ = [
    "IF",
    "INTEGRATORS",
    "LI",
    "LIF",
    "NODES",
    "PRODUCTS",
    "SPIKING",
    "WIRING",
    "Affine",
    "AvgPool2d",
    "Conv",
    "Conv1d",
    "Conv2d",
    "CubaLI",
    "CubaLIF",
    "Delay",
    "Edge",
    "Emitter",
    "Flatten",
    "Graph",
    "I",
    "Input",
    "Linear",
    "Node",
    "Output",
    "Scale",
    "Shape",
    "SumPool2d",
    "Threshold",
    "Window",
    "emitters",
    "from_nir",
    "parse",
    "read",
    "sequence",
    "step_of",
    "to_nir",
    "write",
]

Edge = tuple[str, str]
_DEPTH = 16  # of nested graphs


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


def read(path: str | Path) -> Graph:
    """Read a NIR file.

    Raises:
        MissingError: no such file, or the ``nir`` extra is not installed.
        FormatError: not a NIR file, truncated, an unsupported node, or a graph that is none (see `Graph`).
    """
    h5py: Any = require("h5py", "nir")
    again = "Give a file that nir.write wrote."
    if not Path(path).exists():
        raise MissingError(f"{path}: no such file.", again)
    if not Path(path).is_file() or not h5py.is_hdf5(path):
        raise FormatError(f"{path}: not a NIR file: it is no HDF5.", again)
    try:
        with h5py.File(path, "r") as file:
            if not isinstance(file.get("node", getlink=True), h5py.HardLink) or "type" not in file["node"]:
                raise FormatError(f"{path}: not a NIR file: an HDF5 without a NIR node.", again)
            record = _plain(h5py, file["node"], str(path), set(), 2 * _DEPTH)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError) as error:
        raise FormatError(f"{path}: truncated or damaged ({error}).", again) from error
    return parse(record, str(path))


def write(graph: Graph, path: str | Path) -> None:
    """Write a graph as a NIR file, whole or not at all.

    Raises:
        MissingError: the ``nir`` extra is not installed.
        NeuroError: it cannot be written there.
    """
    nir: Any = require("nir", "nir")
    theirs = to_nir(graph)
    with atomic.replacing(path) as temporary:
        nir.write(temporary, theirs)


def from_nir(graph: Any) -> Graph:
    """A graph of the ``nir`` package as one of ours.

    Raises:
        FormatError: as `read`.
    """
    return parse(graph.to_dict(), "NIR graph")


def to_nir(graph: Graph) -> Any:
    """A graph as one of the ``nir`` package, its type check off (see `neuro.nir_nodes`).

    Raises:
        MissingError: the ``nir`` extra is not installed.
    """
    nir: Any = require("nir", "nir")
    made = {}
    for name, node in graph.nodes.items():
        shape, kind = graph.shapes[name][0], getattr(nir, type(node).__name__)
        values = {f.name: getattr(node, f.name) for f in dataclasses.fields(node)}
        values = {key: np.array(value) if isinstance(value, np.ndarray) else value for key, value in values.items()}
        metadata = dict(values.pop("metadata"))
        if isinstance(node, Input | Output):
            values = {"input_type" if isinstance(node, Input) else "output_type": np.array(shape)}
        elif isinstance(node, Flatten):
            values = {"input_type": {"input": np.array(shape)}, "start_dim": node.start_dim, "end_dim": node.end_dim}
        elif isinstance(node, Conv1d):
            padding = node.padding if isinstance(node.padding, str) else node.padding[0]
            values |= {"stride": node.stride[0], "padding": padding, "dilation": node.dilation[0]}
            values["input_shape"] = shape[1]
        elif isinstance(node, Conv2d):
            values["input_shape"] = shape[1:]
        elif isinstance(node, SumPool2d):
            values = {key: np.array(value) for key, value in values.items()}
        made[name] = kind(**values, metadata=metadata)
    return nir.NIRGraph(made, [*graph.edges], metadata=dict(graph.metadata), type_check=False)


def parse(record: Mapping[str, Any], where: str) -> Graph:
    """A graph from plain data, as ``nir.NIRGraph.to_dict`` gives it and a file holds it.

    Raises:
        FormatError: an unsupported node, a field too many or too few, or a graph that is none.
    """
    if _text(record.get("type")) != "NIRGraph":
        raise FormatError(
            f"{where}: got a single {_text(record.get('type'))}, expected a graph.", "Put it between Input and Output."
        )
    try:
        nodes, edges = _unnest(record, where, "", _DEPTH)
        return Graph(nodes, tuple(edges), dict(record.get("metadata", {})))
    except UsageError as error:
        raise FormatError(f"{where}: {error.what}", error.do) from error
    except (AttributeError, TypeError, ValueError) as error:
        raise FormatError(f"{where}: not a graph ({error}).", "Write it again with nir.write.") from error


def _unnest(record: Mapping[str, Any], where: str, path: str, depth: int) -> tuple[dict[str, Node], list[Edge]]:
    """Nodes and edges of a graph, those of nested graphs in their place: an inner Input or Output hands on what it gets."""
    if depth == 0:
        raise FormatError(f"{where}: got graphs nested {_DEPTH} deep, expected fewer.", "Flatten the graph.")
    if "nodes" not in record or "edges" not in record:
        raise FormatError(f"{where}: got a graph '{path}' without nodes or edges.", "Write it again with nir.write.")
    nodes: dict[str, Node] = {}
    edges = [(f"{path}{_text(a)}", f"{path}{_text(b)}") for a, b in record["edges"]]
    for name, inner in record["nodes"].items():
        full = f"{path}{name}"
        if _text(inner.get("type")) != "NIRGraph":
            nodes[full] = _node(inner, f"{where}, node '{full}'")
            continue
        within, between = _unnest(inner, where, f"{full}.", depth - 1)
        doors = {kind: [key for key, node in within.items() if isinstance(node, kind)] for kind in (Input, Output)}
        if [len(found) for found in doors.values()] != [1, 1]:
            got = " and ".join(f"{len(found)} {kind.__name__}s" for kind, found in doors.items())
            raise FormatError(f"{where}: got a nested graph '{full}' with {got}, expected one of each.", "Split it.")
        way_in, way_out = doors[Input][0], doors[Output][0]
        edges = [(way_out if a == full else a, way_in if b == full else b) for a, b in edges] + between
        for door in (way_in, way_out):
            sources, targets = [a for a, b in edges if b == door], [b for a, b in edges if a == door]
            edges = [edge for edge in edges if door not in edge] + [(a, b) for a in sources for b in targets]
            del within[door]
        twice = sorted(nodes.keys() & within.keys())
        if twice:
            raise FormatError(f"{where}: got two nodes '{twice[0]}', expected each name once.", "Rename one of them.")
        nodes |= within
    return nodes, edges


def _node(record: Mapping[str, Any], where: str) -> Node:
    kind = _text(record.get("type"))
    if kind not in NODES:
        raise FormatError(
            f"{where}: got a node of type {kind}, which is not supported; expected one of {', '.join(NODES)}, NIRGraph.",
            "Replace it by nodes that are.",
        )
    values = {key: value for key, value in record.items() if key != "type"}
    if kind == "Flatten" and "input_type" in values:
        values["input_shape"] = values.pop("input_type")
    known = {f.name: f for f in dataclasses.fields(NODES[kind])}
    for key, field in known.items():
        if key not in values and key == "v_reset" and "v_threshold" in values:
            values[key] = np.zeros_like(values["v_threshold"])
        if key in ("w_in", "v_reset") and key in values and "r" in values and np.ndim(values[key]) == 0:
            values[key] = np.full_like(np.asarray(values["r"]), values[key])
        no_default = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if key not in values and no_default:
            raise FormatError(f"{where} ({kind}): got no {key}.", "Write it again with nir.write.")
    unknown = [key for key in values if key not in known]
    if unknown:
        raise FormatError(f"{where} ({kind}): got an unknown field '{unknown[0]}'.", nearest(unknown[0], list(known)))
    try:
        for key in ("shape", "input_shape"):
            if values.get(key) is not None:
                values[key] = tuple(int(n) for n in np.atleast_1d(values[key]))
        for key in ("start_dim", "end_dim", "groups"):
            if key in values:
                values[key] = int(values[key])
        return NODES[kind](**values)
    except UsageError as error:
        raise FormatError(f"{where}: {error.what}", error.do) from error
    except (TypeError, ValueError) as error:
        raise FormatError(f"{where} ({kind}): {error}.", "Write it again with nir.write.") from error


def _plain(h5py: Any, group: Any, where: str, seen: set[Any], depth: int) -> dict[str, Any]:
    """An HDF5 group as dictionaries, arrays, numbers and texts; nothing outside the file is followed, no group twice."""
    if depth == 0 or group in seen:
        got = "groups nested too deep" if depth == 0 else f"the group '{group.name}' in two places"
        raise FormatError(f"{where}: got {got}.", "Flatten the graph, and copy what is shared.")
    seen.add(group)
    found: dict[str, Any] = {}
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise FormatError(
                f"{where}: got a link '{name}' out of its place, expected data.", "Copy what it points to."
            )
        item = group[name]
        if isinstance(item, h5py.Group):
            found[name] = _plain(h5py, item, where, seen, depth - 1)
        elif not isinstance(item, h5py.Dataset) or item.external or item.is_virtual:
            raise FormatError(f"{where}: got '{name}', whose data are not in this file.", "Copy them into it.")
        else:
            value = item[()]
            found[name] = value.decode("utf-8") if isinstance(value, bytes) else value
    return found


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


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
