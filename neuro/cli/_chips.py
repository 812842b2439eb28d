"""A trained classifier in a chip's integers, behind ``neuro eval FOLDER --chip NAME``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from neuro.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from neuro.spiking_classifier import SpikingClassifier
    from neuro.train.classify import Draw
    from sims.chips.quantized import Network

CALIBRATION, BATCH = 100, 100


def network(model: SpikingClassifier) -> Network:
    """The classifier as arrays.

    Raises:
        UsageError: one that does not spike, or whose membranes do not start at rest.
    """
    from sims.chips.quantized import Layer, Network

    config = model.config
    if config.neuron != "spiking" or config.start != 0.0:
        got = f"chip: got neuron '{config.neuron}' and start {config.start}, expected 'spiking' and 0."
        raise UsageError(got, "Train with --set neuron=spiking.")
    arrays = [[array.double().cpu().numpy() for array in layer.unrolled()] for layer in model.projections]
    layers = tuple(Layer(weight, bias) for weight, bias in arrays)
    return Network(layers, config.decay, 1.0, config.reset, config.synapse_decay, config.burst)


def measure(
    model: SpikingClassifier, draw: Draw, labels: np.ndarray, samples: np.ndarray, calibration: np.ndarray, chip: str
) -> dict[str, Any]:
    """What the chip's integers keep of a classifier on ``samples``; some of ``calibration`` choose scales, unlabelled."""
    import numpy as np
    import torch

    from sims import chips
    from sims.chips import quantized

    def events(numbers: np.ndarray) -> np.ndarray:
        return np.rint(draw(numbers, None).flatten(2).numpy()).astype(np.int64)

    arrays = network(model)
    placed = quantized.quantize(
        arrays, chips.load(chip), events(calibration[:: max(1, len(calibration) // CALIBRATION)][:CALIBRATION])
    )
    right: dict[str, list[np.ndarray]] = {"float": [], "chip": []}
    same: list[np.ndarray] = []
    cut: dict[str, int] = {}
    hidden = len(model.projections) - 1
    both, either, fired, equal, total = (np.zeros(hidden, np.int64) for _ in range(5))
    fired_float = np.zeros(hidden, np.int64)
    for part in np.array_split(samples, -(-len(samples) // BATCH)):
        with torch.no_grad():
            logits, entered = model(draw(part, None).to(next(model.parameters()).device))
        run = placed.run(events(part))
        answers = {"float": logits.argmax(1).cpu().numpy(), "chip": run.answers}
        for name, answer in answers.items():
            right[name].append(answer == labels[part])
        same.append(answers["float"] == answers["chip"])
        cut = {name: cut.get(name, 0) + count for name, count in run.cut.items()}
        for number, (mine, theirs) in enumerate(zip(run.spikes, entered[1:], strict=True)):
            a, b = mine.astype(np.int64), theirs.cpu().numpy().astype(np.int64)
            both[number] += np.minimum(a, b).sum()
            either[number] += np.maximum(a, b).sum()
            fired[number] += a.sum()
            fired_float[number] += b.sum()
            equal[number] += (a == b).sum()
            total[number] += a.size
    return {
        "chip": chip,
        "samples": len(samples),
        "right": {name: np.concatenate(parts) for name, parts in right.items()},
        "same_answer": np.concatenate(same),
        "layers": {
            "spikes": fired.tolist(),
            "spikes_float": fired_float.tolist(),
            "spikes_that_meet": (both / np.maximum(either, 1)).tolist(),
            "steps_that_agree": (equal / np.maximum(total, 1)).tolist(),
        },
        "cut": cut,
    }


def record(measured: dict[str, Any]) -> dict[str, Any]:
    """The same with shares in place of samples, for JSON."""
    right = {f"accuracy_{name}": float(right.mean()) for name, right in measured["right"].items()}
    kept = {name: value for name, value in measured.items() if name not in ("right", "same_answer")}
    return kept | right | {"same_answer": float(measured["same_answer"].mean())}


def table(found: dict[str, Any]) -> list[str]:
    """The record in words."""
    meet = ", ".join(f"{share:.1%}" for share in found["layers"]["spikes_that_meet"])
    cut = ", ".join(f"{count} {name}" for name, count in found["cut"].items())
    return [
        f"on {found['chip']}   {found['accuracy_chip']:.2%} right in its integers, float {found['accuracy_float']:.2%}, "
        f"{found['same_answer']:.2%} the same answer",
        f"  spikes that meet, by layer   {meet}",
        f"  out of the chip's ranges     {cut}",
    ]
