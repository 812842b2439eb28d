"""The spike: a step forward, the slope of a fast sigmoid backward."""

from __future__ import annotations

import math

import pytest
import torch

from backends.surrogate import fast_sigmoid_slope, fast_sigmoid_spike


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_forward_is_a_step_that_fires_at_the_threshold(dtype):
    u = torch.tensor([-5.0, 0.0, 0.5, 1.0, 1.5, math.inf, -math.inf], dtype=dtype)
    spikes = fast_sigmoid_spike(u, 1.0, 4.0)
    assert spikes.tolist() == [0, 0, 0, 1, 1, 1, 0] and spikes.dtype == dtype
    just_below = torch.nextafter(torch.tensor(1.0, dtype=dtype), torch.tensor(0.0, dtype=dtype))
    assert fast_sigmoid_spike(just_below, 1.0, 4.0).item() == 0.0


@pytest.mark.parametrize(("threshold", "slope"), [(1.0, 4.0), (0.3, 25.0), (-1.0, 1.0), (1.0, 0.0)])
def test_backward_is_the_formula(threshold, slope):
    u = torch.linspace(-3, 3, 41, dtype=torch.float64, requires_grad=True)
    upstream = torch.linspace(1, 2, 41, dtype=torch.float64)
    fast_sigmoid_spike(u, threshold, slope).backward(upstream)
    expected = [g / (1 + slope * abs(x - threshold)) ** 2 for x, g in zip(u.tolist(), upstream.tolist(), strict=True)]
    assert u.grad.tolist() == pytest.approx(expected, rel=1e-12)


def test_slope_is_that_of_the_fast_sigmoid():
    """ds/du of x / (1 + k|x|) at x = u - threshold, by finite differences; 1 at the threshold, even, falling away."""
    x, k, h = torch.linspace(-2, 2, 81, dtype=torch.float64), 4.0, 1e-6
    sigmoid = lambda y: y / (1 + k * y.abs())  # noqa: E731
    slope = fast_sigmoid_slope(x + 1.0, 1.0, k)
    assert torch.allclose(slope, (sigmoid(x + h) - sigmoid(x - h)) / (2 * h), atol=1e-5)
    assert slope.argmax() == 40 and slope[40].item() == pytest.approx(1.0)
    assert torch.allclose(slope, slope.flip(0))
    assert (slope[41:] < slope[40:-1]).all()


def test_no_gradient_leaks_into_the_constants_and_far_neurons_learn_little():
    u = torch.tensor([1.0, 101.0], requires_grad=True)
    fast_sigmoid_spike(u, 1.0, 4.0).sum().backward()
    assert u.grad[0] == 1.0 and 0 < u.grad[1] < 1e-5
