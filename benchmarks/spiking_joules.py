"""Joules per token at equal validation loss: a cortex of spikes against its dense twin in int8, both on SENECA's memory.

    for w in 96 128 192; do for s in 0 1 2; do
        python benchmarks/spiking_cortex.py --data $NEURO_DATA --out DIR/$w --width $w --seed $s > w$w-s$s.json
    done; done
    python benchmarks/spiking_joules.py w*-s*.json

Three sizes of both families, the same tokens and steps. Of each family ln(joules) is interpolated over the validation loss, and
the ratio is taken in the middle of the losses that both reach; nothing is extrapolated. Only the cortex's products and neurons
are priced, for all else is the same on both sides; published components of SENECA (its tables say where from):

    spikes    each addition: weight, membrane read, sum, membrane write (FP16; weights in int8 come two a load);
              each neuron and step: membrane read, sum, membrane write
    dense     each product: weight and arithmetic, two of int8 at once, its input in a register; products whose input is 0 in
              int8 are left out, as an event-driven core would

Intervals: Student's t over seeds of ln(ratio), and the constants' own draws, shared by both sides. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from pathlib import Path
from typing import Any

import _machine
import numpy as np

from sims.energy.price import drawn
from sims.energy.streams import interval
from sims.energy.technologies import technology

T_90 = {2: 6.314, 3: 2.920, 4: 2.353, 5: 2.132}  # two-sided 90 %, by number of seeds


def costs() -> dict[str, np.ndarray]:
    table = technology("seneca")
    load, store, add, pair = (
        drawn(table.constant(kind), table, 0) for kind in ("load16", "store16", "fp16_op", "int8_pair")
    )
    return {
        "addition": load + load + add + store,
        "addition, int8 weights": load / 2 + load + add + store,
        "update": load + add + store,
        "product, fp16": load + add,
        "product, int8": (load + pair) / 2,
    }


def joules(arm: str, row: dict[str, Any], cost: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Draws of joules per token of the cortex, for each way that its numbers may be stored."""
    products = row["cortex_macs_per_token"]
    if arm == "spikes":
        additions, updates = row["spikes_per_synapse"] * products["binary"], row["updates_per_token"]
        return {name: additions * cost[f"addition{name}"] + updates * cost["update"] for name in ("", ", int8 weights")}
    left = products["dense"] * (1 - row["products_with_zero"])
    return {"int8": left * cost["product, int8"], "fp16": products["dense"] * cost["product, fp16"]}


def at(loss: float, points: list[tuple[float, np.ndarray]]) -> np.ndarray:
    """ln(joules) of a family at a validation loss, between two of its sizes."""
    points = sorted(points, key=lambda point: point[0])
    for (low, much), (high, little) in itertools.pairwise(points):
        if low <= loss <= high:
            share = (loss - low) / (high - low)
            return (1 - share) * np.log(much) + share * np.log(little)
    raise SystemExit(f"no size reaches a validation loss of {loss:.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="what benchmarks/spiking_cortex.py printed")
    records = [json.loads(path.read_text(encoding="utf-8")) for path in parser.parse_args().runs]
    cost = costs()
    seeds = sorted({record["settings"]["seed"] for record in records})
    ratios: dict[str, list[np.ndarray]] = {}
    rows = []
    for seed in seeds:
        mine = [record["arms"] for record in records if record["settings"]["seed"] == seed]
        loss = {arm: [row[arm]["valid"]["nats_per_token"] for row in mine] for arm in ("spikes", "dense")}
        middle = (max(map(min, loss.values())) + min(map(max, loss.values()))) / 2
        priced = {arm: [joules(arm, row[arm], cost) for row in mine] for arm in loss}
        rows.append({"seed": seed, "valid_nats": middle, "sizes": loss})
        for kind in priced["spikes"][0]:
            for other in priced["dense"][0]:
                sides = [
                    at(middle, list(zip(loss[arm], [row[name] for row in priced[arm]], strict=True)))
                    for arm, name in (("spikes", kind), ("dense", other))
                ]
                ratios.setdefault(f"spikes{kind} over dense {other}", []).append(sides[0] - sides[1])
    found = {}
    for name, draws in ratios.items():
        each = [float(np.median(draw)) for draw in draws]
        spread = T_90[len(each)] * float(np.std(each, ddof=1)) / math.sqrt(len(each))
        constants = interval(np.exp(np.mean(draws, axis=0)))
        found[name] = {
            "ratio": math.exp(float(np.mean(each))),
            "by_seed": [math.exp(value) for value in each],
            "90 % over seeds": [math.exp(float(np.mean(each)) + sign * spread) for sign in (-1, 1)],
            "90 % over constants": [constants.lo, constants.hi],
        }
    record = {"benchmark": "spiking_joules", "machine": _machine.describe(), "seeds": rows, "joules": found}
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
