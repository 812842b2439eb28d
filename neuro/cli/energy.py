"""neuro energy: price what a run did, predict from bare counts, explain a number, or say what its JSON looks like."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from neuro import atomic, workload
from neuro.cli import _nir, refuse
from neuro.errors import UsageError

if TYPE_CHECKING:
    from neuro.workload import Workload

COMMON = ("backend", "seed", "set", "out")
OUT_IS_FOLDER = True
CHIP, AGAINST = "loihi1", "cpu"
PRICING = ("chip", "against", "dense", "loss", "dense_loss")
PREDICTING = {
    "platform": "whose energy, e.g. gpu:h200",
    "macs": "multiply-accumulates of one pass; connections on a spiking chip",
    "layers": "layers of one pass",
    "synops": "synaptic operations of an inference",
    "spikes": "spikes of an inference",
    "batch": "inferences in one call",
    "steps": "passes or time steps of an inference (of a graph too)",
    "seconds": "how long an inference takes, where that is not modelled",
    "weight_bytes": "of weights, read once a call",
    "kv_bytes": "of keys and values, per inference",
    "flops": "floating-point operations of a call",
    "setup": "'same' board and software as the published runs, or 'other'",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "target", nargs="?", default="small", help="a run.json, a model, FILE.nir, or predict, why, schema"
    )
    parser.add_argument(
        "text",
        nargs="?",
        help="a model's text, a graph's SAMPLE.npy, the term after why; after schema: report, run, predict",
    )
    parser.add_argument("--chip", metavar="NAME", help=f"chip for the spiking layers (default: {CHIP})")
    parser.add_argument(
        "--against", metavar="LIST", help=f"platforms for the products, with commas (default: {AGAINST})"
    )
    parser.add_argument(
        "--dense", metavar="RUN.json", help="a dense model's run for the other side (default: all products)"
    )
    parser.add_argument("--loss", type=float, metavar="NATS", help="validation loss of the model")
    parser.add_argument("--dense-loss", type=float, metavar="NATS", help="validation loss of the dense model")
    _nir.add_arguments(parser)
    group = parser.add_argument_group("neuro energy predict")
    for name, words in PREDICTING.items():
        kind = str if name in ("platform", "setup") else int if name in ("batch", "steps") else float
        group.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar="NAME" if kind is str else "N", help=words)
    group.add_argument(
        "--count",
        metavar="KIND=N",
        action="append",
        help="of a further event, where the platform prices it (again for more)",
    )
    parser.epilog = "--out FOLDER gets energy.json, energy.csv and the picture energy.png."


def run(args: argparse.Namespace) -> int:
    graph = _nir.given(args, "energy")
    if args.target == "predict":
        return _predict(args)
    predicting = [*PREDICTING, "count"]
    _no(args, f"energy {args.target}", [name for name in predicting if not (graph and name == "steps")])
    if args.target == "why":
        return _why(args)
    if args.target == "schema":
        return _schema(args)
    from sims.energy import report, text

    against = [name for name in (AGAINST if args.against is None else args.against).split(",") if name]
    if args.against is not None and not against:
        raise UsageError(
            f"energy: got --against '{args.against}', which names no platform.", "Name one or more, as cpu,gpu:h200."
        )
    load, network = _nir.counted(args, args.text, args.steps) if graph else (_load(args), None)
    dense = workload.read(args.dense) if args.dense else None
    priced = report.estimate(load, args.chip or CHIP, args.seed, against, dense, _losses(args), network)
    print(json.dumps(priced.to_dict()) if args.json else text.full(priced))
    if args.out:
        from neuro.plots import energy

        folder = Path(args.out)
        atomic.write_text(folder / "energy.json", json.dumps(priced.to_dict(), indent=1) + "\n")
        atomic.write_text(folder / "energy.csv", text.table(priced))
        title = f"{load.model}: energy per {load.unit}"
        if energy.shares(text.bars(priced), title, folder / "energy.png") is None and not args.quiet:
            print("note: no picture without matplotlib: pip install 'neuro-hybrid[plots]'", file=sys.stderr)
    return 0


def _why(args: argparse.Namespace) -> int:
    from sims.energy import technologies

    _no(args, "energy why", PRICING)
    refuse(args, "energy why", COMMON)
    if not args.text:
        raise UsageError("neuro energy why: no term.", "For example: neuro energy why loihi1.synop")
    words = technologies.why(args.text)
    print(json.dumps({"schema": "neuro.energy.why/1", "term": args.text, "text": words}) if args.json else words)
    return 0


def _schema(args: argparse.Namespace) -> int:
    from sims.energy import schema

    _no(args, "energy schema", PRICING)
    refuse(args, "energy schema", COMMON)
    found = schema.of("report" if args.text is None else args.text)
    print(json.dumps(found) if args.json else json.dumps(found, indent=1))
    return 0


def _predict(args: argparse.Namespace) -> int:
    from sims.energy import prediction, words
    from sims.energy.streams import Interval

    _no(args, "energy predict", PRICING)
    refuse(args, "energy predict", ["backend", "set", "out"])
    if args.text is not None:
        raise UsageError(
            f"neuro energy predict: got '{args.text}'.", "Give counts as options, for example --macs 172800."
        )
    if args.platform is None:
        raise UsageError(
            "neuro energy predict: no platform.", "For example: --platform cpu:e5-2630 --macs 172800 --layers 3"
        )
    given = {name: value for name in PREDICTING if (value := getattr(args, name)) is not None}
    found = prediction.predict(given.pop("platform"), **given, counts=_counts(args.count or ()), seed=args.seed)
    if args.json:
        print(json.dumps(found))
        return 0
    for name, row in found["energy_j"].items():
        sign = ">= " if name == "total" and found["lower_bound"] else ""
        print(f"{name:<9} " + ("not apart" if row is None else sign + words.joules(Interval(**row))))
    print("time      " + ("not modelled" if found["time_s"] is None else words.seconds(Interval(**found["time_s"]))))
    for label, key in (
        ("fitted to", "calibrated_on"),
        ("assumed", "assumed"),
        ("unpriced", "unpriced"),
        ("no effect", "unused"),
    ):
        if found[key]:
            print(f"{label:<9} {', '.join(found[key])}")
    print(f"evidence  {found['evidence'].replace('_', ' ')}, {found['setup']} setup")
    return 0


def _counts(given: Iterable[str]) -> dict[str, float]:
    found = {}
    for text in given:
        kind, _, number = text.partition("=")
        try:
            found[kind] = float(number)
        except ValueError:
            raise UsageError(
                f"neuro energy predict: got --count {text}, expected KIND=NUMBER.", "For example: --count clock=4.3e6"
            ) from None
    return found


def _load(args: argparse.Namespace) -> Workload:
    if not args.target.endswith(".json"):
        from neuro.cli.run import measure

        return measure(args.target, args.text, args)
    if args.text is not None:
        raise UsageError(
            f"neuro energy {args.target}: got a text too.", "A run.json is priced as it is; omit the text."
        )
    refuse(args, f"energy {args.target}", ["backend", "set"])
    return workload.read(args.target)


def _losses(args: argparse.Namespace) -> tuple[float, float] | None:
    if (args.loss is None) != (args.dense_loss is None):
        raise UsageError("neuro energy: got one validation loss.", "Give both --loss and --dense-loss, or neither.")
    return None if args.loss is None else (args.loss, args.dense_loss)


def _no(args: argparse.Namespace, where: str, names: Iterable[str]) -> None:
    for name in names:
        if getattr(args, name) is not None:
            option = f"--{name.replace('_', '-')}"
            raise UsageError(f"neuro {where}: {option} has no effect here.", f"Leave out {option}.")
