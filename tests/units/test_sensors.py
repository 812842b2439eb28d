"""Loaders and encodings: what is decoded is what was written, and what is broken is named."""

from __future__ import annotations

import gzip
import io
import tarfile
import wave
import zipfile
from pathlib import Path

import numpy as np
import pytest

from neuro.errors import FormatError, MissingError, UsageError
from neuro.sensors import cochlea, events, mnist, nmnist, oxford, spoken_digits
from neuro.sensors.files import locate


def encode(x: list[int], y: list[int], polarity: list[int], time_us: list[int]) -> bytes:
    rows = zip(x, y, polarity, time_us, strict=True)
    return b"".join(bytes((a, b, p << 7 | t >> 16, t >> 8 & 255, t & 255)) for a, b, p, t in rows)


def put(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def tar_xz(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:xz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def wav(samples: np.ndarray, channels: int = 1, rate: int = 8000) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())
    return out.getvalue()


def idx(array: np.ndarray) -> bytes:
    sizes = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return gzip.compress(bytes((0, 0, 8, array.ndim)) + sizes + array.astype(np.uint8).tobytes())


def test_events_are_decoded_to_the_bit():
    got = events.decode(encode([3, 33], [4, 0], [1, 0], [0x7FFFFF, 5]), "here")
    assert got.x.tolist() == [3, 33] and got.y.tolist() == [4, 0]
    assert got.polarity.tolist() == [True, False] and got.time_us.tolist() == [0x7FFFFF, 5]
    assert got.address.tolist() == [3 * 256 + 4, 33 * 256] and len(got) == 2


def test_a_recording_cut_inside_an_event_is_named():
    with pytest.raises(FormatError, match=r"here: got 9 bytes, expected whole events of 5 bytes.\nIt is truncated"):
        events.decode(bytes(9), "here")
    with pytest.raises(FormatError, match="got 0 bytes"):
        events.decode(b"", "here")


def test_camera_events_must_be_in_order_and_on_the_sensor():
    with pytest.raises(
        FormatError, match=r"here: got event 1 at 4 us after one at 9 us, expected times in order.\nUse"
    ):
        nmnist.camera(encode([0, 0], [0, 0], [0, 0], [9, 4]), "here")
    with pytest.raises(FormatError, match=r"here: got pixels up to \(34, 2\), expected below 34.\nUse an N-MNIST"):
        nmnist.camera(encode([34], [2], [0], [0]), "here")


def test_a_raster_puts_each_event_into_its_bin_once():
    got = events.raster(np.array([0, 0, 1, 2]), np.array([0, 4, 5, 10]), 3, 2, 10)
    assert got.tolist() == [[1, 0, 0], [0, 1, 0]]  # the event at the end of the duration is left out
    with pytest.raises(UsageError, match=r"raster: got 0 bins over 10 us, expected at least 1 bin.*\nGive fewer bins"):
        events.raster(np.zeros(0, int), np.zeros(0, int), 3, 0, 10)


def test_an_archive_of_recordings_is_read_with_its_labels(tmp_path):
    files = {
        "train1K.txt": b"#sample #class\n2\t7\n",
        "2.bs2": encode([1], [2], [1], [3]),
        "60001.bs2": encode([5], [6], [0], [299_999]),
        "test100.txt": b"#sample #class\n60001\t0\n",
    }
    put(tmp_path, nmnist.ARCHIVE, tar_xz(files))
    one, two = nmnist.load(tmp_path)
    assert (one.number, one.label, one.image) == (2, 7, (0, 1)) and (two.label, two.image) == (0, (1, 0))
    frames = nmnist.frames([one, two], 10)
    assert frames.sum() == 2 and frames[0, 0, 1, 2, 1] == 1 and frames[1, 9, 0, 6, 5] == 1


def test_broken_archives_are_named(tmp_path):
    path = put(tmp_path, nmnist.ARCHIVE, tar_xz({"1.bs2": encode([1], [2], [1], [3])}))
    with pytest.raises(FormatError, match=r"recording 1 has no label from 0 to 9.\nUse another copy"):
        nmnist.load(tmp_path)
    whole = path.read_bytes()
    for broken in (whole[:60], whole[:60] + bytes(len(whole) - 60), b"", b"no archive"):
        path.write_bytes(broken)
        with pytest.raises(FormatError, match="not the archive of N-MNIST recordings"):
            nmnist.load(tmp_path)
    path.write_bytes(tar_xz({"train1K.txt": b"1\t0\n"}))
    with pytest.raises(FormatError, match=r"no recording NUMBER.bs2 in it.\nUse another copy"):
        nmnist.load(tmp_path)


def test_varied_frames_follow_from_the_generator_and_stay_binary():
    recording = nmnist.Recording(1, 0, nmnist.camera(encode([17] * 9, [*range(12, 21)], [0] * 9, [*range(9)]), "here"))
    once, again = (nmnist.frames([recording], 2, np.random.default_rng(3)) for _ in range(2))
    other = nmnist.frames([recording], 2, np.random.default_rng(4))
    assert (once == again).all() and (once != other).any() and set(np.unique(once)) == {0, 1}
    assert 5 <= once.sum() <= 9


def test_idx_files_are_read_and_broken_ones_named(tmp_path):
    images = np.arange(2 * 28 * 28).reshape(2, 28, 28) % 251
    put(tmp_path, "mnist/train-images-idx3-ubyte.gz", idx(images))
    labels = put(tmp_path, "mnist/train-labels-idx1-ubyte.gz", idx(np.array([3, 9])))
    got, of = mnist.load("train", tmp_path)
    assert (got == images).all() and of.tolist() == [3, 9]
    labels.write_bytes(idx(np.array([3])))
    with pytest.raises(FormatError, match=r"mnist train: got 2 images and 1 labels.\nUse another copy"):
        mnist.load("train", tmp_path)
    labels.write_bytes(labels.read_bytes()[:-9])
    with pytest.raises(FormatError, match="not a whole gzip file"):
        mnist.load("train", tmp_path)
    labels.write_bytes(gzip.compress(bytes((0, 0, 8, 1, 0, 0, 0, 5, 1))))
    with pytest.raises(FormatError, match=r"got 1 bytes for a shape of \[5\], expected 5"):
        mnist.load("train", tmp_path)
    labels.write_bytes(gzip.compress(b"something else"))
    with pytest.raises(FormatError, match="expected an idx file of bytes with 1 axes"):
        mnist.load("train", tmp_path)


def test_speech_is_read_and_what_is_no_such_speech_is_named(tmp_path):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("recordings/7_theo_12.wav", wav(np.arange(100)))
        archive.writestr("recordings/readme.txt", "no recording")
    path = put(tmp_path, spoken_digits.ARCHIVE, out.getvalue())
    (take,) = spoken_digits.load(tmp_path)
    assert (take.digit, take.speaker, take.index) == (7, "theo", 12) and take.samples.tolist() == [*range(100)]
    with pytest.raises(FormatError, match=r"got 2 channels of 16 bits at 8000 Hz .*\nConvert it"):
        spoken_digits.samples_of(wav(np.zeros(8), channels=2), "here")
    with pytest.raises(FormatError, match="here: not a WAV file"):
        spoken_digits.samples_of(b"RIFF", "here")
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(FormatError, match="not a whole archive"):
        spoken_digits.load(tmp_path)


def test_a_tone_is_loudest_in_its_own_band_at_any_loudness():
    t = np.arange(4000) / 8000
    peaks = [
        cochlea.levels(3000 * np.sin(2 * np.pi * hz * t), 8000, 32).mean(0).argmax()
        for hz in (200, 500, 1000, 2000, 3000)
    ]
    assert peaks == sorted(peaks) and len(set(peaks)) == 5
    soft, loud = (cochlea.levels(a * np.sin(2 * np.pi * 700 * t), 8000, 32) for a in (300, 9000))
    assert np.abs(soft - loud).max() < 1e-3
    assert loud.max() == 0.0 and loud.min() >= cochlea.FLOOR_DB


def test_silence_around_a_word_is_cut_off():
    tone = 3000 * np.sin(2 * np.pi * 700 * np.arange(1600) / 8000)
    alone = len(cochlea.levels(tone, 8000, 8))
    padded = len(cochlea.levels(np.concatenate([np.zeros(4000), tone, np.zeros(4000)]), 8000, 8))
    assert alone <= padded <= alone + 4


def test_a_fibre_fires_above_its_threshold():
    got = cochlea.fibres(np.array([[-50.0, -20.0], [-30.0, 0.0]], np.float32), (-40.0, -10.0))
    assert got.tolist() == [[[0, 1], [0, 0]], [[1, 1], [0, 1]]]


def test_resampling_keeps_the_ends_and_the_line_between():
    ramp = np.linspace(0, 6, 7, dtype=np.float32)[:, None]
    assert np.allclose(cochlea.resampled(ramp, 13)[:, 0], np.linspace(0, 6, 13))
    assert np.allclose(cochlea.resampled(ramp, 3, bend=2.0)[:, 0], [0, 1.5, 6])
    assert cochlea.resampled(ramp[:1], 4).tolist() == [[0.0]] * 4


def test_another_voice_says_the_same_number_of_bands():
    frames = np.random.default_rng(0).normal(-20, 5, (30, 32)).astype(np.float32)
    one, again, other = (cochlea.varied(frames, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert (one == again).all() and one.shape[1] == 32 and 24 <= len(one) <= 30 and one.dtype == np.float32
    assert one.shape != other.shape or (one != other).any()


def test_recorded_trains_must_fit_the_population(tmp_path):
    put(tmp_path, "oxford-spikes/input.bs1", encode([0, 0], [199, 4], [1, 1], [1_899_999, 0]))
    output = put(tmp_path, "oxford-spikes/output.bs1", encode([0], [7], [1], [1500]))
    x, y = oxford.load(tmp_path)
    assert x.shape == (1900, 200) and x[1899, 199] == x[0, 4] == y[1, 7] == 1 and x.sum() + y.sum() == 3
    output.write_bytes(encode([0], [200], [1], [1500]))
    with pytest.raises(FormatError, match=r"got neuron 200 and 2 ms, expected below 200 and 1900.\nUse another copy"):
        oxford.load(tmp_path)


def test_what_is_not_there_is_named(tmp_path, monkeypatch):
    with pytest.raises(MissingError, match=r"no such file.\nPut mnist/x.gz into the data folder"):
        locate("mnist/x.gz", tmp_path)
    monkeypatch.delenv("NEURO_DATA", raising=False)
    with pytest.raises(MissingError, match=r"got no data folder, expected the variable NEURO_DATA.\nSet NEURO_DATA"):
        locate("mnist/x.gz")


def test_real_recordings_pair_with_real_images(neuro_data):
    recordings = nmnist.load(neuro_data)
    parts = [mnist.load(part, neuro_data)[1] for part in mnist.PARTS]
    assert len(recordings) == 1100 and sum(len(recording.events) for recording in recordings) == 4_518_827
    assert all(recording.label == parts[recording.image[0]][recording.image[1]] for recording in recordings)


def test_a_real_file_of_the_whole_set_is_read(neuro_data):
    data = (neuro_data / "nmnist-small" / "sample_nmnist.bin").read_bytes()
    assert len(nmnist.camera(data, "sample")) == 4325


def test_real_trains_and_real_speech_have_the_counts_of_their_authors(neuro_data):
    x, y = oxford.load(neuro_data)
    assert int(y.sum()) == 10_361 and int(x.sum()) == 1879  # 10 of 1,889 inputs fall into a taken millisecond
    takes = spoken_digits.load(neuro_data)
    assert len(takes) == 3000 and {take.speaker for take in takes} == set(spoken_digits.SPEAKERS)
