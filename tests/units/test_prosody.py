"""Prosody of recordings: known pitches, rates, silence, clipping, and what is refused."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from neuro.errors import UsageError
from neuro.extras import installed
from neuro.sensors import prosody

needs_librosa = pytest.mark.skipif(not installed("librosa"), reason="librosa is not installed: extra 'audio'")


@pytest.fixture(scope="module", autouse=True)
def _quiet_import():
    """librosa's own imports may warn of what they will change; its calls here may not."""
    if installed("librosa"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            prosody.track(voice(150.0, 8000), 8000)


def voice(hz: float, rate: int, seconds: float = 0.5) -> np.ndarray:
    """Ten harmonics that fall by 1/k, peak one half."""
    t = np.arange(int(seconds * rate)) / rate
    sound = sum(np.sin(2 * np.pi * hz * k * t) / k for k in range(1, 11) if hz * k < rate / 2)
    return 0.5 * sound / np.abs(sound).max()


@needs_librosa
@pytest.mark.parametrize("rate", [8000, 16000, 44100])
@pytest.mark.parametrize("hz", [95.0, 210.0])
def test_a_known_pitch_is_found_at_any_rate(hz, rate):
    found = prosody.track((voice(hz, rate) * 32767).astype(np.int16), rate)
    cents = 1200 * np.log2(found.f0_hz[found.voiced] / hz)
    assert found.voiced.mean() > 0.8 and abs(np.median(cents)) < 15 and found.clipped == 0.0
    assert found.seconds == pytest.approx(0.5, abs=0.02) and found.energy_db[10:40].std() < 1.0


@needs_librosa
def test_silence_noise_and_one_sample_have_no_voice():
    noise = np.random.default_rng(0).normal(0, 0.1, 4000)
    for samples in (np.zeros(4000), np.full(4000, 0.3), np.zeros(1), np.zeros(4000, np.int16)):
        found = prosody.track(samples, 8000)
        assert not found.voiced.any() and found.energy_db.max() < prosody.SILENCE_DB
        assert prosody.words(found, np.array([[0.0, found.seconds]]))[0].tolist() == [0.0, 0.0, 0.0]
    assert prosody.track(noise, 8000).voiced.mean() < 0.2


@needs_librosa
def test_clipping_is_told_and_leaves_the_pitch():
    found = prosody.track(np.clip(6 * voice(140.0, 8000), -1, 1), 8000)
    assert found.clipped > 0.1 and np.nanmedian(found.f0_hz) == pytest.approx(140.0, rel=0.02)


@needs_librosa
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int8, np.int32])
def test_the_full_scale_is_that_of_the_samples_type(kind):
    """An 8-bit WAV is unsigned, silent at 128; what lies at either end of the scale is clipped."""
    bounds = np.iinfo(kind)
    middle = 0 if bounds.min else bounds.max // 2 + 1
    loud = voice(140.0, 8000)
    found = prosody.track((middle + np.round(loud * (bounds.max - middle))).astype(kind), 8000)
    assert found.energy_db == pytest.approx(prosody.track(loud, 8000).energy_db, abs=0.5) and found.clipped == 0
    square = np.where(loud > 0, bounds.max, bounds.min).astype(kind)
    assert prosody.track(square, 8000).clipped == 1
    assert prosody.track(np.full(800, middle, kind), 8000).clipped == 0


@needs_librosa
def test_words_are_told_by_pitch_energy_and_length():
    low, high, pause = voice(120.0, 8000, 0.3), 0.25 * voice(160.0, 8000, 0.3), np.zeros(800)
    sound = np.concatenate([low, pause, high, pause, voice(120.0, 8000, 0.6)])
    found = prosody.words(prosody.track(sound, 8000), np.array([[0.02, 0.28], [0.42, 0.68], [0.82, 1.34]]))
    assert found[1, 0] - found[0, 0] == pytest.approx(np.log2(4 / 3), abs=0.03)  # a fourth
    assert found[0, 1] - found[1, 1] == pytest.approx(1.2, abs=0.15)  # 12 dB
    assert found[:, 2] == pytest.approx([0.0, 0.0, 1.0], abs=1e-6)


@needs_librosa
def test_words_outside_the_recording_are_named():
    found = prosody.track(voice(120.0, 8000), 8000)
    with pytest.raises(UsageError, match=r"prosody: word 2 spans \[0.9, 1.0\] s of a recording of 0.5. s."):
        prosody.words(found, np.array([[0.0, 0.2], [0.9, 1.0]]))


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        (np.zeros(0), 8000, r"got samples of shape \[0\], expected \[n\] with n of at least 1"),
        (np.zeros((9, 2)), 8000, r"got samples of shape \[9, 2\]"),
        (np.zeros(9), 1000, "got a rate of 1000 Hz, expected at least 4000"),
        (np.array([0.0, np.nan]), 8000, "got samples that are not finite"),
        (np.zeros(9), "8000", "got a rate of '8000' Hz, expected at least 4000.\nRecord at a higher rate."),
        (np.array(["a"]), 8000, r"got samples of <U1, expected floats or integers of 8, 16 or 32 bits.\nGive them as"),
        ([0, 300, -300], 8000, "got samples of int64, expected floats or integers of 8, 16 or 32 bits."),
        (np.ones(9, complex), 8000, "got samples of complex128, expected floats"),
        (np.full(9, 3000.0), 8000, "got floats up to 3000, expected -1 to 1.\nDivide by the recording's full scale."),
    ],
)
def test_bad_recordings_are_named(samples, rate, message):
    with pytest.raises(UsageError, match=message):
        prosody.track(samples, rate)
