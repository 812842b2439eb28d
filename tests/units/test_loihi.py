"""The integer neuron of Loihi: the golden vectors, and a word-by-word reading of its rule."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from neuro.errors import UsageError
from neuro.neurons import loihi


def load(path: Path) -> torch.Tensor:
    with gzip.open(path) as file:
        return torch.from_numpy(np.load(file, allow_pickle=False)).long()


def test_the_golden_vectors_are_reproduced(neuro_data, measured):
    """256 neurons, 2,000 steps; the chip shows a spike one step late."""
    folder = neuro_data / "loihi-lif-groundtruth"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    weight, inputs, expected = (load(folder / f"{name}.npy.gz") for name in ("weight", "in", "out"))
    x = (inputs.T @ weight.T).unsqueeze(1)  # [T,1,N]
    spikes, _ = loihi.scan(x, loihi.init_state(1, 256), vth=6, du=4095, dv=415)
    late = spikes[:-1, 0].T
    mismatches = int((late != expected[:, 1:]).sum())
    measured("mismatches of 511,744", mismatches)
    assert mismatches == 0 and int(expected.sum()) == 1826


def truncated(a: int, b: int) -> int:
    return int(a / b)  # towards zero; small enough to be exact


def test_the_rule_read_word_by_word():
    vth, du, dv = 90, 1000, 300
    x = torch.randint(-150, 200, (150, 1, 4), generator=torch.Generator().manual_seed(0))
    spikes, state = loihi.scan(x, loihi.init_state(1, 4), vth, du, dv)
    assert 0.02 < float(spikes.double().mean()) < 0.5
    for n in range(4):
        c = v = 0
        for t in range(150):
            c = truncated(c * (4096 - (du + 1)), 4096) + 64 * int(x[t, 0, n])
            v = truncated(v * (4096 - dv), 4096) + c
            s = v > 64 * vth
            assert int(spikes[t, 0, n]) == s
            v = 0 if s else v
        assert (int(state.c[0, n]), int(state.v[0, n])) == (c, v)


def test_the_current_wraps_at_24_bits_and_the_membrane_holds():
    big = torch.full((1, 1), 1 << 17, dtype=torch.int64)  # 64 times this is 2^23
    _, state = loihi.step(big, loihi.init_state(1, 1), 100, 4095, 0)
    assert int(state.c) == -(1 << 23) and int(state.v) == -((1 << 23) - 1)


def test_a_step_is_a_scan_of_one():
    x = torch.randint(-100, 200, (20, 2, 3), generator=torch.Generator().manual_seed(1))
    state, found = loihi.init_state(2, 3), []
    for x_t in x:
        s, state = loihi.step(x_t, state, 90, 4095, 300)
        found.append(s)
    whole, end = loihi.scan(x, loihi.init_state(2, 3), 90, 4095, 300)
    assert torch.equal(torch.stack(found), whole) and torch.equal(state.v, end.v) and torch.equal(state.c, end.c)


@pytest.mark.parametrize(
    ("text", "x", "constants"),
    [
        (r"loihi: got input of torch.float32, expected torch.int64.\nMultiply", torch.zeros(1, 1), (6, 4095, 415)),
        (r"loihi dv: got 5000, expected 0 to 4096.\nQuantize", torch.zeros(1, 1, dtype=torch.int64), (6, 4095, 5000)),
        (r"loihi du: got -1, expected 0 to 4095", torch.zeros(1, 1, dtype=torch.int64), (6, -1, 415)),
    ],
)
def test_what_does_not_fit_the_chip_is_refused(text, x, constants):
    with pytest.raises(UsageError, match=text):
        loihi.step(x, loihi.init_state(1, 1), *constants)
