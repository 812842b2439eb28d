"""Place cells of a rat and of ours on one path, remapping, path integration of grid cells, and the phase code.

    NEURO_DATA=... python benchmarks/place_cells.py --picture place.png

fields: one analysis (`neuro.evaluate.place_fields`) of the recorded units (one animal, one session, the first 800 s, running
faster than 40 px/s) and of as many of our cells. Boundary cells are driven by the animal's own path; grid cells, as many of
them again in one direction of movement alone, by a path that is integrated with errors and corrected at the walls. The place
cells learn their fields by competition, in moments of the run in random order. Their spikes are Poisson with
each recorded unit's own number in running and at rest; ``outside`` of them fall anywhere. Each part is also left out. Decoder:
maps from the first 400 s, places in the next 400 s; the animal's range is of 1,000 draws of its runs, with replacement.
--settle prints the bits, widths and decoding errors of other seeds, by which the error of the path and ``outside`` were chosen.
remapping: the population of one environment against the same cells in another, and in the first again after the second was
learned. grids: 1,000 noisy steps in a box, error against dead reckoning. phases: the code of position beside the sinusoidal.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import _machine
import numpy as np
import torch
from torch import Tensor

from neuro.evaluate import place_fields
from neuro.evaluate.place_fields import Protocol, Spikes, Statistics
from neuro.memory.grid_cells import BoundaryCells, GridCells
from neuro.memory.head_direction import ConjunctiveCells, HeadDirectionCells, PathIntegrator
from neuro.memory.phase_code import PhaseCode
from neuro.memory.place_cells import CompetitivePlaceCells, PlaceState
from neuro.plots.place import place_fields as picture
from neuro.sensors import line_track

SPACINGS = (0.35, 0.5, 0.7, 1.0)  # of the grid modules that integrate a path in a box, in sides of it
SCALES = (*SPACINGS, 1.4, 2.0)  # in lengths of the track; grown by the 1.42 of Stensola et al. 2012
DIRECTIONS = 8  # of head-direction cells
ENDS = 1.0  # % of the moments of running that lie behind a wall of the track
CELLS = 500
UNTIL_S, SPLIT_S, LEAST_SPEED = 800.0, 400.0, 40.0
ERROR, OUTSIDE = 0.04, 0.35  # chosen by --settle
ERRORS, SHARES = (0.03, 0.04, 0.05, 0.07), (0.25, 0.3, 0.35, 0.4)  # from these


class Settings(NamedTuple):
    """What drives our place cells, and what part of their spikes is not of a place."""

    scales: tuple[float, ...] = SCALES
    error: float = ERROR  # of the integrated path, sd after a length of the track
    directional: bool = True
    outside: float = OUTSIDE  # share of our spikes that fall without regard to the place
    spread: float = 0.6  # of the place cells' targets


class Track:
    """The recording, and the path in lengths of the track."""

    def __init__(self) -> None:
        found = line_track.load()
        self.spikes = found.spikes_s
        self.start = float(found.path_s[0])
        frames = place_fields.line(found.path_s, found.path_px, UNTIL_S)
        self.running = frames.speed > LEAST_SPEED
        self.run, self.rest = frames.where(self.running), frames.where(~self.running)
        # Along the track and across it; its walls are where the animal turns, not where it was carried from.
        axes = np.linalg.svd(frames.point - frames.point.mean(0), full_matrices=False)[2]
        points = frames.point @ axes.T
        low, high = np.percentile(points[self.running], [ENDS, 100.0 - ENDS], axis=0)
        length = high[0] - low[0]
        self.path = torch.tensor((points - low) / length, dtype=torch.float32)
        self.high = ((high - low) / length).tolist()
        # At rest the animal looks where it last ran.
        last = np.maximum.accumulate(np.where(self.running, np.arange(len(self.running)), 0))
        self.heading = torch.tensor(np.gradient(points, axis=0)[last], dtype=torch.float32)
        self.onward = np.gradient(frames.place)[self.running] > 0

    def statistics(self, spikes: Spikes) -> Statistics:
        return place_fields.statistics(spikes, self.run, (self.start, self.start + UNTIL_S))

    def error(self, spikes: Spikes, units: np.ndarray) -> place_fields.Decoded:
        return place_fields.decode([s for s, u in zip(spikes, units, strict=True) if u], self.run, self.start + SPLIT_S)


class Module:
    """Grid and boundary cells of an environment, and place cells that learn on them."""

    def __init__(self, track: Track, seed: int, settings: Settings) -> None:
        self.track, self.seed, self.settings = track, seed, settings
        self.walls = BoundaryCells([0.0, 0.0], track.high)
        self.odometer = PathIntegrator([0.0, 0.0], track.high, settings.error)
        grids = GridCells(settings.scales).cells * (1 + settings.directional)
        self.places = CompetitivePlaceCells(grids + self.walls.cells, CELLS, spread=settings.spread)
        self.targets = self.places.targets(seed)

    def inputs(self, environment: int) -> Tensor:
        """[F,I] of all frames of the path, at rest as well."""
        generator = torch.Generator().manual_seed(1000 * self.seed + environment)
        believed = self.odometer.follow(self.track.path, generator)
        grid = GridCells(self.settings.scales, environment=environment)
        parts = [grid(believed), self.walls(self.track.path)]
        if self.settings.directional:
            one_way = ConjunctiveCells(grid, HeadDirectionCells(DIRECTIONS, environment=environment))
            parts.append(one_way(believed, self.track.heading))
        return torch.cat(parts, 1)

    def learned(self, environment: int, state: PlaceState | None = None) -> PlaceState:
        """Twice a sixth of the moments of running, drawn at random: neighbours in time are nearly the same."""
        x = self.inputs(environment)[torch.from_numpy(self.track.running)]
        generator = torch.Generator().manual_seed(1000 * self.seed + environment)
        state = self.places.init_state(self.seed) if state is None else state
        for _ in range(2):
            state = self.places.learn(
                x[torch.randperm(len(x), generator=generator)[: len(x) // 6]], state, self.targets
            )
        return state

    def activity(self, environment: int, state: PlaceState) -> tuple[np.ndarray, np.ndarray]:
        """Running and at rest."""
        found = self.places.activity(self.inputs(environment), state).numpy()
        return found[self.track.running], found[~self.track.running]

    def fields(self, activity: np.ndarray) -> np.ndarray:
        """Mean activity [N,bins] over the track."""
        bins = Protocol().bins
        at = np.minimum((self.track.run.place * bins).astype(int), bins - 1)
        sums = np.stack([np.bincount(at, column, bins) for column in activity.T])
        return sums / np.maximum(np.bincount(at, minlength=bins), 1)


def as_recorded(module: Module, activity: tuple[np.ndarray, np.ndarray], outside: float) -> list[np.ndarray]:
    """Spike trains of as many active cells as units were recorded, with the units' numbers of spikes."""
    track, random = module.track, np.random.default_rng(module.seed)
    run, rest = activity
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
        "one_way": spread(place_fields.directionality(spikes, track.run, track.onward)[tuned]),
        "error_tuned": float(np.median(decoded.error)),
        "error_all": float(np.median(by_all.error)),
        "chance": decoded.chance,
        "windows": len(decoded.error),
    }


