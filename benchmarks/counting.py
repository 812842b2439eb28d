"""What counting costs beside running: processor time of `sims.counting.count` over the forward pass, and memory.

    python benchmarks/counting.py
    python benchmarks/counting.py --rounds 25 --only conv_snn block

Nets, float32, random weights, one thread, no gradients:
    conv_snn   two convolutions and a linear layer with snntorch's Leaky, 100 steps, batch 8, 2 x 32 x 32 binary frames at 5 %
    mlp        784-1000-10 with snntorch's Leaky, 25 steps, batch 128
    mlp_one    784-256-10 likewise, batch 1: what is counted takes less time than a Python call
    block      an encoder layer of width 256, 4 heads, feed-forward 1024, on 2 x 128 tokens
    decoder    a Llama of 4 layers of width 256 with random weights, 2 x 128 tokens (where transformers is installed)
    brain      the hybrid brain of the small preset with random weights, 256 tokens in spans

A round runs the net plain and counted in shuffled order; times are the processor's, of this process. Printed: medians and
quartiles in ms, and the quartiles over rounds of each round's ratio; the counts twice, which must agree; and peak memory of
a fresh process that runs the net, plain and counted, in MB. Prints one JSON object; progress goes to stderr.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import _machine
import torch
from torch import Tensor, nn

from neuro import presets
from neuro.brain import Brain
from neuro.session import Session
from neuro.workload import Workload
from sims.counting import Counting, count

Run = Callable[[], object]


class ConvSnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        import snntorch  # noqa: TID251 - the peer itself, no door of ours

        self.first, self.second = nn.Conv2d(2, 16, 5, padding=2), nn.Conv2d(16, 32, 3, padding=1)
        self.pool, self.last = nn.MaxPool2d(2), nn.Linear(32 * 8 * 8, 10)
        self.neurons = nn.ModuleList(snntorch.Leaky(0.9) for _ in range(3))

    def forward(self, frames: Tensor) -> Tensor:
        one, two, three = self.neurons
        a, b, c = (neuron.init_leaky() for neuron in self.neurons)
        out = []
        for frame in frames:
            x, a = one(self.pool(self.first(frame)), a)
            x, b = two(self.pool(self.second(x)), b)
            x, c = three(self.last(x.flatten(1)), c)
            out.append(x)
        return torch.stack(out)


class MlpSnn(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        import snntorch  # noqa: TID251 - the peer itself, no door of ours

        self.first, self.last = nn.Linear(784, hidden), nn.Linear(hidden, 10)
        self.neurons = nn.ModuleList(snntorch.Leaky(0.9) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        one, two = self.neurons
        a, b = (neuron.init_leaky() for neuron in self.neurons)
        out = []
        for _ in range(25):
            y, a = one(self.first(x), a)
            y, b = two(self.last(y), b)
            out.append(y)
        return torch.stack(out)


def of(module: nn.Module, x: Tensor) -> tuple[Run, Callable[[], Workload]]:
    @torch.no_grad()
    def plain() -> object:
        return module(x)

    return plain, lambda: count(module, x)


def decoder() -> tuple[Run, Callable[[], Workload]]:
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: TID251 - a user's model, no door of ours

    sizes = {"vocab_size": 1000, "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4}
    model = LlamaForCausalLM(LlamaConfig(num_attention_heads=4, **sizes)).eval()
    return of(model, torch.randint(0, 1000, (2, 128)))


def brain() -> tuple[Run, Callable[[], Workload]]:
    model = Brain(presets.small().brain).eval()
    ids = torch.randint(0, model.config.vocab_size, (1, 256))

    def counted() -> Workload:
        with Counting(model) as counting:
            Session(model).feed(ids)
        return counting.workload(256, "token")

    return lambda: Session(model).feed(ids), counted


NETS: dict[str, Callable[[], tuple[Run, Callable[[], Workload]]]] = {
    "conv_snn": lambda: of(ConvSnn(), (torch.rand(100, 8, 2, 32, 32) < 0.05).float()),
    "mlp": lambda: of(MlpSnn(1000), torch.rand(128, 784)),
    "mlp_one": lambda: of(MlpSnn(256), torch.rand(1, 784)),
    "block": lambda: of(nn.TransformerEncoderLayer(256, 4, 1024, batch_first=True).eval(), torch.randn(2, 128, 256)),
    "decoder": decoder,
    "brain": brain,
}
NEEDS = {"conv_snn": "snntorch", "mlp": "snntorch", "mlp_one": "snntorch", "decoder": "transformers"}


def quartiles(values: list[float], digits: int = 3) -> list[float]:
    return [round(x, digits) for x in statistics.quantiles(values, n=4, method="inclusive")]


def race(name: str, rounds: int, order: random.Random) -> dict[str, Any]:
    plain, counted = NETS[name]()
    plain()
    first, again = counted(), counted()
    assert (first.operations, first.populations) == (again.operations, again.populations)
    times: dict[str, list[float]] = {"plain": [], "counted": []}
    ways: dict[str, Run] = {"plain": plain, "counted": counted}
    for _ in range(rounds):
        for way in order.sample(list(ways), 2):
            started = time.process_time()
            ways[way]()
            times[way].append(1e3 * (time.process_time() - started))
    ratios = [b / a for a, b in zip(times["plain"], times["counted"], strict=True)]
    macs = sum(row.count for row in first.operations if row.kind == "mac")
    found = {way: quartiles(taken) for way, taken in times.items()}
    return {"macs": macs, **found, "ratio": quartiles(ratios)}


def peak(name: str, way: str, seed: int) -> float:
    """MB of a fresh process."""
    command = [sys.executable, __file__, "--only", name, "--peak", way, "--seed", str(seed)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peak", choices=("plain", "counted"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    if options.peak:
        plain, counted = NETS[options.only[0]]()
        (plain if options.peak == "plain" else counted)()
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    order, nets = random.Random(options.seed), {}
    for name in options.only:
        if name in NEEDS and importlib.util.find_spec(NEEDS[name]) is None:
            print(f"{name} is left out: {NEEDS[name]} is not installed", file=sys.stderr)
            continue
        print(name, file=sys.stderr)
        memory = {way: round(peak(name, way, options.seed), 1) for way in ("plain", "counted")}
        nets[name] = race(name, options.rounds, order) | {"peak_mb": memory}
    report = {
        "benchmark": "counting",
        "machine": _machine.describe(),
        "seed": options.seed,
        "rounds": options.rounds,
        "ms": "quartiles; processor time of this process",
        "nets": nets,
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
