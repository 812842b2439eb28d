"""Place cells of a rat and of ours on one path, remapping, path integration of grid cells, and the phase code.

    NEURO_DATA=... python benchmarks/place_cells.py --picture place.png

fields: one analysis (`neuro.evaluate.place_fields`) of the recorded units (one animal, one session, the first 800 s, running
faster than 40 px/s) and of as many of our cells. Grid and boundary cells are constructed and driven by the animal's own
path; the place cells learn their fields by competition, in positions of the run in random order. Their spikes are Poisson with
each recorded unit's own number in running and at rest; ``outside`` of them fall anywhere. Decoder: maps from the first 400 s,
places in the next 400 s. remapping: the population of one environment against the same cells in another, and in the first again
after the second was learned. grids: 1,000 noisy steps in a box, error against dead reckoning. phases: the code of position
beside the sinusoidal one.
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

from neuro.evaluate import place_fields
from neuro.evaluate.place_fields import Frames, Protocol, Spikes, Statistics
from neuro.memory.grid_cells import BoundaryCells, GridCells
from neuro.memory.phase_code import PhaseCode
from neuro.memory.place_cells import CompetitivePlaceCells, PlaceState
from neuro.plots.place import place_fields as picture
from neuro.sensors import line_track

SPACINGS = (0.35, 0.5, 0.7, 1.0)  # of the grid modules, in lengths of the track
CELLS = 500
UNTIL_S, SPLIT_S, LEAST_SPEED = 800.0, 400.0, 40.0
OUTSIDE = 0.4  # share of our spikes that fall without regard to the place


class Track:
    """The recording, and the path in lengths of the track."""

    def __init__(self) -> None:
        found = line_track.load()
        self.spikes = found.spikes_s
        self.start = float(found.path_s[0])
        frames = place_fields.line(found.path_s, found.path_px, UNTIL_S)
        self.run, self.rest = frames.where(frames.speed > LEAST_SPEED), frames.where(frames.speed <= LEAST_SPEED)
        self.low = self.run.point.min(0)
        self.length = float(np.hypot(*np.ptp(self.run.point, axis=0)))

    def points(self, frames: Frames) -> Tensor:
        return torch.tensor((frames.point - self.low) / self.length, dtype=torch.float32)

    def statistics(self, spikes: Spikes) -> Statistics:
        return place_fields.statistics(spikes, self.run, (self.start, self.start + UNTIL_S))

    def error(self, spikes: Spikes, units: np.ndarray) -> place_fields.Decoded:
        return place_fields.decode([s for s, u in zip(spikes, units, strict=True) if u], self.run, self.start + SPLIT_S)


class Module:
    """Grid and boundary cells of an environment, and place cells that learn on them."""

    def __init__(self, track: Track, seed: int, spread: float) -> None:
        self.track, self.seed = track, seed
        walls = BoundaryCells([0.0, 0.0], (np.ptp(track.run.point, axis=0) / track.length).tolist())
        self.walls = walls
        inputs = GridCells(SPACINGS).cells + walls.cells
        self.places = CompetitivePlaceCells(inputs, CELLS, spread=spread)
        self.targets = self.places.targets(seed)

    def inputs(self, frames: Frames, environment: int) -> Tensor:
        points = self.track.points(frames)
        return torch.cat([GridCells(SPACINGS, environment=environment)(points), self.walls(points)], 1)

    def learned(self, environment: int, state: PlaceState | None = None) -> PlaceState:
        """Twice a sixth of the moments of running, drawn at random: neighbours in time are nearly the same."""
        x = self.inputs(self.track.run, environment)
        generator = torch.Generator().manual_seed(1000 * self.seed + environment)
        state = self.places.init_state(self.seed) if state is None else state
        for _ in range(2):
            state = self.places.learn(
                x[torch.randperm(len(x), generator=generator)[: len(x) // 6]], state, self.targets
            )
        return state

    def activity(self, frames: Frames, environment: int, state: PlaceState) -> np.ndarray:
        return self.places.activity(self.inputs(frames, environment), state).numpy()

    def fields(self, activity: np.ndarray) -> np.ndarray:
        """Mean activity [N,bins] over the track."""
        bins = Protocol().bins
        at = np.minimum((self.track.run.place * bins).astype(int), bins - 1)
        sums = np.stack([np.bincount(at, column, bins) for column in activity.T])
        return sums / np.maximum(np.bincount(at, minlength=bins), 1)


def as_recorded(track: Track, module: Module, state: PlaceState, outside: float, seed: int) -> list[np.ndarray]:
    """Spike trains of as many active cells as units were recorded, with the units' numbers of spikes."""
    random = np.random.default_rng(seed)
    run, rest = (module.activity(frames, seed, state) for frames in (track.run, track.rest))
    active = np.flatnonzero((run > 0).mean(0) > 0.005)
    chosen = random.choice(active, len(track.spikes), replace=False)
    # The cell that is active most takes the unit with the most spikes: a narrow field with a broad one's would burst.
    by_spikes = np.argsort(place_fields.counted(track.spikes, track.run).sum(0))
    chosen[by_spikes] = chosen[np.argsort(run[:, chosen].mean(0) / run[:, chosen].max(0))]
    floor = outside / (1.0 - outside) * run[:, chosen].mean(0) if outside else 1e-12
    parts = [
        place_fields.poisson(
            rates[:, chosen] + floor, frames, place_fields.counted(track.spikes, frames).sum(0), random
        )
        for rates, frames in ((run, track.run), (rest, track.rest))
    ]
    return [np.sort(np.concatenate(both)) for both in zip(*parts, strict=True)]


