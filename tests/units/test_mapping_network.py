"""Networks as a chip sees them: from populations and from JSON, and what is refused."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from neuro.errors import FormatError, MissingError, NeuroError, UsageError
from neuro.workload import Population
from sims import chips, mapping
from sims.mapping import limits, network
from sims.mapping.network import Conv2d, Dense, Group, Network, Sparse


def example() -> Network:
    return Network(
        "example",
        (
            Group("in", 18, np.linspace(0, 1, 18), placed=False, shape=(3, 3, 2)),
            Group("conv", 8, 0.5, shape=(2, 2, 2), region="cortex"),
            Group("out", 3),
        ),
        (
            Conv2d("in", "conv", (2, 2), groups=2, weight_bits=4),
            Dense("conv", "out", 5),
            Sparse("out", "conv", np.array([0, 2, 2, 3]), np.array([1, 7, 0])),
        ),
    )


def test_json_gives_the_same_network_again(tmp_path):
    one = example()
    one.write(tmp_path / "net.json")
    again = network.read(tmp_path / "net.json")
    assert again.to_json() == one.to_json()
    assert again.rates.tolist() == one.rates.tolist() and again["in"].shape == (3, 3, 2)
    assert again.projections[0] == one.projections[0]


def test_populations_reach_all_their_targets():
    population = Population("p", "cortex", 10, 4, 4, "dense", 8, 30, 120, 100)
    net = mapping.from_populations([population, dataclasses.replace(population, name="q", fan_out=0, synaptic_ops=0)])
    assert [(g.name, g.neurons, g.rate) for g in net.groups] == [
        ("p", 10, 0.3),
        ("p, its targets", 4, 0.0),
        ("q", 10, 0.3),
    ]
    assert net.projections == (Dense("p", "p, its targets", 8),)


@pytest.mark.parametrize(
    ("make", "what", "do"),
    [
        (lambda: Group("a", -1), "network group 'a': got neurons=-1, expected a count >= 0.", "Correct the count."),
        (
            lambda: Group("a", 4, shape=(2, 1, 1)),
            "network group 'a': got shape [2, 1, 1], expected [x, y, channels] of 4 neurons.",
            "Give a shape whose product is the number of neurons.",
        ),
        (
            lambda: Group("a", 2, -0.5),
            "network group 'a': got a rate that is no finite number >= 0 (or one for each of 2 neurons).",
            "Give spikes per neuron and step.",
        ),
        (
            lambda: Network("n", (Group("a", 1), Group("a", 1)), ()),
            "network: got two groups 'a', expected each name once.",
            "Rename one of them.",
        ),
        (
            lambda: Network("n", (Group("cortex", 1),), (Dense("cortex", "cortez"),)),
            "network: got a projection of 'cortez', expected a group.",
            "Did you mean 'cortex'?",
        ),
        (
            lambda: Network("n", (Group("a", 1), Group("b", 1, placed=False)), (Dense("a", "b"),)),
            "network projection 'a' to 'b': the target comes from outside.",
            "Give the target placed=true.",
        ),
        (
            lambda: Network("n", (Group("a", 1),), (Dense("a", "a", 0),)),
            "network projection 'a' to 'a': got weight_bits=0, expected 1 or more.",
            "Give the width of one weight.",
        ),
        (
            lambda: Network("n", (Group("a", 2),), (Sparse("a", "a", np.array([0, 1]), np.array([0])),)),
            "network projection 'a' to 'a': got 2 offsets for 2 neurons and 1 targets, expected 3, rising from 0 to 1.",
            "Give the rows of a compressed sparse matrix.",
        ),
        (
            lambda: Network("n", (Group("a", 1),), (Sparse("a", "a", np.array([0, 1]), np.array([1])),)),
            "network projection 'a' to 'a': got a target outside 0 to 0.",
            "Correct the targets.",
        ),
        (
            lambda: Network("n", (Group("a", 1),), (Sparse("a", "a", np.array([0, 2]), np.array([0, 0])),)),
            "network projection 'a' to 'a': got a target twice in one row, expected once.",
            "Add their weights up.",
        ),
        (
            lambda: Network("n", (Group("a", 4), Group("b", 4)), (Conv2d("a", "b", (1, 1)),)),
            "network projection 'a' to 'b': a convolution needs two groups with shapes.",
            "Give both shape=(x, y, c).",
        ),
        (
            lambda: Network(
                "n", (Group("a", 4, shape=(2, 2, 1)), Group("b", 4, shape=(2, 2, 1))), (Conv2d("a", "b", (2, 2)),)
            ),
            "network projection 'a' to 'b': got a target of 2x2, expected 1x1 from kernel, stride and padding.",
            "Correct the target's shape.",
        ),
    ],
)
def test_mistakes_say_what_and_what_to_do(make, what, do):
    with pytest.raises(UsageError) as raised:
        make()
    assert (raised.value.what, raised.value.do) == (what, do)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": "neuro.network/0"}, "got schema 'neuro.network/0', expected 'neuro.network/1'"),
        ({"groups": [{"name": "a"}]}, "not a network"),
        ({"groups": [{"name": "a", "neurons": 1, "weight": 2}]}, "not a network"),
        ({"projections": [{"kind": "denze", "source": "in", "target": "out"}]}, "got a projection of kind 'denze'"),
        (
            {"projections": [{"kind": "sparse", "source": "in", "target": "out", "offsets": [0.5], "targets": []}]},
            "whole",
        ),
        ({"groups": [{"name": "in", "neurons": -1}]}, "got neurons=-1"),
    ],
)
def test_a_broken_file_is_refused_with_its_name(change, words):
    with pytest.raises(FormatError, match=words) as raised:
        network.from_json(json.dumps(json.loads(example().to_json()) | change), "my.json")
    assert str(raised.value).startswith("my.json: ") and raised.value.do


def test_no_json_and_no_file_are_refused(tmp_path):
    with pytest.raises(FormatError, match="not JSON"):
        network.from_json("{", "my.json")
    with pytest.raises(MissingError, match="no such file"):
        network.read(tmp_path / "none.json")


def test_a_chip_without_a_number_of_cores_is_refused():
    with pytest.raises(NeuroError, match="chip seneca: 'cores' is not known"):
        mapping.place(example(), chips.load("seneca"))


def test_rows_of_loihi_have_headers_indices_and_whole_words():
    """100 weights of 8 bits: 2 blocks x 10 + 800 = 820 bits are 13 words; with indices of 10 bits 1,820 are 29."""
    bounds = limits.of(chips.load("loihi1"))
    counts = np.array([0, 1, 100])
    assert bounds.row_bits(counts, counts * 8).tolist() == [0, 64, 13 * 64]
    assert bounds.row_bits(counts, counts * bounds.synapse_bits(example().projections[2])).tolist() == [0, 64, 29 * 64]


def test_what_is_left_unchecked_is_listed():
    assert limits.of(chips.load("loihi2")).unchecked == (
        *("in_axons_per_core", "out_axons_per_core", "fan_in", "fan_out", "synapses_per_chip"),
    )
    assert limits.of(chips.load("loihi1")).unchecked == ()


def test_one_group_too_large_leaves_the_others_placed():
    net = Network("n", (Group("a", 5000, 0.1), Group("b", 4), Group("c", 7)), (Dense("a", "b"),))
    placement = mapping.place(net, chips.load("loihi1"))
    assert placement.verdict == (
        "does not fit: b: a neuron has 5000 inputs, the chip takes 4096; these parts fit one chip: a, c"
    )
    assert [(p.name, p.cores, p.fits) for p in placement.parts] == [("a", 5, True), ("b", 0, False), ("c", 1, True)]


def test_slices_cover_every_neuron_once():
    placement = mapping.place(example(), chips.load("loihi1"))
    covered = sorted((name, i) for name, first, stop, _ in placement.slices for i in range(first, stop))
    assert covered == sorted((g.name, i) for g in example().groups if g.placed for i in range(g.neurons))


def test_nothing_to_place_says_so():
    assert (
        mapping.place(Network("n", (), ()), chips.load("loihi1")).verdict == "nothing to place: no spiking population"
    )


def test_nothing_that_a_chip_of_layers_holds_is_said_in_words():
    net = Network("n", (Group("a", 4), Group("b", 3)), (Dense("a", "b", 16),))
    placement = mapping.place(net, chips.load("speck"))
    assert placement.verdict.startswith("does not fit: ")
    assert placement.verdict.endswith("no part of it fits one chip")
    assert [part.cores for part in placement.parts] == [0, 0] and placement.core.shape == (0,)
