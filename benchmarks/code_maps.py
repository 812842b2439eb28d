"""What the codes of space and position look like: maps over a room of side 1, and how alike phase codes are.

    python benchmarks/code_maps.py --picture docs/codes.png

Grid cells (constructed) of four spacings, one of each; boundary cells; place cells that learned from both on 2,000 random
places, the first eight of 200; the same in a second room, learned after the first. A map is 40 x 40 bins. Place cells: share
active, share of cells with a field (above half of the highest rate in at most a quarter of the room), bits a spike, correlation
of both rooms' population vectors. Phase codes: 512 positions, 768 wide. One seed. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import _machine
import numpy as np
import torch
from torch import Tensor

from neuro.evaluate.place_fields import population_correlation
from neuro.memory.grid_cells import BoundaryCells, GridCells
from neuro.memory.phase_code import PhaseCode
from neuro.memory.place_cells import CompetitivePlaceCells
from neuro.plots.codes import codes

SPACINGS = (0.35, 0.5, 0.7, 1.0)
BINS, CELLS, SHOWN, PLACES = 40, 200, 8, 2000


def information(rates: np.ndarray) -> np.ndarray:
    """Bits a spike of maps [cells, bins] over a room that is visited evenly (Skaggs et al. 1993)."""
    share = rates / np.maximum(rates.mean(1, keepdims=True), 1e-12)
    return np.where(share > 0, share * np.log2(np.maximum(share, 1e-12)), 0.0).mean(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    axis = (torch.arange(BINS) + 0.5) / BINS
    room = torch.cartesian_prod(axis, axis).flip(1)  # x runs within a row
    visited = torch.rand(PLACES, 2, generator=torch.Generator().manual_seed(options.seed))
    walls = BoundaryCells([0.0, 0.0], [1.0, 1.0])
    grids = [GridCells(SPACINGS, environment=number) for number in (0, 1)]
    maps: list[Tensor] = []
    seen = [torch.cat([grids[0](room), walls(room)], 1), torch.cat([grids[1](room), walls(room)], 1)]
    places = CompetitivePlaceCells(seen[0].shape[1], cells=CELLS)
    state, targets = places.init_state(seed=options.seed), places.targets(seed=options.seed)
    for number, grid in enumerate(grids):
        state = places.learn(torch.cat([grid(visited), walls(visited)], 1), state, targets)
        maps.append(places.activity(seen[number], state))
    first, second = (found.T.double().numpy() for found in maps)
    bits = information(first)
    wide = (first > 0.5 * first.max(1, keepdims=True)).mean(1)
    code = PhaseCode(768)(torch.arange(512)).double()
    likeness = torch.nn.functional.cosine_similarity(code[:, None], code[None], dim=-1).numpy()
    strengths = torch.linalg.svdvals(code)
    near = np.diagonal(likeness, 1)
    report: dict[str, Any] = {
        "benchmark": "code_maps",
        "machine": _machine.describe(),
        "seed": options.seed,
        "repeats": 1,
        "place_cells": {
            "active": float((first > 0).mean()),
            "with_field": float(((first.max(1) > 0) & (wide <= 0.25)).mean()),
            "median_bits": float(np.median(bits[first.max(1) > 0])),
            "room_correlation": population_correlation(first, second),
        },
        "phase_code": {
            "adjacent_cosine": [float(near.min()), float(near.max())],
            "first_last_cosine": float(likeness[0, -1]),
            "singular_values": {
                f"above {share:g} of the largest": int((strengths > share * strengths[0]).sum())
                for share in (0.01, 0.1)
            },
        },
    }
    print(json.dumps(report, indent=1))
    if options.picture:
        side = grids[0].side ** 2
        shape = (-1, BINS, BINS)
        rooms = {
            "grid cells": grids[0](room)[:, ::side].T.reshape(shape).numpy(),
            "boundary cells": walls(room)[:, :: max(1, walls(room).shape[1] // SHOWN)][:, :SHOWN]
            .T.reshape(shape)
            .numpy(),
            "place cells": first[:SHOWN].reshape(shape),
            "in a second room": second[:SHOWN].reshape(shape),
        }
        codes(rooms, likeness, options.picture)


if __name__ == "__main__":
    main()
