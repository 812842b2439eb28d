"""The independent check catches a placement that breaks any one limit, by that limit's name."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from sims import chips, mapping
from sims.mapping import validate
from sims.mapping.network import Conv2d, Dense, Group, Network, Sparse


def limited(name: str, **limits: int) -> chips.Chip:
    chip = chips.load(name)
    return dataclasses.replace(chip, limits=chip.limits | limits)


def dense(sources: int = 40, targets: int = 30, bits: int = 8) -> Network:
    return Network("d", (Group("a", sources, 1.0), Group("b", targets)), (Dense("a", "b", bits),))


def one_to_all(neurons: int) -> Network:
    offsets = np.concatenate([[0, neurons], np.full(neurons - 1, neurons)])
    return Network("s", (Group("a", neurons),), (Sparse("a", "a", offsets, np.arange(neurons)),))


ROLES = Network(
    "r",
    (Group("in", 6, placed=False), Group("hid", 20), Group("out", 5)),
    (Dense("in", "hid"), Dense("hid", "hid"), Dense("hid", "out")),
)
BROKEN = [
    # one limit less than the placement needs: (network, core of each neuron, chip, what it says)
    ("neurons", dense(), [0] * 70, limited("loihi1", compartments_per_core=69), "core 0: 70 neurons of 69"),
    ("axons in", dense(), [0] * 40 + [1] * 30, limited("loihi1", in_axons_per_core=39), "core 1: 40 axons in of 39"),
    (
        "axons out",
        dense(),
        [0] * 40 + [1, 2] * 15,
        limited("loihi1", out_axons_per_core=79),
        "core 0: 80 axons out of 79",
    ),
    # 30 weights of 8 bits and a header of 10: 250 bits, 4 words of 64: 40 rows are 10,240 bits.
    (
        "bits",
        dense(),
        [0] * 40 + [1] * 30,
        limited("loihi1", synapse_bits_per_core=10239),
        "core 1: 10240 bits of synapses of 10239",
    ),
    # 2 taps x 3 channels in: 6 rows of 4 weights, 42 bits in a word of 64: 384 bits on each of two cores.
    (
        "kernel bits",
        Network(
            "c",
            (Group("a", 12, placed=False, shape=(4, 1, 3)), Group("b", 12, shape=(3, 1, 4))),
            (Conv2d("a", "b", (2, 1)),),
        ),
        [-1] * 12 + [0] * 4 + [1] * 8,
        limited("loihi1", synapse_bits_per_core=383),
        "core 0: 384 bits of synapses of 383",
    ),
    # 100 weights of 8 bits with indices of 10 and two headers: 1,820 bits, 29 words.
    ("words", one_to_all(100), [0] * 100, limited("loihi1", axon_list_words=28), "29 words of one axon of 28"),
    ("weights", dense(bits=10), [0] * 70, chips.load("loihi1"), "10 bits a weight of 9"),
    ("fan-in", dense(65, 3, 4), [0] * 68, chips.load("dynap_se2"), "65 inputs of a neuron of 64"),
    ("fan-out", dense(4, 30, 1), [0] * 34, limited("truenorth", fan_out=29), "30 targets of a neuron of 29"),
    (
        "target cores",
        dense(4, 30, 1),
        [0] * 4 + [1, 2] * 15,
        chips.load("truenorth"),
        "2 cores that a neuron reaches of 1",
    ),
    (
        "target chips",
        dense(4, 30, 4),
        [0] * 4 + [0, 4, 8, 12, 16, 20] * 5,
        chips.load("dynap_se2"),
        "6 chips that a neuron reaches of 4",
    ),
    ("crossbar", dense(16, 16, 3), [0] * 32, limited("odin", synapses_per_core=255), "core 0: 256 synapses of 255"),
    ("inputs", ROLES, [-1] * 6 + [0] * 25, limited("reckon", input_channels=5), "6 inputs of 5"),
    ("outputs", ROLES, [-1] * 6 + [0] * 25, limited("reckon", output_neurons=4), "5 outputs of 4"),
    ("hidden", ROLES, [-1] * 6 + [0] * 25, limited("reckon", compartments_per_core=19), "core 0: 20 neurons of 19"),
    (
        "input reach",
        ROLES,
        [-1] * 6 + [0] * 25,
        limited("xylo_audio3", input_expansion_neurons=19),
        "20 hidden neurons with an input of 19",
    ),
    (
        "output reach",
        ROLES,
        [-1] * 6 + [0] * 25,
        limited("xylo_audio3", output_expansion_neurons=19),
        "20 hidden neurons with an output of 19",
    ),
    (
        "recurrence",
        ROLES,
        [-1] * 6 + [0] * 25,
        limited("xylo_imu", synapses_per_core=399),
        "core 0: 400 synapses of 399",
    ),
    ("chips", dense(), [0] * 40 + [128] * 30, chips.load("loihi1"), "core 128: 1 chips have 128"),
    ("no core", dense(), [0] * 69 + [-1], chips.load("loihi1"), "b: 1 neurons have no core"),
    ("outside", ROLES, [0] * 31, chips.load("reckon"), "in: 6 neurons from outside have a core"),
    ("length", dense(), [0] * 69, chips.load("loihi1"), "69 neurons have a core, the network has 70"),
]
LAYERS = Network(
    "l",
    (
        Group("in", 6 * 6 * 2, placed=False, shape=(6, 6, 2)),
        Group("a", 4 * 4 * 8, shape=(4, 4, 8)),
        Group("b", 10),
    ),
    (Conv2d("in", "a", (3, 3)), Dense("a", "b")),
)


@pytest.mark.parametrize(("net", "core", "chip", "words"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_a_broken_limit_is_named(net, core, chip, words):
    chips_there = 6 if "chips that" in words else 1
    assert words in validate.check(net, np.array(core), chip, chips_there)


@pytest.mark.parametrize(
    ("net", "core", "chip", "words"), [row[1:] for row in BROKEN[:6]], ids=[r[0] for r in BROKEN[:6]]
)
def test_one_more_of_that_limit_is_legal(net, core, chip, words):
    (key,) = [key for key in chip.limits if chip.limits[key] != chips.load("loihi1").limits[key]]
    assert validate.check(net, np.array(core), limited("loihi1", **{key: chip.limits[key] + 1}), 1) == []


@pytest.mark.parametrize(
    ("core", "limits", "words"),
    [
        ([0] * 128 + [0] * 10, {}, "b: layer 0 holds a"),
        ([0] * 64 + [1] * 64 + [2] * 10, {}, "a: on 2 layers, expected 1"),
        # 2 x 2^(ceil(log2 9) + 3) = 256 kernel words; b: 8 x 2^(4 + ceil(log2 10)) = 2,048; a has 8 x 2^4 = 128 neuron words.
        ([0] * 128 + [1] * 10, {"kernel_words_per_core": (255,) * 9}, "a: 256 kernel words of 255"),
        ([0] * 128 + [1] * 10, {"compartments_per_core": (127,) * 9}, "a: 128 neuron words of 127"),
    ],
)
def test_a_broken_layer_is_named(core, limits, words):
    chip = chips.load("speck")
    rows = {key: dataclasses.replace(chip.rows[key], value=value) for key, value in limits.items()}
    broken = validate.check(LAYERS, np.array([-1] * 72 + core), dataclasses.replace(chip, rows=chip.rows | rows), 1)
    assert words in broken


@pytest.mark.parametrize("seed", range(3))
def test_a_neuron_moved_to_a_full_core_is_caught(seed):
    """A mutation of a legal placement: its fullest core gets one neuron more."""
    draw, net = np.random.default_rng(seed), dense(90, 60)
    chip = limited("loihi1", compartments_per_core=25)
    placement = mapping.place(net, chip, seed)
    assert validate.check(net, placement.core, chip, 1) == []
    full = int(np.flatnonzero(placement.loads.neurons == 25)[0])
    moved = placement.core.copy()
    moved[draw.choice(np.flatnonzero(moved != full))] = full
    assert f"core {full}: 26 neurons of 25" in validate.check(net, moved, chip, 1)
