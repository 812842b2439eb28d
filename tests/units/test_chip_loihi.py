"""The integer layers of Loihi: golden vectors, agreement with the neuron in torch, the rule's corners."""

from __future__ import annotations

import dataclasses
import gzip

import numpy as np
import pytest
import torch

from neuro.errors import UsageError
from neuro.neurons import loihi
from sims.chips import loihi_lif
from sims.chips.loihi_lif import LoihiLayer, simulate, stored


def layer(weight=((100,),), vth=90, du=4095, dv=300, bias=0, exponent=0) -> LoihiLayer:
    weight = np.asarray(weight)
    n = len(weight)
    return LoihiLayer(weight, np.full(n, vth), du, dv, np.full(n, bias), exponent)


def test_the_golden_vectors_are_reproduced(neuro_data, measured):
    """256 neurons, 2,000 steps."""
    folder = neuro_data / "loihi-lif-groundtruth"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    arrays = []
    for name in ("weight", "in", "out"):
        with gzip.open(folder / f"{name}.npy.gz") as file:
            arrays.append(np.load(file, allow_pickle=False).astype(np.int64))
    weight, inputs, expected = arrays
    run = simulate([layer(weight, 6, 4095, 415)], inputs.T[:, None])
    mismatches = int((run.spikes[0][:, 0].T != expected).sum())
    measured("mismatches of 512,000", mismatches)
    assert mismatches == 0 and int(expected.sum()) == 1826


@pytest.mark.parametrize(("vth", "du", "dv"), [(90, 1000, 300), (4000, 0, 0), (50, 4095, 4096), (131071, 17, 5)])
def test_it_agrees_with_the_neuron_in_torch_bit_for_bit(vth, du, dv):
    rng = np.random.default_rng(vth)
    weight, events = stored(rng.integers(-400, 400, (12, 20))), rng.integers(0, 40, (120, 3, 20))
    run = simulate([layer(weight, vth, du, dv)], events)
    x = torch.from_numpy(np.concatenate([np.zeros_like(events[:1]), events[:-1]]) @ weight.T)
    spikes, state = loihi.scan(x, loihi.init_state(3, 12), vth, du, dv)
    assert np.array_equal(run.spikes[0], spikes.numpy()) and np.array_equal(run.membranes, state.v.numpy())
    assert (run.wrapped > 0) == (du < 4095)


def test_weights_are_held_and_even_where_both_signs_occur():
    assert stored(np.array([[300, 3, 0]])).tolist() == [[255, 3, 0]]
    assert stored(np.array([[-300, -3, 0]])).tolist() == [[-256, -3, 0]]
    assert stored(np.array([[300, 3, -3], [-300, 0, 1]])).tolist() == [[254, 2, -4], [-256, 0, 0]]


def test_a_spike_is_heard_one_step_later_in_each_layer():
    events = np.zeros((5, 1, 1), np.int64)
    events[0] = 1
    run = simulate([layer(), layer(), layer()], events)
    assert [spikes[:, 0, 0].tolist() for spikes in run.spikes] == [[0, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 1, 0]]


def test_a_bias_alone_fires_and_its_exponent_shifts_it():
    """100 x 2^3 = 800 a step and no decay: above 64 x 90 = 5,760 in the eighth step."""
    quiet = np.zeros((20, 1, 1), np.int64)
    run = simulate([layer(dv=0, bias=100, exponent=3)], quiet)
    assert np.nonzero(run.spikes[0][:, 0, 0])[0].tolist() == [7, 15]
    assert run.membranes[0, 0] == 4 * 800


def test_a_membrane_at_the_threshold_does_not_fire_and_rounds_towards_zero():
    events = np.array([1, 0, 0])[:, None, None]
    run = simulate([layer(vth=100, dv=1)], events)  # 6,400 is not above 6,400
    assert run.spikes[0].sum() == 0 and run.membranes[0, 0] == 6400 * 4095 // 4096
    run = simulate([layer(weight=((-100,),), dv=1)], events)
    assert run.membranes[0, 0] == -(6400 * 4095 // 4096)


def test_currents_wrap_and_membranes_are_held():
    many = np.full((4, 1, 1), 1 << 10, np.int64)
    run = simulate([layer(weight=((255,),), vth=loihi_lif.MOST_VTH, du=0, dv=0)], many)
    assert run.wrapped > 0
    few = np.full((40, 1, 1), 100, np.int64)
    run = simulate([layer(weight=((-255,),), dv=0)], few)
    assert run.wrapped == 0 and run.held > 0 and run.membranes[0, 0] == -((1 << 23) - 1)


def test_the_highest_threshold_leaves_room_for_a_spike_at_the_very_end():
    """64 x 131,071 = 2^23 - 64: below it such a neuron only integrates."""
    run = simulate([layer(weight=((255,),), vth=loihi_lif.MOST_VTH, dv=0)], np.full((515, 1, 1), 1, np.int64))
    assert run.spikes[0].sum() == 0 and run.membranes[0, 0] == 64 * 255 * 514 < (1 << 23) - 64
    run = simulate([layer(weight=((255,),), vth=loihi_lif.MOST_VTH, dv=0)], np.full((516, 1, 1), 1, np.int64))
    assert run.spikes[0].sum() == run.held == 1


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"weight": np.array([[256]])}, r"loihi weight: got 256 to 256, expected -256 to 255\.\nQuantize"),
        ({"weight": np.array([[0.5]])}, r"loihi weight: got float64 \[1, 1\], expected integers of 1 neurons"),
        ({"vth": np.array([1 << 17])}, r"loihi vth: got 131072 to 131072, expected 0 to 131071"),
        ({"vth": np.array([1, 2])}, r"loihi vth: got int64 \[2\], expected integers of 1 neurons\.\nQuantize"),
        ({"bias": np.array([-4097])}, r"loihi bias: got -4097 to -4097, expected -4096 to 4095"),
        ({"du": 4096}, r"loihi du: got 4096, expected 0 to 4095\.\nQuantize"),
        ({"dv": -1}, r"loihi dv: got -1, expected 0 to 4096"),
        ({"bias_exponent": 8}, r"loihi bias_exponent: got 8, expected 0 to 7"),
    ],
)
def test_what_does_not_fit_the_chips_bits_is_refused(changes, text):
    with pytest.raises(UsageError, match=text):
        dataclasses.replace(layer(), **changes)


def test_events_and_widths_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match=r"loihi: got events float64 \[2, 1, 1\], expected counts \[T, B, inputs\]"):
        simulate([layer()], np.zeros((2, 1, 1)))
    with pytest.raises(UsageError, match=r"loihi: got events int64 .*\nGive integers, time first"):
        simulate([layer()], np.full((2, 1, 1), -1))
    with pytest.raises(UsageError, match=r"loihi layer 1: got 2 inputs, expected 1\.\nGive each layer"):
        simulate([layer(), layer(weight=((1, 2),))], np.zeros((2, 1, 1), np.int64))
