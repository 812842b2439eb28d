"""A layer of leaky integrate-and-fire neurons on a CPU, forward and backward, beside other libraries and the copy floor.

    python benchmarks/lif.py
    python benchmarks/lif.py --tokens 500 --batch 16 --width 512
    python benchmarks/lif.py --threads 2 --clock wall

Ours in its three forms (C++, numba, torch operators) and, where they are installed, snntorch, spikingjelly, norse and JAX.
Every library is driven with ``unbind``: indexing an input that needs a gradient costs it time that grows with the square
of the steps. Each has dynamics of its own and is checked, before anything is timed, against the float64 loop of the same
rule: all but one spike in a thousand (rounding decides at the threshold, and what follows a flip is another history), and
the gradient of every neuron without a flip within a hundredth of the norm.

The floor is what 20 bytes an element (read the input, write spikes, read the input and the gradient, write a gradient)
cost at the rate at which torch copies one stream to another, over as many streams as the layer has, so that no cache
holds what would not stay there. Times are interleaved: a round times every way once, in a shuffled order; process CPU time
unless the clock is the wall. ``--keep-pages`` asks glibc not to hand freed memory back between calls, for every way alike:
above 32 MiB a tensor is otherwise fresh memory, page by page, each time. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import _machine
import torch
from torch import Tensor

from backends import LifRule, Surrogate, lif, reference
from backends.kernels import cpu, lif_numba

DECAY, THRESHOLD, SLOPE = 0.9, 1.0, 25.0
Work = Callable[[Tensor], Tensor]
OURS = LifRule(surrogate=Surrogate(slope=SLOPE))
SNNTORCH = LifRule(delayed=True, strict=True, surrogate=Surrogate(slope=SLOPE))


def ours(scan: Callable[..., tuple[Tensor, Tensor]], rule: LifRule) -> Work:
    return lambda x: scan(x, x.new_zeros(x.shape[1:]), DECAY, THRESHOLD, rule)[0]


def snntorch() -> tuple[Work, LifRule]:
    import snntorch as snn
    from snntorch import surrogate

    neuron = snn.Leaky(beta=DECAY, threshold=THRESHOLD, spike_grad=surrogate.fast_sigmoid(SLOPE))

    def run(x: Tensor) -> Tensor:
        v, spikes = x.new_zeros(x.shape[1:]), []
        for x_t in x.unbind(0):
            s, v = neuron(x_t, v)
            spikes.append(s)
        return torch.stack(spikes)

    return run, SNNTORCH


def spikingjelly() -> tuple[Work, LifRule]:
    from spikingjelly.activation_based import functional, neuron, surrogate

    # Its decay is 1 - 1/tau, its input undecayed; no surrogate of ours is its fast one: both have the arctan.
    node = neuron.LIFNode(
        tau=1.0 / (1.0 - DECAY),
        decay_input=False,
        v_threshold=THRESHOLD,
        v_reset=None,
        detach_reset=True,
        surrogate_function=surrogate.ATan(2.0),
        step_mode="m",
    )

    def run(x: Tensor) -> Tensor:
        functional.reset_net(node)
        return node(x)

    return run, LifRule(surrogate=Surrogate("arctan", 2.0))


def norse() -> tuple[Work, LifRule]:
    from norse.torch.functional.lif_box import LIFBoxFeedForwardState, LIFBoxParameters, lif_box_feed_forward_step

    # v + dt/tau ((leak - v) + i), then a hard reset to 0; its surrogate (SuperSpike) has slope 1 whatever its alpha says.
    zero = torch.as_tensor(0.0)
    p = LIFBoxParameters(
        tau_mem_inv=torch.as_tensor((1.0 - DECAY) / 1e-3),
        v_leak=zero,
        v_th=torch.as_tensor(THRESHOLD),
        v_reset=zero,
        alpha=torch.as_tensor(1.0),
    )

    def run(x: Tensor) -> Tensor:
        state, spikes = LIFBoxFeedForwardState(v=x.new_zeros(x.shape[1:])), []
        for x_t in (x / (1.0 - DECAY)).unbind(0):
            s, state = lif_box_feed_forward_step(x_t, state, p, dt=1e-3)
            spikes.append(s)
        return torch.stack(spikes)

    return run, LifRule("hard", strict=True, detach_reset=False, surrogate=Surrogate(slope=1.0))


def jax_scan(x: Tensor, grad: Tensor) -> tuple[Callable[[], Any], Callable[[], tuple[Tensor, Tensor]]]:
    """(forward and backward on arrays of its own, spikes and gradient): lax.scan under jit, our rule, what Spyx does."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    @jax.custom_vjp
    def spike(u):
        return (u >= 0).astype(u.dtype)

    spike.defvjp(lambda u: (spike(u), u), lambda u, g: (g / (1.0 + SLOPE * jnp.abs(u)) ** 2,))

    def run(x):
        def step(v, x_t):
            u = DECAY * v + x_t
            s = spike(u - THRESHOLD)
            return u - THRESHOLD * jax.lax.stop_gradient(s), s

        return jax.lax.scan(step, jnp.zeros(x.shape[1:], x.dtype), x)[1]

    @jax.jit
    def both(x, g):
        spikes, back = jax.vjp(run, x)
        return spikes, back(g)[0]

    arrays = jnp.asarray(x.detach().numpy()), jnp.asarray(grad.numpy())
    work = lambda: jax.block_until_ready(both(*arrays))  # noqa: E731
    return work, lambda: tuple(torch.from_numpy(np.array(y)) for y in work())  # type: ignore[return-value]


