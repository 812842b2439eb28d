"""What numba compiles is kept on disk, and where it cannot be kept it is compiled all the same."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from backends.kernels import lif_numba

pytestmark = pytest.mark.skipif(not lif_numba.here(), reason="numba is not installed")

RUN = """
import numpy as np
from backends.kernels import loops_numba
x, numbers = np.ones((3, 8), np.float32), np.array([.9, 1, 1, 1, -1, 4, 2, 6, 1], np.float32)
spikes, run = np.zeros_like(x), loops_numba.forward(False)
run(x, np.zeros(8, np.float32), spikes, np.empty((1, 8), np.float32), numbers)
print(sum(run.stats.cache_hits.values()), int(spikes.sum()))
"""


def test_a_second_process_reads_what_the_first_compiled(tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    found = []
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", RUN], env=environment, capture_output=True, text=True, check=True)
        found.append(done.stdout.split())
    assert found == [["0", "24"], ["1", "24"]] and list(tmp_path.rglob("*.nbc"))


def test_without_a_folder_to_write_to_it_compiles(monkeypatch):
    from backends.kernels import loops_numba

    asked = []

    def njit(cache=False, **options):
        asked.append(cache)
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: function

    monkeypatch.setattr(loops_numba.numba, "njit", njit)
    assert loops_numba.compiled(abs) is abs and asked == [True, False]


def test_both_modules_keep_a_membrane_as_often():
    from backends.kernels import loops_numba

    assert loops_numba.EVERY == lif_numba._EVERY