def described(track: Track, spikes: Spikes) -> dict[str, Any]:
    found = track.statistics(spikes)
    tuned = found.tuned
    decoded, by_all = track.error(spikes, tuned), track.error(spikes, np.ones_like(tuned))
    return {
        "spikes": int(found.spikes.sum()),
        "judged": int(found.judged.sum()),
        "tuned": int(tuned.sum()),
        "information": spread(found.information[tuned]),
        "corrected": spread(found.corrected[tuned]),
        "peak_hz": spread(found.peak_hz[tuned]),
        "width": spread(found.width[tuned]),
        "error_tuned": float(np.median(decoded.error)),
        "error_all": float(np.median(by_all.error)),
        "chance": decoded.chance,
        "windows": len(decoded.error),
    }


def spread(values: np.ndarray) -> list[float]:
    """Median, least, most."""
    return [float(np.median(values)), float(values.min()), float(values.max())]


def remapping(track: Track, seeds: range, spread: float) -> dict[str, list[float]]:
    """Population correlations, one for each seed."""
    found: dict[str, list[float]] = {"new": [], "new, learned": [], "first again": [], "share": [], "ever": []}
    for seed in seeds:
        module = Module(track, seed, spread)
        first = module.learned(seed)
        second = module.learned(seed + 100, first)
        a = module.activity(track.run, seed, first)
        there = module.fields(a)
        found["share"].append(float((a > 0).mean()))
        found["ever"].append(float(((a > 0).mean(0) > 0.005).mean()))
        for name, environment, state in (
            ("new", seed + 100, first),
            ("new, learned", seed + 100, second),
            ("first again", seed, second),
        ):
            other = module.fields(module.activity(track.run, environment, state))
            found[name].append(place_fields.population_correlation(there, other))
    return found


def path_integration(seeds: int, steps: int = 1000, noise: float = 0.01) -> dict[str, list[float]]:
    """Distance between where it is and where it is believed to be after the steps, in lengths of the box; one a seed.

    Steps of length 0.03 in a box of side 1, turning at random and at walls; noise: sd on each axis of a step.
    """
    grid = GridCells(SPACINGS)
    found: dict[str, list[float]] = {
        "dead reckoning": [],
        "grids, the same noise": [],
        "four dead reckonings, own noise, mean": [],
        "grids, own noise, coupled each step": [],
        "grids, own noise, never coupled": [],
    }
    for seed in range(seeds):
        generator = torch.Generator().manual_seed(seed)
        turns = 0.5 * torch.randn(steps, generator=generator)
        place, heading, moves = torch.tensor([0.5, 0.5]), torch.rand((), generator=generator) * 6.283, []
        for turn in turns:
            heading = heading + turn
            step = 0.03 * torch.stack([torch.cos(heading), torch.sin(heading)])
            if bool(((place + step - 0.5).abs() > 0.5).any()):
                heading, step = heading + torch.pi, -step
            place = place + step
            moves.append(step)
        movement = torch.stack(moves)
        start = place - movement.sum(0)
        shared = movement + noise * torch.randn(steps, 2, generator=generator)
        own = movement.unsqueeze(1) + noise * torch.randn(steps, len(SPACINGS), 2, generator=generator)

        def miss(believed: Tensor, true: Tensor = place) -> float:
            return float((believed - true).norm())

        def followed(steps_of: Tensor, coupled: bool, first: Tensor = start) -> Tensor:
            phases, near = grid.phases(first), first
            for step in steps_of:
                phases = grid.integrate(phases, step.unsqueeze(0))[0]
                near = grid.couple(phases, near)
                phases = grid.phases(near) if coupled else phases
            return near

        found["dead reckoning"].append(miss(start + shared.sum(0)))
        found["grids, the same noise"].append(miss(followed(shared, False)))
        found["four dead reckonings, own noise, mean"].append(miss(start + own.sum(0).mean(0)))
        found["grids, own noise, coupled each step"].append(miss(followed(own, True)))
        found["grids, own noise, never coupled"].append(miss(followed(own, False)))
    return found


