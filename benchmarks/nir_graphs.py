"""NIR graphs: what counting adds to running, and how far layers in float32 stay with their graph in float64.

    python benchmarks/nir_graphs.py
    python benchmarks/nir_graphs.py --rounds 15

cost     two networks of LIF neurons (784-512-512-10; 2x34x34 through convolutions of 16, 32 and 64 channels to 10) on
         random spikes at 0.1 a step: running alone against running and counting, by turns, in processor time of this
         process. The graph's spikes are first checked against the same layers in torch in float64, one by one.
drift    the dense network as torch layers in float32 against its graph, run in float64: spikes that differ, for resets by
         subtraction and to a value.

Prints one JSON object; progress goes to stderr.
"""

from __future__ import annotations

import argparse
import collections
import json
import statistics
import sys
import time
from typing import Any

import _machine
import numpy as np
import torch
from torch import nn

from backends import LifRule
from neuro.neurons import LIF, Neuron
from neuro.nir_graph import SPIKING, Graph, emitters
from neuro.nir_modules import from_modules
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=100)
    args = parser.parse_args()
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    record: dict[str, Any] = {"machine": _machine.describe(), "rate": RATE, "seed": SEED, "rounds": args.rounds}
    record["cost"] = {}
    for name, (layers, shape) in (("784-512-512-10", dense("hard")), ("2x34x34-16-32-64-10", picture())):
        print(name, file=sys.stderr)
        record["cost"][name] = cost(layers, shape, args.steps, args.rounds)
    record["drift"] = {reset: drift(reset, args.steps) for reset in ("soft", "hard")}
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
