"""What norse and spikingjelly do with a stimulus that needs no file: spikes and gradients, stored for the tests.

    pip install --no-deps --target PEERS norse==1.1.0 spikingjelly==2.0.0 loguru SciencePlots nir nirtorch h5py
    PYTHONPATH=PEERS python benchmarks/make_neuron_fixtures.py            # writes tests/fixtures/neuron_traces.*
    PYTHONPATH=PEERS python benchmarks/make_neuron_fixtures.py --check    # compares with what is stored

The stimulus is made of raw integers of PCG64, divided by a power of two: the same bits on every machine, exact in float32. It
is coarse for neurons without a leak, so that membranes reach the threshold exactly; with a leak a coarse one would make ties
that rounding decides. Every case
runs in float32 on one thread and must fire at 2 to 20 % of its updates. Stored: the spikes as bits, and the gradient of
the first row's first neurons under a weighting of the spikes made the same way. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuro import atomic

FIXTURES = Path(__file__).resolve().parents[1] / "tests" / "fixtures"
STEPS, BATCH, NEURONS, SHOWN = 200, 8, 64, 8
SEED = 4


@dataclasses.dataclass(frozen=True)
class Case:
    """A neuron of a peer, and its stimulus: scale, offset, and the bits after the point before scaling."""

    peer: str
    scale: float
    offset: float
    make: Callable[[], Any]
    bits: int = 22


def uniform(seed: int, bits: int) -> Tensor:
    """[T,B,N], multiples of 2^-bits from -2 to 2, float32."""
    raw = np.random.PCG64(seed).random_raw(STEPS * BATCH * NEURONS) >> np.uint64(62 - bits)
    values = (raw.astype(np.float64) - 2.0 ** (bits + 1)) / 2.0**bits
    return torch.from_numpy(values.astype(np.float32)).reshape(STEPS, BATCH, NEURONS)


def stimulus(case: Case) -> Tensor:
    """[T,B,N]"""
    return uniform(SEED, case.bits) * case.scale + case.offset


def weighting() -> Tensor:
    """[T,B,N]: the gradient that arrives at the spikes."""
    return uniform(SEED + 1, 10)


def norse(name: str, **constants: Any) -> Any:
    import norse.torch as n
    from norse.torch.functional.reset import reset_subtract

    if constants.pop("subtract", False):
        constants["reset_method"] = reset_subtract
    parameters = {"LIFBoxCell": n.LIFBoxParameters, "LIFCell": n.LIFParameters, "IAFCell": n.IAFParameters}[name]
    tensors = {key: torch.as_tensor(x) if isinstance(x, float) else x for key, x in constants.items()}
    return getattr(n, name)(parameters(**tensors), dt=1e-3)


def spikingjelly(name: str, **constants: Any) -> Any:
    from spikingjelly.activation_based import neuron, surrogate

    return getattr(neuron, name)(surrogate_function=surrogate.ATan(2.0), **constants)


# norse's potential relaxes to its input, which is why that is larger.
CASES = {
    "norse.LIFBoxCell": Case("norse", 2.0, 1.0, lambda: norse("LIFBoxCell", tau_mem_inv=100.0)),
    "norse.LIFBoxCell.subtract": Case("norse", 2.0, 0.5, lambda: norse("LIFBoxCell", v_th=0.75, subtract=True)),
    "norse.LIFCell": Case("norse", 0.75, 0.1875, lambda: norse("LIFCell", tau_mem_inv=50.0, v_reset=-0.25)),
    "norse.IAFCell": Case("norse", 0.25, 0.0625, lambda: norse("IAFCell", method="triangle", alpha=1.0), 10),
    "spikingjelly.IFNode": Case("spikingjelly", 0.25, 0.0625, lambda: spikingjelly("IFNode"), 10),
    "spikingjelly.IFNode.soft": Case(
        "spikingjelly", 0.25, 0.0625, lambda: spikingjelly("IFNode", v_reset=None, detach_reset=True), 10
    ),
    "spikingjelly.LIFNode": Case("spikingjelly", 1.0, 0.5, lambda: spikingjelly("LIFNode", tau=5.0)),
    "spikingjelly.LIFNode.soft": Case(
        "spikingjelly", 0.5, 0.0, lambda: spikingjelly("LIFNode", tau=10.0, decay_input=False, v_reset=None)
    ),
    "spikingjelly.ParametricLIFNode": Case(
        "spikingjelly",
        0.375,
        0.0,
        lambda: spikingjelly("ParametricLIFNode", init_tau=4.0, decay_input=False, detach_reset=True),
    ),
    "spikingjelly.SlidingPSN": Case(
        "spikingjelly", 0.4375, 0.0625, lambda: spikingjelly("SlidingPSN", k=4, step_mode="m")
    ),
}


def run(case: Case) -> tuple[Tensor, Tensor]:
    """(spikes [T,B,N], gradient of the stimulus [T,SHOWN])."""
    x = stimulus(case).requires_grad_()
    cell = case.make()
    if case.peer == "norse":
        state, found = None, []
        for x_t in x.unbind(0):
            s, state = cell(x_t, state)
            found.append(s)
        spikes = torch.stack(found)
    elif cell.step_mode == "m":
        spikes = cell(x)
    else:
        spikes = torch.stack([cell(x_t) for x_t in x.unbind(0)])
    (grad,) = torch.autograd.grad((spikes * weighting()).sum(), x)
    return spikes.detach(), grad[:, 0, :SHOWN]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the stored traces and write nothing")
    args = parser.parse_args()
    torch.set_num_threads(1)
    arrays: dict[str, np.ndarray] = {}
    rates: dict[str, float] = {}
    for name, case in CASES.items():
        spikes, grad = run(case)
        rates[name] = round(float(spikes.mean()), 4)
        if not 0.02 <= rates[name] <= 0.2:
            raise SystemExit(f"{name} fires at {rates[name]}, expected 0.02 to 0.2")
        arrays[f"{name}.spikes"] = np.packbits(spikes.numpy().astype(bool))
        arrays[f"{name}.grad"] = grad.numpy()
    report: dict[str, Any] = {
        "peers": {name: metadata.version(name) for name in ("norse", "spikingjelly", "torch")},
        "shape": [STEPS, BATCH, NEURONS],
        "seed": SEED,
        "rates": rates,
    }
    path = FIXTURES / "neuron_traces.npz"
    if not args.check:
        with atomic.replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **arrays)
        atomic.write_text(path.with_suffix(".json"), json.dumps(report, indent=1) + "\n")
        print(json.dumps(report, indent=1))
        return
    with np.load(path, allow_pickle=False) as stored:
        report["flips"] = {
            name: int(np.unpackbits(stored[f"{name}.spikes"] ^ arrays[f"{name}.spikes"]).sum()) for name in CASES
        }
        report["gradient"] = {name: float(abs(stored[f"{name}.grad"] - arrays[f"{name}.grad"]).max()) for name in CASES}
    print(json.dumps(report, indent=1))
    updates = STEPS * BATCH * NEURONS
    if max(report["flips"].values()) > updates * 1e-5:
        raise SystemExit("the peers no longer do what is stored")


if __name__ == "__main__":
    main()
