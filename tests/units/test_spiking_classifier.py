"""The classifier and its twin: causal in time, counted exactly, and counts that a loop over synapses confirms."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F

import backends
from neuro.errors import UsageError
from neuro.spiking_classifier import ClassifierConfig, LayerConfig, SpikingClassifier

CPU = backends.select("cpu")
CONV = (LayerConfig(4, (3, 2), 2), LayerConfig(7))


def network(neuron: str = "spiking", shape=(2, 7, 6), layers=CONV, **options) -> SpikingClassifier:
    torch.manual_seed(1)
    model = SpikingClassifier(ClassifierConfig(shape, layers, 3, neuron, **options), CPU.ops)
    model.settle(spikes(shape))
    return model


def spikes(shape=(2, 7, 6), steps: int = 5, batch: int = 4) -> torch.Tensor:
    return (torch.rand(steps, batch, *shape, generator=torch.Generator().manual_seed(2)) < 0.3).float()


def test_layers_follow_their_equations():
    model, x = network(decay=0.7), spikes()
    logits, entered = model(x)
    v = torch.zeros(4, model.layers[0].bias.numel() * 9)
    for t in range(5):
        current = F.conv2d(x[t], model.layers[0].weight, model.layers[0].bias, 2).flatten(1)
        u = 0.7 * v + current
        fired = (u >= 1).float()
        v = u - fired
        assert torch.equal(entered[1][t], fired)
    assert torch.allclose(logits, F.linear(entered[2], model.layers[2].weight, model.layers[2].bias).mean(0), atol=1e-6)


def test_the_twin_hands_on_what_its_leaky_integrators_hold():
    model, x = network("graded", (6,), (LayerConfig(5),), decay=0.7), spikes((6,))
    v = torch.zeros(4, 5)
    for t, got in enumerate(model(x)[1][1]):
        v = 0.7 * v + F.linear(x[t], model.layers[0].weight, model.layers[0].bias)
        assert torch.allclose(got, v.relu(), atol=1e-6)


@pytest.mark.parametrize("neuron", ["spiking", "graded"])
def test_no_neuron_sees_a_later_step(neuron):
    model, x = network(neuron), spikes()
    later = x.clone()
    later[3:] = 1 - later[3:]
    for before, after in zip(model(x)[1], model(later)[1], strict=True):
        assert torch.equal(before[:3], after[:3]) and not torch.equal(before[3:], after[3:])


@pytest.mark.parametrize("neuron", ["spiking", "graded"])
def test_every_weight_learns_from_every_layer(neuron):
    model = network(neuron)
    F.cross_entropy(model(spikes())[0], torch.tensor([0, 1, 2, 0])).backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_settled_layers_are_alive():
    for rate in (
        x.mean() for x in network(shape=(30,), layers=(LayerConfig(64), LayerConfig(64)))(spikes((30,)))[1][1:]
    ):
        assert 0.01 < rate < 0.4


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_the_fan_out_of_a_convolution_is_that_of_its_synapses(stride):
    model = network(layers=(LayerConfig(4, (3, 2), stride),))
    layer = model.layers[0]
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.bias.zero_()
    one = torch.eye(2 * 7 * 6).reshape(1, -1, 2, 7, 6)
    reached = (layer(one)[0] != 0).sum(1)
    assert torch.equal(reached, layer.fan_out) and layer.synapses == int(reached.sum())


def test_counts_are_those_of_a_loop_over_spikes():
    model, x = network(), spikes()
    _, entered = model(x)
    counts = model.count(entered)
    assert counts.steps == 20 and counts.updates == 20 * model.neurons == 20 * (4 * 9 + 7)
    for got, operations, of, layer in zip(counts.spikes, counts.synaptic_ops, entered, model.layers, strict=True):
        where = of.reshape(20, -1).nonzero()[:, 1].tolist()
        assert got == len(where) and operations == sum(int(layer.fan_out[i]) for i in where)
    assert counts.synapses[1:] == [36 * 7, 7 * 3]


def test_every_setting_changes_something():
    x, labels = spikes(), torch.tensor([0, 1, 2, 0])

    def outcome(**options) -> tuple[torch.Tensor, torch.Tensor]:
        model = network(**{"decay": 0.7, "slope": 5.0, "start": 0.0} | options)
        with torch.no_grad():  # the same weights, whatever the settings made of them at the start
            for source, p in zip(network(decay=0.7).parameters(), model.parameters(), strict=True):
                p.copy_(source)
        logits, entered = model(x)
        F.cross_entropy(logits, labels).backward()
        return entered[1].detach(), model.layers[0].weight.grad

    spiked, gradient = outcome()
    for options in ({"decay": 0.3}, {"start": 0.5}, {"neuron": "graded"}, {"synapse_decay": 0.5}):
        assert not torch.equal(outcome(**options)[0], spiked), options
    same, steeper = outcome(slope=9.0)
    assert torch.equal(same, spiked) and not torch.equal(steeper, gradient)


def test_a_hard_reset_empties_the_membrane_and_a_synapse_spreads_the_current():
    current = torch.tensor([1.5, 0.0, 0.6, 0.0, 0.0])[:, None, None]

    def fired(**options) -> list[float]:
        return (
            SpikingClassifier(ClassifierConfig((1,), (LayerConfig(1),), **options), CPU.ops)
            .fire(current)
            .flatten()
            .tolist()
        )

    assert fired(decay=1.0) == [1.0, 0.0, 1.0, 0.0, 0.0]
    assert fired(decay=1.0, reset="hard") == [1.0, 0.0, 0.0, 0.0, 0.0]
    # Currents 0.75, 0.375, 0.4875, 0.24375, 0.121875
    assert fired(decay=1.0, synapse_decay=0.5) == [0.0, 1.0, 0.0, 0.0, 0.0]
    assert fired(decay=1.0, synapse_decay=0.5, start=0.2) == [0.0, 1.0, 0.0, 1.0, 0.0]


def test_a_burst_is_as_many_spikes_as_thresholds_are_passed():
    current = torch.tensor([3.5, 0.75, -1.0, 9.0, 0.0], requires_grad=True)
    config = ClassifierConfig((1,), (LayerConfig(1),), decay=1.0, burst=4)
    spikes = SpikingClassifier(config, CPU.ops).fire(current[:, None, None])
    assert spikes.flatten().tolist() == [3.0, 1.0, 0.0, 4.0, 4.0]
    spikes.sum().backward()
    assert current.grad is not None and bool((current.grad > 0).all())
    single = SpikingClassifier(dataclasses.replace(config, burst=1), CPU.ops).fire(current.detach()[:, None, None])
    assert single.flatten().tolist() == [1.0, 1.0, 1.0, 1.0, 1.0]


def test_mistakes_are_named():
    with pytest.raises(
        UsageError, match=r"classifier: got neuron 'lif', expected one of spiking, graded.\nCorrect the name"
    ):
        ClassifierConfig((3,), (), neuron="lif")
    with pytest.raises(UsageError, match=r"got decay 1.5, expected 0 to 1.\nGive exp\(-dt_ms / tau_mem_ms\)"):
        ClassifierConfig((3,), (), decay=1.5)
    with pytest.raises(
        UsageError, match=r"got synapse_decay 1.0, expected 0 to below 1.\nGive exp\(-dt_ms / tau_syn_ms\)"
    ):
        ClassifierConfig((3,), (), synapse_decay=1.0)
    with pytest.raises(UsageError, match=r"got a kernel \[9, 9\] on a shape \[2, 7, 6\], .*\nPut convolutions first"):
        network(layers=(LayerConfig(4, (9, 9)),))
    with pytest.raises(UsageError, match=r"got a kernel \[3, 2\] on a shape \[7\]"):
        network(layers=(LayerConfig(7), LayerConfig(4, (3, 2))))
    with pytest.raises(
        UsageError, match=r"got torch.float32 \[4, 5, 7, 6\], expected floating-point \[T, B, 2, 7, 6\]"
    ):
        network()(torch.zeros(4, 5, 7, 6))
    with pytest.raises(UsageError, match=r"Give it time first, then the batch; convert integers to float32."):
        network()(spikes().to(torch.uint8))
