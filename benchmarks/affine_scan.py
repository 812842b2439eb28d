"""The affine recurrence on a CPU, beside the bandwidth floor and other ways to compute it: forward, and forward + backward.

    python benchmarks/affine_scan.py
    python benchmarks/affine_scan.py --layout batch-first --tokens 64 --batch 32 --width 256

The floor is what the tensors' own bytes cost at the rate at which this process copies one of them to another: 12 bytes
an element forward (read a and b, write h), 20 backward (read grad, a and h, write grad_a and grad_b), in float32. Results
of every way are checked against float64 before anything is timed. Times are interleaved: a round times every way once,
in an order that is shuffled; the quickest and the median of the rounds are printed. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable

import _machine
import torch
from torch import Tensor

from backends import native, portable, reference
from backends.kernels import cpu

Scan = Callable[[Tensor, Tensor, Tensor], Tensor]
LOOSE = 1e-3  # of the largest gradient: a wrong formula shows, rounding does not


def torchs_associative_scan() -> tuple[Scan | None, str]:
    """(torch's own scan in eager mode, where this torch has it, or why not)."""
    try:
        from torch._higher_order_ops import associative_scan
    except ImportError as error:
        return None, f"this torch has none ({error})"

    def combine(x: tuple[Tensor, Tensor], y: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return x[0] * y[0], torch.addcmul(y[1], y[0], x[1])

    def scan(a: Tensor, b: Tensor, h0: Tensor) -> Tensor:
        first = torch.addcmul(b[0], a[0], h0).unsqueeze(0)
        return associative_scan(combine, (a, torch.cat([first, b[1:]])), 0, combine_mode="generic")[1]

    try:
        scan(torch.rand(4, 2, 3), torch.rand(4, 2, 3), torch.rand(2, 3))
    except Exception as error:  # noqa: BLE001 - a private function of torch may fail in any way
        return None, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return scan, ""


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def both(scan: Scan, inputs: list[Tensor], grad: Tensor) -> tuple[Tensor, ...]:
    """h and its three gradients."""
    h = scan(*inputs)
    return h.detach(), *torch.autograd.grad(h, inputs, grad)


def worst_error(scan: Scan, inputs: list[Tensor], grad: Tensor, truth: tuple[Tensor, ...]) -> float:
    """The largest error of h and the gradients, over the largest value of each."""
    found = both(scan, inputs, grad)
    return max(float((x - y).abs().max() / y.abs().max()) for x, y in zip(found, truth, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layout", choices=("time-first", "batch-first"), default="time-first", help="in memory")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    order = random.Random(args.seed)

    def draw(make: Callable[..., Tensor]) -> Tensor:
        if args.layout == "time-first":
            return make(args.tokens, args.batch, args.width)
        return make(args.batch, args.tokens, args.width).transpose(0, 1)

    inputs = [draw(torch.rand), draw(torch.randn), torch.randn(args.batch, args.width)]
    inputs, grad = [x.requires_grad_() for x in inputs], draw(torch.randn)
    exact = [x.detach().double().requires_grad_() for x in inputs]
    truth = both(reference.affine_scan, exact, grad.double())

    ways: dict[str, Scan] = {"two_level": portable.affine_scan, "per_token": native.per_token_affine_scan}
    missing: dict[str, str] = {}
    for name, scan, why in (
        ("cpp", cpu.affine_scan if cpu.library() else None, cpu.status()[1]),
        ("associative_scan", *torchs_associative_scan()),
    ):
        if scan is None:
            missing[name] = why
        else:
            ways[name] = scan
    errors = {name: worst_error(scan, inputs, grad, truth) for name, scan in ways.items()}
    wrong = {name: error for name, error in errors.items() if error > LOOSE}
    if wrong:
        raise SystemExit(f"not the same recurrence: {wrong}")

    target = torch.empty_like(grad)
    with torch.no_grad():
        for scan in ways.values():
            scan(*inputs)

    def forward(scan: Scan) -> None:
        with torch.no_grad():
            scan(*inputs)

    work: dict[str, Callable[[], object]] = {"copy": lambda: target.copy_(grad)}
    for name, scan in ways.items():
        work[f"{name}.forward"] = lambda scan=scan: forward(scan)
        work[f"{name}.forward_backward"] = lambda scan=scan: both(scan, inputs, grad)
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(args.rounds):
        for name in order.sample(list(work), len(work)):
            times[name].append(1e3 * seconds(work[name]))

    elements, copy_ms = grad.numel(), min(times["copy"])
    floor = {"forward": copy_ms * 12 / 8, "forward_backward": copy_ms * 32 / 8}
    rows = {}
    for name in ways:
        rows[name] = {"largest_relative_error": errors[name]}
        for what, least in floor.items():
            found = times[f"{name}.{what}"]
            rows[name][what] = {
                "min_ms": round(min(found), 3),
                "median_ms": round(statistics.median(found), 3),
                "times_the_floor": round(min(found) / least, 2),
            }
    if "cpp" in rows and "associative_scan" in rows:
        ratio = {
            what: round(rows["associative_scan"][what]["min_ms"] / rows["cpp"][what]["min_ms"], 1) for what in floor
        }
    else:
        ratio = None
    report = {
        "shape": {"tokens": args.tokens, "batch": args.batch, "width": args.width, "layout": args.layout},
        "rounds": args.rounds,
        "seed": args.seed,
        "copy": {
            "min_ms": round(copy_ms, 3),
            "median_ms": round(statistics.median(times["copy"]), 3),
            "gb_per_s": round(8 * elements / copy_ms / 1e6, 1),
        },
        "floor_ms": {what: round(least, 3) for what, least in floor.items()},
        "ways": rows,
        "missing": missing,
        "cpp_faster_than_associative_scan": ratio,
        "machine": _machine.describe(),
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
