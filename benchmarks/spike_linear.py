"""Linear layers on spikes: event-driven products beside dense ones, and whole layers beside snntorch.

    python benchmarks/spike_linear.py
    python benchmarks/spike_linear.py --rounds 15 --only train

Random binary spikes and weights, float32. Parts:
    linear     3,200 spike vectors times weights of 1024 x 1024 and 256 x 256, and 320 times 4096 x 4096: F.linear against
               `spike_linear` with a kept packed weight and without
    decode     one vector times 4096 x 4096, another one every call, F.linear against `spike_linear`
    inference  linear + LIF over T=100, B=32, N=1024 at 5 %: snntorch's Leaky after a linear each step (its default rule),
               against `SpikingLinear.scan`, without gradients
    train      the same layer forward and backward (gradients of weight, bias and input) with an optimizer's step on the
               weight between, in float32 and with bfloat16 in the backward pass, and with a dense product
    constants  what `backends/spike_linear.py` decides by: the densities at which forward, gradient and vector cost what
               dense products do, and the costs of packing and of listing in rows and outputs of a dense product

Numbers are checked against float64 before they are timed, and spikes against snntorch's, one by one. A round takes one
sample of every contender in shuffled order; times are the processor's, of this process, so that what other processes
took counts little. Reported: median and quartiles in ms, and the median over rounds of each round's ratio to the first
contender. Prints one JSON object; progress goes to stderr. The snntorch parts are left out where it is not installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import _machine
import torch
import torch.nn.functional as F
from torch import Tensor

from backends import LifRule, Surrogate, native
from backends.kernels import cpu
from backends.kernels import spikes as kernels
from backends.kernels.spikes import PackedWeight
from backends.spike_linear import spike_linear
from neuro.layers.spiking_linear import SpikingLinear
from neuro.neurons import LIF

STEPS, BATCH, WIDTH, DEEP = 100, 32, 1024, 4096
SIZES = ((3200, 1024), (3200, 256), (320, 4096))  # vectors, and inputs and outputs
RULE = LifRule(delayed=True, strict=True, surrogate=Surrogate("fast_sigmoid", 25.0))  # snntorch's Leaky
DECAY, THRESHOLD = 0.9, 1.0
Run = Callable[[], object]


def spikes_of(density: float, *shape: int) -> Tensor:
    return (torch.rand(shape) < density).float()


def race(contenders: dict[str, Run], rounds: int, order: random.Random) -> dict[str, Any]:
    """Times of each in ms, and each one's ratio to the first."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for run in contenders.values():
        run()
    for _ in range(rounds):
        for name in order.sample(list(contenders), len(contenders)):
            started = time.process_time()
            contenders[name]()
            times[name].append(1e3 * (time.process_time() - started))
    first = next(iter(times.values()))
    found = {}
    for name, taken in times.items():
        low, middle, high = statistics.quantiles(taken, n=4, method="inclusive")
        ratio = statistics.median(a / b for a, b in zip(first, taken, strict=True))
        found[name] = {"ms": [round(x, 4) for x in (low, middle, high)], "times_the_first": round(ratio, 3)}
    return found


def error(y: Tensor, exact: Tensor) -> float:
    """The largest error over the largest value."""
    return float((y.double() - exact).abs().max() / exact.abs().max())


def linear(rounds: int, order: random.Random) -> dict[str, Any]:
    found = {}
    for rows, width in SIZES:
        weight, bias, packed = torch.randn(width, width), torch.randn(width), PackedWeight()
        for density in (0.01, 0.05, 0.1, 0.2, 0.3, 0.5):
            x = spikes_of(density, rows, width)
            exact = F.linear(x.double(), weight.double(), bias.double())
            errors = {"error": error(spike_linear(x, weight, bias, packed), exact)}
            errors["error_dense"] = error(F.linear(x, weight, bias), exact)
            assert errors["error"] < 1e-6, errors
            contenders: dict[str, Run] = {
                "dense": lambda x=x, w=weight, b=bias: F.linear(x, w, b),
                "events": lambda x=x, w=weight, b=bias, kept=packed: spike_linear(x, w, b, kept),
                "events, packed anew": lambda x=x, w=weight, b=bias: spike_linear(x, w, b),
            }
            found[f"{rows} x {width} at {density:.0%}"] = errors | race(contenders, rounds, order)
    return found