def both(work: Work, x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Spikes and the gradient of the input."""
    spikes = work(x)
    return spikes.detach(), torch.autograd.grad(spikes, x, grad)[0]


def check(found: tuple[Tensor, Tensor], rule: LifRule, x: Tensor, grad: Tensor) -> dict[str, float]:
    """How many spikes differ from the float64 loop of the same rule, and how far the gradient is from its."""
    exact = x.detach().double().requires_grad_()
    spikes, truth = both(ours(reference.lif_scan, rule), exact, grad.double())
    other = found[0].double() != spikes
    # A spike that rounding flipped changes what comes after it: those neurons are left out of the gradient's error.
    same = ~other.any(0)
    error = (found[1].double() - truth)[:, same].norm() / truth[:, same].norm()
    return {"spikes_that_differ": float(other.double().mean()), "gradient_error": float(error)}


def peak_bytes(work: Work, x: Tensor, grad: Tensor) -> int:
    """The most that torch held at once beyond the input and the gradient that was given."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as prof:
        both(work, x, grad)
    held = most = 0
    for event in prof.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


def growth_mib(work: Work) -> float:
    """Growth of the resident set over a thousand layers made and dropped."""
    import resource

    x, grad = torch.randn(50, 4, 256).requires_grad_(), torch.randn(50, 4, 256)
    for i in range(1050):
        if i == 50:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        both(work, x, grad)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


FIRST = """
import time, torch
torch.set_num_threads(1)
from backends import LifRule, lif
from backends.kernels import cpu, lif_numba
x = torch.randn(100, 32, 1024).requires_grad_()
started = time.process_time()
s, _ = {way}.lif_scan(x, torch.zeros(32, 1024), 0.9, 1.0, LifRule())
torch.autograd.grad(s, x, torch.ones_like(s))
print(time.process_time() - started)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=("cpu", "wall"), default="cpu")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep-pages", action="store_true", help="glibc only")
    args = parser.parse_args()
    if args.keep_pages:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD
        libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    order = random.Random(args.seed)
    clock = time.process_time if args.clock == "cpu" else time.perf_counter

    x = torch.randn(args.tokens, args.batch, args.width).mul_(0.5).add_(0.1).requires_grad_()
    grad = torch.randn(args.tokens, args.batch, args.width)
    ways: dict[str, tuple[Work, LifRule]] = {}
    missing: dict[str, str] = {}
    for name, here, module, why in (
        ("cpp", cpu.library() is not None, cpu, cpu.status()[1]),
        ("numba", lif_numba.here(), lif_numba, "not installed"),
        ("torch", True, lif, ""),
    ):
        if here:
            ways[name] = ours(module.lif_scan, OURS), OURS
            ways[f"{name}.as_snntorch"] = ours(module.lif_scan, SNNTORCH), SNNTORCH
        else:
            missing[name] = why
    for name, make in (("snntorch", snntorch), ("spikingjelly", spikingjelly), ("norse", norse)):
        try:
            ways[name] = make()
        except ImportError as error:
            missing[name] = str(error)
    work: dict[str, Callable[[], object]] = {
        name: lambda run=run: both(run, x, grad)  # type: ignore[misc]
        for name, (run, _) in ways.items()
    }
    checks = {name: check(both(run, x, grad), rule, x, grad) for name, (run, rule) in ways.items()}
    try:
        work["jax"], results = jax_scan(x, grad)
        checks["jax"] = check(results(), OURS, x, grad)
    except ImportError as error:
        missing["jax"] = str(error)
    wrong = {n: c for n, c in checks.items() if c["spikes_that_differ"] > 1e-3 or c["gradient_error"] > 1e-2}
    if wrong:
        raise SystemExit(f"not the same neuron: {wrong}")

    streams = [(torch.empty_like(grad), torch.randn_like(grad)) for _ in range(2)]

    def copy() -> None:
        for to, source in streams:
            to.copy_(source)

    work["copy"] = copy  # 16 bytes an element
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(args.rounds):
        for name in order.sample(list(work), len(work)):
            started = clock()
            work[name]()
            times[name].append(1e3 * (clock() - started))
    median = {name: statistics.median(found) for name, found in times.items()}
    floor = median["copy"] * 20 / 16
    rows = {}
    for name, found in times.items():
        rows[name] = {
            "min_ms": round(min(found), 2),
            "median_ms": round(median[name], 2),
            "quartiles_ms": [round(q, 2) for q in statistics.quantiles(found, n=4)[::2]],
            "times_the_floor": round(median[name] / floor, 2),
            "ns_per_element": round(1e6 * median[name] / grad.numel(), 3),
        } | checks.get(name, {})
        if name in ways and args.threads == 1:
            rows[name]["peak_mib"] = round(peak_bytes(ways[name][0], x, grad) / 2**20, 1)
        if "snntorch" in median:
            # Ratios of one round, so that a neighbour's load falls on both.
            pairs = [a / b for a, b in zip(times["snntorch"], found, strict=True)]
            rows[name]["snntorch_over_it"] = round(statistics.median(pairs), 2)
    report = {
        "shape": {"tokens": args.tokens, "batch": args.batch, "width": args.width},
        "clock": args.clock,
        "rounds": args.rounds,
        "seed": args.seed,
        "keep_pages": args.keep_pages,
        "copy_gb_per_s": round(16 * grad.numel() / median["copy"] / 1e6, 1),
        "floor_ms": round(floor, 2),
        "ways": rows,
        "missing": missing,
        "machine": _machine.describe(),
    }
    if args.threads == 1:
        report["first_call_s"], report["growth_mib_over_1000"] = {}, {}
        for name, module in (("cpp", "cpu"), ("numba", "lif_numba"), ("torch", "lif")):
            if name in ways:
                command = [sys.executable, "-c", FIRST.format(way=module)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                report["first_call_s"][name] = round(float(done.stdout), 3)
                report["growth_mib_over_1000"][name] = round(growth_mib(ways[name][0]), 2)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
