"""NIR files: what the ``nir`` package writes becomes a graph of ours, and the other way round.

Nested graphs are flattened: node ``a`` of graph ``b`` is ``b.a``. Source: Pedersen et al. 2024,
doi:10.1038/s41467-024-52259-9.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from neuro import atomic, nir_hdf5
from neuro.errors import FormatError, MissingError, UsageError, nearest
from neuro.extras import require
from neuro.nir_hdf5 import DEPTH
from neuro.nir_nodes import NODES, Conv1d, Conv2d, Flatten, Input, Node, Output, SumPool2d
from neuro.nir_wiring import Edge, Graph


def read(path: str | Path) -> Graph:
    """Read a NIR file; one that was not written here is read in a process of its own (see `neuro.nir_hdf5`).

    Raises:
        MissingError: no such file, or the ``nir`` extra is not installed.
        FormatError: not a NIR file, truncated or damaged, an unsupported node, or a graph that is none (see `Graph`).
    """
    require("h5py", "nir")
    if not Path(path).exists():
        raise MissingError(f"{path}: no such file.", nir_hdf5.AGAIN)
    return parse(nir_hdf5.load(path), str(path))


def write(graph: Graph, path: str | Path) -> None:
    """Write a graph as a NIR file, whole or not at all; one that is there is replaced.

    Raises:
        UsageError: what is there is no NIR file.
        MissingError: the ``nir`` extra is not installed.
        NeuroError: it cannot be written there.
    """
    nir: Any = require("nir", "nir")
    if Path(path).is_file() and Path(path).stat().st_size and not nir_hdf5.is_hdf5(path):
        raise UsageError(f"{path}: there is a file that is no NIR file.", "Choose another name, or remove it first.")
    theirs = to_nir(graph)
    with atomic.replacing(path) as temporary:
        nir.write(temporary, theirs)
        nir_hdf5.seal(temporary)


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
        nodes, edges = _unnest(record, where, "", DEPTH)
        return Graph(nodes, tuple(edges), dict(record.get("metadata", {})))
    except UsageError as error:
        raise FormatError(f"{where}: {error.what}", error.do) from error
    except (AttributeError, TypeError, ValueError) as error:
        raise FormatError(f"{where}: not a graph ({error}).", "Write it again with nir.write.") from error


def _unnest(record: Mapping[str, Any], where: str, path: str, depth: int) -> tuple[dict[str, Node], list[Edge]]:
    """Nodes and edges of a graph, those of nested graphs in their place: an inner Input or Output hands on what it gets."""
    if depth == 0:
        raise FormatError(f"{where}: got graphs nested {DEPTH} deep, expected fewer.", "Flatten the graph.")
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


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)