def decode(rounds: int, order: random.Random) -> dict[str, Any]:
    weight, bias, packed = torch.randn(DEEP, DEEP), torch.randn(DEEP), PackedWeight()
    calls, found = 16, {}
    for density in (0.01, 0.05, 0.1, 0.2):
        x = spikes_of(density, 1, DEEP)
        wrong = error(spike_linear(x, weight, bias, packed), F.linear(x.double(), weight.double(), bias.double()))
        assert wrong < 1e-6, wrong
        fresh = iter(lambda density=density: spikes_of(density, calls, 1, DEEP), None)
        names = ("dense", "dense, one-row kernel", "events")
        products = (F.linear, native.linear, lambda x, w, b: spike_linear(x, w, b, packed))
        times: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(rounds):
            for name, product in order.sample(list(zip(names, products, strict=True)), len(names)):
                given = next(fresh)  # vectors that no cache has seen the rows of
                started = time.process_time()
                for x in given:
                    product(x, weight, bias)
                times[name].append(1e3 * (time.process_time() - started) / calls)
        found[f"{density:.0%}"] = {"error": wrong} | {
            name: {
                "ms": [round(x, 4) for x in statistics.quantiles(taken, n=4, method="inclusive")],
                "times_the_first": round(
                    statistics.median(a / b for a, b in zip(times["dense"], taken, strict=True)), 3
                ),
            }
            for name, taken in times.items()
        }
    return found


def layer(dtype: torch.dtype | None = None) -> SpikingLinear:
    torch.manual_seed(1)
    neuron = LIF(WIDTH, beta=DECAY, threshold=THRESHOLD, rule=RULE)
    made = SpikingLinear(WIDTH, neuron, backward_dtype=dtype)
    with torch.no_grad():
        made.weight.normal_(std=0.05)
    return made


