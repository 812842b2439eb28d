"""Networks of `neuro simulate` beside the program that Brian2 writes in C++ for the same network (cpp_standalone).

    python benchmarks/networks.py
    python benchmarks/networks.py --case coba:4000 --rounds 10

Same synapses, same initial state, every spike recorded by both, one thread. Brian2's time is that of its loop over the
steps alone, as it reports it itself (without code generation, compiler, reading and writing); ours is the whole call of
`simulate.run`. Both are processor time of their process, so that neighbours on the machine cost neither side its turn.
Before anything is timed, the float64 spike train must be Brian2's over the whole run, spike for spike, and the float32
train the same over its first millisecond with a rate within 5 %. Times are interleaved: a round runs Brian2 once and each
precision of ours three times, in shuffled order. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import _machine

from sims.circuits import reference
from sims.networks import native, simulate
from sims.networks.circuit import Circuit
from sims.networks.simulate import Spikes
from sims.networks.statistics import summary

CASES = ("vogels-abbott:4000", "coba:4000", "vogels-abbott:40000")


def check(circuit: Circuit, program: reference.Standalone, seconds: float) -> dict[str, Any]:
    """Ends the benchmark unless the spikes agree -> what was compared."""
    program.run()
    steps, neurons = program.spikes()
    exact, quick = (simulate.run(circuit, seconds, precision) for precision in ("float64", "float32"))
    same = steps.tolist() == exact.steps.tolist() and neurons.tolist() == exact.neurons.tolist()
    first = round(1.0 / circuit.dt_ms)
    begins = quick.part(0, first), exact.part(0, first)
    alike = all(getattr(begins[0], x).tolist() == getattr(begins[1], x).tolist() for x in ("steps", "neurons"))
    close = abs(len(quick.steps) / len(exact.steps) - 1) < 0.05
    if not (same and alike and close):
        raise SystemExit(f"not the same network: float64 identical {same}, float32 alike {alike}, its rate {close}")
    return {
        "spikes": len(exact.steps),
        "float64_identical_to_brian2": same,
        "float32_first_difference_ms": divergence(quick, exact),
        "float64": summary(exact).to_dict(),
        "float32": summary(quick).to_dict(),
    }


def divergence(one: Spikes, other: Spikes) -> float | None:
    """Milliseconds up to the first spike that differs, None where none does."""
    length = min(len(one.steps), len(other.steps))
    differs = (one.steps[:length] != other.steps[:length]) | (one.neurons[:length] != other.neurons[:length])
    if differs.any():
        return float(one.steps[:length][differs][0] * one.dt_ms)
    return None if len(one.steps) == len(other.steps) else one.num_steps * one.dt_ms


def measure(name: str, neurons: int, args: argparse.Namespace, folder: Path, order: random.Random) -> dict[str, Any]:
    circuit = simulate.named(name, neurons, 0.1, args.seed)
    program = reference.Standalone(circuit, args.seconds, folder)
    checked = check(circuit, program, args.seconds)
    times: dict[str, list[float]] = {"brian2": [], "float32": [], "float64": []}
    for _ in range(args.rounds):
        for what in order.sample(["brian2", *["float32", "float64"] * 3], 7):
            if what == "brian2":
                times[what].append(1e3 * program.run())
                continue
            started = time.process_time()
            simulate.run(circuit, args.seconds, what)
            times[what].append(1e3 * (time.process_time() - started))
    rows: dict[str, Any] = {}
    for what, found in times.items():
        low, _, high = statistics.quantiles(found, n=4)
        rows[what] = {
            "min_ms": round(min(found), 2),
            "median_ms": round(statistics.median(found), 2),
            "quartiles_ms": [round(low, 2), round(high, 2)],
        }
    for what in ("float32", "float64"):
        rows[what]["brian2_over_ours"] = {
            kind: round(rows["brian2"][f"{kind}_ms"] / rows[what][f"{kind}_ms"], 2) for kind in ("median", "min")
        }
        rows[what]["times_real_time"] = round(1e3 * args.seconds / rows[what]["median_ms"], 1)
        rows[what]["ns_per_event"] = round(1e6 * rows[what]["median_ms"] / checked[what]["events"], 2)
    return {
        "circuit": name,
        "neurons": neurons,
        "synapses": len(circuit.synapses.targets),
        "checked": checked,
        "brian2_code_and_compile_s": round(program.build_seconds, 1),
        "times": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", metavar="CIRCUIT:NEURONS", help=f"default: {', '.join(CASES)}")
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if native.library() is None:
        raise SystemExit(f"the library is not here: {native.status()[1]}")
    order, results = random.Random(args.seed), []
    for case in args.case or CASES:
        name, neurons = case.split(":")
        with tempfile.TemporaryDirectory() as folder:
            results.append(measure(name, int(neurons), args, Path(folder), order))
    report = {
        "seconds": args.seconds,
        "dt_ms": 0.1,
        "rounds": args.rounds,
        "seed": args.seed,
        "vector_bytes": int(native.library().neuro_network_width(0)),
        "results": results,
        "machine": _machine.describe(),
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
