"""A trained spiking network as a chip would run it: quantized to its bits, run in its integers, and what was cut on the way.

    network = Network(layers, decay)                     arrays; `reference` runs it in float64
    placed = quantize(network, load("loihi1"), events)   scales are chosen on events, without labels
    run = placed.run(events)                             spikes, scores, and counts of what left the chip's ranges

Layer l:  i_t = W x_t + b, or with a synapse decay a > 0: i_t = a (i_{t-1} + W x_t + b)
          u_t = decay v_{t-1} + i_t,  s_t = 1 where u_t >= threshold,  v_t = u_t - threshold s_t (soft) or u_t (1 - s_t) (hard)
          with a burst b > 1: s_t = floor(u_t / threshold) within 0 to b
The last layer is the readout: its scores are the sum over t of W s_t + b.

What a chip changes, besides the bits:

| | Loihi | Xylo |
|---|---|---|
| reset | hard: a soft one becomes hard | soft |
| decays | 4,096ths | 1 - 2^-d, also of the current: the network needs a synapse decay |
| spikes of a neuron a step | 1 | 31 in hidden neurons, 1 in output neurons |
| layers | each hears the one before a step late | the same |
| scales | one a layer | one a neuron, as each has its own threshold |
| readout | membranes of neurons that only integrate | spikes of output neurons, each bias raised by the same |

A bias acts from the first step on, also while the input is still on its way. Xylo's rule is verified for the core of Audio 2;
its maker calls the cores of Audio 3 and IMU the same, so they run by it under their own limits. A network whose neurons send
one spike a step, run on Xylo, sends more of them: train it with bursts. A layer that is no product with one matrix (a
convolution) is given unrolled.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import NamedTuple, Protocol

import numpy as np

from neuro.errors import CheckError, UsageError
from sims.chips import loihi_lif, xylo_lif
from sims.chips.chip import Chip, load
from sims.chips.loihi_lif import LoihiLayer
from sims.chips.xylo_lif import XyloNetwork

SIMULATED = ("loihi1", "xylo_audio2", "xylo_audio3", "xylo_imu")
RESETS = ("soft", "hard")
# What is tried on the calibration events for Xylo: quantiles of the second and of the best score that spike counts range
# over, and left shifts of all weights.
_RUNNER_UP, _BEST, _SHIFTS = (0.02, 0.1, 0.25, 0.5), (0.75, 0.9, 0.98), (3, 2, 1, 0)


@dataclasses.dataclass(frozen=True)
class Layer:
    """``weight`` [N,K] and ``bias`` [N], real."""

    weight: np.ndarray
    bias: np.ndarray


@dataclasses.dataclass(frozen=True)
class Network:
    """Hidden layers, then the readout."""

    layers: tuple[Layer, ...]
    decay: float
    threshold: float = 1.0
    reset: str = "soft"
    synapse_decay: float = 0.0
    burst: int = 1

    def __post_init__(self) -> None:
        if self.reset not in RESETS:
            raise UsageError(f"network: got reset '{self.reset}', expected one of {', '.join(RESETS)}.", "Correct it.")
        if not (0.0 <= self.decay <= 1.0 and 0.0 <= self.synapse_decay < 1.0 and self.threshold > 0.0):
            got = f"network: got decay {self.decay}, synapse_decay {self.synapse_decay}, threshold {self.threshold}"
            raise UsageError(f"{got}, expected 0 to 1, 0 to below 1, above 0.", "Correct the value.")
        if len(self.layers) < 2:
            got = f"network: got {len(self.layers)} layers, expected a hidden one and the readout."
            raise UsageError(got, "Add a layer.")
        width = self.layers[0].weight.shape[-1]
        for number, layer in enumerate(self.layers):
            neurons = len(layer.bias)
            if layer.weight.shape != (neurons, width) or not np.isfinite(layer.weight).all():
                got = f"network layer {number}: got weights {list(layer.weight.shape)}"
                raise UsageError(
                    f"{got}, expected finite ones [{neurons}, {width}].", "Give each layer [N,K], K of the one before."
                )
            width = neurons


class Run(NamedTuple):
    """What a network did: ``spikes`` of each hidden layer [T,B,N] in the network's own time, and ``scores`` [B,classes]."""

    spikes: list[np.ndarray]
    scores: np.ndarray
    cut: dict[str, int]  # by what it is: how often the chip's ranges, or spikes that the network cannot send, matter

    @property
    def answers(self) -> np.ndarray:
        """[B]: the class of the highest score, the first among equals."""
        return self.scores.argmax(1)


