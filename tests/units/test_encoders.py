"""Encoders and decoders: what went in comes out, and what cannot go in is refused."""

from __future__ import annotations

import math

import pytest
import torch

from neuro.errors import UsageError
from neuro.neurons import decoders, encoders


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_rates_are_drawn_by_the_generator_alone():
    x = torch.tensor([0.0, 0.1, 0.5, 1.0])
    torch.manual_seed(1)
    one = encoders.rate(x, 4000, draw())
    torch.manual_seed(2)
    assert torch.equal(one, encoders.rate(x, 4000, draw())) and not torch.equal(one, encoders.rate(x, 4000, draw(1)))
    assert set(one.unique().tolist()) == {0.0, 1.0} and one.shape == (4000, 4)
    # Five standard deviations of a Bernoulli mean; certain values are exact.
    for p, found in zip(x.tolist(), one.mean(0).tolist(), strict=True):
        assert abs(found - p) <= 5 * math.sqrt(p * (1 - p) / 4000)
    assert decoders.rate_hz(one, 2.0).tolist() == pytest.approx((one.mean(0) * 500).tolist())


def test_the_larger_the_earlier():
    x = torch.tensor([1.0, 0.75, 0.5, 0.25, 1e-6, 0.0])
    spikes = encoders.latency(x, 9)
    assert decoders.first_spike(spikes).tolist() == [0, 2, 4, 6, 8, 9]
    assert decoders.count(spikes).tolist() == [1, 1, 1, 1, 1, 0]
    assert decoders.latency(spikes).tolist() == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    assert encoders.latency(torch.tensor([0.3]), 1).tolist() == [[1.0]]


def test_latency_is_right_to_half_a_step():
    x = torch.rand(200, generator=draw())
    assert float((decoders.latency(encoders.latency(x, 33)) - x).abs().max()) <= 0.5 / 32 + 1e-6


def test_delta_gives_the_signal_back_to_within_its_step():
    signal = torch.randn(300, 2, 3, generator=draw(), dtype=torch.float64).cumsum(0) + 7
    up, down = encoders.delta(signal, 0.25)
    assert bool((up * down == 0).all()) and bool((up == up.round()).all())
    again = decoders.delta(up, down, 0.25, signal[0])
    assert float((again - signal).abs().max()) < 0.25 + 1e-9
    still = torch.full((5, 1), 3.0)
    assert not torch.stack(encoders.delta(still, 0.1)).any()


def test_a_population_is_read_back():
    centres, x = torch.linspace(-2.0, 3.0, 21), torch.linspace(0.0, 1.0, 50)
    answers = encoders.population(x, centres, 0.5)
    assert answers.shape == (50, 21) and float(answers.max()) <= 1.0
    assert float((decoders.population(answers, centres) - x).abs().max()) < 1e-3
    assert encoders.population(torch.tensor(0.5), torch.tensor([0.5, 1.0]), 0.5).tolist() == pytest.approx(
        [1.0, math.exp(-0.5)]
    )
    assert math.isnan(decoders.population(torch.zeros(3), torch.arange(3.0)).item())


@pytest.mark.parametrize("steps", [1, 2, 7, 16])
def test_a_whole_number_is_that_many_spikes_spread_evenly(steps):
    n = torch.arange(steps + 1)
    spikes = encoders.counts(n, steps)
    assert decoders.count(spikes).tolist() == n.tolist() and set(spikes.unique().tolist()) <= {0.0, 1.0}
    for k in range(2, steps + 1):
        gaps = spikes[:, k].nonzero().flatten().diff()
        assert int(gaps.max()) - int(gaps.min()) <= 1
    assert torch.equal(encoders.counts(n.float(), steps), spikes)


def test_a_trace_is_an_exponential():
    spikes = torch.zeros(50, 1, 2)
    spikes[10, 0, 0] = 1.0
    found = decoders.trace(spikes, tau_ms=5.0, dt_ms=0.5)
    expected = torch.exp(-0.1 * torch.arange(40.0))
    assert not found[:10].any() and not found[..., 1].any()
    assert float((found[10:, 0, 0] - expected).abs().max()) < 1e-5


@pytest.mark.parametrize(
    ("text", "call"),
    [
        (
            r"rate: got values from 0.5 to 1.5, expected 0 to 1.\nScale",
            lambda: encoders.rate(torch.tensor([0.5, 1.5]), 2, draw()),
        ),
        (
            r"rate: got values from nan to nan, expected 0 to 1",
            lambda: encoders.rate(torch.tensor([math.nan]), 2, draw()),
        ),
        (r"rate: got values of torch.int64, expected floating", lambda: encoders.rate(torch.tensor([1]), 2, draw())),
        (
            r"rate generator: got int, expected a torch.Generator.\nGive torch.Generator\(\).manual_seed\(0\)",
            lambda: encoders.rate(torch.rand(2), 2, 0),
        ),
        (r"latency steps: got 0, expected at least 1.\nGive", lambda: encoders.latency(torch.rand(2), 0)),
        (r"latency: got values from -1 to 0, expected 0 to 1", lambda: encoders.latency(torch.tensor([-1.0, 0.0]), 3)),
        (r"delta threshold: got 0.0, expected more than 0.\nGive", lambda: encoders.delta(torch.rand(3), 0.0)),
        (
            r"delta: got NaN or infinity in the signal.*\nClean",
            lambda: encoders.delta(torch.tensor([0.0, math.inf]), 1.0),
        ),
        (
            r"delta: got no step of the signal, expected \[T,...\] with T >= 1",
            lambda: encoders.delta(torch.rand(0, 2), 1.0),
        ),
        (r"first_spike: got no step of spikes, expected \[T,...\]", lambda: decoders.first_spike(torch.rand(0, 2))),
        (
            r"population width: got -1.0, expected more than 0.\nGive",
            lambda: encoders.population(torch.rand(2), torch.rand(3), -1.0),
        ),
        (r"counts: got fractions, expected whole numbers.\nRound", lambda: encoders.counts(torch.tensor([0.5]), 3)),
        (r"counts: got 0 to 4, expected 0 to 3.\nA step holds one", lambda: encoders.counts(torch.tensor([0, 4]), 3)),
        (r"counts: got -1 to 1, expected 0 to 3", lambda: encoders.counts(torch.tensor([-1, 1]), 3)),
        (r"rate_hz dt_ms: got 0.0, expected more than 0.\nGive", lambda: decoders.rate_hz(torch.rand(2), 0.0)),
        (
            r"trace tau_ms: got -1.0, expected more than 0.\nGive",
            lambda: decoders.trace(torch.rand(2, 1, 1), -1.0, 1.0),
        ),
    ],
)
def test_what_cannot_be_coded_is_refused(text, call):
    with pytest.raises(UsageError, match=text):
        call()
