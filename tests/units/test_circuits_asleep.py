"""Slow waves and replays in Brian2: they are there, in the order and at the pace known, and not without the part they need."""

from __future__ import annotations

import numpy as np
import pytest

from neuro.extras import installed, require
from neuro.plots import circuits
from sims.circuits import ripple_replay, sleep_wake, theta_gamma

pytestmark = [
    pytest.mark.skipif(not installed("brian2"), reason="brian2 is not installed (extra sims)"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Brian2 2.9 through sympy and pyparsing
]


def test_states_are_up_from_five_hz_until_under_two():
    rate = np.repeat([0.0, 4.0, 10.0, 4.0, 0.0, 10.0, 0.0], 50)
    up, rises = sleep_wake.states(rate)
    assert rises == 2
    assert not up[:90].any() and up[110:190].all() and not up[210:240].any()
    assert np.isclose(up.mean(), 3 / 7, atol=0.03)


def test_slow_power_is_that_of_a_slow_wave_alone():
    seconds = np.arange(1000) * sleep_wake.BIN_MS * 1e-3
    slow, fast = (10 + 8 * np.sin(2 * np.pi * hz * seconds) for hz in (0.5, 5.0))
    assert sleep_wake.slow_power(slow) > 1e6 * sleep_wake.slow_power(fast)
    bins, spacing = 10, 0.1  # 0.1 to 1 Hz of ten seconds
    assert sleep_wake.slow_power(slow) * bins * spacing == pytest.approx(8**2 / 2)


def test_slow_waves_come_without_the_modulator_and_need_adaptation(monkeypatch, tmp_path):
    monkeypatch.setattr(sleep_wake, "PHASES_S", (2, 6, 1))
    whole, lesioned = (sleep_wake.run(0, lesion) for lesion in (False, True))
    found = whole.statistics
    assert 0.1 < found["slow_hz"] <= 1
    assert found["down_share_asleep"] > 0.3 and found["down_share_awake"] == 0
    assert found["slow_power_ratio"] > 10
    assert lesioned.statistics["slow_hz"] == 0 and lesioned.statistics["down_share_asleep"] == 0
    _, asleep, again = np.split(whole.curves["cortex"], whole.curves["edges"])
    assert again[50:].mean() > 2 * asleep.mean()  # it wakes again
    if installed("matplotlib"):
        assert circuits.draw("sleep-wake", whole.curves, tmp_path / "sleep.png").stat().st_size > 5000


def test_the_score_is_of_order_alone_and_its_shuffles_are_fair():
    draws = np.random.default_rng(0)
    times, cells = np.arange(40.0), np.arange(40) * 3
    assert ripple_replay.score(times**3, cells, draws)[0] == pytest.approx(1)
    value, null = ripple_replay.score(times, cells[::-1], draws)
    assert value == pytest.approx(-1) and 0.1 < null < 0.5
    assert ripple_replay.score(np.zeros(40), cells, draws) == (0.0, 1.0)
    above = [
        value > null for value, null in (ripple_replay.score(times, draws.permutation(40), draws) for _ in range(100))
    ]
    assert np.mean(above) < 0.13  # 0.05 +- 0.022 expected


def test_the_ripples_peak_is_found():
    ms = np.arange(150)
    rates = 50 + 20 * np.random.default_rng(0).standard_normal((5, 150))
    peak, power = ripple_replay.ripple(rates + 40 * np.sin(2 * np.pi * 180e-3 * ms))
    assert abs(peak - 180) < 7 and power > 3 * ripple_replay.ripple(rates)[1]


def test_a_run_leaves_forward_synapses_to_near_places():
    weights = ripple_replay.learnt(np.random.default_rng(0))
    source, target = np.nonzero(weights > 0.5)
    assert len(source) > ripple_replay.CELLS and np.mean(target > source) > 0.95
    assert np.abs(target - source).max() * ripple_replay.TRACK_CM / ripple_replay.CELLS < 4 * ripple_replay.FIELD_CM
    assert not (np.diag(weights) > 0).any()


def test_a_run_is_replayed_in_order_many_times_faster_over_recurrent_synapses_alone(monkeypatch, tmp_path):
    monkeypatch.setattr(ripple_replay, "EVENTS", 3)
    monkeypatch.setattr(ripple_replay, "SHUFFLES", 100)
    whole, lesioned = (ripple_replay.run(0, lesion) for lesion in (False, True))
    found = whole.statistics
    assert found["replays"] == 1 and found["score"] > 0.9 and found["cells_share"] > 0.7
    assert 10 < found["compression"] < 30
    assert lesioned.statistics["replays"] <= 1 / 3 and abs(lesioned.statistics["score"]) < 0.4
    assert found["ripple_power"] > 2 * lesioned.statistics["ripple_power"]
    if installed("matplotlib"):
        assert circuits.draw("ripple-replay", whole.curves, tmp_path / "replay.png").stat().st_size > 5000


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("circuit", [theta_gamma, ripple_replay])
def test_a_run_does_not_depend_on_what_else_brian2_holds(circuit, monkeypatch):
    monkeypatch.setattr(theta_gamma, "TRACK_CM", 20.0)
    monkeypatch.setattr(ripple_replay, "EVENTS", 1)
    alone = circuit.run(0).statistics
    other = require("brian2", "sims").NeuronGroup(1, "v : 1")
    beside = circuit.run(0).statistics
    require("brian2", "sims").Network(other)  # Brian2 warns of a group that was never in one
    assert alone == beside