class Placed(Protocol):
    """A network in a chip's integers."""

    def run(self, events: np.ndarray) -> Run:
        """Events [T,B,K], counts from 0."""


def reference(network: Network, events: np.ndarray) -> Run:
    """The network in float64."""
    x, spikes = events.astype(np.float64), []
    for layer in network.layers[:-1]:
        x = _fire(x @ layer.weight.T + layer.bias, network)
        spikes.append(x.astype(np.uint8))
    readout = network.layers[-1]
    return Run(spikes, (x @ readout.weight.T + readout.bias).sum(0), {})


def quantize(network: Network, chip: Chip, events: np.ndarray) -> Placed:
    """The network in the chip's integers; ``events`` [T,B,K] are samples to choose scales on.

    Raises:
        UsageError: a chip without an integer model here, or a network that its neurons cannot be.
        CheckError: the network does not fit the chip, with every limit it breaks and the chips that it fits.
    """
    if chip.chip not in SIMULATED:
        got = f"chip {chip.chip}: there is no integer model of it, expected one of {', '.join(SIMULATED)}."
        raise UsageError(got, "Choose another chip; limits and mapping are there for all.")
    broken = problems(network, chip)
    if broken:
        fitting = [name for name in SIMULATED if not problems(network, load(name))]
        do = f"These take it: {', '.join(fitting)}." if fitting else "Make the network smaller."
        raise CheckError(f"chip {chip.chip}: does not fit: {'; '.join(broken)}.", do)
    return _on_loihi(network, events) if chip.chip == "loihi1" else _on_xylo(network, events)


def problems(network: Network, chip: Chip) -> list[str]:
    """Limits of the chip that the network breaks, in words; those that are not known are not checked."""
    found: list[str] = []

    def need(count: int, limit: str, words: str) -> None:
        if limit in chip.limits and count > chip.limits[limit]:
            found.append(f"{count} {words}, the chip has {chip.limits[limit]}")

    hidden = [len(layer.bias) for layer in network.layers[:-1]]
    if chip.chip == "loihi1":
        need(network.burst, "spikes_per_step", "spikes of a neuron a step")
        for number, layer in enumerate(network.layers):
            need(int((layer.weight != 0).sum(1).max()), "fan_in", f"inputs to a neuron of layer {number}")
        room = chip.limits["cores"] * chip.limits["compartments_per_core"]
        if sum(hidden) + len(network.layers[-1].bias) > room:
            found.append(f"{sum(hidden) + len(network.layers[-1].bias)} neurons, the chip has {room}")
        return found
    if network.reset != "soft":
        found.append("a hard reset, the chip's is soft")
    for name in ("decay", "synapse_decay"):
        if _dash(getattr(network, name)) is None:
            found.append(f"{name} {getattr(network, name)}, the chip's are 1 - 2^-d with d from 1 to 15")
    need(network.layers[0].weight.shape[1], "input_channels", "input channels")
    need(sum(hidden), "hidden_neurons", "hidden neurons")
    need(len(network.layers[-1].bias), "output_neurons", "output neurons")
    need(hidden[0], "input_expansion_neurons", "hidden neurons that hear the input")
    need(hidden[-1], "output_expansion_neurons", "hidden neurons that reach the output")
    inner = network.layers[1:-1]
    need(
        max((int((layer.weight != 0).sum(1).max()) for layer in inner), default=0),
        "fan_in",
        "hidden inputs to a neuron",
    )
    need(
        max((int((layer.weight != 0).sum(0).max()) for layer in inner), default=0),
        "fan_out",
        "hidden targets of a neuron",
    )
    need(sum(int((layer.weight != 0).sum()) for layer in inner), "synapses_per_core", "synapses between hidden neurons")
    return found


@dataclasses.dataclass(frozen=True)
class OnLoihi:
    """``scale`` turns the readout's membranes into scores."""

    layers: tuple[LoihiLayer, ...]
    scale: float

    def run(self, events: np.ndarray) -> Run:
        count = len(self.layers)
        run = loihi_lif.simulate(self.layers, _with_rest(events, count))
        spikes = [x[number + 1 : number + 1 + len(events)] for number, x in enumerate(run.spikes[:-1])]
        cut = {
            "currents": run.wrapped,
            "membranes": run.held,
            "readout spikes": int(run.spikes[-1].sum(dtype=np.int64)),
        }
        return Run(spikes, run.membranes / (64.0 * self.scale), cut)


