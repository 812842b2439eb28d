"""The analysis of place fields, on units whose fields are known."""

from __future__ import annotations

import numpy as np
import pytest

from neuro.errors import UsageError
from neuro.evaluate import place_fields
from neuro.evaluate.place_fields import Frames, Protocol
from neuro.plots.codes import codes
from neuro.plots.place import place_fields as picture

PROTOCOL = Protocol(shifts=60, smooth_bins=1.0)


@pytest.fixture(scope="module")
def shuttle() -> Frames:
    """Ten minutes to and fro between the ends of a line of length 100, at 25 frames a second."""
    time = np.arange(0, 600, 0.04)
    along = 50.0 - 50.0 * np.cos(2 * np.pi * time / 8.0)
    path = np.stack([10 + 0.6 * along, 5 + 0.8 * along], 1)
    return place_fields.line(time, path, 600.0, smooth_frames=1.0)


def field(frames: Frames, centre: float, sd: float) -> np.ndarray:
    return np.exp(-0.5 * ((frames.place - centre) / sd) ** 2)


def test_a_path_becomes_a_line_with_its_speed(shuttle):
    along = 50.0 - 50.0 * np.cos(2 * np.pi * shuttle.time_s / 8.0)
    place = shuttle.place if np.corrcoef(shuttle.place, along)[0, 1] > 0 else 1.0 - shuttle.place
    assert np.abs(place - along / 100).max() < 0.01
    truth = np.abs(np.gradient(along, shuttle.time_s))
    assert np.median(np.abs(shuttle.speed - truth)) < 0.5
    assert len(shuttle.where(shuttle.speed > 20).place) < len(shuttle.place)
    assert shuttle.seconds.sum() == pytest.approx(600, abs=0.1)
    with pytest.raises(UsageError, match=r"line: got 1 positions in 0.01 s, expected two or more.\nGive a longer"):
        place_fields.line(shuttle.time_s, shuttle.point, 0.01)


def test_spikes_are_counted_in_the_frames_they_fall_into(shuttle):
    some = shuttle.where(np.arange(len(shuttle.time_s)) % 2 == 0)  # every other frame is left out
    counts = place_fields.counted([np.array([-1.0, 0.01, 0.05, 0.09, 0.1]), np.array([])], some)
    assert counts[:, 0].sum() == 3 and counts[0, 0] == 1 and counts[1, 0] == 2 and not counts[:, 1].any()


def test_poisson_spikes_have_the_totals_asked_for_and_fall_as_the_rates_have_it(shuttle):
    rates = np.stack([field(shuttle, 0.3, 0.05), np.ones(len(shuttle.place))], 1)
    found = place_fields.poisson(rates, shuttle, np.array([500, 40]), np.random.default_rng(0))
    assert [len(times) for times in found] == [500, 40] and all((np.diff(times) >= 0).all() for times in found)
    counts = place_fields.counted(found, shuttle)
    assert counts.sum(0).tolist() == [500, 40]
    assert abs((counts[:, 0] * shuttle.place).sum() / 500 - 0.3) < 0.01


def test_information_is_the_formula():
    occupancy = np.array([1.0, 1.0, 2.0])
    assert place_fields.information(np.array([4.0, 4.0, 4.0]), occupancy) == pytest.approx(0.0)
    assert place_fields.information(np.array([8.0, 0.0, 0.0]), occupancy) == pytest.approx(2.0)  # a quarter of the time
    assert place_fields.information(np.array([0.0, 0.0, 8.0]), occupancy) == pytest.approx(1.0)
    assert place_fields.information(np.zeros(3), occupancy) == 0.0


def test_width_is_one_piece_around_the_peak():
    rates = np.array([[0, 1, 2, 1.5, 0.9, 1.2, 0, 0], [3, 1, 0, 0, 0, 0, 0, 2], [1, 1, 1, 1, 1, 1, 1, 1.0]])
    assert place_fields.width(rates).tolist() == [3 / 8, 1 / 8, 1.0]


def test_tuned_units_are_told_from_others(shuttle):
    random = np.random.default_rng(1)
    flat = np.ones(len(shuttle.place))
    rates = np.stack([field(shuttle, 0.3, 0.06), flat, field(shuttle, 0.7, 0.06), flat], 1)
    spikes = place_fields.poisson(rates, shuttle, np.array([300, 300, 30, 6000]), random)
    found = place_fields.statistics(spikes, shuttle, (0.0, 600.0), PROTOCOL)
    assert found.judged.tolist() == [True, True, False, False]  # too few spikes; an interneuron's rate
    assert found.tuned[0] and not found.tuned[2:].any()
    spikes = place_fields.poisson(np.ones((len(shuttle.place), 60)), shuttle, np.full(60, 200), random)
    flat_units = place_fields.statistics(spikes, shuttle, (0.0, 600.0), PROTOCOL)
    assert flat_units.tuned.sum() <= 4  # one in 100, by definition
    assert abs(found.width[0] - 2.355 * 0.06) < 0.05 and found.information[0] > 1.0
    assert abs(found.corrected[1]) < 0.05 < found.information[0] - found.corrected[0] + 0.05
    assert found.peak_hz[0] > found.mean_hz[0]


