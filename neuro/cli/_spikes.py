"""neuro show --spikes: pictures of a model over a text, or of a recording."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from neuro import accounting, folder, plots, recorder
from neuro.cli import _model, refuse
from neuro.cli.show import VIEWS
from neuro.config import HORMONES
from neuro.errors import MissingError, UsageError, nearest
from neuro.events import CommitEvents, Events
from neuro.plots import spikes as pictures
from neuro.recorder import Recording
from neuro.session import Session

if TYPE_CHECKING:
    from neuro.brain import Brain

RECORDED = ("raster", "rates", "membrane")  # views that a recording has all for
MOST_STEPS = 1000  # of a recording that are drawn unless --steps says otherwise


def draw(args: argparse.Namespace) -> int:
    """Write the picture and print its path, or as JSON."""
    recorded = recorder.is_recording(args.model)
    view = args.view or ("raster" if recorded else VIEWS[0])
    if view not in VIEWS:
        raise UsageError(f"--view: got '{view}', expected one of {', '.join(VIEWS)}.", nearest(view, VIEWS))
    out = Path(args.out or "spikes.png")
    pictures.check_format(out)
    if args.steps is not None and not recorded:
        raise UsageError("--steps has no effect without a recording.", "Leave it out, or give a folder of --record.")
    picture = _of_recording(args, view, out) if recorded else _of_model(args, view, out)
    if picture is None:
        raise MissingError("neuro show --spikes needs matplotlib.", "pip install 'neuro-hybrid[plots]'")
    print(json.dumps({"schema": "neuro.show/1", "picture": str(out)}) if args.json else out)
    return 0


class Run(NamedTuple):
    """What a text left behind in one row: T tokens, S spiking layers."""

    events: list[Events]
    hormones: np.ndarray  # [T, H] as held at each token
    commits: list[int]  # tokens after which the brain committed
    labels: list[str]

    def trace(self, name: str) -> np.ndarray:
        """An event [T, ...] of the row."""
        return torch.cat([getattr(event, name)[0] for event in self.events]).cpu().numpy()

    def layers(self, name: str, brain: Brain) -> dict[str, np.ndarray]:
        """An event [T, S, N] by spiking layer, [T, N]."""
        found = self.trace(name)
        emitters = accounting.emitters(brain)
        return {f"cortex.{emitter.name}": found[:, i, : emitter.channels] for i, emitter in enumerate(emitters)}


def _of_model(args: argparse.Namespace, view: str, out: Path) -> Path | None:
    if not args.text and view not in ("weights", "surrogate"):
        try:
            folder.locate(args.model)
        except MissingError:
            raise MissingError(
                f"{args.model}: no recording and no model here.",
                'Give the folder of a --record, or a model and a text: neuro show small "Once upon a time" --spikes',
            ) from None
        raise UsageError(
            "neuro show --spikes: no text to run.", 'Give one: neuro show small "Once upon a time" --spikes'
        )
    brain = _model.load(args.model, args, record_raster=True, record_membrane=view in ("membrane", "surrogate"))
    if view == "weights":
        return pictures.weights(_weights(brain), out)
    if view == "surrogate":
        return _surrogate(brain, listen(brain, args.text) if args.text else None, out)
    run = listen(brain, args.text)
    spikes = run.layers("raster", brain)
    if view == "overview":
        return _overview(brain, run, spikes, out)
    if view == "rates":
        return pictures.rates(
            {name: raster.sum(0) for name, raster in spikes.items()}, len(run.labels), out, step="token"
        )
    if view == "raster":
        return pictures.raster(spikes, out, step="token", labels=run.labels, commits=run.commits)
    return _membrane(
        run.layers("membrane", brain), spikes, brain.config.cortex.v_threshold, out, 0, run.labels, run.commits
    )


def listen(brain: Brain, text: str) -> Run:
    """Read a text in a fresh stream, token by token."""
    ids = [brain.tokenizer.bos_id, *brain.tokenizer.encode(text)]
    run = Run([], np.empty((len(ids), len(HORMONES))), [], [brain.tokenizer.decode([token]) for token in ids])

    class Record:
        def span(self, events: Sequence[Events], commit: CommitEvents) -> None:
            run.events.extend(events)

    session = Session(brain, observers=[Record()])
    for position, token in enumerate(ids):
        run.hormones[position] = brain.modulators(session.state)[0].cpu()
        session.feed(torch.tensor([[token]]))
        if int(session.state.clock) == 0:
            run.commits.append(position)
    session.commit()
    return run


def _overview(brain: Brain, run: Run, spikes: dict[str, np.ndarray], out: Path) -> Path | None:
    affect = run.trace("affect")
    traces = {
        "surprise / 10 nats": run.trace("surprise") / 10,
        "salience": run.trace("salience"),
        "valence": affect[:, 0],
        "arousal": affect[:, 1],
    }
    hormones = {name: run.hormones[:, i] for i, name in enumerate(HORMONES)}
    return plots.limbic_raster(run.labels, spikes, traces, hormones, run.commits, out)


def _membrane(
    u: dict[str, np.ndarray],
    spikes: dict[str, np.ndarray],
    threshold: float,
    out: Path,
    first: int,
    labels: Sequence[str],
    commits: Sequence[int],
) -> Path | None:
    """Of a cortex: soft reset, and the threshold is the unit of nothing but itself."""
    after = {name: potential - threshold * spikes[name] for name, potential in u.items()}
    return pictures.membrane(
        u, spikes, out, threshold=threshold, after=after, first=first, step="token", labels=labels, commits=commits
    )


def _weights(brain: Brain) -> dict[str, np.ndarray]:
    """What drives LIF neurons and what spikes drive, of every population."""
    parts: list[str] = []
    for emitter in accounting.emitters(brain):
        parts += [*([f"{emitter.name}.inject"] if emitter.neurons == 1 else []), emitter.projection]
    found = {f"cortex.{part}": brain.region("cortex").get_parameter(f"{part}.weight") for part in parts}
    return {part: weight.detach().float().cpu().numpy() for part, weight in found.items()}


def _surrogate(brain: Brain, run: Run | None, out: Path) -> Path | None:
    from backends import Surrogate

    c = brain.config.cortex
    surrogate = Surrogate(slope=c.surrogate_slope)
    membranes = run.layers("membrane", brain) if run else {}
    reach = max([3.0 * c.v_threshold, *(float(np.quantile(np.abs(u), 0.999)) for u in membranes.values())])
    u = torch.cat([torch.linspace(-reach, c.v_threshold, 400), torch.linspace(c.v_threshold, reach, 400)])

    def slope(potential: torch.Tensor) -> torch.Tensor:
        return surrogate.derivative(potential - c.v_threshold)

    membranes = {f"{name}: mean slope {slope(torch.from_numpy(at)).mean():.3f}": at for name, at in membranes.items()}
    curves = {f"fast sigmoid of slope {c.surrogate_slope:g}": (u.numpy(), slope(u).numpy())}
    return pictures.surrogate(curves, out, threshold=c.v_threshold, membranes=membranes)


def _of_recording(args: argparse.Namespace, view: str, out: Path) -> Path | None:
    refuse(args, "show RECORDING", ["backend", "set"])
    if args.text:
        raise UsageError("neuro show --spikes: got a recording and a text.", "Leave out the text: the run is over.")
    if view not in RECORDED:
        raise UsageError(
            f"--view: got '{view}' of a recording, expected one of {', '.join(RECORDED)}.",
            "Give the model instead, and a text where one is needed.",
        )
    recording = Recording(args.model)
    spikes = next((name for name, signal in recording.signals.items() if _drawable(signal.kind, signal.shape)), None)
    if spikes is None:
        raise UsageError(
            f"{args.model}: no signal of spikes [T, B, N] in it, only {', '.join(recording.signals)}.",
            "Record one, or read the others with neuro.recorder.Recording.",
        )
    start, stop = _range(args.steps, recording, view)
    step = str(recording.about.get("step", "step"))
    if view == "rates":
        counts = _by_population(recording, spikes, _counts(recording, spikes, start, stop))
        trials = (stop - start) * recording.signals[spikes].shape[0]
        return pictures.rates(counts, trials, out, dt_ms=recording.dt_ms, step=step)
    fired = _by_population(recording, spikes, recording.read(spikes, start, stop)[:, 0])
    commits: list[int] = []
    if "commit" in recording.signals:
        commits = np.flatnonzero(recording.read("commit", start, stop)).tolist()
    if view == "raster":
        return pictures.raster(fired, out, first=start, dt_ms=recording.dt_ms, step=step, commits=commits)
    if "membrane" not in recording.signals or recording.signals["membrane"].shape != recording.signals[spikes].shape:
        raise UsageError(
            f"{args.model}: no signal 'membrane' of the shape of '{spikes}' in it.", "Record one, or draw the raster."
        )
    u = _by_population(recording, spikes, recording.read("membrane", start, stop)[:, 0])
    threshold = recording.about.get("threshold")
    if "decay" in recording.about and threshold is not None:  # a cortex, whose reset is known
        return _membrane(u, fired, float(threshold), out, start, (), commits)
    return pictures.membrane(
        u, fired, out, threshold=threshold, first=start, dt_ms=recording.dt_ms, step=step, commits=commits
    )


def _drawable(kind: str, shape: tuple[int, ...]) -> bool:
    return kind in ("spikes", "counts") and len(shape) in (2, 3)


def _range(given: str | None, recording: Recording, view: str) -> tuple[int, int]:
    """A:B, either left out; without it all steps for rates, else the first `MOST_STEPS`."""
    if given is None:
        return 0, recording.steps if view == "rates" else min(MOST_STEPS, recording.steps)
    start, colon, stop = given.partition(":")
    bounds = [start or "0", stop or str(recording.steps)]
    if (
        not colon
        or not all(bound.isdecimal() for bound in bounds)
        or not int(bounds[0]) < int(bounds[1]) <= recording.steps
    ):
        raise UsageError(
            f"--steps: got '{given}', expected A:B with A < B <= {recording.steps}, the steps recorded.",
            f"For example --steps 0:{min(MOST_STEPS, recording.steps)}.",
        )
    return int(bounds[0]), int(bounds[1])


def _by_population(recording: Recording, spikes: str, values: np.ndarray) -> dict[str, np.ndarray]:
    """[..., N], or [..., S, N] by the names of the populations that the signal ``spikes`` is of."""
    if len(recording.signals[spikes].shape) == 2:
        return {spikes: values}
    names = recording.about.get("populations") or [f"{spikes} {number}" for number in range(values.shape[-2])]
    channels = recording.about.get("channels") or [values.shape[-1]] * len(names)
    pairs = enumerate(zip(names, channels, strict=True))
    return {str(name): values[..., number, :channel] for number, (name, channel) in pairs}


def _counts(recording: Recording, name: str, start: int, stop: int) -> np.ndarray:
    """Spikes of each neuron over all rows of the batch, [..., N]; a chunk at a time."""
    counts = np.zeros(recording.signals[name].shape[1:], np.int64)
    for _, piece in recording.pieces(name, start, stop):
        counts += piece.sum((0, 1), dtype=np.int64)
    return counts
