"""The two time loops on a CUDA device, forward and backward, beside the same loops as torch operators, spikingjelly's Triton
kernel and the rate of the device's memory.

    python benchmarks/cuda_scans.py
    python benchmarks/cuda_scans.py --tokens 500 --batch 64 --width 4096

The floor is what the bytes of the float32 tensors cost at the rate at which the device copies one of them to another: 20 bytes
an element for the neuron (as in benchmarks/lif.py), 32 for the recurrence (as in benchmarks/affine_scan.py). Tensors smaller
than the device's cache beat it: choose a shape whose tensors are larger. Every way is checked against the float64 loop of its
rule, on a slice, before anything is timed. Times are CUDA events around one call, which a busy host makes longer, interleaved
in a shuffled order after three rounds of warm-up. Prints one JSON object; exits 3 without a CUDA device.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
from collections.abc import Callable

import _machine
import torch
from torch import Tensor

from backends import LifRule, Surrogate, lif, portable, reference
from backends.devices import find
from backends.kernels import cuda

DECAY, THRESHOLD = 0.9, 1.0
RULE = LifRule(surrogate=Surrogate("arctan", 2.0))  # the one that spikingjelly has too
Work = Callable[..., Tensor]


def neuron(scan: Callable[..., tuple[Tensor, Tensor]]) -> Work:
    return lambda x: scan(x, x.new_zeros(x.shape[1:]), DECAY, THRESHOLD, RULE)[0]


def spikingjelly() -> Work:
    from spikingjelly.activation_based import functional, neuron, surrogate

    node = neuron.LIFNode(
        tau=1.0 / (1.0 - DECAY),
        decay_input=False,
        v_threshold=THRESHOLD,
        v_reset=None,
        detach_reset=True,
        surrogate_function=surrogate.ATan(2.0),
        step_mode="m",
        backend="triton",
    ).cuda()

    def run(x: Tensor) -> Tensor:
        functional.reset_net(node)
        return node(x)

    return run


def both(work: Work, inputs: list[Tensor], grad: Tensor) -> tuple[Tensor, ...]:
    """The values and the gradients of every input."""
    out = work(*inputs)
    return out.detach(), *torch.autograd.grad(out, inputs, grad)


def differs(found: tuple[Tensor, ...], truth: tuple[Tensor, ...]) -> dict[str, float]:
    """The share of values that differ by more than 1e-3 (spikes: that differ), and the worst gradient's error by its norm.

    Neurons whose spikes differ have another history, and are left out of the gradient's error.
    """
    other = (found[0].double() - truth[0].double()).abs() > 1e-3
    same = ~other.any(0)
    errors = [
        float((x.double() - y.double())[..., same].norm() / y.double()[..., same].norm())
        for x, y in zip(found[1:], truth[1:], strict=True)
    ]
    return {"values_that_differ": float(other.double().mean()), "gradient_error": max(errors)}


def milliseconds(work: Callable[[], object]) -> float:
    start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    work()
    stop.record()
    torch.cuda.synchronize()
    return start.elapsed_time(stop)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    here = find("cuda")
    if not here.names:
        print(f"cuda_scans: got no CUDA device ({here.reason}), expected one.\nRun it where one is.", file=sys.stderr)
        return 3
    torch.manual_seed(args.seed)
    order = random.Random(args.seed)
    shape = (args.tokens, args.batch, args.width)
    x = torch.randn(shape, device="cuda").mul_(0.5).add_(0.1).requires_grad_()
    a, h0 = torch.rand(shape, device="cuda").requires_grad_(), torch.randn(shape[1:], device="cuda").requires_grad_()
    grad, target = torch.randn(shape, device="cuda"), torch.empty(shape, device="cuda")

    ways: dict[str, tuple[Work, list[Tensor]]] = {
        "neuron.torch": (neuron(lif.lif_scan), [x]),
        "recurrence.torch": (portable.affine_scan, [a, x, h0]),
    }
    missing: dict[str, str] = {}
    ok, why = cuda.status()
    if ok:
        ways |= {"neuron.triton": (neuron(cuda.lif_scan), [x]), "recurrence.triton": (cuda.affine_scan, [a, x, h0])}
    else:
        missing["triton"] = why
    try:
        run = spikingjelly()
        both(run, [x], grad)
        ways["neuron.spikingjelly"] = run, [x]
    except Exception as error:  # noqa: BLE001 - a peer may be missing or fail in any way
        missing["spikingjelly"] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"

    truths = {"neuron": neuron(reference.lif_scan), "recurrence": reference.affine_scan}
    checks = {}
    for name, (work, inputs) in ways.items():
        some = [y.detach()[..., :2, :256].contiguous().requires_grad_() for y in inputs]
        exact = [y.detach().double().requires_grad_() for y in some]
        part = grad[..., :2, :256].contiguous()
        checks[name] = differs(both(work, some, part), both(truths[name.split(".")[0]], exact, part.double()))
    wrong = {n: c for n, c in checks.items() if c["values_that_differ"] > 1e-3 or c["gradient_error"] > 1e-2}
    if wrong:
        raise SystemExit(f"not the same loop: {wrong}")

    calls: dict[str, Callable[[], object]] = {
        name: lambda work=work, inputs=inputs: both(work, inputs, grad)  # type: ignore[misc]
        for name, (work, inputs) in ways.items()
    }
    calls["copy"] = lambda: target.copy_(grad)  # 8 bytes an element
    times: dict[str, list[float]] = {name: [] for name in calls}
    for round_ in range(args.rounds + 3):
        for name in order.sample(list(calls), len(calls)):
            found = milliseconds(calls[name])
            if round_ >= 3:
                times[name].append(found)
    median = {name: statistics.median(found) for name, found in times.items()}
    floor = {"neuron": median["copy"] * 20 / 8, "recurrence": median["copy"] * 32 / 8, "copy": median["copy"]}
    rows = {
        name: {
            "median_ms": round(median[name], 4),
            "quartiles_ms": [round(q, 4) for q in statistics.quantiles(found, n=4)[::2]],
            "times_the_floor": round(median[name] / floor[name.split(".")[0]], 2),
        }
        | checks.get(name, {})
        for name, found in times.items()
    }
    report = {
        "shape": dict(zip(("tokens", "batch", "width"), shape, strict=True)),
        "rounds": args.rounds,
        "seed": args.seed,
        "device": here.names[0],
        "copy_gb_per_s": round(8 * grad.numel() / median["copy"] / 1e6, 1),
        "ways": rows,
        "triton": why,
        "missing": missing,
        "machine": _machine.describe(),
    }
    print(json.dumps(report, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
