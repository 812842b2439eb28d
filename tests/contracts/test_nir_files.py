"""NIR files: what the nir package writes we read, what we write it reads, and a bad file is named as such."""

from __future__ import annotations

import itertools
import sys

import h5py
import nir as theirs
import numpy as np
import pytest

from neuro import nir_graph as nir
from neuro import nir_hdf5
from neuro.errors import FormatError, MissingError, NeuroError, UsageError
from neuro.nir_graph import Graph

SEALED = bytes(40)  # as long as the seal that a file written here ends with
RNG = np.random.default_rng(3)


def draw(*shape: int) -> np.ndarray:
    return RNG.uniform(0.1, 1, shape)


def every_node() -> Graph:
    """One of each kind, in float32 and float64."""
    four = [draw(4).astype(np.float32) for _ in range(7)]
    picture = [draw(3, 4, 4) for _ in range(3)]
    nodes = {
        "in": nir.Input((2, 5, 5)),
        "conv": nir.Conv2d(draw(3, 2, 2, 2), draw(3), metadata={"note": "first", "k": 2.5}),
        "if": nir.IF(*picture),
        "sum": nir.SumPool2d((2, 2), (2, 2), (0, 0)),
        "avg": nir.AvgPool2d((1, 1), (1, 1), (0, 0)),
        "flat": nir.Flatten(0, -1),
        "aff": nir.Affine(draw(4, 12).astype(np.float32), draw(4).astype(np.float32)),
        "cuba": nir.CubaLIF(*four),
        "scale": nir.Scale(draw(4)),
        "late": nir.Delay(np.arange(4) * 1e-3),
        "lin": nir.Linear(draw(4, 4)),
        "lif": nir.LIF(*four[:5]),
        "cubali": nir.CubaLI(*four[:5]),
        "step": nir.Threshold(draw(4)),
        "li": nir.LI(*four[:3]),
        "i": nir.I(draw(4)),
        "out": nir.Output((4,)),
    }
    chain = list(nodes)
    loop = [("lif", "back"), ("back", "lif")]
    nodes["back"] = nir.Linear(draw(4, 4))
    return Graph(nodes, (*itertools.pairwise(chain), *loop), {"dt": 1e-3, "made by": "a test"})


def assert_same(a: Graph, b: Graph) -> None:
    assert list(sorted(a.nodes)) == list(sorted(b.nodes)) and a.edges == b.edges and a.metadata == b.metadata
    for name, node in a.nodes.items():
        other = b.nodes[name]
        assert type(node) is type(other) and node.metadata == other.metadata
        assert a.shapes[name] == b.shapes[name]
        for key, value in vars(node).items():
            if isinstance(value, np.ndarray):
                assert value.dtype == getattr(other, key).dtype and np.array_equal(value, getattr(other, key))
            elif key not in ("metadata", "input_shape"):
                assert value == getattr(other, key)


def test_a_round_trip_changes_nothing(tmp_path):
    graph = every_node()
    nir.write(graph, tmp_path / "a.nir")
    again = nir.read(tmp_path / "a.nir")
    assert_same(graph, again)
    assert again.metadata["dt"] == 1e-3 and again.recurrent == {("back", "lif")}
    nir.write(again, tmp_path / "b.nir")
    assert_same(again, nir.read(tmp_path / "b.nir"))
    assert {path.name for path in tmp_path.iterdir()} == {"a.nir", "b.nir"}


def test_the_nir_package_reads_what_we_write(tmp_path):
    graph = every_node()
    nir.write(graph, tmp_path / "a.nir")
    found = theirs.read(tmp_path / "a.nir")  # its type check is on
    assert set(found.nodes) == set(graph.nodes) and [tuple(e) for e in found.edges] == list(graph.edges)
    assert np.array_equal(found.nodes["cuba"].w_in, graph.nodes["cuba"].w_in)
    assert tuple(found.nodes["conv"].input_shape) == (5, 5) and found.metadata["dt"] == 1e-3
    assert_same(graph, nir.from_nir(found))


