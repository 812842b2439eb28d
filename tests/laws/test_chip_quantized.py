"""A network in a chip's integers: on the chip's grid nothing is lost, off it little, and what is cut is counted."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import backends
from neuro.cli import _chips
from neuro.errors import CheckError, UsageError
from neuro.spiking_classifier import ClassifierConfig, LayerConfig, SpikingClassifier
from sims.chips import load, quantized
from sims.chips.quantized import Layer, Network, quantize, reference


def dense(rng: np.random.Generator, *widths: int, scale: float = 1.0) -> tuple[Layer, ...]:
    shapes = zip(widths[1:], widths[:-1], strict=True)
    return tuple(Layer(rng.normal(0, scale / np.sqrt(k), (n, k)), rng.normal(0, 0.05, n)) for n, k in shapes)


def on_the_grid(seed: int, decay: float) -> Network:
    """Weights that are even 254ths, a threshold between two of their sums, no hidden bias, decays without a remainder."""
    rng, layers = np.random.default_rng(seed), []
    for n, k in ((30, 12), (20, 30), (5, 20)):
        weight = 2 * rng.integers(-40, 61, (n, k))
        weight[0, :2] = 254, -254
        layers.append(Layer(weight / 254.0, np.zeros(n)))
    return Network(tuple(layers), decay, (601 if decay else 101) / 254, "hard")


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_on_loihis_grid_nothing_is_lost(seed, decay):
    network = on_the_grid(seed, decay)
    events = np.random.default_rng(seed).integers(0, 3, (15, 4, 12))
    run, wanted = quantize(network, load("loihi1"), events).run(events), reference(network, events)
    for mine, theirs in zip(run.spikes, wanted.spikes, strict=True):
        assert np.array_equal(mine, theirs) and 0 < theirs.mean() < 1
    assert np.allclose(run.scores, wanted.scores, atol=1e-9)
    assert set(run.cut.values()) == {0}


@pytest.mark.parametrize(
    ("chip", "reset", "decay", "synapse", "burst", "scale"),
    [
        ("loihi1", "hard", 0.8, 0.0, 1, 1.2),
        ("loihi1", "hard", 0.8, 0.3, 1, 2.2),
        ("xylo_audio2", "soft", 0.75, 0.5, 1, 1.0),
        ("xylo_audio3", "soft", 0.875, 0.5, 31, 1.2),
        ("xylo_imu", "soft", 0.5, 0.5, 31, 1.3),
    ],
)
def test_eight_bits_keep_most_spikes_and_answers(chip, reset, decay, synapse, burst, scale, measured):
    rng = np.random.default_rng(7)
    network = Network(dense(rng, 16, 48, 40, 6, scale=scale), decay, 1.0, reset, synapse, burst)
    events = rng.integers(0, 4, (40, 60, 16)) * (rng.random((40, 60, 16)) < 0.4)
    run, wanted = quantize(network, load(chip), events[:, :30]).run(events), reference(network, events)
    equal = [float((mine == theirs).mean()) for mine, theirs in zip(run.spikes, wanted.spikes, strict=True)]
    same = float((run.answers == wanted.answers).mean())
    measured(f"{chip}: neuron-steps that agree, answers", (*equal, same))
    assert all(theirs.mean() > 0.02 for theirs in wanted.spikes)
    assert min(equal) > 0.93 and same > 0.6


def test_a_layer_is_shown_in_the_networks_own_time():
    """One event at step 2: every layer fires at step 2 of its own time, and the readout hears it."""
    one = Layer(np.array([[1.0]]), np.zeros(1))
    network = Network((one, one, Layer(np.array([[0.5], [-0.5]]), np.zeros(2))), 0.5, 0.4, "hard")
    events = np.zeros((4, 1, 1), np.int64)
    events[2] = 1
    run = quantize(network, load("loihi1"), events).run(events)
    assert [spikes[:, 0, 0].tolist() for spikes in run.spikes] == [[0, 0, 1, 0]] * 2
    assert run.scores[0, 0] == pytest.approx(0.5, rel=0.01) and run.answers.tolist() == [0]
    soft = dataclasses.replace(network, reset="soft", synapse_decay=0.5)
    run = quantize(soft, load("xylo_audio2"), events).run(events)
    assert [np.nonzero(spikes[:, 0, 0])[0][0] for spikes in run.spikes] == [2, 2]


def test_a_readouts_membranes_have_room_for_twice_the_calibration():
    rng = np.random.default_rng(3)
    network = Network(dense(rng, 16, 32, 4, scale=4.0), 0.9, 1.0, "hard")
    loud = Layer(np.abs(network.layers[-1].weight), np.full(4, 5.0))
    network = dataclasses.replace(network, layers=(network.layers[0], loud))
    events = np.full((200, 3, 16), 3)
    run, wanted = quantize(network, load("loihi1"), events).run(events), reference(network, events)
    assert run.cut == {"currents": 0, "membranes": 0, "readout spikes": 0}
    assert np.allclose(run.scores, wanted.scores, rtol=0.05)


def test_what_leaves_the_ranges_is_counted():
    rng = np.random.default_rng(4)
    network = Network(dense(rng, 16, 32, 4), 0.875, 1.0, "soft", 0.5)
    quiet, loud = np.zeros((20, 2, 16), np.int64), np.full((20, 2, 16), 40)
    run = quantize(network, load("xylo_audio2"), quiet).run(loud)
    assert run.cut["events"] == 20 * 2 * 16 * 25 and run.cut["states"] > 0


@pytest.mark.parametrize(
    "options", [{}, {"reset": "hard"}, {"synapse_decay": 0.5}, {"synapse_decay": 0.5, "burst": 31}], ids=str
)
def test_the_reference_is_the_classifier_in_torch(options):
    config = ClassifierConfig((2, 9, 9), (LayerConfig(4, (3, 3), 2), LayerConfig(20)), decay=0.8, **options)
    torch.manual_seed(0)
    model = SpikingClassifier(config, backends.select("cpu").ops)
    x = (torch.rand(12, 30, 2, 9, 9) < 0.3).float()
    model.settle(x)
    with torch.no_grad():
        for layer in model.projections:
            layer.bias.normal_(std=0.05)
            layer.weight.mul_(config.burst**0.5)  # enough for several spikes a step
        logits, entered = model(x)
    run = reference(_chips.network(model), x.flatten(2).numpy().astype(np.int64))
    for mine, theirs in zip(run.spikes, entered[1:], strict=True):
        assert np.array_equal(mine, theirs.numpy()) and mine.any() and (mine.max() > 1) == (config.burst > 1)
    assert np.allclose(run.scores / 12, logits.numpy(), atol=1e-6)


def test_an_unrolled_projection_is_the_same_product():
    torch.manual_seed(1)
    config = ClassifierConfig((3, 7, 6), (LayerConfig(5, (3, 2), 2), LayerConfig(11)))
    model = SpikingClassifier(config, backends.select("cpu").ops)
    x = torch.randn(2, 4, 3, 7, 6)
    for layer in model.projections:
        with torch.no_grad():
            layer.bias.normal_()
            weight, bias = layer.unrolled()
            out = layer(x)
        assert torch.allclose(x.flatten(2) @ weight.T + bias, out, atol=1e-5)
        assert int((weight != 0).sum()) == layer.synapses
        x = out


def small(**changes) -> Network:
    return dataclasses.replace(
        Network(dense(np.random.default_rng(0), 16, 20, 20, 8), 0.5, 1.0, "soft", 0.5), **changes
    )


@pytest.mark.parametrize(
    ("chip", "network", "words"),
    [
        ("xylo_audio2", {"layers": (17, 20, 20, 8)}, r"17 input channels, the chip has 16\.\nThese take it: loihi1\."),
        (
            "xylo_audio2",
            {"layers": (16, 20, 10)},
            r"10 output neurons, the chip has 8\.\nThese take it: loihi1, xylo_audio3, xylo_i",
        ),
        (
            "xylo_audio2",
            {"layers": (16, 600, 401, 8)},
            r"1001 hidden neurons, the chip has 1000; 600 hidden inputs to a neuron",
        ),
        ("xylo_audio2", {"layers": (16, 64, 20, 8)}, r"64 hidden inputs to a neuron, the chip has 63\."),
        ("xylo_audio2", {"layers": (16, 20, 65, 8)}, r"65 hidden targets of a neuron, the chip has 64\."),
        (
            "xylo_audio3",
            {"layers": (16, 129, 10)},
            r"129 hidden neurons that hear the input.*129 hidden neurons that reach",
        ),
        (
            "xylo_imu",
            {"layers": (16, 120, 300, 120, 16)},
            r"540 hidden neurons.*72000 synapses between hidden neurons, the chip",
        ),
        ("xylo_imu", {"reset": "hard"}, r"a hard reset, the chip's is soft\.\nThese take it: loihi1\."),
        ("xylo_imu", {"decay": 0.8}, r"decay 0\.8, the chip's are 1 - 2\^-d with d from 1 to 15"),
        ("xylo_imu", {"synapse_decay": 0.0}, r"synapse_decay 0\.0, the chip's are 1 - 2\^-d"),
        (
            "loihi1",
            {"layers": (4097, 20, 8)},
            r"4097 inputs to a neuron of layer 0, the chip has 4096\.\nMake the network smaller",
        ),
        (
            "loihi1",
            {"burst": 2},
            r"2 spikes of a neuron a step, the chip has 1\.\nThese take it: xylo_audio2, xylo_audio3",
        ),
        ("loihi1", {"layers": (1, 131065, 8)}, r"131073 neurons, the chip has 131072"),
    ],
)
def test_a_network_that_does_not_fit_is_refused_with_the_chips_that_it_fits(chip, network, words):
    changes = dict(network)
    if "layers" in changes:
        changes["layers"] = dense(np.random.default_rng(0), *changes["layers"])
    given = small(**changes)
    with pytest.raises(CheckError, match=rf"chip {chip}: does not fit: .*{words}"):
        quantize(given, load(chip), np.zeros((2, 1, given.layers[0].weight.shape[1]), np.int64))


def test_what_is_no_network_or_has_no_model_is_refused():
    with pytest.raises(
        UsageError, match=r"chip odin: there is no integer model of it, expected one of loihi1, xylo_audio2"
    ):
        quantize(small(), load("odin"), np.zeros((2, 1, 16), np.int64))
    with pytest.raises(UsageError, match=r"network: got reset 'none', expected one of soft, hard\.\nCorrect it"):
        small(reset="none")
    with pytest.raises(
        UsageError, match=r"network: got decay 1\.5, synapse_decay 0\.5, threshold 1\.0, expected 0 to 1"
    ):
        small(decay=1.5)
    with pytest.raises(
        UsageError, match=r"network: got 1 layers, expected a hidden one and the readout\.\nAdd a layer"
    ):
        small(layers=dense(np.random.default_rng(0), 3, 2))
    with pytest.raises(
        UsageError, match=r"network layer 1: got weights \[4, 3\], expected finite ones \[4, 5\]\.\nGive each"
    ):
        small(layers=(Layer(np.zeros((5, 2)), np.zeros(5)), Layer(np.zeros((4, 3)), np.zeros(4))))
    with pytest.raises(UsageError, match=r"network layer 0: got weights \[1, 1\], expected finite"):
        small(layers=(Layer(np.array([[np.nan]]), np.zeros(1)), Layer(np.zeros((4, 1)), np.zeros(4))))


def test_every_simulated_chip_has_a_file():
    for name in quantized.SIMULATED:
        assert load(name).limits["weight_bits"] in (8, 9)