@dataclasses.dataclass(frozen=True)
class OnXylo:
    """``widths`` of the hidden layers within the chip's one population; ``burst`` of the network that it came from."""

    network: XyloNetwork
    widths: tuple[int, ...]
    burst: int

    def run(self, events: np.ndarray) -> Run:
        run = xylo_lif.simulate(self.network, _with_rest(events, len(self.widths)))
        edges = np.cumsum([0, *self.widths])
        spikes = [
            run.hidden[number : number + len(events), :, edges[number] : edges[number + 1]]
            for number in range(len(self.widths))
        ]
        several = int(np.maximum(run.hidden.astype(np.int64) - self.burst, 0).sum())
        cut = {"states": run.held, "events": run.dropped, "spikes above a network's": several}
        return Run(spikes, run.output.sum(0, dtype=np.int64), cut)


def _on_loihi(network: Network, events: np.ndarray) -> OnLoihi:
    du, dv = (round(4096 * (1.0 - share)) for share in (network.synapse_decay, network.decay))
    heard, settled = 1.0, 1.0  # of a weight at once, and of a bias, which skips the synapse, in the end
    if network.synapse_decay:
        heard, settled = network.synapse_decay, network.synapse_decay / (1.0 - network.synapse_decay)
    layers = []
    for real in network.layers[:-1]:
        layer = Layer(real.weight * heard, real.bias * settled)
        scale = _scale(layer.weight, loihi_lif.MOST_VTH / network.threshold)
        vth = np.full(len(layer.bias), round(scale * network.threshold))
        layers.append(_loihi_layer(layer, scale, vth, du - 1, dv))
    readout, steps = network.layers[-1], len(events)
    scale, vth = _scale(readout.weight, np.inf), np.full(len(readout.bias), loihi_lif.MOST_VTH)
    spread = steps / (steps + len(network.layers))  # the bias also acts while the input is on its way
    readout = Layer(readout.weight, readout.bias * spread)
    while True:
        placed = OnLoihi((*layers, _loihi_layer(readout, scale, vth, 4095, 0)), scale)
        run = placed.run(events)
        peak = np.abs(run.scores).max(initial=0.0)  # twice the room that the calibration takes
        whole = run.cut["readout spikes"] == 0
        if whole and 2.0 * peak * scale < loihi_lif.MOST_VTH:
            return placed
        scale = loihi_lif.MOST_VTH / (2.1 * peak) if whole else scale / 2.0


def _scale(weight: np.ndarray, most: float) -> float:
    """Integers a unit of weight, at most ``most``."""
    largest = float(np.abs(weight).max(initial=0.0))
    return min(most, (254.0 if weight.min(initial=0.0) < 0.0 < weight.max(initial=0.0) else 255.0) / max(largest, 1e-9))


def _loihi_layer(layer: Layer, scale: float, vth: np.ndarray, du: int, dv: int) -> LoihiLayer:
    step = 2 if layer.weight.min(initial=0.0) < 0.0 < layer.weight.max(initial=0.0) else 1
    weight = loihi_lif.stored(step * np.rint(layer.weight * scale / step).astype(np.int64))
    bias = layer.bias * scale * 64.0
    exponent = min(7, max(0, int(np.ceil(np.log2(max(np.abs(bias).max(initial=0.0), 1.0) / 4095.0)))))
    mantissa = np.clip(np.rint(bias / 2**exponent), -4095, 4095).astype(np.int64)
    return LoihiLayer(weight, vth, du, dv, mantissa, exponent)


def _on_xylo(network: Network, events: np.ndarray) -> OnXylo:
    dash_mem, dash_syn = (_dash(share) or 0 for share in (network.decay, network.synapse_decay))
    known = reference(network, events)
    widths = tuple(len(layer.bias) for layer in network.layers[:-1])
    readout, steps = network.layers[-1], len(events) + len(widths)
    gain = (1.0 - network.synapse_decay) / network.synapse_decay  # the synapse of an output sums to this share
    best = np.sort(known.scores, axis=1)[:, ::-1]

    def placed(shift: int, low: float, high: float) -> OnXylo:
        raised = -float(
            np.quantile(best[:, min(1, best.shape[1] - 1)], low)
        )  # of every score, so that most count from 0
        unit = max((float(np.quantile(best[:, 0], high)) + raised) / steps, 1e-6)  # of score, a spike
        out_layer = Layer(readout.weight * gain, (readout.bias * len(events) + raised + 0.5 * unit) / steps)
        return OnXylo(_xylo_network(network, out_layer, unit, dash_mem, dash_syn, shift), widths, network.burst)

    def agreement(shift: int) -> int:
        run = placed(shift, _RUNNER_UP[0], _BEST[0]).run(events)
        return sum(int((mine == theirs).sum()) for mine, theirs in zip(run.spikes, known.spikes, strict=True))

    shift = max(_SHIFTS, key=agreement)
    choices = [placed(shift, low, high) for low, high in itertools.product(_RUNNER_UP, _BEST)]
    return max(choices, key=lambda choice: int((choice.run(events).answers == known.answers).sum()))


