"""Time of a mesh from the loads of its cores, and the firing rate at which spikes stop being cheaper."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from neuro.errors import UsageError
from sims.energy.break_even import Costs, break_even, seneca
from sims.energy.streams import DRAWS
from sims.energy.technologies import technology
from sims.energy.timing import MeshLoad, mesh_time

LOIHI = technology("loihi1")


def certain(table):
    """The same table without spread."""
    exact = tuple(dataclasses.replace(c, lo=c.value, hi=c.value) for c in table.constants)
    return dataclasses.replace(table, constants=exact)


def load(**changes) -> MeshLoad:
    cores = {"synops": [100, 0], "active": [10, 2], "idle": [5, 20], "packets": [3, 1]}
    arrays = {name: np.array(row) for name, row in cores.items()}
    return dataclasses.replace(MeshLoad(**arrays, tiles=1, steps=10, link_ew=4, link_ns=3), **changes)


def test_a_step_is_the_busiest_core_the_busiest_link_and_the_barrier():
    time = mesh_time(load(), certain(LOIHI), setup=False)
    step = 100 * 3.5 + 10 * 8.4 + 5 * 5.3 + 3 * 2.1 + max(4 * 4.1, 3 * 6.5) + 113
    assert np.allclose(time.time_s, 10 * step * 1e-9)
    assert np.allclose(time.static_j, 0.02955 * 10 * step * 1e-9)
    assert time.core == 0 and time.paced_by == "cores"


def test_steps_given_one_by_one_take_their_own_busiest_core():
    first, second = np.array([[100, 0], [0, 100]]), np.zeros((2, 2))
    each = mesh_time(MeshLoad(first, second, second, second, 1, 2), certain(LOIHI)).compute_s
    mean = mesh_time(MeshLoad(np.array([50, 50]), *[np.zeros(2)] * 3, 1, 2), certain(LOIHI)).compute_s
    assert np.allclose(each, 2 * (350 + 113) * 1e-9) and np.allclose(mean, 2 * (175 + 113) * 1e-9)


def test_the_barrier_runs_between_its_published_ends():
    still = {name: np.zeros(1) for name in ("synops", "active", "idle", "packets")}
    times = [
        mesh_time(MeshLoad(**still, tiles=tiles, steps=1), certain(LOIHI)).time_s[0] * 1e9 for tiles in (1, 16.5, 32)
    ]
    assert times == pytest.approx([113, (113 + 465) / 2, 465])


def test_a_clock_or_a_host_can_be_slower_than_the_cores():
    paced = mesh_time(load(), LOIHI, real_time_step_s=1e-3)
    assert np.allclose(paced.time_s, 0.01) and paced.paced_by == "real time"
    assert (paced.compute_s < 1e-3).all()
    fed = mesh_time(load(), LOIHI, real_time_step_s=1e-3, words=100, word_s=1e-3)
    assert np.allclose(fed.time_s, 0.1) and fed.paced_by == "input and output"


def test_draws_carry_through_and_are_seeded():
    one, again, other = (mesh_time(load(), LOIHI, seed).time_s for seed in (0, 0, 1))
    assert one.shape == (DRAWS,) and np.array_equal(one, again) and not np.array_equal(one, other)
    assert 1.2 < math.sqrt(np.quantile(one, 0.95) / np.quantile(one, 0.05)) < 2.5
    faster, slower = (mesh_time(load(synops=np.array([n, 0])), LOIHI).time_s for n in (100, 101))
    assert (slower >= faster).all() and (slower > faster).mean() > 0.9  # the same draws, one operation more


@pytest.mark.parametrize(
    ("changes", "more", "words"),
    [
        ({"idle": np.zeros(3)}, {}, r"got loads of shapes \(2,\), \(3,\) for 10 steps"),
        ({name: np.zeros((3, 2)) for name in ("synops", "active", "idle", "packets")}, {}, "for 10 steps"),
        ({"tiles": 0}, {}, "got tiles=0, expected at least 1"),
        ({"steps": 0}, {}, "got steps=0, expected at least 1"),
        ({"packets": np.array([1, -1])}, {}, "got packets below 0"),
        ({"link_ew": -1.0}, {}, "got link_ew below 0"),
        ({}, {"words": -1.0}, "got words below 0"),
    ],
)
def test_wrong_loads_are_usage_errors(changes, more, words):
    with pytest.raises(UsageError, match=words):
        mesh_time(load(**changes), LOIHI, **more)


def test_a_platform_without_times_says_which_it_lacks():
    with pytest.raises(UsageError, match="'truenorth' has no time_synaptic_op") as raised:
        mesh_time(load(), technology("truenorth"))
    assert raised.value.do == "Give the seconds of a run yourself."


def test_break_even_on_seneca_is_the_worked_example():
    """(3.7 / B + 1.4) / 12.7: 0.40 spikes a synapse and inference alone, 0.12 in batches of 32, where updates are free."""
    costs = dataclasses.replace(seneca(), update=0.0)
    alone, batched = (break_even(3072, 768, 4, costs, batch=b).spikes_per_synapse for b in (1, 32))
    assert alone.median == pytest.approx((3.7 + 1.4) / 12.7, rel=0.01)
    assert batched.median == pytest.approx((3.7 / 32 + 1.4) / 12.7, rel=0.01)
    assert alone.lo < 0.40 < alone.hi and alone.hi < 0.5 and batched.lo < 0.12 < batched.hi
    assert break_even(3072, 768, 4, costs).rate.median == pytest.approx(alone.median / 4)
    charged = break_even(3072, 768, 4, seneca()).spikes_per_synapse.median
    assert charged == pytest.approx((3.7 + 1.4 - 9.0 * 4 / 768) / 12.7, rel=0.01)


def test_updates_of_silent_neurons_lower_the_break_even_and_can_leave_none():
    costs = Costs(weight=2.0, input=1.0, mac=1.0, accumulate=1.0, state_read=1.0, state_write=1.0, update=8.0)
    some = break_even(10, 100, 4, costs)
    assert some.spikes_per_synapse.median == pytest.approx((4 - 8 * 4 / 100) / 5) and some.chance_of_none == 0
    none = break_even(10, 4, 8, costs)  # 8 x 8 / 4 = 16 a synapse, more than the dense layer's 4
    assert none.spikes_per_synapse.hi == 0 and none.chance_of_none == 1
    assert break_even(99, 100, 4, costs).spikes_per_synapse == some.spikes_per_synapse  # per neuron: its number cancels


@pytest.mark.parametrize(
    ("sizes", "change", "words"),
    [
        ((0, 1, 1), {}, "got fan_out=0, expected at least 1"),
        ((1, 0, 1), {}, "got fan_in=0"),
        ((1, 1, 0), {}, "got steps=0"),
        ((1, 1, 1), {"mac": -1.0}, "got a negative cost of mac"),
        ((1, 1, 1), dict.fromkeys(("weight", "accumulate", "state_read", "state_write"), 0.0), "without cost"),
    ],
)
def test_wrong_layers_and_costs_are_usage_errors(sizes, change, words):
    costs = dataclasses.replace(Costs(1.0, 1.0, 1.0, 1.0, 1.0, 1.0), **change)
    with pytest.raises(UsageError, match=words):
        break_even(*sizes, costs)
    with pytest.raises(UsageError, match="got batch=0"):
        break_even(1, 1, 1, Costs(1.0, 1.0, 1.0, 1.0, 1.0, 1.0), batch=0)
