"""The spike: a step forward, the slope of something smoother backward."""

from __future__ import annotations

import math

import pytest
import torch

from backends import BackendError, LifRule, Surrogate
from backends.surrogate import KINDS, spike

# The function whose derivative each surrogate is, of x = u - threshold and the slope k.
SMOOTH = {
    "fast_sigmoid": lambda x, k: x / (1 + k * abs(x)),
    "arctan": lambda x, k: math.atan(math.pi / 2 * k * x) / math.pi,
    "triangular": lambda x, k: math.copysign(min(abs(x), 1 / k) * (1 - k * min(abs(x), 1 / k) / 2), x),
    "straight_through": lambda x, k: math.copysign(min(abs(x), 1 / k), x),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("strict", [False, True])
def test_forward_is_a_step(dtype, strict):
    tiny = torch.finfo(dtype).tiny
    x = torch.tensor([-math.inf, -1.0, -tiny, 0.0, tiny, 1.0, math.inf], dtype=dtype)
    spikes = spike(x, Surrogate(), strict)
    assert spikes.tolist() == [0, 0, 0, 0 if strict else 1, 1, 1, 1] and spikes.dtype == dtype


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("slope", [0.5, 1.0, 4.0, 25.0])
def test_backward_is_the_slope_of_the_smooth_function(kind, slope):
    """By central differences, away from the corners; even, and largest at the threshold."""
    x = torch.linspace(-3, 3, 61, dtype=torch.float64).add(1e-3).requires_grad_()
    upstream = torch.linspace(1, 2, 61, dtype=torch.float64)
    spike(x, Surrogate(kind, slope)).backward(upstream)
    h, smooth = 1e-6, SMOOTH[kind]
    for at, found, weight in zip(x.tolist(), x.grad.tolist(), upstream.tolist(), strict=True):
        if abs(abs(at) - 1 / slope) > 1e-5:
            assert found / weight == pytest.approx((smooth(at + h, slope) - smooth(at - h, slope)) / (2 * h), abs=1e-4)
    surrogate = Surrogate(kind, slope)
    assert torch.equal(surrogate.derivative(x), surrogate.derivative(-x))
    assert surrogate.derivative(torch.zeros(1)).item() == surrogate.derivative(x).max().clamp(
        min=slope / 2 if kind == "arctan" else 1.0
    )


def test_a_straight_through_slope_of_0_is_the_identity():
    x = torch.tensor([-100.0, 0.0, 100.0], requires_grad=True)
    spike(x, Surrogate("straight_through", 0.0)).sum().backward()
    assert x.grad.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Surrogate("sigmoid"), r"surrogate: got 'sigmoid', expected one of fast_sigmoid, .*\nCorrect"),
        (lambda: Surrogate(slope=-1.0), r"surrogate: got slope -1.0, expected 0 or more.\nGive a finite"),
        (lambda: Surrogate(slope=math.nan), r"surrogate: got slope nan, expected 0 or more"),
        (lambda: LifRule("zero"), r"reset: got 'zero', expected one of soft, hard, none.\nCorrect"),
        (lambda: LifRule(v_reset=0.5), r'v_reset: got 0.5 with a soft reset.\nLeave it out, or reset="hard"'),
        (lambda: LifRule("none", delayed=True), r"delayed: got True without a reset to delay.\nLeave it out"),
    ],
)
def test_what_does_not_exist_is_refused(make, text):
    with pytest.raises(BackendError, match=text):
        make()
