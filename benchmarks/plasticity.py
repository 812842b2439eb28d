"""STDP beside the experiments, and e-prop beside backpropagation through time.

    python benchmarks/plasticity.py --picture plasticity.png
    python benchmarks/plasticity.py --skip digits patterns          # the STDP tables alone

window: 60 pairs at 1 Hz at every lag by the rule, and the exponentials fitted to what it gives. frequency: the pairing
experiments at 0.1 to 50 Hz by the triplet models and by the best pair rules. digits: spoken digits (FSDD, 20 mel bands in
frames of 10 ms, 60 frames), learned by e-prop with each kind of feedback, by backpropagation through time with the same
slopes, with the readout alone, and without recurrent weights; recordings 10-49 train, 5-9 are the validation part on which
the constants were chosen, 0-4 are tested once at the end. patterns: three sums of sinusoids from frozen noise, 500 ms in
steps of 1 ms, where the membrane remembers 20 steps. Cosines are between e-prop's gradient and that of backpropagation
through time at the same weights, on the same batch (200 training recordings; the pattern).

Numerics come first: every scan against its steps in float64. Prints tables, then one JSON object.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import math
import os
import statistics
import time
import wave
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _machine
import numpy as np
import torch
from torch import Tensor

from neuro.neurons.eprop import Activity, EpropNetwork, EpropNeuron, Gradients, rate_error
from neuro.neurons.pairing import SJOSTROM, best_pair_rule, pairing, pairing_changes, pairing_misfit
from neuro.neurons.stdp import BI_POO, VISUAL_CORTEX, Stdp
from neuro.plots.plasticity import plasticity

MATRICES = ("inputs", "recurrent", "out")


def cosine(a: Tensor, b: Tensor) -> float:
    return float((a * b).sum() / (a.norm() * b.norm()).clamp_min(1e-30))


def table(title: str, head: list[str], rows: list[list[Any]]) -> None:
    cells = [head, *[[f"{x:.3f}" if isinstance(x, float) else str(x) for x in row] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    print(f"\n{title}")
    for row in cells:
        print("  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


def check_numerics() -> float:
    """The largest relative difference between scans and steps in float64, of every rule and of e-prop."""
    generator = torch.Generator().manual_seed(0)

    def spikes(*shape: int) -> Tensor:
        return (torch.rand(*shape, dtype=torch.float64, generator=generator) < 0.2).double()

    worst = 0.0
    pre, post = spikes(200, 3, 7), spikes(200, 3, 5)
    for rule in (BI_POO, *VISUAL_CORTEX.values()):
        state = rule.init_state(3, 7, 5, dtype=torch.float64)
        whole, _ = rule.scan(pre, post, state, per_stream=True)
        total = torch.zeros_like(whole)
        for pre_t, post_t in zip(pre, post, strict=True):
            change, state = rule.step(pre_t, post_t, state)
            total += change
        worst = max(worst, float((whole - total).abs().max() / total.abs().max()))
    network = EpropNetwork(7, 9, 3, adaptation=0.2, gain=(3.0, 0.3), generator=generator).double()
    activity, _ = network.scan(pre, network.init_state(3))
    activity = Activity(*(x.detach() for x in activity))
    error = torch.randn(200, 3, 3, dtype=torch.float64, generator=generator)
    whole_gradients, _ = network.gradients(activity, error)
    waiting, sums = network.init_eprop(3), [torch.zeros_like(x) for x in whole_gradients]
    for t in range(200):
        of_step = [x[t : t + 1] for x in activity[:4]]
        before = activity.spikes[t - 1] if t else activity.before
        found, waiting = network.gradients_step(Activity(*of_step, before), error[t : t + 1], waiting)
        sums = [x + y for x, y in zip(sums, found, strict=True)]
    return max(worst, *(float((x - y).abs().max() / y.abs().max()) for x, y in zip(whole_gradients, sums, strict=True)))


def cost(rounds: int = 7) -> dict[str, list[float]]:
    """CPU milliseconds (process time) of one batch as the digits have it, ways in turn; least and median of the rounds."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(60, 50, 20, generator=generator)
    network = EpropNetwork(20, 128, 10, adaptation=0.2, gain=(3.0, 0.2), generator=generator)
    error = torch.randn(60, 50, 10, generator=generator)
    pre, post = ((torch.rand(1000, 8, 100, generator=generator) < 0.02).float() for _ in range(2))
    rule = VISUAL_CORTEX["all-to-all"]
    state, waiting = network.init_state(50), network.init_eprop(50)
    with torch.no_grad():
        activity, _ = network.scan(x, state)

    def eprop_steps() -> None:
        carried = waiting
        for t in range(60):
            before = activity.spikes[t - 1] if t else activity.before
            of_step = Activity(*(a[t : t + 1] for a in activity[:4]), before)
            _, carried = network.gradients_step(of_step, error[t : t + 1], carried)

    def stdp_steps() -> None:
        carried = rule.init_state(8, 100, 100)
        for pre_t, post_t in zip(pre, post, strict=True):
            _, carried = rule.step(pre_t, post_t, carried)

    def forward() -> None:
        with torch.no_grad():
            network.scan(x, state)

    def through_time() -> None:
        backpropagated(network, network.scan(x, state)[0], error, None)

    ways: dict[str, Callable[[], object]] = {
        "forward": forward,
        "forward and backpropagation through time": through_time,
        "e-prop gradients, scan": lambda: network.gradients(activity, error),
        "e-prop gradients, scan with carried state": lambda: network.gradients(activity, error, waiting),
        "e-prop gradients, 60 steps": eprop_steps,
        "triplet STDP, 1000 steps at once": lambda: rule.scan(pre, post, rule.init_state(8, 100, 100)),
        "triplet STDP, step by step": stdp_steps,
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, work in ways.items():
            started = time.process_time()
            work()
            times[name].append(1e3 * (time.process_time() - started))
    found = {name: [min(values), statistics.median(values)] for name, values in times.items()}
    table("cost of one batch, CPU ms", ["", "least", "median"], [[name, *values] for name, values in found.items()])
    return found


def window() -> dict[str, Any]:
    """Lags, changes, and the exponentials that a straight line through their logarithms gives."""
    lags = [float(lag) for lag in range(-100, 101) if lag]
    pre, post = pairing(1.0, tuple(lags))
    change, _ = BI_POO.scan(pre, post, BI_POO.init_state(len(lags), 1, 1, dtype=torch.float64), per_stream=True)
    changes = change.reshape(-1).numpy()
    found, rows = {}, []
    for sign, a, tau, name in ((1, 0.777, 16.8, "LTP"), (-1, -0.273, 33.7, "LTD")):
        side = sign * np.array(lags) > 0
        slope, start = np.polyfit(np.abs(np.array(lags)[side]), np.log(np.abs(changes[side])), 1)
        found[name] = {"amplitude": float(sign * math.exp(start)), "tau_ms": float(-1 / slope)}
        rows.append([name, a, found[name]["amplitude"], tau, found[name]["tau_ms"]])
    table(
        "window: 60 pairs at 1 Hz (Bi and Poo 1998; fit of 2001)",
        ["", "A, fit", "A, rule", "tau, fit", "tau, rule"],
        rows,
    )
    return {"lags_ms": lags, "changes": changes.tolist(), "fit": found}


def frequency() -> dict[str, Any]:
    """Changes over frequencies and the misfit E of every model."""
    models: dict[str, Stdp] = {f"triplet, {name}": rule for name, rule in VISUAL_CORTEX.items()}
    taus = (3.0, 5.0, 7.0, 10.0, 14.0, 16.8, 20.0, 25.0, 33.7, 50.0, 80.0, 120.0, 200.0)
    models["best pair rule, tau of the window"] = best_pair_rule(SJOSTROM, (16.8,), (33.7,))[0]
    models["best pair rule, any tau"] = best_pair_rule(SJOSTROM, taus, taus)[0]
    models["best pair rule, nearest, any tau"] = best_pair_rule(SJOSTROM, taus, taus, nearest=True)[0]
    result, rows = {}, []
    head = ["", *[f"{f:g} Hz" for _ in SJOSTROM.lags_ms for f in SJOSTROM.frequencies_hz], "E"]
    rows.append(["data, +10 then -10 ms", *[x for row in SJOSTROM.changes for x in row], ""])
    for name, rule in models.items():
        changes = pairing_changes(rule, SJOSTROM).tolist()
        misfit = pairing_misfit(rule, SJOSTROM)
        result[name] = {"changes": changes, "misfit": misfit, "rule": dataclasses.asdict(rule)}
        rows.append([name, *[x for row in changes for x in row], misfit])
    table("frequency: relative change after 60 pairs (Sjostrom et al. 2001), E = mean squared misfit", head, rows)
    return result


@dataclasses.dataclass(frozen=True)
class Arm:
    """One way to train; ``slow`` scales the rate of what enters membranes."""

    feedback: str = "symmetric"
    bptt: bool = False
    learns: tuple[str, ...] = MATRICES
    adaptation: float = 0.0
    recurrent: float = 0.2
    decay: float = 0.0
    slow: float = 1.0


DIGITS = {
    "e-prop, symmetric": Arm(),
    "e-prop, symmetric, half adaptive neurons": Arm(adaptation=0.2),
    "e-prop, symmetric, recurrent gain 1": Arm(recurrent=1.0),
    "e-prop, random feedback": Arm("random"),
    "e-prop, adaptive feedback": Arm("adaptive", decay=0.1),
    "backpropagation through time": Arm(bptt=True),
    "e-prop, no recurrent weights": Arm(learns=("inputs", "out"), recurrent=0.0),
    "readout alone": Arm(learns=("out",)),
}
PATTERNS = {
    "e-prop, rate of the membranes times 1 - alpha": Arm(slow=0.05),
    "the same, random feedback": Arm("random", slow=0.05),
    "the same, backpropagation through time": Arm(bptt=True, slow=0.05),
    "e-prop, one rate for all": Arm(),
    "backpropagation through time, one rate for all": Arm(bptt=True),
}


def make(arm: Arm, sizes: tuple[int, int, int], constants: EpropNeuron, seed: int) -> EpropNetwork:
    """Half of the neurons adapt where the arm has any adaptation."""
    adaptation = torch.zeros(sizes[1])
    adaptation[sizes[1] // 2 :] = arm.adaptation
    generator = torch.Generator().manual_seed(seed)
    return EpropNetwork(*sizes, constants, arm.feedback, adaptation, (3.0, arm.recurrent), generator)


def optimizer(network: EpropNetwork, arm: Arm, rate: float) -> torch.optim.Optimizer:
    slow = [network.inputs, network.recurrent]
    rest = [p for p in network.parameters() if p.requires_grad and all(p is not q for q in slow)]
    return torch.optim.AdamW(
        [{"params": slow, "lr": rate * arm.slow}, {"params": rest, "lr": rate}], rate, weight_decay=arm.decay
    )


def backpropagated(network: EpropNetwork, activity: Activity, error: Tensor, direct: Tensor | None) -> Gradients:
    loss = (activity.out * error).sum()
    if direct is not None:
        loss = loss + (activity.spikes * direct).sum()
    return Gradients(*torch.autograd.grad(loss, [network.inputs, network.recurrent, network.out]))


def learned(network: EpropNetwork, arm: Arm, gradients: Gradients, optimizer: torch.optim.Optimizer) -> None:
    silent = {name: torch.zeros_like(getattr(gradients, name)) for name in MATRICES if name not in arm.learns}
    optimizer.zero_grad()
    network.add_to_grad(gradients._replace(**silent))
    optimizer.step()


def detached(activity: Activity) -> Activity:
    return Activity(*(x.detach() for x in activity))


def load_digits(folder: Path, frames: int = 60, bands: int = 20) -> tuple[Tensor, Tensor, Tensor]:
    """Log mel energies [recording, frame, band] in 0..1 below the recording's loudest, the digit, the recording's index."""

    def hz(mel: np.ndarray) -> np.ndarray:
        return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)

    edges = hz(np.linspace(*(2595.0 * np.log10(1.0 + f / 700.0) for f in (100.0, 4000.0)), bands + 2))
    bins = np.linspace(0.0, 4000.0, 129)
    filters = np.stack(
        [
            np.clip(np.minimum((bins - a) / (b - a), (c - bins) / (c - b)), 0.0, None)
            for a, b, c in zip(edges, edges[1:], edges[2:], strict=False)
        ]
    )
    features, digits, indices = [], [], []
    with zipfile.ZipFile(folder / "fsdd" / "recordings.zip") as archive:
        for name in sorted(n for n in archive.namelist() if n.endswith(".wav")):
            digit, _, index = Path(name).stem.split("_")
            with wave.open(io.BytesIO(archive.read(name))) as file:
                sound = np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(float)
            pieces = np.lib.stride_tricks.sliding_window_view(np.pad(sound, (0, max(0, 200 - len(sound)))), 200)[::80]
            energy = np.log(np.abs(np.fft.rfft(pieces * np.hanning(200), 256)) ** 2 @ filters.T + 1e-3)
            padded = np.zeros((frames, bands))
            padded[: len(energy)] = np.clip((energy - energy.max()) / 8.0 + 1.0, 0.0, 1.0)[:frames]
            features.append(padded)
            digits.append(int(digit))
            indices.append(int(index))
    return torch.tensor(np.stack(features), dtype=torch.float32), torch.tensor(digits), torch.tensor(indices)


def digits_run(data: tuple[Tensor, Tensor, Tensor], arm: Arm, seed: int, epochs: int) -> dict[str, Any]:
    features, labels, indices = data
    train, valid, test = (
        (where).nonzero()[:, 0] for where in (indices >= 10, (indices >= 5) & (indices < 10), indices < 5)
    )
    network = make(arm, (features.shape[2], 128, 10), EpropNeuron(dt_ms=10.0, tau_out_ms=200.0), seed)
    steps = optimizer(network, arm, 3e-3)
    order = torch.Generator().manual_seed(seed)
    cosines, started = [], time.process_time()

    def run(which: Tensor) -> tuple[Activity, Tensor]:
        x = features[which].transpose(0, 1)
        activity, _ = network.scan(x, network.init_state(len(which)))
        wanted = torch.nn.functional.one_hot(labels[which], 10)
        return activity, ((torch.softmax(activity.out, -1) - wanted) / (len(x) * len(which))).detach()

    def probe() -> None:
        activity, error = run(train[::12][:200])
        truth = backpropagated(network, activity, error, None)
        found, _ = network.gradients(detached(activity), error)
        cosines.append([cosine(x, y) for x, y in zip(found, truth, strict=True)])

    @torch.no_grad()
    def right(which: Tensor) -> tuple[float, float]:
        activity, _ = run(which)
        hit = activity.out.sum(0).argmax(-1) == labels[which]
        return float(hit.float().mean()), float(activity.spikes.mean())

    for epoch in range(epochs):
        if epoch in (0, epochs // 2):
            probe()
        for which in train[torch.randperm(len(train), generator=order)].split(50):
            with torch.set_grad_enabled(arm.bptt):
                activity, error = run(which)
            gradients = (
                backpropagated(network, activity, error, None) if arm.bptt else network.gradients(activity, error)[0]
            )
            learned(network, arm, gradients, steps)
    probe()
    seconds = time.process_time() - started
    (validated, _), (tested, rate) = right(valid), right(test)
    return {"valid": validated, "test": tested, "spikes": rate, "cosines": cosines, "cpu_s": seconds}


def patterns_run(arm: Arm, seed: int, iterations: int) -> dict[str, Any]:
    steps, inputs, outputs = 500, 20, 3
    generator = torch.Generator().manual_seed(1000 + seed)
    phase = torch.arange(steps) * 5 // steps
    active = phase.unsqueeze(1) == torch.arange(inputs) * 5 // inputs
    x = (active & (torch.rand(steps, inputs, generator=generator) < 0.05)).float().unsqueeze(1)
    waves = torch.tensor([1.0, 2.0, 3.0, 5.0])
    heights, phases = (
        0.5 + 1.5 * torch.rand(outputs, 4, generator=generator),
        torch.rand(outputs, 4, generator=generator),
    )
    when = torch.arange(steps).reshape(-1, 1, 1) / steps
    target = (heights * torch.sin(2 * math.pi * (waves * when + phases))).sum(-1)
    target = (target / target.abs().amax(0)).unsqueeze(1)
    network = make(arm, (inputs, 100, outputs), EpropNeuron(), seed)
    optimize = optimizer(network, arm, 1e-3)
    cosines, errors, norms = [], [], []
    for iteration in range(iterations + 1):
        probing = iteration in (0, iterations // 2, iterations)
        with torch.set_grad_enabled(arm.bptt or probing):
            activity, _ = network.scan(x, network.init_state(1))
        error = (activity.out - target).detach()
        direct = rate_error(activity.spikes.detach(), 20.0, 100.0, 1.0)
        found, _ = network.gradients(detached(activity), error, direct=direct)
        if arm.bptt or probing:
            truth = backpropagated(network, activity, error, direct)
            if probing:
                cosines.append([cosine(a, b) for a, b in zip(found, truth, strict=True)])
                errors.append(float(error.square().sum() / target.square().sum()))
                norms.append(float(torch.linalg.matrix_norm(network.recurrent.detach(), 2)))
            if arm.bptt:
                found = truth
        learned(network, arm, found, optimize)
    return {"cosines": cosines, "error": errors, "recurrent_norm": norms}


def spread(values: list[float]) -> str:
    """Mean and range over seeds."""
    return f"{statistics.mean(values):.3f} ({min(values):.3f} {max(values):.3f})"


def over_training(runs: list[dict[str, Any]], matrix: str) -> list[str]:
    place = MATRICES.index(matrix)
    return [spread([run["cosines"][when][place] for run in runs]) for when in range(3)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10, help="of the digits")
    parser.add_argument("--iterations", type=int, default=300, help="of the patterns")
    parser.add_argument("--skip", nargs="*", choices=("digits", "patterns"), default=[])
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    difference = check_numerics()
    if difference > 1e-9:
        raise SystemExit(f"scans are not their steps: they differ by {difference:.1e}")
    report: dict[str, Any] = {"scan_against_steps_float64": difference, "window": window(), "frequency": frequency()}
    report["cost_cpu_ms"] = cost()
    folder = os.environ.get("NEURO_DATA")
    when = ["start", "middle", "end"]
    columns = [*[f"inputs, {x}" for x in when], *[f"recurrent, {x}" for x in when]]
    if folder and "digits" not in args.skip:
        data = load_digits(Path(folder))
        report["digits"] = {
            name: [digits_run(data, arm, seed, args.epochs) for seed in range(args.seeds)]
            for name, arm in DIGITS.items()
        }
        rows = [
            [
                name,
                *(spread([run[part] for run in runs]) for part in ("valid", "test", "spikes", "cpu_s")),
                *over_training(runs, "inputs"),
                *over_training(runs, "recurrent"),
            ]
            for name, runs in report["digits"].items()
        ]
        head = ["", "valid", "test", "spikes per step", "CPU s", *columns]
        table(f"digits: accuracy and cosines, mean (least most) of {args.seeds} seeds", head, rows)
    if "patterns" not in args.skip:
        report["patterns"] = {
            name: [patterns_run(arm, seed, args.iterations) for seed in range(args.seeds)]
            for name, arm in PATTERNS.items()
        }
        rows = [
            [
                name,
                spread([run["error"][-1] for run in runs]),
                spread([run["recurrent_norm"][-1] for run in runs]),
                *over_training(runs, "inputs"),
                *over_training(runs, "recurrent"),
            ]
            for name, runs in report["patterns"].items()
        ]
        head = ["", "error / power", "norm of W_rec", *columns]
        table(f"patterns: normalised squared error and cosines, mean (least most) of {args.seeds} seeds", head, rows)
    if args.picture:
        models = {
            name: dict(zip(SJOSTROM.lags_ms, model["changes"], strict=True))
            for name, model in report["frequency"].items()
        }
        measured = {lag: (SJOSTROM.changes[i], SJOSTROM.errors[i]) for i, lag in enumerate(SJOSTROM.lags_ms)}
        cosines = {
            name: [[at[1] for at in run["cosines"]] for run in runs]
            for name, runs in report.get("digits", {}).items()
            if name.startswith("e-prop") and not name.endswith(("gain 1", "no recurrent weights"))
        }
        shown = (report["window"]["lags_ms"], report["window"]["changes"])
        plasticity(shown, SJOSTROM.frequencies_hz, measured, models, cosines, args.picture)
    report["arms"] = {
        "digits": {name: dataclasses.asdict(arm) for name, arm in DIGITS.items()},
        "patterns": {name: dataclasses.asdict(arm) for name, arm in PATTERNS.items()},
    }
    report["machine"] = _machine.describe()
    print("\n" + json.dumps(report))


if __name__ == "__main__":
    main()