def peer(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """snntorch as it is written: a linear and a neuron each step, the input cut by unbind."""
    import snntorch  # noqa: TID251 - the peer itself, no door of ours
    from snntorch import surrogate  # noqa: TID251

    neuron = snntorch.Leaky(beta=DECAY, threshold=THRESHOLD, spike_grad=surrogate.fast_sigmoid(slope=25))
    mem, out = torch.zeros(x.shape[1], weight.shape[0]), []
    for x_t in x.unbind(0):
        s, mem = neuron(F.linear(x_t, weight, bias), mem)
        out.append(s)
    return torch.stack(out)


@torch.no_grad()
def inference(rounds: int, order: random.Random) -> dict[str, Any]:
    ours, found = layer(), {}
    state = ours.init_state(BATCH)
    for density in (0.01, 0.05, 0.1):
        x = spikes_of(density, STEPS, BATCH, WIDTH)
        flips = int((ours.scan(x, state)[0] != peer(x, ours.weight, ours.bias)).sum())
        assert flips <= 1e-5 * x.numel(), flips
        contenders: dict[str, Run] = {
            "snntorch": lambda x=x: peer(x, ours.weight, ours.bias),
            "dense product, lif_scan": lambda x=x: native.lif_scan(
                F.linear(x, ours.weight, ours.bias), state.v, DECAY, THRESHOLD, RULE
            ),
            "events, lif_scan": lambda x=x: native.lif_scan(
                spike_linear(x, ours.weight, ours.bias, ours._packed), state.v, DECAY, THRESHOLD, RULE
            ),
            "SpikingLinear": lambda x=x: ours.scan(x, state),
        }
        rate = float(ours.scan(x, state)[0].mean())
        found[f"{density:.0%}"] = {"output_rate": rate, "flips": flips} | race(contenders, rounds, order)
    return found


def train(rounds: int, order: random.Random) -> dict[str, Any]:
    found = {}
    state = layer().init_state(BATCH)
    for density in (0.01, 0.05, 0.1):
        x = spikes_of(density, STEPS, BATCH, WIDTH).requires_grad_()
        grad = torch.randn(STEPS, BATCH, WIDTH)

        def gradients(made: SpikingLinear, out: Tensor, x: Tensor = x, grad: Tensor = grad) -> tuple[Tensor, ...]:
            found = torch.autograd.grad(out, (made.weight, made.bias, x), grad)
            with torch.no_grad():
                made.weight.add_(0.0)  # as an optimizer's step would
            return found

        ways: dict[str, tuple[SpikingLinear, Callable[[SpikingLinear], Tensor]]] = {
            "snntorch": (layer(), lambda m, x=x: peer(x, m.weight, m.bias)),
            "dense product, lif_scan": (
                layer(),
                lambda m, x=x: native.lif_scan(F.linear(x, m.weight, m.bias), state.v, DECAY, THRESHOLD, RULE)[0],
            ),
            "SpikingLinear": (layer(), lambda m, x=x: m.scan(x, state)[0]),
            "SpikingLinear, bfloat16 backward": (layer(torch.bfloat16), lambda m, x=x: m.scan(x, state)[0]),
        }
        outs = {name: forward(made) for name, (made, forward) in ways.items()}
        theirs = gradients(ways["snntorch"][0], outs["snntorch"])
        row: dict[str, Any] = {}
        for name, (made, _) in list(ways.items())[1:]:
            own = gradients(made, outs[name])
            row[f"{name}: flips"] = int((outs[name] != outs["snntorch"]).sum())
            row[f"{name}: gradient error"] = [
                float((a - b).norm() / b.norm()) for a, b in zip(own, theirs, strict=True)
            ]
        contenders: dict[str, Run] = {
            name: lambda made=made, forward=forward: gradients(made, forward(made))
            for name, (made, forward) in ways.items()
        }
        found[f"{density:.0%}"] = row | race(contenders, rounds, order)
    return found


def constants(rounds: int, order: random.Random) -> dict[str, Any]:
    weight, rows = torch.randn(WIDTH, WIDTH), STEPS * BATCH
    packed, grad, found = PackedWeight(), torch.randn(rows, WIDTH), {}
    panels = packed.panels(weight)
    for density in (0.2, 0.3, 0.4, 0.5, 0.6):
        x = spikes_of(density, rows, WIDTH)
        events = kernels.find(x, 1.0)
        assert events is not None
        found[f"forward at {density:.0%}"] = race(
            {
                "dense": lambda x=x: F.linear(x, weight),
                "events": lambda x=x: kernels.product(kernels.find(x, 1.0), panels, None, WIDTH),
            },
            rounds,
            order,
        )
        found[f"gradient at {density:.0%}"] = race(
            {"dense": lambda x=x: grad.T @ x, "events": lambda events=events: kernels.weight_grad(events, grad)},
            rounds,
            order,
        )
    x = spikes_of(0.3, rows, WIDTH)
    costs = race(
        {
            "dense": lambda: F.linear(x, weight),
            "listing": lambda: kernels.find(x, 1.0),
            "packing": lambda: PackedWeight().panels(weight),
        },
        rounds,
        order,
    )
    found["costs"] = costs
    found["rows_to_pack"] = rows / costs["packing"]["times_the_first"]
    found["outputs_to_list"] = WIDTH / costs["listing"]["times_the_first"]
    deep = torch.randn(DEEP, DEEP)
    transposed = PackedWeight().rows(deep)
    for density in (0.3, 0.5, 0.7):
        x = spikes_of(density, 1, DEEP)
        found[f"vector at {density:.0%}"] = race(
            {
                "dense": lambda x=x: native.linear(x, deep, None),
                "events": lambda x=x: kernels.few_products(kernels.find(x, 1.0), transposed, None),
            },
            rounds,
            order,
        )
    return found


PARTS = {"linear": linear, "decode": decode, "inference": inference, "train": train, "constants": constants}
PEERS = {"inference", "train"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    order = random.Random(options.seed)
    report: dict[str, Any] = {
        "benchmark": "spike_linear",
        "machine": _machine.describe(),
        "libraries": {"scan": cpu.status()[1], "spikes": kernels.status()[1]},
        "seed": options.seed,
        "rounds": options.rounds,
        "ms": "lower quartile, median, upper quartile; processor time of this process",
        "parts": {},
    }
    for name in options.only:
        if name in PEERS and importlib.util.find_spec("snntorch") is None:
            print(f"{name} is left out: snntorch is not installed", file=sys.stderr)
            continue
        print(name, file=sys.stderr)
        report["parts"][name] = PARTS[name](options.rounds, order)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
