"""Conversion: what T steps of a neuron make of a constant current is the clip-floor-shift, and the network nearly the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import backends
from neuro.convert import clip_floor_shift, convert, held
from neuro.errors import UsageError
from neuro.spiking_classifier import ClassifierConfig, LayerConfig, SpikingClassifier
from neuro.train import classify

CPU = backends.select("cpu")


CONV = (LayerConfig(4, (3, 3)), LayerConfig(12))


def relu_network(layers: tuple[LayerConfig, ...] = CONV, shape: tuple[int, ...] = (1, 6, 6)) -> SpikingClassifier:
    torch.manual_seed(3)
    model = SpikingClassifier(ClassifierConfig(shape, layers, 3, "graded", decay=0.0), CPU.ops)
    model.settle(torch.rand(1, 50, *shape))
    return model


def test_a_neuron_makes_of_a_constant_current_its_clip_floor_shift():
    z = torch.linspace(-1, 3, 401, dtype=torch.float64)
    for steps in (1, 4, 16):
        model = SpikingClassifier(ClassifierConfig((401,), (), 1, decay=1.0, start=0.5), CPU.ops)
        mean = model.fire(held(z[None, None], steps).contiguous()).mean(0)[0]
        exact = clip_floor_shift(z, torch.ones(1, dtype=torch.float64), steps)
        off = (z * steps + 0.5) % 1.0
        clear = (off > 1e-9) & (off < 1 - 1e-9)  # elsewhere rounding decides
        assert torch.allclose(mean[clear], exact[clear]) and clear.sum() > 380


def test_a_converted_layer_is_the_quantized_network_for_one_layer():
    ann, x = relu_network((LayerConfig(9),), (5,)), torch.rand(1, 40, 5)
    snn = convert(ann, x, 8)
    z = snn.layers[0](x)
    logits = snn(held(x, 8))[0]
    assert torch.allclose(logits, snn.layers[1](clip_floor_shift(z, torch.ones(1), 8))[0], atol=1e-5)


@pytest.mark.parametrize("layers", [CONV, (LayerConfig(4, (3, 3)), LayerConfig(5, (2, 2)))])
def test_more_steps_come_closer_to_the_network(layers):
    ann, x = relu_network(layers), torch.rand(1, 200, 1, 6, 6)
    ann.requires_grad_(False)
    wanted = ann(x)[0]
    gaps = [float((convert(ann, x, steps)(held(x, steps))[0] - wanted).square().mean()) for steps in (2, 8, 64)]
    assert gaps[0] > gaps[1] > gaps[2] and gaps[2] < 0.01 * float(wanted.var())


def test_a_dead_channel_stays_silent():
    ann, x = relu_network(), torch.rand(1, 20, 1, 6, 6)
    with torch.no_grad():
        ann.layers[0].weight[2].zero_()
        ann.layers[0].bias[2] = -1.0
    entered = convert(ann, x, 4)(held(x, 4))[1][1].reshape(4, 20, 4, -1)
    assert not entered[:, :, 2].any() and entered[:, :, 0].any() and torch.isfinite(entered).all()


def test_the_given_network_is_left_as_it_was():
    ann, x = relu_network(), torch.rand(1, 20, 1, 6, 6)
    before = {name: tensor.clone() for name, tensor in ann.state_dict().items()}
    convert(ann, x, 4)
    assert all(torch.equal(tensor, before[name]) for name, tensor in ann.state_dict().items())


def test_what_cannot_be_converted_is_named():
    x = torch.rand(1, 4, 1, 6, 6)
    spiking = SpikingClassifier(ClassifierConfig((1, 6, 6), (), 3), CPU.ops)
    with pytest.raises(
        UsageError, match=r"got spiking neurons with decay 0.9, expected graded .*\nTrain a ReLU network"
    ):
        convert(spiking, x, 4)
    with pytest.raises(UsageError, match=r"got 4 steps and an input of 2, expected .*\nCalibrate on the mean"):
        convert(relu_network(), x.expand(2, 4, 1, 6, 6), 4)


def test_a_learned_boundary_survives_conversion():
    points = np.random.default_rng(0).normal(size=(400, 2)).astype(np.float32)
    labels = (points[:, 0] * points[:, 1] > 0).astype(np.int64)

    def draw(samples, generator):
        return torch.from_numpy(points[samples]).unsqueeze(0)

    config = ClassifierConfig((2,), (LayerConfig(32),), 2, "graded", decay=0.0)
    plan = classify.Plan(epochs=15, batch=25, learning_rate=0.02)
    ann = classify.fit(config, draw, labels, np.arange(300), plan, CPU)
    test = np.arange(300, 400)
    exact = classify.evaluate(ann, draw, labels, test).accuracy
    snn = convert(ann, draw(np.arange(300), None), 16)
    spiking = classify.evaluate(snn, lambda s, g: held(draw(s, g), 16), labels, test).accuracy
    assert exact > 0.9 and spiking > exact - 0.05
