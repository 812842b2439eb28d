"""neuro simulate: a network of spiking neurons on one core, its rates, irregularity and correlations second by second."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from neuro.errors import MissingError, UsageError

COMMON = ("seed", "out")
PICTURES = (".png", ".svg")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "circuit", nargs="?", default="vogels-abbott", help="brunel, vogels-abbott (or cuba; the default) or coba"
    )
    parser.add_argument("--neurons", type=int, default=4000, help="four of five excite (default: 4000)")
    parser.add_argument("--seconds", type=float, default=1.0, help="of the network's own time (default: 1)")
    parser.add_argument("--dt", type=float, default=0.1, metavar="MS", help="one step in milliseconds (default: 0.1)")
    parser.add_argument(
        "--precision", default="float32", help="float32, or float64: Brian2's own spikes (default: float32)"
    )
    parser.add_argument("--g", type=float, help="brunel: inhibition over excitation (default: 5)")
    parser.add_argument(
        "--eta",
        type=float,
        help="brunel: the external drive (default: 2); with --g, its figure 8 is 3 2, 6 4, 5 2 and 4.5 0.9",
    )


def run(args: argparse.Namespace) -> int:
    from neuro import extras
    from sims.networks import native, simulate, statistics

    out = Path(args.out) if args.out else None
    if out and out.suffix not in PICTURES:
        raise UsageError(f"--out: got '{out}', expected a name that ends in .png or .svg.", "Name a picture.")
    if out and not extras.installed("matplotlib"):
        raise MissingError("neuro simulate --out needs matplotlib.", "pip install 'neuro-hybrid[plots]'")
    options = {name: value for name in ("g", "eta") if (value := getattr(args, name)) is not None}
    circuit = simulate.named(args.circuit, args.neurons, args.dt, args.seed, **options)
    built, why = native.status()
    if not built and not args.quiet:
        print(f"note: in numpy, 10 to 90 times slower than in C++: {why}", file=sys.stderr)
    started = time.perf_counter()
    spikes = simulate.run(circuit, args.seconds, args.precision)
    took = time.perf_counter() - started
    if not args.quiet:
        print(
            f"{spikes.seconds:g} s of {circuit.neurons} neurons and {len(circuit.synapses.targets)} synapses "
            f"took {took:.3g} s: {spikes.seconds / took:.3g} times real time",
            file=sys.stderr,
        )
    second = max(1, round(1e3 / args.dt))
    stops = [*range(second, spikes.num_steps, second), spikes.num_steps]
    parts = [spikes.part(start, stop) for start, stop in zip([0, *stops[:-1]], stops, strict=True)]
    rows = [statistics.summary(part) for part in parts]
    if args.json:
        record = {
            "schema": "neuro.simulate/1",
            "circuit": args.circuit,
            "neurons": circuit.neurons,
            "excitatory": circuit.synapses.excitatory,
            "synapses": len(circuit.synapses.targets),
            "dt_ms": args.dt,
            "precision": args.precision,
            "seed": args.seed,
            "spikes": len(spikes.steps),
            "seconds": [{"length": part.seconds, **row.to_dict()} for part, row in zip(parts, rows, strict=True)],
            "out": args.out,
        }
        print(json.dumps(record | options))
    else:
        print("second  excitatory Hz  inhibitory Hz    CV  correlation  synaptic events")
        for number, row in enumerate(rows, 1):
            cv, correlation = ("-" if x is None else f"{x:.{n}f}" for x, n in ((row.cv, 2), (row.correlation, 4)))
            print(
                f"{number:>6}  {row.excitatory_hz:>13.2f}  {row.inhibitory_hz:>13.2f}  {cv:>4}  {correlation:>11}"
                f"  {row.events:>15}"
            )
    if out:
        from neuro.plots import networks

        networks.activity(
            spikes.steps * args.dt * 1e-3,
            spikes.neurons,
            spikes.num_excitatory,
            spikes.num_neurons,
            statistics.population_hz(spikes),
            statistics.cvs(spikes),
            out,
        )
        if not args.json:
            print(out)
    return 0