def test_what_it_leaves_out_is_filled_in(tmp_path):
    one = np.ones(3)
    made = theirs.NIRGraph(
        {
            "input": theirs.Input(np.array([2, 6])),
            "conv": theirs.Conv1d(None, np.ones((3, 2, 3)), 1, "same", 1, 1, np.zeros(3)),
            "flat": theirs.Flatten({"input": None}, 0, -1),
            "lin": theirs.Linear(np.ones((3, 18))),
            "lif": theirs.CubaLIF(one, one, one, one, one),
            "output": theirs.Output(None),
        },
        [("input", "conv"), ("conv", "flat"), ("flat", "lin"), ("lin", "lif"), ("lif", "output")],
    )
    theirs.write(tmp_path / "a.nir", made)
    graph = nir.read(tmp_path / "a.nir")
    assert graph.shapes["conv"] == ((2, 6), (3, 6)) and graph.shapes["output"] == ((3,), (3,))
    assert np.array_equal(graph.nodes["lif"].v_reset, np.zeros(3)) and np.array_equal(graph.nodes["lif"].w_in, one)


def test_nested_graphs_are_flattened(tmp_path):
    def block(width: int) -> theirs.NIRGraph:
        nodes = {
            "input": theirs.Input(np.array([width])),
            "lif": theirs.IF(*[np.ones(width)] * 3),
            "w": theirs.Linear(np.ones((width, width))),
            "output": theirs.Output(np.array([width])),
        }
        return theirs.NIRGraph(nodes, [("input", "lif"), ("lif", "w"), ("w", "lif"), ("lif", "output")])

    inner = theirs.NIRGraph(
        {"input": theirs.Input(np.array([2])), "b": block(2), "output": theirs.Output(np.array([2]))},
        [("input", "b"), ("b", "output")],
    )
    outer = theirs.NIRGraph(
        {
            "input": theirs.Input(np.array([2])),
            "deep": inner,
            "last": theirs.Linear(np.ones((1, 2))),
            "output": theirs.Output(np.array([1])),
        },
        [("input", "deep"), ("deep", "last"), ("last", "output")],
    )
    theirs.write(tmp_path / "a.nir", outer)
    graph = nir.read(tmp_path / "a.nir")
    assert set(graph.nodes) == {"input", "deep.b.lif", "deep.b.w", "last", "output"}
    assert set(graph.edges) == {
        ("input", "deep.b.lif"),
        ("deep.b.lif", "deep.b.w"),
        ("deep.b.w", "deep.b.lif"),
        ("deep.b.lif", "last"),
        ("last", "output"),
    }
    assert graph.recurrent == {("deep.b.w", "deep.b.lif")}


def written(tmp_path, change) -> str:
    """A small good file, changed by hand."""
    path = tmp_path / "a.nir"
    nir.write(nir.sequence((2,), [nir.Linear(np.ones((3, 2))), nir.IF(*[np.ones(3)] * 3)]), path)
    with h5py.File(path, "r+") as file:
        change(file["node/nodes"])
    return str(path)


def put(group: h5py.Group, name: str, value) -> None:
    if name in group:
        del group[name]
    group[name] = value


