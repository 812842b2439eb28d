"""NIR graphs, torch-free: read and written through the ``nir`` package, with shapes, an order and recurrent edges of our own.

A graph has one Input, at least one Output, and edges that hand on values as they are; what several edges bring to a node is
added. Shapes have no batch axis. Times are in seconds; NIR does not store the time step, ours do, as ``dt`` in the metadata.
Nested graphs are flattened: node ``a`` of graph ``b`` is ``b.a``.

A recurrent edge is one back to a node that every path from the Input passes before (a natural loop: Hecht and Ullman 1974,
doi:10.1137/0203006). Where a loop has several entrances, it is each edge that comes no closer to the end: its target is
no further from the Input, in edges, than its source. It hands on what its source gave a step before, 0 at the first.

Source: Pedersen et al. 2024, doi:10.1038/s41467-024-52259-9. differs: groups of a convolution and kernels that are not
square have the shapes of torch's; nir 1.0.8 infers others and cannot read them with its type check on.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from neuro import atomic
from neuro.errors import FormatError, MissingError, UsageError, nearest
from neuro.extras import require

Shape = tuple[int, ...]
Edge = tuple[str, str]
_DEPTH = 16  # of nested graphs; hard links in a file can make it endless


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """A node; arrays are kept as they come, read-only. ``metadata`` is for whoever wrote it: nothing here reads it.

    Raises:
        UsageError: constants of different shapes, that are not finite numbers, or a time constant that is not positive.
    """

    elementwise: ClassVar[bool] = False  # every array has the shape of input and output
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict, kw_only=True)

    def __post_init__(self) -> None:
        name, shapes = type(self).__name__, {}
        for field in dataclasses.fields(self):
            if field.type != "np.ndarray":
                continue
            value = np.array(getattr(self, field.name))
            if value.dtype.kind not in "fiu" or not np.isfinite(value).all():
                raise UsageError(f"{name} {field.name}: got values that are no finite numbers.", "Correct the node.")
            if field.name.startswith("tau") and (value <= 0).any():
                raise UsageError(
                    f"{name} {field.name}: got {value.min():g}, expected more than 0.",
                    "Give time constants in seconds.",
                )
            if field.name == "delay" and (value < 0).any():
                raise UsageError(f"Delay delay: got {value.min():g}, expected 0 or more.", "Give it in seconds.")
            value.flags.writeable = False
            object.__setattr__(self, field.name, value)
            shapes[field.name] = value.shape
        if self.elementwise and len(set(shapes.values())) > 1:
            got = ", ".join(f"{key} {list(shape)}" for key, shape in shapes.items())
            raise UsageError(f"{name}: got {got}, expected one shape.", "Give every neuron its own constants.")

    def input_shape_of(self) -> Shape | None:
        """The shape that must come in, or None where any may."""
        return next(iter(self.arrays().values())).shape if self.elementwise else None

    def output_shape(self, shape: Shape | None) -> Shape | None:
        """The shape that goes out, given the one that comes in; None where that must be known and is not."""
        return self.input_shape_of()

    def arrays(self) -> dict[str, np.ndarray]:
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.type == "np.ndarray"}


@dataclasses.dataclass(frozen=True, eq=False)
class Input(Node):
    """Where values come in."""

    shape: Shape

    def input_shape_of(self) -> Shape | None:
        return self.shape


@dataclasses.dataclass(frozen=True, eq=False)
class Output(Node):
    """Where values go out."""

    shape: Shape

    def input_shape_of(self) -> Shape | None:
        return self.shape


@dataclasses.dataclass(frozen=True, eq=False)
class Linear(Node):
    """y = W x,  W [out,in]."""

    weight: np.ndarray

    def __post_init__(self) -> None:
        super().__post_init__()
        _axes(self, 2, "[out,in]")

    def input_shape_of(self) -> Shape | None:
        return (self.weight.shape[1],)

    def output_shape(self, shape: Shape | None) -> Shape | None:
        return (self.weight.shape[0],)


@dataclasses.dataclass(frozen=True, eq=False)
class Affine(Linear):
    """y = W x + b,  W [out,in], b [out]."""

    bias: np.ndarray

    def __post_init__(self) -> None:
        super().__post_init__()
        _bias(self, self.bias, self.weight)


@dataclasses.dataclass(frozen=True, eq=False)
class Scale(Node):
    """y = s x, element by element."""

    elementwise = True
    scale: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Window(Node):
    """What slides over the axes after the first, which is that of channels: convolutions and pools."""

    @property
    def kernel(self) -> Shape:
        raise NotImplementedError

    @property
    def steps(self) -> tuple[Shape, Shape]:
        """Strides and dilations."""
        raise NotImplementedError

    @property
    def pads(self) -> tuple[tuple[int, int], ...]:
        """Zeros before and after each axis; the odd one of "same" comes after, as in torch."""
        padding: Shape | str = getattr(self, "padding")  # noqa: B009
        if isinstance(padding, str):
            wide = [d * (k - 1) if padding == "same" else 0 for k, d in zip(self.kernel, self.steps[1], strict=True)]
            return tuple((extra // 2, extra - extra // 2) for extra in wide)
        return tuple((pad, pad) for pad in padding)

    def slid(self, shape: Shape) -> Shape:
        """Positions along each axis of ``shape``, channels left out."""
        strides, dilations = self.steps
        rows = zip(shape, self.pads, self.kernel, strides, dilations, strict=True)
        return tuple((n + sum(pads) - d * (k - 1) - 1) // s + 1 for n, pads, k, s, d in rows)

    def _slides(self, shape: Shape) -> Shape:
        found = self.slid(shape[1:]) if len(shape) == len(self.kernel) + 1 else ()
        if not found or min(found) < 1:
            got = f"{type(self).__name__}: got an input {list(shape)}"
            form = f"[channels, {'length' if len(self.kernel) == 1 else 'height, width'}]"
            raise UsageError(
                f"{got}, expected {form} that holds the kernel {list(self.kernel)}.", "Correct the shape or the kernel."
            )
        return found


@dataclasses.dataclass(frozen=True, eq=False)
class Conv(Window):
    """A convolution: weight [out, in / groups, *kernel], bias [out]. ``padding`` is per axis, or "same" or "valid"."""

    dims: ClassVar[int] = 0
    weight: np.ndarray
    bias: np.ndarray
    stride: Shape = ()
    padding: Shape | str = ()
    dilation: Shape = ()
    groups: int = 1
    input_shape: Shape | None = None  # without channels

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        _axes(self, 2 + self.dims, "[out, in / groups, *kernel]")
        _bias(self, self.bias, self.weight)
        for key, least, default in (("stride", 1, 1), ("padding", 0, 0), ("dilation", 1, 1)):
            object.__setattr__(self, key, _tuple(name, key, getattr(self, key), self.dims, least, default))
        if self.padding == "same" and set(self.stride) != {1}:
            raise UsageError(
                f"{name}: got padding 'same' with stride {list(self.stride)}, expected 1.", "Give numbers."
            )
        groups = int(self.groups)
        if groups < 1 or self.weight.shape[0] % groups:
            raise UsageError(
                f"{name}: got {self.weight.shape[0]} channels in {groups} groups, expected groups that divide them.",
                "Correct the groups.",
            )
        object.__setattr__(self, "groups", groups)
        if self.input_shape is not None:
            object.__setattr__(self, "input_shape", _tuple(name, "input_shape", self.input_shape, self.dims, 1, 1))

    @property
    def kernel(self) -> Shape:
        return self.weight.shape[2:]

    @property
    def steps(self) -> tuple[Shape, Shape]:
        return self.stride, self.dilation

    def input_shape_of(self) -> Shape | None:
        return None if self.input_shape is None else (self.weight.shape[1] * self.groups, *self.input_shape)

    def output_shape(self, shape: Shape | None) -> Shape | None:
        shape = shape or self.input_shape_of()
        if shape is None:
            return None
        if shape[0] != self.weight.shape[1] * self.groups:
            raise UsageError(
                f"{type(self).__name__}: got {shape[0]} channels, expected {self.weight.shape[1] * self.groups}.",
                "Correct the weight or what comes in.",
            )
        return (self.weight.shape[0], *self._slides(shape))


@dataclasses.dataclass(frozen=True, eq=False)
class Conv1d(Conv):
    dims = 1


@dataclasses.dataclass(frozen=True, eq=False)
class Conv2d(Conv):
    dims = 2


@dataclasses.dataclass(frozen=True, eq=False)
class SumPool2d(Window):
    """The sum of each window."""

    kernel_size: Shape
    stride: Shape
    padding: Shape = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, least in (("kernel_size", 1), ("stride", 1), ("padding", 0)):
            object.__setattr__(self, key, _tuple(type(self).__name__, key, getattr(self, key), 2, least, 0))

    @property
    def kernel(self) -> Shape:
        return self.kernel_size

    @property
    def steps(self) -> tuple[Shape, Shape]:
        return self.stride, (1, 1)

    def output_shape(self, shape: Shape | None) -> Shape | None:
        return None if shape is None else (shape[0], *self._slides(shape))


@dataclasses.dataclass(frozen=True, eq=False)
class AvgPool2d(SumPool2d):
    """The sum of each window over the size of the kernel, padding included."""


@dataclasses.dataclass(frozen=True, eq=False)
class Flatten(Node):
    """Axes ``start_dim`` to ``end_dim`` become one; there is no batch axis to count."""

    start_dim: int = 1
    end_dim: int = -1
    input_shape: Shape | None = None

    def input_shape_of(self) -> Shape | None:
        return self.input_shape

    def output_shape(self, shape: Shape | None) -> Shape | None:
        shape = shape or self.input_shape
        if shape is None:
            return None
        first, last = (d + len(shape) if d < 0 else d for d in (self.start_dim, self.end_dim))
        if not 0 <= first <= last < len(shape):
            raise UsageError(
                f"Flatten: got axes {self.start_dim} to {self.end_dim} of a shape {list(shape)}, expected some of them.",
                "Correct start_dim and end_dim; there is no batch axis.",
            )
        return (*shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :])


@dataclasses.dataclass(frozen=True, eq=False)
class Threshold(Node):
    """z = 1 where x > threshold, else 0."""

    elementwise = True
    threshold: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Delay(Node):
    """y(t) = x(t - delay), 0 before."""

    elementwise = True
    delay: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class I(Node):  # noqa: E742
    """dv/dt = r x,  y = v."""

    elementwise = True
    r: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class IF(Node):
    """dv/dt = r x;  z = 1 and v = v_reset where v > v_threshold."""

    elementwise = True
    r: np.ndarray
    v_threshold: np.ndarray
    v_reset: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class LI(Node):
    """tau dv/dt = v_leak - v + r x,  y = v."""

    elementwise = True
    tau: np.ndarray
    r: np.ndarray
    v_leak: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class LIF(LI):
    """tau dv/dt = v_leak - v + r x;  z = 1 and v = v_reset where v > v_threshold."""

    v_threshold: np.ndarray
    v_reset: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class CubaLI(Node):
    """tau_syn di/dt = -i + w_in x,  tau_mem dv/dt = v_leak - v + r i,  y = v."""

    elementwise = True
    tau_syn: np.ndarray
    tau_mem: np.ndarray
    r: np.ndarray
    v_leak: np.ndarray
    w_in: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class CubaLIF(CubaLI):
    """`CubaLI` whose z = 1 and v = v_reset where v > v_threshold."""

    v_threshold: np.ndarray
    v_reset: np.ndarray


NODES: dict[str, type[Node]] = {
    kind.__name__: kind
    for kind in (
        *(Input, Output, Linear, Affine, Scale, Conv1d, Conv2d, SumPool2d, AvgPool2d, Flatten, Threshold, Delay),
        *(I, IF, LI, LIF, CubaLI, CubaLIF),
    )
}
SPIKING = (IF, LIF, CubaLIF, Threshold)
INTEGRATORS = (I, LI, CubaLI)
PRODUCTS = (Linear, Affine, Conv1d, Conv2d)
WIRING = (Scale, SumPool2d, AvgPool2d, Flatten, Delay)
"""By exact type: a LIF is no LI."""


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

    @property
    def input(self) -> str:
        return next(name for name, node in self.nodes.items() if isinstance(node, Input))

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(name for name, node in self.nodes.items() if isinstance(node, Output))

    @cached_property
    def before(self) -> dict[str, tuple[str, ...]]:
        """Sources of each node, in the order of the edges."""
        return {name: tuple(a for a, b in self.edges if b == name) for name in self.nodes}

    @cached_property
    def after(self) -> dict[str, tuple[str, ...]]:
        return {name: tuple(b for a, b in self.edges if a == name) for name in self.nodes}

    @property
    def dt(self) -> float | None:
        """The time step that was stored, in seconds."""
        value = self.metadata.get("dt")
        return None if value is None else float(value)

    @cached_property
    def recurrent(self) -> frozenset[Edge]:
        """Edges that hand on what their source gave a step before."""
        back = {(a, b) for a, b in self.edges if b in self._dominators[a]}
        rest = [edge for edge in self.edges if edge not in back]
        near = self._distances
        return frozenset(back | {(a, b) for a, b in rest if near[b] <= near[a] and a in _reached(b, rest)})

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
                raise UsageError(f"NIR graph: nothing tells the shape of '{name}'.", "Give its input_shape.")
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

    @cached_property
    def _dominators(self) -> dict[str, set[str]]:
        """Of each node, those on every path from the Input to it, itself included."""
        everything = set(self.nodes)
        found = {name: {name} if name == self.input else everything for name in self.nodes}
        changed = True
        while changed:
            changed = False
            for name in self._distances:
                if name == self.input:
                    continue
                now = {name}.union(set.intersection(*(found[a] for a in self.before[name])))
                if now != found[name]:
                    found[name], changed = now, True
        return found


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
            record = _plain(h5py, file["node"], str(path), _DEPTH * 2)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
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
    """A graph as one of the ``nir`` package, its type check off (see differs, above).

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
    nodes, edges = _unnest(record, where, "", _DEPTH)
    try:
        return Graph(nodes, tuple(edges), dict(record.get("metadata", {})))
    except UsageError as error:
        raise FormatError(f"{where}: {error.what}", error.do) from error


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


