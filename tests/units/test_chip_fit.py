"""Whether populations fit on a chip: every case worked by hand from Loihi 1's limits.

Per core: 1,024 compartments, 1,048,576 bits of synapses, 4,096 axons in, 4,096 out; 128 cores a chip.
"""

from __future__ import annotations

import pytest

from neuro.workload import Population
from sims import chips, mapping

LOIHI = chips.load("loihi1")


def population(name: str = "p", neurons: int = 1024, fan_out: int = 256, weight_bits: int = 8) -> Population:
    return Population(name, "cortex", neurons, fan_out, fan_out, "dense", weight_bits, 0, 0, 0)


@pytest.mark.parametrize(
    ("changes", "source", "target", "verdict"),
    [
        # 1,024 inputs x 8 bits = 8,192 bits a target: 128 targets a core, so 2 cores; 4,096 // 2 axons never bind.
        (
            {},
            {"compartments": 1, "out_axons": 1},
            {"compartments": 1, "synapse_bits": 2},
            "needs 1 chip (3 of 128 cores)",
        ),
        # 1,024 inputs x 1 bit: 1,024 targets would fit by memory.
        (
            {"weight_bits": 1},
            {"compartments": 1, "out_axons": 1},
            {"compartments": 1, "synapse_bits": 1},
            "needs 1 chip (2 of 128 cores)",
        ),
        # 64 inputs x 8 bits = 512 bits: 2,048 targets by memory, so compartments bind: 1,025 targets are 2 cores.
        (
            {"neurons": 64, "fan_out": 1025},
            {"compartments": 1, "out_axons": 1},
            {"compartments": 2, "synapse_bits": 1},
            "needs 1 chip (3 of 128 cores)",
        ),
        # 4,096 inputs, the most a core takes: 32,768 bits, 32 targets a core, 8 cores; 4,096 // 8 = 512 neurons a core.
        (
            {"neurons": 4096},
            {"compartments": 4, "out_axons": 8},
            {"compartments": 1, "synapse_bits": 8},
            "needs 1 chip (16 of 128 cores)",
        ),
        # 65,536 targets over 128 a core: 512 cores; 4,096 // 512 = 8 neurons a core: 128 cores.
        (
            {"fan_out": 65_536},
            {"compartments": 1, "out_axons": 128},
            {"compartments": 64, "synapse_bits": 512},
            "needs 5 chips (640 of 640 cores)",
        ),
        # 9-bit weights are the widest: 9,216 bits, 113 targets a core (113.8), 3 cores.
        (
            {"weight_bits": 9},
            {"compartments": 1, "out_axons": 1},
            {"compartments": 1, "synapse_bits": 3},
            "needs 1 chip (4 of 128 cores)",
        ),
        # 128 targets fill one core to the last bit; the 129th needs another.
        (
            {"fan_out": 128},
            {"compartments": 1, "out_axons": 1},
            {"compartments": 1, "synapse_bits": 1},
            "needs 1 chip (2 of 128 cores)",
        ),
        (
            {"fan_out": 129},
            {"compartments": 1, "out_axons": 1},
            {"compartments": 1, "synapse_bits": 2},
            "needs 1 chip (3 of 128 cores)",
        ),
        # Neurons that reach nothing need compartments only; no neurons need no source core.
        ({"fan_out": 0}, {"compartments": 1}, {"compartments": 0, "synapse_bits": 0}, "needs 1 chip (1 of 128 cores)"),
        ({"neurons": 0}, {"compartments": 0, "out_axons": 0}, {"compartments": 1}, "needs 1 chip (1 of 128 cores)"),
    ],
)
def test_cores_by_each_limit_are_worked_by_hand(changes, source, target, verdict):
    fit = mapping.fit([population(**changes)], LOIHI)
    (row,) = fit.rows
    assert (row.source_cores_by, row.target_cores_by, fit.verdict) == (source, target, verdict)
    assert fit.cores == max(source.values()) + max(target.values())
    assert fit.fits


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"neurons": 4097}, "a target has 4097 inputs, a core takes 4096"),
        ({"weight_bits": 10}, "weights of 10 bits, a synapse holds at most 9"),
        # 4,194,304 targets over 1,024 inputs x 8 bits: 32,768 cores, so one spike needs 32,768 axons.
        ({"fan_out": 4_194_304}, "a neuron needs 32768 out-axons, a core has 4096"),
    ],
)
def test_what_cannot_be_placed_even_alone_names_the_limit_and_the_population(changes, problem):
    fit = mapping.fit([population("fine"), population("big", **changes)], LOIHI)
    assert fit.verdict == f"does not fit: big: {problem}"
    assert (fit.chips, fit.fits) == (0, False)
    assert [row.problem for row in fit.rows] == ["", problem]


def test_one_target_larger_than_a_core_does_not_fit():
    small = chips.Chip("small", "Small", LOIHI.limits | {"synapse_bits_per_core": 8191})
    fit = mapping.fit([population()], small)
    assert fit.verdict == "does not fit: p: one target's 8192 synapse bits exceed a core's 8191"


def test_populations_add_up_to_chips():
    # 3 cores each: 42 populations are 126 cores, 43 are 129.
    one, two = (mapping.fit([population()] * count, LOIHI) for count in (42, 43))
    assert (one.cores, one.chips, one.verdict) == (126, 1, "needs 1 chip (126 of 128 cores)")
    assert (two.cores, two.chips, two.verdict) == (129, 2, "needs 2 chips (129 of 256 cores)")


def test_nothing_to_place_says_so():
    assert mapping.fit([], LOIHI).verdict == "nothing to place: no spiking population"


def test_each_row_says_what_takes_its_cores():
    (row,) = mapping.fit([population()], LOIHI).rows
    assert row.reason == "1024 neurons on 1 core, their 256 targets with the synapses on 2 cores (synapse bits)"