def recorded_range(track: Track) -> dict[str, Any]:
    """Median decoding errors of the animal, by its tuned units and by all: drawn runs (2.5, 50, 97.5 %), halves exchanged."""
    half = UNTIL_S - SPLIT_S

    def exchanged(time_s: np.ndarray) -> np.ndarray:
        return track.start + np.remainder(time_s - track.start + half, UNTIL_S)

    order = np.argsort(exchanged(track.run.time_s), kind="stable")
    frames = track.run.where(order)._replace(time_s=exchanged(track.run.time_s)[order])
    found: dict[str, Any] = {}
    for name, units in (("tuned", track.statistics(track.spikes).tuned), ("all", np.ones(len(track.spikes), bool))):
        chosen = [times for times, unit in zip(track.spikes, units, strict=True) if unit]
        drawn = place_fields.decoding_errors(chosen, track.run, track.start + SPLIT_S)
        inside = [times[(times >= track.start) & (times < track.start + UNTIL_S)] for times in chosen]
        other = place_fields.decode([np.sort(exchanged(times)) for times in inside], frames, track.start + half)
        found[name] = {
            "drawn runs": np.percentile(drawn, [2.5, 50.0, 97.5]).tolist(),
            "halves exchanged": float(np.median(other.error)),
        }
    return found


