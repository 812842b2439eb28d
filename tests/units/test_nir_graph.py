"""NIR graphs: which edges are recurrent, in what order nodes run, what shape they have, and what is no graph."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from neuro import nir_graph as nir
from neuro.errors import UsageError
from neuro.nir_graph import Graph


def one() -> nir.Node:
    return nir.IF(*[np.ones(1)] * 3)


def graph(text: str) -> Graph:
    """Of "a>b b>c": nodes of one neuron; i and o are Input and Output."""
    edges = [tuple(edge.split(">")) for edge in text.split()]
    names = dict.fromkeys(itertools.chain(*edges))
    made = {"i": nir.Input((1,)), "o": nir.Output((1,))}
    return Graph({name: made.get(name) or one() for name in names}, tuple(edges))


@pytest.mark.parametrize(
    ("edges", "recurrent"),
    [
        ("i>a a>b b>o", ""),
        ("i>a a>a a>o", "a>a"),
        ("i>a a>w w>a a>o", "w>a"),
        ("i>a a>b b>c c>a c>o", "c>a"),
        ("i>a a>b a>c b>d c>d d>o", ""),
        ("i>a a>b b>w w>a b>c c>v v>a a>o", "w>a v>a"),
        ("i>a a>b b>c a>c c>w w>a c>o", "w>a"),  # a skip inside a loop goes forward
        ("i>a i>b a>v v>b b>w w>a b>o", "v>b w>a"),  # two ways in: the loop is cut at both
        ("i>a a>b b>v v>b b>o a>w w>a", "v>b w>a"),
        ("i>a a>b b>c c>b c>v v>a v>o", "c>b v>a"),  # a loop in a loop
        ("i>a i>b a>v v>b b>c b>w c>w w>a w>o", "v>b w>a"),  # two ways in, and a skip that goes forward
    ],
)
def test_recurrent_edges_do_not_depend_on_order_or_names(edges, recurrent):
    rng, names = np.random.default_rng(0), "abcvw"
    for _ in range(6):
        pieces = edges.split()
        rng.shuffle(pieces)
        new = dict(zip(names, rng.permutation([*names]), strict=True))
        made = graph(" ".join(">".join(new.get(end, end) for end in piece.split(">")) for piece in pieces))
        expected = {tuple(new.get(end, end) for end in edge.split(">")) for edge in recurrent.split()}
        assert made.recurrent == expected
        place = {name: k for k, name in enumerate(made.order)}
        assert len(place) == len(made.nodes)
        assert all(place[a] < place[b] for a, b in made.edges if (a, b) not in expected)


def test_shapes_follow_the_nodes():
    nodes = [
        nir.Conv2d(np.ones((4, 1, 3, 2)), np.zeros(4), stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=2),
        nir.AvgPool2d((2, 2), (2, 1), (0, 1)),
        nir.Flatten(1, 2),
        nir.Conv1d(np.ones((3, 4, 4)), np.zeros(3), padding="same", dilation=3),
        nir.Flatten(0, -1),
        nir.Linear(np.ones((5, 18))),
    ]
    made = nir.sequence((2, 7, 4), nodes)
    expected = [(2, 7, 4), (4, 4, 2), (4, 2, 3), (4, 6), (3, 6), (18,), (5,), (5,)]
    assert [made.shapes[name][1] for name in made.order] == expected


def test_shapes_are_those_of_torch():
    import torch
    from torch import nn

    rng = np.random.default_rng(1)
    for _ in range(40):
        groups, kernel, stride, padding, dilation = (rng.integers(1, 4, 2) for _ in range(5))
        g = int(groups[0])
        conv = nn.Conv2d(2 * g, 3 * g, kernel.tolist(), stride.tolist(), padding.tolist(), dilation.tolist(), g)
        weight, bias = (p.detach().numpy() for p in (conv.weight, conv.bias))
        node = nir.Conv2d(weight, bias, tuple(stride), tuple(padding), tuple(dilation), g)
        assert node.output_shape((2 * g, 9, 8)) == conv(torch.zeros(2 * g, 9, 8)).shape
        pool = nn.AvgPool2d([k + 1 for k in kernel.tolist()], stride.tolist(), [1, 0])
        assert nir.AvgPool2d(kernel + 1, stride, (1, 0)).output_shape((2, 9, 8)) == pool(torch.zeros(2, 9, 8)).shape


def line(*nodes: nir.Node) -> Graph:
    return nir.sequence((2,), nodes)


@pytest.mark.parametrize(
    ("build", "what", "do"),
    [
        (lambda: graph("a>b b>o"), "NIR graph: got 0 Inputs (none), expected one.", "Join or add Inputs."),
        (lambda: graph("i>a"), "NIR graph: got no Output, expected one or more.", "Add one after the last node."),
        (lambda: graph("i>a a>o a>o"), "NIR graph: got the edge 'a' to 'o' twice.", "Give it once."),
        (
            lambda: graph("i>a a>o b>o"),
            "NIR graph: got 'b', which nothing leads to from the Input 'i'.",
            "Connect it or take it out.",
        ),
        (
            lambda: graph("i>a a>i a>o"),
            "NIR graph: got an edge 'a' to 'i', expected none into an Input or out of an Output.",
            "Take the edge out.",
        ),
        (
            lambda: Graph({"i": nir.Input((1,)), "o": nir.Output((1,))}, (("i", "p"),)),
            "NIR graph: got an edge 'i' to 'p', expected nodes of the graph.",
            "Known: i, o.",
        ),
        (
            lambda: Graph({"i": nir.Input(None), "o": nir.Output(None)}, (("i", "o"),)),
            "NIR graph: nothing tells the shape of 'i'.",
            "Give the Input its shape.",
        ),
        (
            lambda: line(nir.Linear(np.ones((3, 4)))),
            "NIR graph: got 'input' of shape [2] before '0_linear', which takes [4].",
            "Shapes have no batch axis, and every neuron has its own constants; correct one of the two.",
        ),
        (
            lambda: line(nir.IF(np.array(1.0), np.array(1.0), np.array(0.0))),
            "NIR graph: got 'input' of shape [2] before '0_if', which takes [].",
            "Shapes have no batch axis, and every neuron has its own constants; correct one of the two.",
        ),
        (
            lambda: Graph(
                {"i": nir.Input((4,)), "c": nir.Conv1d(np.ones((1, 1, 3)), np.ones(1)), "o": nir.Output((2,))},
                (("i", "c"), ("c", "o")),
            ),
            "NIR graph, node 'c': Conv1d: got 4 channels, expected 1.",
            "Correct the weight or what comes in.",
        ),
        (
            lambda: nir.Conv2d(np.ones((1, 1, 5, 5)), np.ones(1)).output_shape((1, 4, 9)),
            "Conv2d: got an input [1, 4, 9], expected [channels, height, width] that holds the kernel [5, 5].",
            "Correct the shape or the kernel.",
        ),
        (
            lambda: nir.Conv1d(np.ones((1, 1, 5)), np.ones(1)).output_shape((1, 4, 9)),
            "Conv1d: got an input [1, 4, 9], expected [channels, length] that holds the kernel [5].",
            "Correct the shape or the kernel.",
        ),
        (
            lambda: nir.Conv1d(np.ones((3, 1, 5)), np.ones(3), groups=2),
            "Conv1d: got 3 channels in 2 groups, expected groups that divide them.",
            "Correct the groups.",
        ),
        (
            lambda: nir.Conv1d(np.ones((3, 1, 5)), np.ones(3), stride=(0,)),
            "Conv1d stride: got [0], expected 1 whole numbers of at least 1.",
            "Correct them.",
        ),
        (
            lambda: nir.Conv1d(np.ones((3, 1, 5)), np.ones(3), padding="full"),
            "Conv1d padding: got 'full', expected numbers, 'same' or 'valid'.",
            "Correct it.",
        ),
        (
            lambda: nir.Conv1d(np.ones((3, 1, 5)), np.ones(3), padding="same", stride=(2,)),
            "Conv1d: got padding 'same' with stride [2], expected 1.",
            "Give numbers.",
        ),
        (
            lambda: nir.Affine(np.ones((3, 2)), np.ones(2)),
            "Affine bias: got shape [2], expected [3].",
            "Give one for each row or channel of the weight.",
        ),
        (
            lambda: nir.LIF(*[np.zeros(2)] * 5),
            "LIF tau: got 0, expected more than 0.",
            "Give time constants in seconds.",
        ),
        (lambda: nir.Delay(np.array([-1.0])), "Delay delay: got -1, expected 0 or more.", "Give it in seconds."),
        (
            lambda: nir.Flatten(1, 2).output_shape((3, 4)),
            "Flatten: got axes 1 to 2 of a shape [3, 4], expected some of them.",
            "Correct start_dim and end_dim; there is no batch axis.",
        ),
        (
            lambda: Graph(
                {"i": nir.Input((1,)), "f": nir.Flatten(), "g": nir.Flatten(), "o": nir.Output((1,)), "l": one()},
                (("i", "l"), ("l", "o"), ("l", "f"), ("f", "g")),
            ),
            "NIR graph, node 'f': Flatten: got axes 1 to -1 of a shape [1], expected some of them.",
            "Correct start_dim and end_dim; there is no batch axis.",
        ),
    ],
)
def test_what_is_no_graph(build, what, do):
    with pytest.raises(UsageError) as error:
        build()
    assert (error.value.what, error.value.do) == (what, do)


def test_constants_are_copies_that_cannot_be_written_to():
    value = np.ones(2)
    node = nir.Threshold(value)
    value[:] = 5
    assert node.threshold.tolist() == [1, 1]
    with pytest.raises(ValueError, match="read-only"):
        node.threshold[0] = 2
