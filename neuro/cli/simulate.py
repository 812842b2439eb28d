"""neuro simulate: a network of spiking neurons on one core, its rates, irregularity and correlations second by second; or a
circuit of the brain in Brian2, its statistics beside the published ones."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path

from neuro.errors import MissingError, UsageError, nearest

COMMON = ("seed", "out")
PICTURES = (".png", ".svg")
STUDIES = ("lif-curve", "ca3-recall", "theta-gamma", "amygdala-fear", "sleep-wake", "ripple-replay")
NETWORKS = {"neurons": 4000, "seconds": 1.0, "dt": 0.1, "precision": "float32", "g": None, "eta": None}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "circuit",
        nargs="?",
        default="vogels-abbott",
        help=f"brunel, vogels-abbott (or cuba; the default) or coba; in Brian2 {', '.join(STUDIES)}",
    )
    parser.add_argument("--neurons", type=int, help="four of five excite (default: 4000)")
    parser.add_argument("--seconds", type=float, help="of the network's own time (default: 1)")
    parser.add_argument("--dt", type=float, metavar="MS", help="one step in milliseconds (default: 0.1)")
    parser.add_argument("--precision", help="float32, or float64: Brian2's own spikes (default: float32)")
    parser.add_argument("--g", type=float, help="brunel: inhibition over excitation (default: 5)")
    parser.add_argument(
        "--eta",
        type=float,
        help="brunel: the external drive (default: 2); with --g, its figure 8 is 3 2, 6 4, 5 2 and 4.5 0.9",
    )
    parser.add_argument("--lesion", action="store_true", help="a circuit in Brian2: without the part it depends on")


def run(args: argparse.Namespace) -> int:
    from neuro import extras

    out = Path(args.out) if args.out else None
    if out and out.suffix not in PICTURES:
        raise UsageError(f"--out: got '{out}', expected a name that ends in .png or .svg.", "Name a picture.")
    if out and not extras.installed("matplotlib"):
        raise MissingError("neuro simulate --out needs matplotlib.", "pip install 'neuro-hybrid[plots]'")
    given = [name for name in NETWORKS if getattr(args, name) is not None]
    if args.circuit in STUDIES:
        if given:
            raise UsageError(
                f"{args.circuit}: got --{' and --'.join(given)}, expected none of them.",
                "It takes --seed, --lesion and --out.",
            )
        return _study(args, out)
    from sims.networks.simulate import CIRCUITS

    known = [*CIRCUITS, *STUDIES]
    if args.circuit not in known:
        raise UsageError(
            f"circuit: got '{args.circuit}', expected one of {', '.join(known)}.", nearest(args.circuit, known)
        )
    if args.lesion:
        raise UsageError(
            f"{args.circuit}: got --lesion, expected one of {', '.join(STUDIES)} with it.", "Leave --lesion out."
        )
    for name, value in NETWORKS.items():
        if name not in given:
            setattr(args, name, value)
    return _network(args, out)


def _study(args: argparse.Namespace, out: Path | None) -> int:
    """A circuit in Brian2: what is published, ours over the seeds of its record, and this run."""
    from sims.circuits import studies

    known = studies.record(args.circuit)
    outcome = studies.STUDIES[args.circuit](args.seed, args.lesion)
    if args.json:
        record = {
            "schema": "neuro.simulate.circuit/1",
            "circuit": args.circuit,
            "seed": args.seed,
            "lesion": args.lesion,
            "statistics": {k: v if math.isfinite(v) else None for k, v in outcome.statistics.items()},
            "record": known,
            "out": args.out,
        }
        print(json.dumps(record))
    else:
        if not args.quiet:
            sources = ", ".join(f"doi:{doi}" for doi in known["doi"])
            print(
                f"{known['phenomenon']}\n{known['source']}\n{sources}\nlesion: {known['lesion']}\n"
                f"fitted: {known['fitting']}",
                file=sys.stderr,
            )
        print(
            f"{'statistic':<26}{'this run':>10}{'ours, ' + str(known['seeds']) + ' seeds':>22}{'published':>16}  unit"
        )
        for name, row in known["statistics"].items():
            kind = "lesioned" if args.lesion else "ours"
            ours = "-" if row[kind] is None else f"{row[kind]:.4g} +- {row[kind + '_sd'] or 0:.2g}"
            value = outcome.statistics[name]
            now = f"{value:.4g}" if math.isfinite(value) else "-"
            print(f"{name:<26}{now:>10}{ours:>22}{_published(row['published']):>16}  {row['unit']}")
    if out:
        from neuro.plots import circuits

        circuits.draw(args.circuit, outcome.curves, out)
        if not args.json:
            print(out)
    return 0


def _published(value: float | list[float] | str) -> str:
    if isinstance(value, list):
        return f"{value[0]:g} to {value[1]:g}"
    return value if isinstance(value, str) else f"{value:g}"


def _network(args: argparse.Namespace, out: Path | None) -> int:
    from sims.networks import native, simulate, statistics

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