@pytest.mark.parametrize(
    ("change", "what", "do"),
    [
        (
            lambda n: put(n["1_if"], "type", "Softmax"),
            "node '1_if': got a node of type Softmax, which is not supported; expected one of Input, Output, Linear",
            "Replace it by nodes that are.",
        ),
        (
            lambda n: put(n["1_if"], "gain", 1.0),
            "node '1_if' (IF): got an unknown field 'gain'.",
            "Known: metadata, r, v_reset, v_threshold.",
        ),
        (lambda n: n["1_if"].pop("r"), "node '1_if' (IF): got no r.", "Write it again with nir.write."),
        (
            lambda n: put(n["1_if"], "r", np.ones(4)),
            "node '1_if': IF: got r [4], v_threshold [3], v_reset [3], expected one shape.",
            "Give every neuron its own constants.",
        ),
        (
            lambda n: put(n["1_if"], "r", np.array([1, np.nan, 1])),
            "node '1_if': IF r: got values that are no finite numbers.",
            "Correct the node.",
        ),
        (
            lambda n: put(n["0_linear"], "weight", np.ones((3, 5))),
            "got 'input' of shape [2] before '0_linear', which takes [5].",
            "Shapes have no batch axis",
        ),
        (
            lambda n: put(n["input"], "shape", np.array([1, 2])),
            "got 'input' of shape [1, 2] before '0_linear', which takes [2].",
            "Shapes have no batch axis",
        ),
        (
            lambda n: put(n["0_linear"], "weight", np.ones((1, 3, 2))),
            "Linear weight: got shape [1, 3, 2], expected [out,in].",
            "Correct the weight.",
        ),
        (
            lambda n: put(n.parent, "edges", np.array([[b"input", b"1_iff"]], dtype=object)),
            "got an edge 'input' to '1_iff', expected nodes of the graph.",
            "Did you mean '1_if'?",
        ),
        (
            lambda n: put(n["output"], "type", "Input"),
            "got 2 Inputs (input, output), expected one.",
            "Join or add Inputs.",
        ),
        (
            lambda n: put(n["1_if"], "v_reset", h5py.ExternalLink("elsewhere.h5", "/x")),
            "got a link 'v_reset' out of its place, expected data.",
            "Copy what it points to.",
        ),
        (
            lambda n: put(n["1_if"], "v_reset", h5py.SoftLink("/node/nodes/1_if/r")),
            "got a link 'v_reset' out of its place, expected data.",
            "Copy what it points to.",
        ),
        (
            lambda n: put(n["1_if"], "self", n),
            "got the group '/node/nodes/1_if/self' in two places.",
            "Flatten the graph, and copy what is shared.",
        ),
        (
            lambda n: n.require_group("x/" * 40),
            "got groups nested too deep.",
            "Flatten the graph, and copy what is shared.",
        ),
        (
            lambda n: (put(n, "copy", n["1_if"]), put(n, "again", n["1_if"])),
            "' in two places.",
            "Flatten the graph, and copy what is shared.",
        ),
        (lambda n: put(n.parent, "edges", np.zeros((2, 3))), "not a graph (too many values", "Write it again"),
        (lambda n: put(n, "1_if", 3), "not a graph (", "Write it again with nir.write."),
        (
            lambda n: (n["1_if"].pop("r"), n["1_if"].create_dataset("r", (10**15,), "f8", chunks=(8,))),
            "truncated or damaged (Unable to allocate",
            "Give a file that nir.write wrote.",
        ),
        (
            lambda n: put(n, "1_if", nested(n, 1, 0)),
            "got a nested graph '1_if' with 1 Inputs and 0 Outputs, expected one of each.",
            "Split it.",
        ),
    ],
)
def test_a_bad_file_says_what_is_wrong(tmp_path, change, what, do):
    path = written(tmp_path, change)
    with pytest.raises(FormatError) as error:
        nir.read(path)
    assert error.value.what.startswith(path) and what in error.value.what
    assert error.value.do.startswith(do)


def nested(nodes: h5py.Group, inputs: int, outputs: int) -> h5py.Group:
    made = nodes.file.create_group("spare")
    made["type"] = "NIRGraph"
    made["edges"] = np.zeros((0, 2), "S1")
    for kind, times in (("Input", inputs), ("Output", outputs)):
        for k in range(times):
            made[f"nodes/{kind}{k}/type"] = kind
            made[f"nodes/{kind}{k}/shape"] = np.array([3])
    return made


def test_data_in_another_file_is_not_followed(tmp_path):
    def outside(nodes: h5py.Group) -> None:
        del nodes["1_if/r"]
        nodes["1_if"].create_dataset("r", (3,), "f8", external=[(str(tmp_path / "raw"), 0, 24)])

    (tmp_path / "raw").write_bytes(np.ones(3).tobytes())
    with pytest.raises(FormatError, match="got 'r', whose data are not in this file.\nCopy them into it."):
        nir.read(written(tmp_path, outside))


def test_what_is_no_nir_file(tmp_path):
    path = tmp_path / "a.nir"
    with pytest.raises(MissingError, match="no such file.\nGive a file that nir.write wrote."):
        nir.read(path)
    path.write_text("a poem")
    with pytest.raises(FormatError, match="not a NIR file: it is no HDF5.\nGive a file that nir.write wrote."):
        nir.read(path)
    with pytest.raises(FormatError, match="not a NIR file: it is no HDF5"):
        nir.read(tmp_path)
    with h5py.File(path, "w") as file:
        file["x"] = 1
    with pytest.raises(FormatError, match="not a NIR file: an HDF5 without a NIR node"):
        nir.read(path)
    theirs.write(path, theirs.Linear(np.ones((2, 2))))
    with pytest.raises(FormatError, match="got a single Linear, expected a graph.\nPut it between Input and Output."):
        nir.read(path)


