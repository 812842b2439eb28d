"""The neurons before a projection: what they are by their equations, when they are silent, and what their gradients are."""

from __future__ import annotations

import pytest
import torch

from neuro.config import CortexConfig
from neuro.layers.spiking_encoder import SpikingEncoder, anneal


def encoder(burst: int) -> SpikingEncoder:
    made = SpikingEncoder(6, 0.8, CortexConfig(encoding="spikes", burst=burst)).double()
    with torch.no_grad():
        made.log_threshold += 0.3 * torch.randn(6)
    return made


@pytest.mark.parametrize("burst", [1, 2, 5])
def test_a_neuron_fires_as_often_as_its_threshold_goes_into_its_input_and_no_more_than_a_burst(burst):
    layer = encoder(burst)
    x = 2.0 * torch.randn(3, 40, 6, dtype=torch.float64)
    with torch.no_grad():
        signed, (spikes, membrane) = layer(x)
        theta = torch.exp(layer.log_threshold)
        expected = [
            [[min(burst, int(abs(v) / t)) * (1 if v > 0 else -1) for v, t in zip(row, theta.tolist(), strict=True)]
             for row in stream]
            for stream in x.tolist()
        ]  # fmt: skip
    assert signed.tolist() == expected
    assert torch.equal(spikes, signed.abs())
    assert torch.allclose(membrane, x.abs() / theta)
    assert set(spikes.unique().tolist()) == set(range(burst + 1))


def test_what_is_below_threshold_is_forgotten_and_exactly_at_it_fires():
    layer = SpikingEncoder(2, 1.0, CortexConfig(encoding="spikes", burst=3)).double()
    x = torch.tensor([[[0.99, -0.99], [0.99, -0.99], [1.0, -1.0], [2.5, -9.0], [0.0, 0.0]]], dtype=torch.float64)
    with torch.no_grad():
        signed, _ = layer(x)
    assert signed[0].tolist() == [[0.0, 0.0], [0.0, 0.0], [1.0, -1.0], [2.0, -3.0], [0.0, 0.0]]


def test_the_gradient_is_the_sum_of_the_surrogates_at_every_threshold():
    layer, x = encoder(3), torch.randn(2, 30, 6, dtype=torch.float64, requires_grad=True)
    signed, (spikes, _) = layer(x)
    weights = torch.randn_like(signed)
    got = torch.autograd.grad((weights * signed).sum(), [x, layer.log_threshold], retain_graph=True)
    scale = torch.exp(-layer.log_threshold.detach())
    u = x.detach() * scale
    slope = sum(layer.surrogate.derivative(sign * u - k) for sign in (1, -1) for k in (1, 2, 3))
    assert torch.allclose(got[0], weights * slope * scale, atol=1e-12)
    assert torch.allclose(got[1], (weights * slope * -u).sum((0, 1)), atol=1e-12)
    fewer = torch.autograd.grad(spikes.sum(), layer.log_threshold)[0]
    assert (fewer < 0).all()  # a higher threshold, fewer spikes


def test_a_token_is_encoded_by_itself():
    layer, x = encoder(2), torch.randn(2, 9, 6, dtype=torch.float64)
    with torch.no_grad():
        whole = layer(x)[0]
        assert torch.equal(whole, torch.cat([layer(x[:, t : t + 1])[0] for t in range(9)], 1))
        assert torch.equal(whole, -layer(-x)[0])


def test_annealing_goes_from_membranes_to_spikes_and_only_in_training():
    layer, x = encoder(2), 2.0 * torch.randn(3, 40, 6, dtype=torch.float64)
    with torch.no_grad():
        spikes, u = layer(x)[0], (x * torch.exp(-layer.log_threshold)).clamp(-2.5, 2.5)
        for step, share in ((0, 1.0), (25, 0.75), (100, 0.0), (130, 0.0)):
            anneal(layer, step, 100.0)
            said, fired = layer(x)
            assert torch.allclose(said, spikes + share * (u - spikes))
            assert torch.equal(fired.spikes, spikes.abs())  # what is counted are spikes all the same
            layer.eval()
            assert torch.equal(layer(x)[0], spikes)
            layer.train()
        anneal(layer, 0, 0.0)
        assert torch.equal(layer(x)[0], spikes)
