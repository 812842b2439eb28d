"""Law: the counter has the integers of NeuroBench 2.3.0 where its own sums are exact, and the true ones where they are not.

Stored by benchmarks/make_neurobench_fixtures.py, whose stimulus this repeats.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sims.counting import count

STORED = json.loads((Path(__file__).parents[1] / "fixtures" / "neurobench_counts.json").read_text(encoding="utf-8"))
EXACT = 2**24  # float32 counts one by one up to here


def values(seed: int, shape: tuple[int, ...], density: float, binary: bool) -> Tensor:
    count = int(np.prod(shape))
    raw = np.random.PCG64(seed).random_raw(2 * count)
    kept = (raw[:count] >> np.uint64(11)) < density * 2.0**53
    sizes = np.ones(count) if binary else ((raw[count:] >> np.uint64(54)) + np.uint64(1)) / 1024.0
    return torch.from_numpy((kept * sizes).astype(np.float32)).reshape(shape)


@pytest.mark.parametrize("index", range(len(STORED["cases"])))
def test_counts_equal_those_of_neurobench(index: int) -> None:
    case: dict[str, Any] = STORED["cases"][index]
    inputs, weights = case["densities"]
    layer = getattr(nn, case["layer"])(**case["arguments"])
    with torch.no_grad():
        for number, parameter in enumerate(layer.parameters()):
            parameter.copy_(values(1000 * index + number + 1, tuple(parameter.shape), weights, False))
    given = [values(1000 * index, tuple(case["shape"]), inputs, case["binary"])]
    if isinstance(layer, nn.RNNCellBase):
        given.append(values(1000 * index + 999, (case["shape"][0], layer.hidden_size), inputs, case["binary"]))
    load = count(layer, tuple(given), input_signal="binary" if case["binary"] else "dense")
    rows = [row for row in load.operations if row.kind == "mac"]
    assert sum(row.count for row in rows) == case["dense"]
    assert sum(row.effective or 0 for row in rows) == case["effective"]
    assert {row.signal for row in rows} == {"binary" if case["spiking"] else "dense"}


def test_neurobench_is_exact_below_what_float32_counts():
    lost = [case for case in STORED["cases"] if case["dense_error"] or case["effective_error"]]
    assert 0 < len(lost) < len(STORED["cases"])
    for case in STORED["cases"]:
        assert case["dense"] > EXACT or not case["dense_error"]
        assert case["effective"] > EXACT or not case["effective_error"]
