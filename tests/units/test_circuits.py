"""The circuits in Brian2 do what is known of them, and stop doing it without the part they depend on."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from backends import LifRule
from neuro.extras import installed
from neuro.neurons.lif import LIF
from sims.circuits import amygdala_fear, ca3_recall, lif_curve, studies, theta_gamma

pytestmark = [
    pytest.mark.skipif(not installed("brian2"), reason="brian2 is not installed (extra sims)"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Brian2 2.9 through sympy and pyparsing
]


def test_our_neuron_and_brian2s_fire_the_same_spikes():
    """The same drive [T,N] and step, the exact decay, no refractory time."""
    steps, neurons, dt_ms = 500, 30, 0.5
    draws = np.random.default_rng(0)
    drive = 1.5 + 2 * draws.standard_normal((steps, neurons))
    start = draws.random(neurons)
    when, who = lif_curve.spikes(drive, 0.0, steps * dt_ms * 1e-3, 0, dt_ms, 0.0, start)
    found = np.zeros((steps, neurons))
    found[when, who] = 1
    ours = LIF(
        neurons,
        beta=math.exp(-dt_ms / lif_curve.TAU_MS),
        decay_input=True,
        rule=LifRule(reset="hard", strict=True),
        dt_ms=dt_ms,
    ).double()
    state = ours.init_state(1, dtype=torch.float64)._replace(v=torch.from_numpy(start)[None])
    with torch.no_grad():
        expected, _ = ours.scan(torch.from_numpy(drive)[:, None], state)
    assert expected.sum() > 300
    assert np.array_equal(found, expected[:, 0].numpy())


def test_rates_without_noise_are_lapicques():
    drives = np.array([0.95, 1.05, 1.5, 3.0])
    found = lif_curve.rates(drives, 0.0, 0.5, 0)
    assert found[0] == 0
    for drive, rate in zip(drives[1:], found[1:], strict=True):
        interval = 1e3 / lif_curve.lapicque(drive)
        assert abs(1e3 / rate - interval) <= lif_curve.DT_MS + 1e-6  # an interval is whole steps


def test_rates_with_noise_are_siegerts():
    drives = np.array([0.7, 1.5])
    found = lif_curve.rates(drives, lif_curve.SIGMA, 0.5, 0)
    expected = [lif_curve.siegert(drive) for drive in drives]
    # 40 copies of 0.5 s: the count at 10 Hz has a standard deviation of at most 7 %
    assert found == pytest.approx(expected, rel=0.21)
    assert lif_curve.siegert(2.0, 1e-3) == pytest.approx(lif_curve.lapicque(2.0), rel=1e-3)


def test_half_a_cue_is_completed_over_recurrent_synapses_alone():
    cues = [(1.0, 0), (0.5, 0), (0.5, 4)]
    whole, lesioned = (ca3_recall.recall(0, 50, cues, lesion) for lesion in (False, True))
    assert whole == pytest.approx([1, 1, 1], abs=0.05)
    assert lesioned == pytest.approx([1, math.sqrt(0.5), 10 / math.sqrt(14 * 20)])


def test_too_many_patterns_are_not_recalled():
    assert ca3_recall.recall(0, 400, [(0.5, 0)])[0] < 0.5
    assert 150 < ca3_recall.predicted_load() < 300
    assert ca3_recall.critical(np.array([1, 1, 1, 0.9, 0.6, 0.2, 0.1])) == 225
    assert math.isnan(ca3_recall.critical(np.ones(len(ca3_recall.LOADS))))


def test_precession_finds_the_slope_it_is_given():
    draws = np.random.default_rng(0)
    place = draws.random(500)
    slope, offset, fit = theta_gamma.precession(place, 1.0 - 2.0 * place + 0.1 * draws.standard_normal(500))
    assert (slope, offset) == (pytest.approx(-2.0, abs=0.05), pytest.approx(1.0, abs=0.05)) and fit > 0.98


def test_fields_and_pace_are_of_single_cells():
    """Two cells that share no spike: one whose phase falls, one whose phase climbs, 10 and 8 volleys a second."""
    place = np.tile(np.linspace(0, 1, 10), 2)
    phases = np.concatenate([3 - 2 * place[:10], 1 + 2 * place[10:]])
    cells = np.repeat([4, 9], 10)
    assert theta_gamma.falling(place, phases, cells) == 0.5
    assert math.isnan(theta_gamma.falling(place[:7], phases[:7], cells[:7]))
    seconds = np.concatenate([np.arange(10) / 10, np.arange(10) / 8 + 0.03])
    assert theta_gamma.pace(seconds, cells) == pytest.approx(2 / (1 / 10 + 1 / 8))
    assert math.isnan(theta_gamma.pace(seconds[[0, 9]], cells[[0, 9]]))


def test_nesting_finds_the_gamma_it_is_given():
    seconds = np.arange(4000) * 1e-3
    swing = 1 + np.cos(2 * np.pi * theta_gamma.THETA_HZ * seconds)
    rate = 50 + swing * np.cos(2 * np.pi * 55 * seconds)
    peak, coupling, share = theta_gamma.nesting(rate)
    assert abs(peak - 55) < 1 and share.argmax() in (0, 17)
    assert coupling > 20 * abs(theta_gamma.nesting(np.cos(2 * np.pi * 55 * seconds))[1])


def test_spikes_precess_and_gamma_nests_with_theta_alone():
    whole, lesioned = (theta_gamma.run(0, lesion).statistics for lesion in (False, True))
    assert whole["fast_slope_deg"] == pytest.approx(whole["slope_deg_per_field"], rel=0.2)
    assert whole["negative_fields"] == 1 and lesioned["negative_fields"] < 0.5
    assert 1 < whole["cell_over_theta"] < 1.1
    assert 1 < lesioned["cell_over_theta"] < 1.1  # by adaptation alone: the pace says nothing of theta
    assert -355 < whole["shift_deg"] < -100 and whole["phase_fit"] > 0.7
    assert 25 < whole["gamma_hz"] < 100
    assert lesioned["phase_fit"] < 0.3 and lesioned["coupling"] < whole["coupling"] / 2


def test_extinguished_fear_is_renewed_and_inhibition_hides_it(monkeypatch):
    short = {"before": 2, "conditioning": 6, "extinction": 14}
    protocol = tuple((name, short.get(name, 2), *flags) for name, _, *flags in amygdala_fear.PROTOCOL)
    monkeypatch.setattr(amygdala_fear, "PROTOCOL", protocol)
    whole, lesioned = (amygdala_fear.run(0, lesion) for lesion in (False, True))
    found = whole.statistics
    assert found["conditioned_hz"] > 2 * found["before_hz"]
    assert found["extinguished_share"] < 0.5 < found["renewed_share"]
    assert lesioned.statistics["extinguished_share"] > 0.75
    weights = whole.curves["weights"]
    assert np.all(np.diff(weights, axis=0) >= 0) and np.all(weights <= np.array(amygdala_fear.BOUND) + 1e-12)


@pytest.mark.parametrize("name", studies.STUDIES)
def test_the_reference_of_a_circuit_has_all_that_is_asked_of_it(name):
    known = studies.record(name)
    assert {"phenomenon", "source", "doi", "lesion", "abolished", "fitting", "seeds", "statistics"} == set(known)
    assert known["doi"] and known["lesion"] and known["seeds"] >= 20
    rows = known["statistics"]
    for row in rows.values():
        assert list(row) == "unit role published spread ours ours_sd lesioned lesioned_sd".split()
        assert row["published"] in ("direction only", "none found") or np.all(np.isfinite(row["published"]))
        assert row["spread"] and row["ours"] is not None
    roles = [row["role"] for row in rows.values()]
    reported = roles.count("reported")
    assert set(roles) <= {"fitted", "reported"} and reported >= len(roles) // 2
    assert f"{reported} " in known["fitting"]
    row = rows[known["abolished"]]
    assert abs(row["ours"] - row["lesioned"]) > 4 * max(row["ours_sd"], row["lesioned_sd"])
