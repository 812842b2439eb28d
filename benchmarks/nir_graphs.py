"""NIR graphs: what counting adds to running, and how far layers in float32 stay with their graph in float64.

    python benchmarks/nir_graphs.py
    python benchmarks/nir_graphs.py --rounds 15 --text $NEURO_DATA/wikitext-2/valid.txt.gz

cost     two networks of LIF neurons (784-512-512-10; 2x34x34 through convolutions of 16, 32 and 64 channels to 10) on
         random spikes at 0.1 a step: running alone against running and counting, by turns, in processor time of this
         process. The graph's spikes are first checked against the same layers in torch in float64, one by one.
brain    the spiking feed-forwards of the shipped brain over a text (--text FILE, its first --tokens tokens): the spikes of the
         brain itself, in float32, against those of its exported graphs, as a torch module in float32 and in float64.
drift    the dense network as torch layers in float32 against its graph, run in float64: spikes that differ, for resets by
         subtraction and to a value.

Prints one JSON object; progress goes to stderr.
"""

from __future__ import annotations

import argparse
import collections
import gzip
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import _machine
import numpy as np
import torch
from torch import nn

import neuro
from backends import LifRule
from export.nir_graph import of_brain
from neuro.layers.feedforward import SpikingFeedforward
from neuro.neurons import LIF, Neuron
from neuro.nir_graph import SPIKING, Graph, Output, emitters
from neuro.nir_modules import from_modules
from neuro.nir_network import NirNetwork
from neuro.session import Session
from sims.nir import count
from sims.nir.inputs import draw
from sims.nir.simulate import run, steps

RATE, SEED = 0.1, 0


def dense(reset: str) -> tuple[list[nn.Module], tuple[int, ...]]:
    layers: list[nn.Module] = []
    for inputs, outputs in ((784, 512), (512, 512), (512, 10)):
        layers += [nn.Linear(inputs, outputs), LIF(outputs, 5.0, rule=LifRule(reset))]
        nn.init.normal_(layers[-2].weight, 0.0, 0.07)
    return layers, (784,)


def picture() -> tuple[list[nn.Module], tuple[int, ...]]:
    layers: list[nn.Module] = []
    channels, side = 2, 34
    for out, stride in ((16, 1), (32, 2), (64, 2)):
        layers.append(nn.Conv2d(channels, out, 3, stride, 1))
        nn.init.normal_(layers[-1].weight, 0.01, 0.3)
        channels, side = out, -(-side // stride)
        layers.append(LIF(channels * side * side, 5.0, rule=LifRule("hard")))
    layers += [nn.Flatten(), nn.Linear(channels * side * side, 10), LIF(10, 5.0, rule=LifRule("hard"))]
    return layers, (2, 34, 34)


def fired(layers: list[nn.Module], x: torch.Tensor) -> list[np.ndarray]:
    """Spikes of each layer of neurons, [T, N]."""
    found = []
    with torch.no_grad():
        for layer in layers:
            if isinstance(layer, Neuron):
                flat = x.reshape(len(x), 1, -1)
                x = layer.scan(flat, layer.init_state(1, dtype=x.dtype))[0].reshape(x.shape)
                found.append(x.reshape(len(x), -1).numpy())
            else:
                x = layer(x)
    return found


def of_graph(graph: Graph, x: np.ndarray) -> list[np.ndarray]:
    went = run(graph, x)
    return [went[row.name].reshape(len(x), -1) for row in emitters(graph) if type(graph.nodes[row.name]) in SPIKING]


def cost(layers: list[nn.Module], shape: tuple[int, ...], length: int, rounds: int) -> dict[str, Any]:
    layers = [layer.double() for layer in layers]
    graph = from_modules(layers, shape)
    x = draw(graph, length, RATE, SEED)
    pairs = list(zip(of_graph(graph, x), fired(layers, torch.from_numpy(x)), strict=True))
    times: dict[str, list[float]] = {"run": [], "count": []}
    for _ in range(rounds):
        for name in times:
            start = time.process_time()
            if name == "run":
                collections.deque(steps(graph, x), 0)
            else:
                load = count(graph, x, input_signal="binary")
            times[name].append(1000 * (time.process_time() - start))
    ratios = [b / a for a, b in zip(times["run"], times["count"], strict=True)]
    return {
        "steps": length,
        "spikes": int(sum(a.sum() for a, _ in pairs)),
        "spikes_that_differ_from_torch": int(sum((a != b).sum() for a, b in pairs)),
        "synaptic_ops": sum(p.synaptic_ops for p in load.populations),
        "run_ms": statistics.median(times["run"]),
        "count_ms": statistics.median(times["count"]),
        "ratio": {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)},
    }


