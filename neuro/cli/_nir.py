"""A NIR graph on the command line, and the sample that it is run on."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import numpy as np

from neuro.errors import UsageError

if TYPE_CHECKING:
    from neuro.nir_graph import Graph
    from neuro.workload import Workload
    from sims.mapping import Network

RATE, STEPS = 0.05, 100
OPTIONS = ("dt", "input", "rate")


def add_arguments(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """The options of a graph; its sample comes as the verb's own second word."""
    group = parser.add_argument_group("of a graph, FILE.nir [SAMPLE.npy]")
    group.add_argument("--dt", type=float, metavar="SECONDS", help="time step (default: the graph's own)")
    group.add_argument(
        "--input", choices=("binary", "graded", "dense"), help="what the Input carries (default: binary)"
    )
    group.add_argument(
        "--rate", type=float, metavar="P", help="spikes per input and step, drawn where no sample is given"
    )
    return group


def given(args: argparse.Namespace, verb: str) -> bool:
    """Whether the verb's target is a graph.

    Raises:
        UsageError: an option of a graph beside another target.
    """
    if args.target.endswith(".nir"):
        return True
    for name in OPTIONS:
        if getattr(args, name) is not None:
            raise UsageError(f"neuro {verb} {args.target}: --{name} has no effect here.", f"Leave out --{name}.")
    return False


def counted(args: argparse.Namespace, sample: str | None, steps: int | None) -> tuple[Workload, Network]:
    """What the graph did on its sample, and the network to place."""
    from neuro import nir_graph
    from sims.mapping.nir import rates_of, to_network
    from sims.nir import count

    graph = nir_graph.read(args.target)
    inputs = _sample(args, graph, sample, steps)
    load = count(graph, inputs, args.dt, input_signal=args.input or "binary", model=args.target)
    return load, to_network(graph, rates_of(graph, inputs, args.dt), args.target)


def _sample(args: argparse.Namespace, graph: Graph, sample: str | None, steps: int | None) -> np.ndarray:
    from sims.nir import inputs

    if sample is None:
        rate = RATE if args.rate is None else args.rate
        return inputs.draw(graph, STEPS if steps is None else steps, rate, args.seed)
    for name, value in (("rate", args.rate), ("steps", steps)):
        if value is not None:
            raise UsageError(f"{args.target}: got --{name} and a sample, expected one of the two.", "Leave one out.")
    return inputs.read(sample)
