"""neuro map: which cores of a chip a network's populations take, whether it fits, and what then moves between cores."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neuro import atomic, workload
from neuro.cli import _nir, refuse
from neuro.errors import FormatError, MissingError, UsageError

if TYPE_CHECKING:
    from sims.mapping import Network, Placement

COMMON = ("backend", "seed", "set", "out")
OUT_IS_FOLDER = True
WORDS = {
    "cores": "cores",
    "neurons": "neurons",
    "in_axons": "axons in",
    "out_axons": "axons out",
    "bits": "synapse memory",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "target", nargs="?", default="small", help="a model, a run.json, a network's JSON or FILE.nir (default: small)"
    )
    parser.add_argument("sample", nargs="?", help="of a graph, SAMPLE.npy")
    group = _nir.add_arguments(parser)
    group.add_argument("--steps", type=int, metavar="N", help="of the sample that is drawn")
    parser.add_argument("--chip", default="loihi1", metavar="NAME", help="where to place it (default: loihi1)")
    parser.epilog = (
        "--out FOLDER gets map.json and the picture map.png. Exit code 4 says that it does not fit on one chip."
    )


def run(args: argparse.Namespace) -> int:
    from sims import chips, mapping
    from sims.mapping import native, refine, validate

    chip = chips.load(args.chip)
    network = _network(args)
    placement = mapping.place(network, chip, args.seed)
    built, why = native.status()
    if not built and not args.quiet:
        words = f"in plain Python, and in layer order beyond {refine.PLAIN_SYNAPSES} synapses"
        print(f"note: refined {words}: {why}", file=sys.stderr)
    broken = validate.check(placement.network, placement.core, chip, placement.chips)
    record = _record(args.target, placement, broken)
    if args.json:
        print(json.dumps(record))
    else:
        print(_text(args.target, chip.name, placement, broken))
    if args.out:
        folder = Path(args.out)
        atomic.write_text(folder / "map.json", json.dumps(record) + "\n")
        picture = _picture(args.target, chip.name, placement, folder / "map.png")
        if not args.json:
            print(folder / "map.json", *([picture] if picture else []), sep="\n")
        if picture is None and not args.quiet:
            print("note: no picture without matplotlib: pip install 'neuro-hybrid[plots]'", file=sys.stderr)
    return 0 if placement.fits and not broken else 4


def _network(args: argparse.Namespace) -> Network:
    from sims.mapping import network

    if _nir.given(args, "map"):
        refuse(args, f"map {args.target}", ["backend", "set"])
        return _nir.counted(args, args.sample, args.steps)[1]
    for name, value in (("sample", args.sample), ("--steps", args.steps)):
        if value is not None:
            raise UsageError(f"neuro map {args.target}: got a {name}, expected none.", "Leave it out.")
    if not args.target.endswith(".json"):
        from neuro.cli.run import measure

        return network.from_populations(measure(args.target, None, args).populations, args.target)
    refuse(args, f"map {args.target}", ["backend", "set"])
    path = Path(args.target)
    if not path.exists():
        raise MissingError(f"{path}: no such file.", "Give a run.json or a network's JSON, or the name of a model.")
    try:
        schema = json.loads(path.read_text(encoding="utf-8")).get("schema")
    except (OSError, ValueError, AttributeError) as error:
        raise FormatError(f"{path}: not a JSON object ({error}).", "Give a run.json or a network's JSON.") from error
    if schema == network.SCHEMA:
        return network.read(path)
    if schema != workload.SCHEMA:
        raise FormatError(
            f"{path}: got schema {schema!r}, expected '{network.SCHEMA}' or '{workload.SCHEMA}'.",
            "Give a run.json or a network's JSON.",
        )
    return network.from_populations(workload.read(path).populations, args.target)


def _record(target: str, placement: Placement, broken: list[str]) -> dict[str, Any]:
    used = placement.used
    moved = placement.traffic
    loads = {
        kind: getattr(placement.loads, kind)[used].tolist() for kind in ("neurons", "in_axons", "out_axons", "bits")
    }
    loads |= {kind: getattr(moved, kind)[used].tolist() for kind in ("synops", "sent", "received")}
    return {
        "schema": "neuro.map/1",
        "model": target,
        "chip": placement.chip,
        "fits": placement.fits,
        "verdict": placement.verdict,
        "chips": placement.chips,
        "cores": placement.cores,
        "parts": [
            {"name": p.name, "neurons": p.neurons, "cores": p.cores, "fits": p.fits, "reason": p.reason}
            for p in placement.parts
        ],
        "utilisation": {kind: {"max": most, "mean": mean} for kind, (most, mean) in placement.utilisation.items()},
        "per_step": {
            "packets": float(moved.packets),
            "between_cores": float(moved.between_cores),
            "hops_ew": float(moved.hops_ew) if placement.mesh.known else None,
            "hops_ns": float(moved.hops_ns) if placement.mesh.known else None,
            "chip_crossings": float(moved.crossings),
            "busiest_link": float(moved.max_link) if placement.mesh.known else None,
            "layer_order_between_cores": placement.layer_order,
        },
        "core": {"number": used.tolist()} | loads,
        "slices": [list(row) for row in placement.slices],
        "violations": broken,
        "unchecked": list(placement.limits.unchecked),
    }


def _text(target: str, chip: str, placement: Placement, broken: list[str]) -> str:
    lines = [f"{target} on {chip}: {placement.verdict}", ""]
    width = max((len(part.name) for part in placement.parts), default=4)
    lines.append(f"{'population':<{width}}  neurons  cores")
    for p in placement.parts:
        cores = f"{p.cores:>5}" if p.cores else "    -"
        lines.append(f"{p.name:<{width}}  {p.neurons:>7}  {cores}  {p.reason}")
    shares = [
        f"{WORDS[kind]} {100 * most:.0f} %" + ("" if kind == "cores" else f" (mean {100 * mean:.0f} %)")
        for kind, (most, mean) in placement.utilisation.items()
    ]
    if len(shares) > 1:
        lines += ["", f"used of the fullest core: {', '.join(shares[1:])}; {shares[0]} of all"]
    t = placement.traffic
    hops = f"{t.hops_ew:.4g} hops east-west, {t.hops_ns:.4g} north-south, {t.crossings:.4g} from chip to chip"
    if not placement.mesh.known:
        hops = f"hops are not known ({placement.chip} does not say where its cores lie)"
    lines.append(
        f"per step: {t.packets:.4g} packets, {t.between_cores:.4g} between cores ({placement.layer_order:.4g} in layer "
        f"order); {hops}"
    )
    lines.append(
        f"busiest: {t.synops.max():.4g} synaptic operations on a core, {t.received.max():.4g} packets into a core, "
        f"{t.max_link:.4g} over a link"
    )
    lines.append(f"checked: {len(broken)} violations" + "".join(f"\n  {words}" for words in broken))
    if placement.limits.unchecked:
        lines.append(f"not checked, for want of a number or of a rule: {', '.join(placement.limits.unchecked)}")
    return "\n".join(lines)


def _picture(target: str, chip: str, placement: Placement, out: Path) -> Path | None:
    from neuro.plots import chips
    from sims.mapping.limits import UNBOUNDED

    groups = [group.name for group in placement.network.groups if group.placed]
    number = len(placement.loads.neurons)
    held = np.stack(
        [np.bincount(placement.of(name), minlength=number) for name in groups] or [np.zeros(number, np.int64)]
    )
    share = np.zeros(number)
    for kind in ("neurons", "in_axons", "out_axons", "bits"):
        if (limit := getattr(placement.limits, kind)) < UNBOUNDED:
            share = np.maximum(share, getattr(placement.loads, kind) / limit)
    at = placement.sites
    title = f"{target} on {chip}: {placement.cores} cores"
    return chips.mapping((at.chip, at.x, at.y), held, share, placement.traffic.links, groups, title, out)