def _xylo_network(
    network: Network, out_layer: Layer, unit: float, dash_mem: int, dash_syn: int, shift: int
) -> XyloNetwork:
    """Weights of 7 bits and a sign, the largest of a neuron 127; thresholds as large as ``shift`` makes them."""
    hidden, scales = network.layers[:-1], []
    for layer in hidden:
        most = xylo_lif.HIGH / (4.0 * network.threshold * 2**shift)
        scales.append(np.minimum(127.0 / np.maximum(np.abs(layer.weight).max(1), 1e-9), most))
    total, edges = sum(len(layer.bias) for layer in hidden), np.cumsum([0, *(len(layer.bias) for layer in hidden)])
    w_rec = np.zeros((total, total), np.int64)
    for number, layer in enumerate(hidden[1:], 1):
        target, source = slice(edges[number], edges[number + 1]), slice(edges[number - 1], edges[number])
        w_rec[source, target] = np.rint(layer.weight * scales[number][:, None]).T
    w_in = np.zeros((hidden[0].weight.shape[1], total), np.int64)
    w_in[:, : edges[1]] = np.rint(hidden[0].weight * scales[0][:, None]).T
    unit_scale = np.concatenate(scales) * 2**shift
    settled = network.synapse_decay / (1.0 - network.synapse_decay)  # a bias skips the synapse: what it would become
    bias = np.concatenate([layer.bias for layer in hidden]) * settled * unit_scale
    out_scale = min(127.0 / max(float(np.abs(out_layer.weight).max()), 1e-9), xylo_lif.HIGH / (4.0 * unit * 2**shift))
    w_out = np.zeros((total, len(out_layer.bias)), np.int64)
    w_out[edges[-2] :] = np.rint(out_layer.weight * out_scale).T
    outputs, ones = len(out_layer.bias), np.ones(total, np.int64)
    return XyloNetwork(
        w_in,
        w_rec,
        w_out,
        np.maximum(np.rint(network.threshold * unit_scale), 1).astype(np.int64),
        np.full(outputs, max(1, round(unit * out_scale * 2**shift))),
        dash_syn * ones,
        dash_mem * ones,
        np.full(outputs, dash_syn),
        np.full(outputs, 15),
        np.clip(np.rint(bias), xylo_lif.LOW, xylo_lif.HIGH).astype(np.int64),
        np.clip(np.rint(out_layer.bias * out_scale * 2**shift), xylo_lif.LOW, xylo_lif.HIGH).astype(np.int64),
        (shift, shift, shift),
    )


def _dash(decay: float) -> int | None:
    """The bit shift d that keeps the share ``decay`` = 1 - 2^-d; None where there is none."""
    dash = round(-np.log2(1.0 - decay)) if decay < 1.0 else 0
    return dash if 1 <= dash <= 15 and abs(1.0 - 2.0**-dash - decay) < 1e-6 else None


def _with_rest(events: np.ndarray, steps: int) -> np.ndarray:
    """Steps without input at the end, so that the last input reaches the readout."""
    return np.concatenate([events, np.zeros((steps, *events.shape[1:]), events.dtype)])


def _fire(current: np.ndarray, network: Network) -> np.ndarray:
    i, v = (np.zeros(current.shape[1:]) for _ in range(2))
    spikes = np.zeros_like(current)
    for t, x in enumerate(current):
        i = network.synapse_decay * (i + x) if network.synapse_decay else x
        v = network.decay * v + i
        spikes[t] = np.clip(np.floor(v / network.threshold), 0, network.burst)
        v = v - network.threshold * spikes[t] if network.reset == "soft" else v * (1.0 - spikes[t])
    return spikes
