"""Tensor files: what is written comes back, and what is not whole or not ours is refused in two lines."""

from __future__ import annotations

import json
import math
import os
import pickle
import signal
import struct

import pytest
import torch
from safetensors.torch import save_file

from neuro import tensor_file
from neuro.errors import FormatError, MissingError, NeuroError

SCHEMA = "neuro.test/1"


def example() -> dict[str, torch.Tensor]:
    odd = torch.tensor([0.0, -0.0, math.nan, math.inf, 1e-42])
    return {
        "floats": odd,
        "strided": torch.arange(12.0).reshape(3, 4).T,
        "half": odd.half(),
        "brain": odd.bfloat16(),
        "ids": torch.tensor([[1, -(2**62)]]),
        "random": torch.get_rng_state(),
        "scalar": torch.tensor(3, dtype=torch.int64),
        "empty": torch.zeros(2, 0, 3),
        "needs grad": torch.ones(2, requires_grad=True),
    }


def test_what_is_written_comes_back_bit_for_bit(tmp_path):
    path, header = tmp_path / "a.safetensors", {"schema": SCHEMA, "n": 1.5, "list": [1, {"ü": None}]}
    tensors = example()
    tensor_file.write(path, tensors, header)
    found, found_header = tensor_file.read(path, SCHEMA)
    assert found_header == header and found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape
        raw = [x.detach().contiguous().reshape(-1).view(torch.uint8) for x in (found[name], tensor) if x.numel()]
        assert not raw or torch.equal(*raw), name
    assert not found["needs grad"].requires_grad


def test_tensors_that_share_memory_are_written_apart(tmp_path):
    base = torch.arange(6.0)
    tensor_file.write(tmp_path / "a", {"one": base[:3], "two": base, "three": base[1:5]}, {"schema": SCHEMA})
    found, _ = tensor_file.read(tmp_path / "a", SCHEMA)
    assert torch.equal(found["three"], base[1:5]) and torch.equal(found["one"], base[:3])


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a"
    tensor_file.write(path, {"x": torch.ones(1)}, {"schema": SCHEMA})

    def half(tensors, temporary, metadata):
        temporary.write_bytes(b"half a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tensor_file, "save_file", half)
    with pytest.raises(NeuroError, match=r"a: cannot write \(.*No space left on device\)\.\nCheck the folder") as error:
        tensor_file.write(path, {"x": torch.zeros(1)}, {"schema": SCHEMA})
    assert error.value.exit_code == 1
    assert tensor_file.read(path, SCHEMA)[0]["x"].item() == 1.0
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork is POSIX")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_kill_9_in_the_middle_of_a_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a"
    tensor_file.write(path, {"x": torch.ones(1)}, {"schema": SCHEMA})
    child = os.fork()
    if child == 0:

        def dying(tensors, temporary, metadata):
            save_file(tensors, temporary, metadata=metadata)
            os.truncate(temporary, 40)
            os.kill(os.getpid(), signal.SIGKILL)

        tensor_file.save_file = dying
        tensor_file.write(path, {"x": torch.zeros(1000)}, {"schema": SCHEMA})
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert tensor_file.read(path, SCHEMA)[0]["x"].item() == 1.0


def test_an_unwritable_place_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(NeuroError, match=r"file/a: cannot write \(.*\)\.\nChoose a folder you may write to"):
        tensor_file.write(tmp_path / "file" / "a", example(), {"schema": SCHEMA})


def refused(path, match: str, kind: type = FormatError) -> None:
    with pytest.raises(kind, match=match) as error:
        tensor_file.read(path, SCHEMA)
    assert len(str(error.value).split("\n")) == 2 and str(path) in str(error.value)


def test_missing_files_are_refused(tmp_path):
    refused(tmp_path / "none", r"no such file\.\nCheck the path", MissingError)
    refused(tmp_path, r"got a folder, expected a file\.\nName a file in it", MissingError)


def test_every_truncation_is_refused(tmp_path):
    path = tmp_path / "a"
    tensor_file.write(path, example(), {"schema": SCHEMA})
    whole = path.read_bytes()
    for size in {*range(0, 24), len(whole) // 3, len(whole) // 2, *range(len(whole) - 9, len(whole))}:
        path.write_bytes(whole[:size])
        refused(path, r"not a whole safetensors file \(.*\)\.\nIt is truncated or foreign: use another copy")
    path.write_bytes(whole + b"more")
    refused(path, "not a whole safetensors file")


def header(payload: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(payload) if length is None else length) + payload


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 64,
        b"\xff" * 64,
        b"PK\x03\x04" + b"zip" * 50,
        b"GIF89a",
        pickle.dumps({"x": 1}),
        header(b"not json at all"),
        header(b"{}", length=2**62),
        header(b'{"x": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}'),
        header(b'{"x": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}') + b"\x00" * 4,
        header(b'{"__metadata__": {"neuro": "{"}}'),
    ],
)
def test_foreign_files_are_refused(content, tmp_path):
    path = tmp_path / "a"
    path.write_bytes(content)
    refused(path, "not a whole safetensors file")


@pytest.mark.parametrize(
    "metadata", [None, {"format": "pt"}, {"neuro": "{}"}, {"neuro": json.dumps({"schema": "neuro.test/2"})},
                 {"neuro": "[]"}, {"neuro": "3"}, {"neuro": "null"}, {"neuro": '"neuro.test/1"'}],
)  # fmt: skip
def test_files_of_another_schema_are_refused(metadata, tmp_path):
    path = tmp_path / "a"
    save_file({"x": torch.ones(1)}, path, metadata=metadata)
    refused(path, rf"got schema .*, expected '{SCHEMA}'\.\nGive a file that this version of neuro wrote")


def test_nothing_is_ever_unpickled(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    path = tmp_path / "a"
    torch.save({"x": Bomb()}, path)
    refused(path, "not a whole safetensors file")
    assert not (tmp_path / "exploded").exists()


def test_shapes_are_compared_by_name():
    expected = {"a": torch.ones(2, 3), "b": torch.ones(1)}
    tensor_file.check_shapes(expected, expected, "here")
    for got, match in (
        ({"a": expected["a"]}, r"here: tensor 'b' is missing\.\nIt belongs to another model or version"),
        (
            expected | {"a": torch.ones(3, 2)},
            r"here: 'a' has shape \[3, 2\], expected \[2, 3\]\.\nIt belongs to a model",
        ),
        (expected | {"c": torch.ones(1)}, r"here: unknown tensor 'c'\."),
    ):
        with pytest.raises(FormatError, match=match):
            tensor_file.check_shapes(got, expected, "here")


def test_floats_changes_floats_only():
    found = tensor_file.floats(example(), torch.float16)
    assert found["floats"].dtype == torch.float16 and found["brain"].dtype == torch.float16
    assert found["ids"].dtype == torch.int64 and found["random"].dtype == torch.uint8