def drift(reset: str, length: int) -> dict[str, Any]:
    layers, shape = dense(reset)
    graph = from_modules(layers, shape)
    x = draw(graph, length, RATE, SEED)
    pairs = list(zip(of_graph(graph, x), fired(layers, torch.from_numpy(x).float()), strict=True))
    return {
        "updates": sum(a.size for a, _ in pairs),
        "spikes": int(sum(a.sum() for a, _ in pairs)),
        "differ": int(sum((a != b).sum() for a, b in pairs)),
    }


def brain(path: Path, tokens: int) -> dict[str, Any]:
    model = neuro.load("small", "cpu")
    came: dict[Any, list[tuple[np.ndarray, np.ndarray]]] = {}
    own = SpikingFeedforward.scan

    def scan(module: Any, x: torch.Tensor, route: torch.Tensor, state: Any) -> Any:
        out, gate = own(module, x, route, state), route.unsqueeze(-1)
        came.setdefault(module, []).append((torch.cat([x * gate, gate], -1)[0].numpy(), out[2][-1].spikes[0].numpy()))
        return out

    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as file:
        ids = model.tokenizer.encode(file.read(12 * tokens))[:tokens]
    SpikingFeedforward.scan = scan  # type: ignore[method-assign]
    with torch.no_grad():
        Session(model).feed(torch.tensor([ids]))
    SpikingFeedforward.scan = own  # type: ignore[method-assign]
    record: dict[str, Any] = {"tokens": len(ids), "updates": 0, "spikes": 0, "differ": {"float32": 0, "float64": 0}}
    for part, pairs in zip(of_brain(model), came.values(), strict=True):
        x, spikes = (np.concatenate(column) for column in zip(*pairs, strict=True))
        network = NirNetwork(fired_last(part.graph))
        with torch.no_grad():
            out = network.scan(torch.from_numpy(x).unsqueeze(1), network.init_state(1))[0][:, 0].numpy()
        record["updates"] += spikes.size
        record["spikes"] += int(spikes.sum())
        record["differ"]["float32"] += int((out != spikes).sum())
        record["differ"]["float64"] += int((of_graph(part.graph, x)[0] != spikes).sum())
    return record


def fired_last(graph: Graph) -> Graph:
    """The graph up to its spikes."""
    nodes = {name: node for name, node in graph.nodes.items() if name != "2_linear"}
    nodes["output"] = Output(graph.shapes["1_threshold"][1])
    edges = [edge for edge in graph.edges if "2_linear" not in edge]
    return Graph(nodes, (*edges, ("1_threshold", "output")), graph.metadata)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--text", type=Path, metavar="FILE", help="a text, or .gz")
    parser.add_argument("--tokens", type=int, default=512)
    args = parser.parse_args()
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    record: dict[str, Any] = {"machine": _machine.describe(), "rate": RATE, "seed": SEED, "rounds": args.rounds}
    record["cost"] = {}
    for name, (layers, shape) in (("784-512-512-10", dense("hard")), ("2x34x34-16-32-64-10", picture())):
        print(name, file=sys.stderr)
        record["cost"][name] = cost(layers, shape, args.steps, args.rounds)
    record["brain"] = brain(args.text, args.tokens) if args.text else None
    record["drift"] = {reset: drift(reset, args.steps) for reset in ("soft", "hard")}
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