def test_the_decoder_finds_the_place_from_fields_and_not_from_noise(shuttle):
    random = np.random.default_rng(2)
    centres = np.linspace(0, 1, 15)
    totals = np.full(15, 600)
    tuned = np.stack([field(shuttle, centre, 0.07) for centre in centres], 1)
    told = place_fields.decode(place_fields.poisson(tuned, shuttle, totals, random), shuttle, 300.0, PROTOCOL)
    blind = place_fields.decode(
        place_fields.poisson(np.ones_like(tuned), shuttle, totals, random), shuttle, 300.0, PROTOCOL
    )
    assert np.median(told.error) < 0.05 < 0.15 < np.median(blind.error)
    assert told.time_s.min() >= 300.0 and abs(told.chance - 0.3) < 0.1
    with pytest.raises(UsageError, match=r"decode: got 0 frames before the split and 15000 after it.*\nMove split_s"):
        place_fields.decode([np.zeros(0)], shuttle, -1.0)


def test_drawn_runs_spread_around_the_error_and_more_runs_spread_less(shuttle):
    random = np.random.default_rng(6)
    fast = shuttle.where(shuttle.speed > 20)
    rates = np.stack([field(shuttle, centre, 0.07) for centre in np.linspace(0, 1, 6)], 1)
    spikes = place_fields.poisson(rates, shuttle, np.full(6, 250), random)
    error = float(np.median(place_fields.decode(spikes, fast, 300.0, PROTOCOL).error))
    drawn = place_fields.decoding_errors(spikes, fast, 300.0, PROTOCOL, draws=60)
    low, high = np.percentile(drawn, [2.5, 97.5])
    assert drawn.shape == (60,) and low < error < high and (drawn == drawn[0]).sum() < 60
    few = place_fields.decoding_errors(
        spikes, fast.where(np.abs(fast.time_s - 300.0) < 60.0), 300.0, PROTOCOL, draws=60
    )
    assert few.std() > 1.3 * drawn.std()
    with pytest.raises(UsageError, match="decode: got 0 frames before the split"):
        place_fields.decoding_errors(spikes, fast, -1.0)


def test_directionality_is_none_of_a_place_alone_and_whole_of_one_way(shuttle):
    onward = np.gradient(shuttle.place) > 0
    rates = np.stack([field(shuttle, 0.4, 0.1), field(shuttle, 0.4, 0.1) * onward + 1e-9], 1)
    spikes = place_fields.poisson(rates, shuttle, np.array([20_000, 2000]), np.random.default_rng(7))
    found = place_fields.directionality(spikes, shuttle, onward, PROTOCOL)
    assert found[0] < 0.1 and found[1] > 0.98


def test_population_correlation_of_a_map_with_itself_and_with_strangers():
    rates = np.random.default_rng(3).random((50, 40))
    other = np.random.default_rng(4).random((50, 40))
    assert place_fields.population_correlation(rates, 3.0 * rates) == pytest.approx(1.0)
    assert abs(place_fields.population_correlation(rates, other)) < 0.1


def test_a_picture_is_drawn(shuttle, tmp_path):
    rates = np.stack([field(shuttle, 0.3, 0.06), field(shuttle, 0.6, 0.1)], 1)
    spikes = place_fields.poisson(rates, shuttle, np.array([300, 300]), np.random.default_rng(5))
    found = place_fields.statistics(spikes, shuttle, (0.0, 600.0), PROTOCOL)
    decoded = place_fields.decode(spikes, shuttle, 300.0, PROTOCOL)
    populations = {"one": found, "none": found._replace(tuned=~found.tuned)}
    out = picture(populations, dict.fromkeys(populations, decoded), tmp_path / "a.png")
    assert out is None or out.stat().st_size > 1000


def test_maps_of_cells_and_likeness_of_codes_are_drawn(tmp_path):
    rates = np.random.default_rng(0).random((3, 4, 5))
    out = codes({"three": rates, "one, silent": 0 * rates[:1]}, np.eye(6), tmp_path / "a.png")
    assert out is None or out.stat().st_size > 1000


def test_the_recording_gives_the_reference_figures(neuro_data):
    """10 tuned units of 31, decoding at 5 % of the track against 25 % by chance, in 138 windows."""
    from neuro.sensors import line_track

    found = line_track.load(neuro_data)
    start = float(found.path_s[0])
    frames = place_fields.line(found.path_s, found.path_px, 800.0)
    run = frames.where(frames.speed > 40.0)
    assert run.seconds.sum() == pytest.approx(191, abs=0.5)
    units = place_fields.statistics(found.spikes_s, run, (start, start + 800.0))
    assert int(units.judged.sum()) == 15 and int(units.tuned.sum()) == 10
    assert np.median(units.information[units.tuned]) == pytest.approx(0.86, abs=0.03)
    assert np.median(units.peak_hz[units.tuned]) == pytest.approx(7.0, abs=0.1)
    spikes = [times for times, tuned in zip(found.spikes_s, units.tuned, strict=True) if tuned]
    decoded = place_fields.decode(spikes, run, start + 400.0)
    assert len(decoded.error) == 138
    assert np.median(decoded.error) == pytest.approx(0.052, abs=0.003)
    assert decoded.chance == pytest.approx(0.254, abs=0.01)