def test_every_truncation_is_an_error(tmp_path):
    whole, cut = tmp_path / "a.nir", tmp_path / "b.nir"
    nir.write(every_node(), whole)
    data = whole.read_bytes()[: -len(SEALED)]
    for size in [0, 7, 8, *range(9, len(data), 997), len(data) - 1]:
        cut.write_bytes(data[:size])
        with pytest.raises(FormatError, match="b.nir: (not a NIR file|truncated or damaged)"):
            nir.read(cut)


def test_a_changed_byte_is_seen(tmp_path):
    """HDF5 has no check sums here: most changes would be read as other weights, and some would end the process."""
    whole, bad = tmp_path / "a.nir", tmp_path / "b.nir"
    nir.write(every_node(), whole)
    data = whole.read_bytes()
    for at in range(48, len(data) - len(SEALED), 4999):
        bad.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(FormatError, match="b.nir: truncated or damaged \\(it is not what was written\\)"):
            nir.read(bad)


def test_damage_to_a_file_without_a_seal(tmp_path):
    whole, bad = tmp_path / "a.nir", tmp_path / "b.nir"
    nir.write(every_node(), whole)
    data = bytearray(whole.read_bytes()[: -len(SEALED)])
    heap = data.index(b"HEAP")
    data[heap + 8 : heap + 40] = b"\xff" * 32
    bad.write_bytes(data)
    with pytest.raises(FormatError, match="b.nir: (truncated or damaged|not a NIR file)"):
        nir.read(bad)


def test_a_library_that_ends_its_process_is_a_damaged_file(tmp_path, monkeypatch):
    path = written(tmp_path, lambda nodes: None)  # changed since it was sealed: a child reads it
    monkeypatch.setattr(nir_hdf5, "_CHILD", ("-c", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"))
    with pytest.raises(FormatError) as error:
        nir.read(path)
    assert error.value.what == f"{path}: truncated or damaged (the HDF5 library failed on it)."
    assert error.value.do == "Give a file that nir.write wrote."
    monkeypatch.setattr(nir_hdf5, "_CHILD", ("-c", "import time; time.sleep(60)"))
    monkeypatch.setattr(nir_hdf5, "SECONDS", 0.05)
    with pytest.raises(FormatError, match="truncated or damaged \\(no end after 0.05 s\\)"):
        nir.read(path)


def test_a_child_hands_over_what_is_in_the_file(tmp_path, monkeypatch):
    """A file without its seal, or one of the nir package, is the same graph."""
    graph = every_node()
    nir.write(graph, tmp_path / "a.nir")
    data = (tmp_path / "a.nir").read_bytes()
    (tmp_path / "b.nir").write_bytes(data[: -len(SEALED)])
    assert_same(graph, nir.read(tmp_path / "b.nir"))
    theirs.write(tmp_path / "c.nir", nir.to_nir(graph))
    assert_same(graph, nir.read(tmp_path / "c.nir"))
    monkeypatch.setattr(nir_hdf5, "_CHILD", ("-c", "raise ImportError('no such thing')"))
    assert_same(graph, nir.read(tmp_path / "a.nir"))  # sealed: no child is asked
    with pytest.raises(NeuroError) as error:
        nir.read(tmp_path / "c.nir")
    assert error.value.what == f"{tmp_path / 'c.nir'}: the process that reads it failed (ImportError: no such thing)."
    assert error.value.do == "Repair the installation: neuro doctor" and type(error.value) is NeuroError


def test_nothing_is_left_of_a_write_that_fails(tmp_path, monkeypatch):
    path = tmp_path / "a.nir"
    nir.write(every_node(), path)
    before = path.read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(theirs, "write", fail)
    with pytest.raises(NeuroError, match="cannot write \\(No space left on device\\)"):
        nir.write(every_node(), path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_without_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    monkeypatch.setitem(sys.modules, "nir", None)
    with pytest.raises(MissingError) as error:
        nir.read(tmp_path / "a.nir")
    assert error.value.do == "pip install 'neuro-hybrid[nir]'" and "the package h5py" in error.value.what
    with pytest.raises(MissingError, match="the package nir"):
        nir.write(every_node(), tmp_path / "a.nir")


def test_names_that_a_file_cannot_hold():
    with pytest.raises(UsageError, match="got a node named 'a/b', expected a name without '/'.\nRename it."):
        Graph({"a/b": nir.Input((1,)), "o": nir.Output((1,))}, (("a/b", "o"),))
