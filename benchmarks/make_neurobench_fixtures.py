"""What NeuroBench counts on layers that need no file, stored for the tests, and where its float32 sums leave the integers.

    pip install --no-deps --target PEERS neurobench==2.3.0
    PYTHONPATH=PEERS python benchmarks/make_neurobench_fixtures.py            # writes tests/fixtures/neurobench_counts.json
    PYTHONPATH=PEERS python benchmarks/make_neurobench_fixtures.py --check    # compares with what is stored

Weights and inputs are raw integers of PCG64 divided by a power of two, and 0 where others fall below the density: the same on
every machine. Each layer is counted as it is and once more in float64, whose sums are exact to 2^53; ``error`` is what
float32 loses. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
from importlib import metadata
from pathlib import Path
from typing import Any

import _machine
import numpy as np
import torch
from torch import Tensor, nn

from neuro import atomic

FIXTURE = Path(__file__).resolve().parents[1] / "tests" / "fixtures" / "neurobench_counts.json"


def _conv(inputs: int, outputs: int, kernel: int, **more: Any) -> dict[str, Any]:
    return {"in_channels": inputs, "out_channels": outputs, "kernel_size": kernel, **more}


def _linear(inputs: int, outputs: int, **more: Any) -> dict[str, Any]:
    return {"in_features": inputs, "out_features": outputs, **more}


# layer, its arguments, shape of the input, density of inputs and of weights, binary inputs
CASES: list[tuple[str, dict[str, Any], list[int], float, float, bool]] = [
    ("Linear", _linear(4, 3), [4, 4], 0.6, 0.5, True),
    ("Linear", _linear(20, 256), [200, 20], 1.0, 1.0, False),
    ("Linear", _linear(256, 35), [200, 256], 0.1, 1.0, True),
    ("Linear", _linear(300, 200), [32, 300], 0.3, 0.4, True),
    ("Linear", _linear(300, 200, bias=False), [32, 300], 0.7, 0.9, False),
    ("Linear", _linear(1, 1), [1, 1], 1.0, 1.0, False),
    ("Conv1d", _conv(1, 32, 80, stride=16), [1, 1, 8000], 1.0, 1.0, False),
    ("Conv1d", _conv(6, 4, 3, padding=1, groups=2), [3, 6, 50], 0.5, 0.6, True),
    ("Conv1d", _conv(3, 5, 4, dilation=3), [2, 3, 40], 0.5, 1.0, False),
    ("Conv2d", _conv(2, 16, 5, padding="same"), [4, 2, 32, 32], 0.05, 1.0, True),
    ("Conv2d", _conv(16, 32, 5, padding="same"), [2, 16, 16, 16], 0.1, 1.0, True),
    ("Conv2d", _conv(4, 8, 3, stride=2, padding=1), [3, 4, 15, 17], 0.4, 0.3, True),
    ("Conv2d", _conv(8, 8, 3, groups=8, padding=2, dilation=2), [2, 8, 9, 9], 0.5, 0.8, False),
    ("Conv3d", _conv(2, 3, 3, padding=1, stride=2), [2, 2, 6, 7, 8], 0.5, 0.7, True),
    ("RNNCell", {"input_size": 12, "hidden_size": 9}, [1, 12], 0.5, 0.6, False),
    ("Linear", _linear(1000, 1001), [500, 1000], 1.0, 1.0, False),
    ("Linear", _linear(4097, 4097), [64, 4097], 0.016, 1.0, True),
    ("Linear", _linear(2000, 3000), [700, 2000], 0.4, 0.7, True),
]


def values(seed: int, shape: tuple[int, ...], density: float, binary: bool) -> Tensor:
    """Multiples of 2^-10 from 2^-10 to 1, or ones; the rest is 0."""
    count = int(np.prod(shape))
    raw = np.random.PCG64(seed).random_raw(2 * count)
    kept = (raw[:count] >> np.uint64(11)) < density * 2.0**53
    sizes = np.ones(count) if binary else ((raw[count:] >> np.uint64(54)) + np.uint64(1)) / 1024.0
    return torch.from_numpy((kept * sizes).astype(np.float32)).reshape(shape)


def made(index: int) -> tuple[nn.Module, list[Tensor]]:
    """The layer and the inputs of a case: a cell has a hidden state beside its input."""
    kind, arguments, shape, inputs, weights, binary = CASES[index]
    layer = getattr(nn, kind)(**arguments)
    with torch.no_grad():
        for number, parameter in enumerate(layer.parameters()):
            parameter.copy_(values(1000 * index + number + 1, tuple(parameter.shape), weights, False))
    given = [values(1000 * index, tuple(shape), inputs, binary)]
    if isinstance(layer, nn.RNNCellBase):
        given.append(values(1000 * index + 999, (shape[0], layer.hidden_size), inputs, binary))
    return layer, given


def counted(layer: nn.Module, inputs: list[Tensor]) -> dict[str, float]:
    from neurobench.metrics.utils.layers import single_layer_MACs

    given = tuple(inputs) if len(inputs) > 1 else inputs[0]
    effective, spiking = single_layer_MACs(given, layer)
    every, _ = single_layer_MACs(given, layer, total=True)
    return {"effective": float(effective), "dense": float(every), "spiking": bool(spiking)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cases = []
    for index in range(len(CASES)):
        layer, given = made(index)
        single, exact = counted(layer, given), counted(layer.double(), [x.double() for x in given])
        kind, arguments, shape, inputs, weights, binary = CASES[index]
        case = {"layer": kind, "arguments": arguments, "shape": shape, "densities": [inputs, weights], "binary": binary}
        for name in ("effective", "dense"):
            case[name] = int(exact[name])
            case[f"{name}_error"] = int(single[name] - exact[name])
        case["spiking"] = exact["spiking"]
        cases.append(case)
    found = {"neurobench": metadata.version("neurobench"), "cases": cases}
    if options.check:
        stored = json.loads(FIXTURE.read_text(encoding="utf-8"))
        # What float32 loses depends on the order a processor sums in; the integers do not.
        same = [{k: v for k, v in case.items() if not k.endswith("_error")} for case in cases]
        kept = [{k: v for k, v in case.items() if not k.endswith("_error")} for case in stored["cases"]]
        print(json.dumps({"machine": _machine.describe(), "same": same == kept}))
        raise SystemExit(same != kept)
    atomic.write_text(FIXTURE, json.dumps(found, indent=1) + "\n")
    print(json.dumps({"machine": _machine.describe(), "written": str(FIXTURE.name), **found}, indent=1))


if __name__ == "__main__":
    main()