def phases(length: int = 512, width: int = 768) -> dict[str, dict[str, float]]:
    """What tells positions apart, of our code and of the sinusoidal one (Vaswani et al. 2017)."""
    at = torch.arange(length)
    turn = at.unsqueeze(1) / 10000.0 ** (torch.arange(0, width, 2) / width)
    codes = {"theta-gamma": PhaseCode(width)(at), "sinusoidal": torch.cat([torch.sin(turn), torch.cos(turn)], 1)}
    found = {}
    for name, code in codes.items():
        unit = torch.nn.functional.normalize(code.double(), dim=1)
        values = torch.linalg.svdvals(code.double())
        next_to = (unit[1:] * unit[:-1]).sum(1)
        found[name] = {
            "adjacent, most": float(next_to.max()),
            "adjacent, least": float(next_to.min()),
            "first and last": float(unit[0] @ unit[-1]),
            "singular values above 1 % of the largest": int((values > 0.01 * values[0]).sum()),
            "above 10 %": int((values > 0.1 * values[0]).sum()),
        }
    return found


def table(title: str, rows: list[list[Any]]) -> None:
    cells = [[f"{x:.3f}" if isinstance(x, float) else str(x) for x in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    print(f"\n{title}")
    for row in cells:
        print("  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


def ranged(values: list[float]) -> str:
    return f"{values[0]:.2f} ({values[1]:.2f} {values[2]:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="the first of the seeds; settings were chosen on 5 to 20")
    parser.add_argument("--spread", type=float, default=0.7, help="of the place cells' targets")
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    track, seeds = Track(), range(args.first, args.first + args.seeds)
    report: dict[str, Any] = {"machine": _machine.describe(), "seeds": list(seeds), "animals": 1, "spread": args.spread}
    report["recorded"] = described(track, track.spikes)
    trains: dict[int, list[np.ndarray]] = {}
    for outside in (OUTSIDE, 0.0):
        found = []
        for seed in seeds:
            module = Module(track, seed, args.spread)
            spikes = as_recorded(track, module, module.learned(seed), outside, seed)
            found.append(described(track, spikes))
            if outside:
                trains[seed] = spikes
        report[f"ours, {outside:.1f} of the spikes outside"] = found
    head = ["", "tuned", "bits/spike", "corrected", "peak Hz", "width", "error, tuned", "error, all", "chance"]
    rows = [head]
    for name, runs in report.items():
        if name != "recorded" and not name.startswith("ours"):
            continue
        for run in runs if isinstance(runs, list) else [runs]:
            columns = [ranged(run[key]) for key in ("information", "corrected", "peak_hz", "width")]
            rows.append([name, run["tuned"], *columns, run["error_tuned"], run["error_all"], run["chance"]])
    table("fields: median (least most) of the tuned units; a row for each seed", rows)
    report["remapping"] = remapping(track, seeds, args.spread)
    rows = [["", "median", "least", "most"]] + [[k, *spread(np.array(v))] for k, v in report["remapping"].items()]
    table(f"remapping: population correlation with the first environment, {args.seeds} seeds", rows)
    report["path_integration"] = path_integration(20)
    rows = [["", "median", "least", "most"]] + [
        [k, *spread(np.array(v))] for k, v in report["path_integration"].items()
    ]
    table("path integration: error after 1,000 steps, sides of the box, 20 seeds", rows)
    report["phases"] = phases()
    names = list(next(iter(report["phases"].values())))
    table("phase code, 512 x 768", [["", *names], *[[k, *v.values()] for k, v in report["phases"].items()]])
    if args.picture:
        units = [track.spikes, trains[args.first]]
        picture(
            {name: track.statistics(s) for name, s in zip(("recorded", "ours"), units, strict=True)},
            {name: track.error(s, np.ones(len(s), bool)) for name, s in zip(("recorded", "ours"), units, strict=True)},
            args.picture,
        )
    print(json.dumps(report))


if __name__ == "__main__":
    main()