def _plain(h5py: Any, group: Any, where: str, depth: int) -> dict[str, Any]:
    """An HDF5 group as dictionaries, arrays, numbers and texts; nothing outside the file is followed."""
    if depth == 0:
        raise FormatError(f"{where}: got groups nested too deep.", "Flatten the graph.")
    found: dict[str, Any] = {}
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise FormatError(
                f"{where}: got a link '{name}' out of its place, expected data.", "Copy what it points to."
            )
        item = group[name]
        if isinstance(item, h5py.Group):
            found[name] = _plain(h5py, item, where, depth - 1)
        elif item.external or item.is_virtual:
            raise FormatError(f"{where}: got '{name}' stored in another file, expected data.", "Copy it into this one.")
        else:
            value = item[()]
            found[name] = value.decode("utf-8") if isinstance(value, bytes) else value
    return found


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _reached(start: str, edges: Sequence[Edge]) -> set[str]:
    found = {start}
    for name in (queue := [start]):
        for a, b in edges:
            if a == name and b not in found:
                found.add(b)
                queue.append(b)
    return found


def _axes(node: Node, axes: int, form: str) -> None:
    weight: np.ndarray = getattr(node, "weight")  # noqa: B009
    if weight.ndim != axes or 0 in weight.shape:
        raise UsageError(
            f"{type(node).__name__} weight: got shape {list(weight.shape)}, expected {form}.", "Correct the weight."
        )


def _bias(node: Node, bias: np.ndarray, weight: np.ndarray) -> None:
    if bias.shape != weight.shape[:1]:
        got = f"{type(node).__name__} bias: got shape {list(bias.shape)}, expected {list(weight.shape[:1])}."
        raise UsageError(got, "Give one for each row or channel of the weight.")


def _tuple(name: str, key: str, value: Any, length: int, least: int, default: int) -> Shape | str:
    """Whole numbers, one an axis; one number stands for all, nothing for the default."""
    if isinstance(value, str | bytes):
        text = _text(value)
        if key == "padding" and text in ("same", "valid"):
            return text if text == "same" else (0,) * length
        raise UsageError(f"{name} {key}: got '{text}', expected numbers, 'same' or 'valid'.", "Correct it.")
    found = np.atleast_1d(np.asarray(value if np.size(value) else default))
    if found.size == 1:
        found = np.repeat(found, length)
    whole = found.dtype.kind in "iu" or (found.dtype.kind == "f" and bool((found == np.floor(found)).all()))
    if found.shape != (length,) or not whole or (found < least).any():
        raise UsageError(
            f"{name} {key}: got {found.tolist()}, expected {length} whole numbers of at least {least}.", "Correct them."
        )
    return tuple(int(n) for n in found)