def settled(track: Track, seeds: range, settings: Settings) -> list[dict[str, Any]]:
    """Medians over seeds of what tuned units have, for each error of the path and each share outside, best first.

    Best: least distance from the recording, the sum over bits, width and decoding of the absolute logarithm of their ratio.
    """
    recorded = described(track, track.spikes)
    aims = {
        "corrected": recorded["corrected"][0],
        "width": recorded["width"][0],
        "error_tuned": recorded["error_tuned"],
    }
    rows = []
    for error in ERRORS:
        runs: dict[float, list[dict[str, Any]]] = {share: [] for share in SHARES}
        for seed in seeds:
            module = Module(track, seed, settings._replace(error=error))
            activity = module.activity(seed, module.learned(seed))
            for share in SHARES:
                spikes = as_recorded(module, activity, share)
                runs[share].append(described(track, spikes))
        for share, found in runs.items():
            row: dict[str, Any] = {"error": error, "outside": share}
            for name in (*aims, "one_way", "tuned"):
                row[name] = float(np.median([np.ravel(run[name])[0] for run in found]))
            row["distance"] = sum(abs(float(np.log(row[name] / aim))) for name, aim in aims.items())
            rows.append(row)
    return sorted(rows, key=lambda row: row["distance"])


def spread(values: np.ndarray) -> list[float]:
    """Median, least, most."""
    return [float(np.median(values)), float(values.min()), float(values.max())]


def remapping(track: Track, seeds: range, settings: Settings) -> dict[str, list[float]]:
    """Population correlations, one for each seed."""
    found: dict[str, list[float]] = {"new": [], "new, learned": [], "first again": [], "share": [], "ever": []}
    for seed in seeds:
        module = Module(track, seed, settings)
        first = module.learned(seed)
        second = module.learned(seed + 100, first)
        a, _ = module.activity(seed, first)
        there = module.fields(a)
        found["share"].append(float((a > 0).mean()))
        found["ever"].append(float(((a > 0).mean(0) > 0.005).mean()))
        for name, environment, state in (
            ("new", seed + 100, first),
            ("new, learned", seed + 100, second),
            ("first again", seed, second),
        ):
            other = module.fields(module.activity(environment, state)[0])
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
    parser.add_argument("--first", type=int, default=31, help="the first of the seeds; settings were chosen on 5 to 12")
    parser.add_argument("--spread", type=float, default=Settings().spread, help="of the place cells' targets")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--settle", action="store_true", help="print what the settings were chosen by, and end")
    args = parser.parse_args()
    torch.set_num_threads(1)
    track, seeds = Track(), range(args.first, args.first + args.seeds)
    settings = Settings(spread=args.spread)
    report: dict[str, Any] = {"machine": _machine.describe(), "seeds": list(seeds), "animals": 1}
    if args.settle:
        print(json.dumps(report | {"settled": settled(track, seeds, settings)}, indent=1))
        return
    report |= {"settings": settings._asdict(), "recorded": described(track, track.spikes)}
    trains: dict[int, list[np.ndarray]] = {}
    for name, changed in {
        "ours": {},
        "both directions alike": {"directional": False},
        "told the true position": {"error": 0.0},
        "the four finer grids": {"scales": SPACINGS},
        "all three left out": {"directional": False, "error": 0.0, "scales": SPACINGS},
    }.items():
        found, pure = [], []
        for seed in seeds:
            module = Module(track, seed, settings._replace(**changed))
            activity = module.activity(seed, module.learned(seed))
            spikes = as_recorded(module, activity, settings.outside)
            found.append(described(track, spikes))
            if not changed:
                trains[seed] = spikes
                pure.append(described(track, as_recorded(module, activity, 0.0)))
        report |= {f"ours: {name}": found} if changed else {name: found, "ours: no spikes outside": pure}
    head = [
        "",
        "tuned",
        "bits/spike",
        "corrected",
        "peak Hz",
        "width",
        "one way",
        "error, tuned",
        "error, all",
        "chance",
    ]
    rows = [head]
    for name, runs in report.items():
        if name != "recorded" and not name.startswith("ours"):
            continue
        for run in runs if isinstance(runs, list) else [runs]:
            columns = [ranged(run[key]) for key in ("information", "corrected", "peak_hz", "width", "one_way")]
            rows.append([name, run["tuned"], *columns, run["error_tuned"], run["error_all"], run["chance"]])
    table("fields: median (least most) of the tuned units; a row for each seed", rows)
    report["range"] = recorded_range(track)
    rows = [["", "2.5 %", "median", "97.5 %", "halves exchanged"]]
    rows += [[k, *v["drawn runs"], v["halves exchanged"]] for k, v in report["range"].items()]
    table("recorded: median decoding error, runs drawn with replacement", rows)
    report["remapping"] = remapping(track, seeds, settings)
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
