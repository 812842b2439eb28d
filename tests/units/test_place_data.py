"""Loaders of the track and of Omniglot, with the two file formats under them: what is read is what was written."""

from __future__ import annotations

import gzip
import io
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from neuro.errors import FormatError, UsageError
from neuro.sensors import line_track, matlab, omniglot, png


def put(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def chunk(kind: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")


def picture(samples: np.ndarray, depth: int, filters: list[int], colour: int = 0) -> bytes:
    """A grey PNG whose row i is filtered by ``filters[i]``, from the specification's definitions."""
    bits = np.unpackbits(samples[..., None], axis=2)[..., 8 - depth :].reshape(len(samples), -1)
    lines = np.packbits(bits, axis=1).astype(int)
    out, above = b"", [0] * lines.shape[1]
    for kind, line in zip(filters, lines.tolist(), strict=True):
        row = []
        for i, value in enumerate(line):
            a, b, c = (line[i - 1] if i else 0), above[i], (above[i - 1] if i else 0)
            p = a + b - c
            away = [(abs(p - a), a), (abs(p - b), b), (abs(p - c), c)]
            paeth = min(away, key=lambda pair: pair[0])[1]
            row.append((value - [0, a, b, (a + b) // 2, paeth][kind]) & 255)
        out, above = out + bytes([kind, *row]), line
    header = samples.shape[1].to_bytes(4, "big") + samples.shape[0].to_bytes(4, "big") + bytes([depth, colour, 0, 0, 0])
    body = zlib.compress(out)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", body[:9])
        + chunk(b"IDAT", body[9:])
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_a_picture_is_read_through_every_filter(depth):
    samples = np.random.default_rng(depth).integers(0, 2**depth, (10, 21)).astype(np.uint8)
    assert (png.decode(picture(samples, depth, [0, 1, 2, 3, 4, 4, 3, 2, 1, 0]), "here") == samples).all()


def test_broken_pictures_are_named():
    good = picture(np.zeros((2, 9), np.uint8), 1, [0, 0])
    with pytest.raises(FormatError, match=r"here: got b'GIF8' first, expected a PNG file.\nUse another copy"):
        png.decode(b"GIF8", "here")
    with pytest.raises(FormatError, match=r"here: got a chunk b'IDAT' whose checksum differs.\nUse another copy"):
        png.decode(good.replace(b"IDAT", b"IDAT\x01", 1)[:-1], "here")
    with pytest.raises(FormatError, match=r"here: got a PNG file without its end.\nUse another"):
        png.decode(good[:-12], "here")
    with pytest.raises(FormatError, match=r"got colour type 2, 8 bits, interlace 0, expected grey.*\nConvert the file"):
        png.decode(picture(np.zeros((1, 3), np.uint8), 8, [0], colour=2), "here")
    with pytest.raises(FormatError, match=r"here: got row filter 7, expected 0 to 4.\nUse"):
        header = (1).to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0])
        body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes([7, 0]))) + chunk(b"IEND", b"")
        png.decode(b"\x89PNG\r\n\x1a\n" + body, "here")


def element(kind: int, body: bytes) -> bytes:
    return kind.to_bytes(4, "little") + len(body).to_bytes(4, "little") + body + bytes(-len(body) % 8)


def matrix(kind: int, shape: tuple[int, ...], parts: bytes, name: str = "", flags: int = 0) -> bytes:
    head = element(6, kind.to_bytes(1, "little") + flags.to_bytes(1, "little") + bytes(6))
    label = (
        element(1, name.encode()) if len(name) != 2 else (2 << 16 | 1).to_bytes(4, "little") + name.encode() + bytes(2)
    )
    return element(14, head + element(5, np.array(shape, "<i4").tobytes()) + label + parts)


def times(values: list[float]) -> bytes:
    return matrix(6, (len(values), 1), element(9, np.array(values, "<f8").tobytes()))


def unit(values: list[float]) -> bytes:
    return matrix(2, (1, 1), element(5, (8).to_bytes(4, "little")) + element(1, b"time\0\0\0\0") + times(values))


def mat(*variables: bytes, deflate: bool = True) -> bytes:
    packed = []
    for variable in variables:
        body = zlib.compress(variable)
        packed.append((15).to_bytes(4, "little") + len(body).to_bytes(4, "little") + body if deflate else variable)
    return b"MATLAB 5.0".ljust(124) + b"\x00\x01IM" + b"".join(packed)


@pytest.mark.parametrize("deflate", [True, False])
def test_a_matlab_file_is_read(tmp_path, deflate):
    grid = matrix(9, (2, 3), element(2, bytes([1, 2, 3, 4, 5, 6])), "ab")  # stored in a smaller type, a short name
    cell = matrix(1, (1, 2), unit([1.5, 2.5]) + element(14, b""), "cells")
    found = matlab.read(put(tmp_path, "a.mat", mat(grid, cell, deflate=deflate)))
    assert found["ab"].tolist() == [[1, 3, 5], [2, 4, 6]]
    assert found["cells"].shape == (1, 2) and found["cells"][0, 1].size == 0
    assert found["cells"][0, 0][0, 0]["time"].ravel().tolist() == [1.5, 2.5]


def test_foreign_matlab_files_are_named(tmp_path):
    with pytest.raises(FormatError, match=r"a.mat: expected a MATLAB 5.0 file.\nSave it with -v7"):
        matlab.read(put(tmp_path, "a.mat", b"HDF"))
    whole = mat(times([1.0]), deflate=False)
    with pytest.raises(FormatError, match=r"a.mat: cut, or of a kind that is not read.*\nUse another copy"):
        matlab.read(put(tmp_path, "a.mat", whole[:-20]))
    for kind, flags in ((4, 0), (6, 8)):  # text, and complex numbers
        odd = matrix(kind, (1, 1), element(9, bytes(8)), flags=flags)
        with pytest.raises(FormatError, match="of a kind that is not read"):
            matlab.read(put(tmp_path, "a.mat", mat(odd)))


def test_the_track_is_read(tmp_path):
    spikes = matrix(1, (1, 3), unit([3.0]) + matrix(1, (1, 2), unit([]) + unit([1.0, 2.0])) + unit([4.0]), "spikes")
    put(tmp_path, line_track.SPIKES, mat(spikes))
    rows = np.array([(30_000, 7, 8, 0, 0), (45_000, 9, 1, 0, 0)], line_track._RECORD)
    head = b"<Start settings>\nclockrate: 30000\n<End settings>\n"
    path = put(tmp_path, line_track.PATH, gzip.compress(head + rows.tobytes()))
    found = line_track.load(tmp_path)
    assert [unit.tolist() for unit in found.spikes_s] == [[3.0], [1.0, 2.0], [4.0]]
    assert found.path_s.tolist() == [1.0, 1.5] and found.path_px.tolist() == [[7, 8], [9, 1]]
    path.write_bytes(gzip.compress(head + rows.tobytes()[:-1]))
    with pytest.raises(FormatError, match=r"got 23 bytes after a header of 34, expected records of 12 bytes.\nUse"):
        line_track.load(tmp_path)
    put(tmp_path, line_track.SPIKES, mat(matrix(1, (0, 0), b"", "spikes")))
    with pytest.raises(FormatError, match=r"got no unit with spikes, expected a variable 'spikes'.\nUse"):
        line_track.load(tmp_path)


def drawing(seed: int) -> bytes:
    samples = np.ones((105, 105), np.uint8)
    samples[seed % 105, :50] = 0
    return picture(samples, 1, [0] * 105)


def archive(path: Path, files: dict[str, bytes]) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name, data in files.items():
            file.writestr(name, data)
    put(path.parent, path.name, out.getvalue())


def test_omniglot_backgrounds_are_numbered_by_alphabet_and_character(tmp_path):
    names = ["B/character01/1_01", "A/character02/3_01", "A/character01/2_02", "A/character01/2_01"]
    files = {f"images_background_small1/{name}.png": drawing(i) for i, name in enumerate(names)}
    archive(tmp_path / "omniglot/images_background_small1.zip", files | {"__MACOSX/x.png": b""})
    found = omniglot.background("small1", tmp_path)
    assert found.names == ("A", "B") and found.alphabets.tolist() == [0, 0, 0, 1]
    assert found.characters.tolist() == [0, 0, 1, 2]
    assert found.images.shape == (4, 105, 105) and found.images[0, 3].sum() == 50 and found.images[0].sum() == 50
    with pytest.raises(UsageError, match=r"background: got 'small3', expected one of small1, small2.\nCorrect"):
        omniglot.background("small3", tmp_path)


def test_omniglot_runs_know_their_answers_and_broken_ones_are_named(tmp_path):
    one = drawing(0)
    files = {}
    for run in range(1, 21):
        folder = f"run{run:02d}"
        for k in range(1, 21):
            files |= {f"{folder}/training/class{k:02d}.png": one, f"{folder}/test/item{k:02d}.png": drawing(k)}
        lines = [f"{folder}/test/item{k:02d}.png {folder}/training/class{k % 20 + 1:02d}.png" for k in range(1, 21)]
        files[f"{folder}/class_labels.txt"] = "\n".join(lines).encode()
    archive(tmp_path / "omniglot/all_runs.zip", files)
    found = omniglot.runs(tmp_path)
    assert len(found) == 20 and found[4].answers.tolist() == [*range(1, 20), 0]
    assert found[4].tests[6, 7].sum() == 50
    del files["run03/test/item05.png"]
    archive(tmp_path / "omniglot/all_runs.zip", files)
    with pytest.raises(FormatError, match=r"run03 is not whole \('run03/test/item05.png'\).\nUse another copy"):
        omniglot.runs(tmp_path)


def test_the_real_files_have_their_published_counts(neuro_data):
    track = line_track.load(neuro_data)
    assert (len(track.spikes_s), sum(map(len, track.spikes_s)), len(track.path_s)) == (31, 28_829, 118_965)
    assert track.path_s[[0, -1]].round(1).tolist() == [4397.0, 6379.5]
    assert all((np.diff(unit) >= 0).all() for unit in track.spikes_s)
    answers = [run.answers for run in omniglot.runs(neuro_data)]
    assert all(sorted(a) == list(range(20)) for a in answers)
    assert answers[0][:3].tolist() == [7, 8, 1]
