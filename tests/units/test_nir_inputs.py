"""Samples for NIR graphs: read without unpickling, or drawn."""

from __future__ import annotations

import numpy as np
import pytest

from neuro import nir_graph as nir
from neuro.errors import FormatError, MissingError, UsageError
from sims.nir.inputs import draw, read

GIVE = "Give a .npy, or an .npz of one array: time first, then the Input's shape."


def test_arrays_come_back(tmp_path):
    x = np.arange(6).reshape(3, 2)
    np.save(tmp_path / "a.npy", x)
    np.savez(tmp_path / "a.npz", x=x)
    for name in ("a.npy", "a.npz"):
        assert np.array_equal(read(tmp_path / name), x)


def test_what_is_no_array(tmp_path):
    np.savez(tmp_path / "two.npz", a=np.ones(1), b=np.ones(1))
    np.save(tmp_path / "objects.npy", np.array([{}, 3], object), allow_pickle=True)
    (tmp_path / "text.npy").write_text("1 2 3")
    np.save(tmp_path / "cut.npy", np.ones(100))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:200])
    for name, kind, what in (
        ("none.npy", MissingError, "no such file."),
        ("two.npz", FormatError, "got 2 arrays, expected one."),
        ("objects.npy", FormatError, "no array of numbers (not a whole file of numpy, or one of objects)"),
        ("text.npy", FormatError, "no array of numbers ("),
        ("cut.npy", FormatError, "no array of numbers ("),
    ):
        with pytest.raises(kind) as error:
            read(tmp_path / name)
        assert error.value.what.startswith(f"{tmp_path / name}: {what}") and error.value.do == GIVE


def test_spikes_have_their_rate_and_seed():
    graph = nir.sequence((3, 4), [])
    x = draw(graph, 500, 0.3)
    assert x.shape == (500, 3, 4) and set(np.unique(x)) == {0, 1} and x.mean() == pytest.approx(0.3, abs=0.03)
    assert np.array_equal(x, draw(graph, 500, 0.3)) and not np.array_equal(x, draw(graph, 500, 0.3, seed=1))
    with pytest.raises(UsageError) as error:
        draw(graph, 0, 0.3)
    assert str(error.value) == (
        "NIR input: got 0 steps at a rate of 0.3, expected 1 step or more and a rate of 0 to 1.\n"
        "Give spikes per step and input."
    )
    with pytest.raises(UsageError, match="got 1 steps at a rate of 1.5"):
        draw(graph, 1, 1.5)
