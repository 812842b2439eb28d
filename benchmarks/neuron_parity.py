"""How often rounding decides a spike: our neurons in float32 beside snntorch and beside themselves in float64.

    python benchmarks/neuron_parity.py
    python benchmarks/neuron_parity.py --steps 200 --neurons 64

Every neuron gets normal currents that make it fire at 2 to 20 % of its updates. Against snntorch: the same float32 stimulus,
each free-running from rest. Against float64: teacher-forced, every float32 update starting from the float64 state, and
free-running. Counts of spikes that differ, over all updates. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable
from importlib import metadata
from typing import Any

import _machine
import torch
from torch import Tensor

from backends import LifRule
from neuro.neurons import ALIF, GIF, IF, LIF, AdEx, Izhikevich, Neuron, Synaptic, interop

# name -> (N -> the neuron, scale and offset of its current)
MODELS: dict[str, tuple[Callable[[int], Neuron], float, float]] = {
    "IF": (IF, 0.3, 0.05),
    "LIF": (lambda n: LIF(n, 20.0), 0.4, 0.03),
    "LIF hard": (lambda n: LIF(n, 20.0, rule=LifRule("hard")), 0.4, 0.03),
    "Synaptic": (lambda n: Synaptic(n, 5.0, 20.0), 0.12, 0.01),
    "ALIF": (lambda n: ALIF(n, 20.0, 100.0), 0.5, 0.05),
    "GIF": (lambda n: GIF(n, 10.0, levels=3), 0.6, 0.0),
    "Izhikevich": (Izhikevich, 8.0, 25.0),
    "AdEx": (lambda n: AdEx(n, dt_ms=0.25), 400.0, 1500.0),
}


def snntorchs() -> dict[str, tuple[Callable[[], Any], float]]:
    """name -> (its neuron, scale of its current); nothing where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import snntorch as snn
    except ImportError:
        return {}
    return {
        "Leaky subtract": (lambda: snn.Leaky(0.9), 0.4),
        "Leaky zero": (lambda: snn.Leaky(0.9, reset_mechanism="zero"), 0.4),
        "Leaky zero, reset_delay=False": (lambda: snn.Leaky(0.9, reset_mechanism="zero", reset_delay=False), 0.4),
        "Leaky none": (lambda: snn.Leaky(0.8, reset_mechanism="none"), 0.4),
        "Lapicque": (lambda: snn.Lapicque(beta=0.9), 3.5),
        "Synaptic subtract": (lambda: snn.Synaptic(0.8, 0.9), 0.12),
        "Synaptic zero": (lambda: snn.Synaptic(0.8, 0.9, reset_mechanism="zero"), 0.12),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--neurons", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(args.seed)
    shape = (args.steps, args.batch, args.neurons)
    updates = args.steps * args.batch * args.neurons

    def counted(different: Tensor, spikes: Tensor) -> dict[str, float]:
        return {"flips": int(different.sum()), "firing": round(float((spikes > 0).double().mean()), 4)}

    peers, itself = {}, {}
    with torch.no_grad():
        for name, (make, scale) in snntorchs().items():
            x = torch.randn(*shape, generator=generator) * scale + 0.05 * scale
            peer = make()
            ours = interop.from_snntorch(peer, args.neurons)
            state, spikes = [torch.zeros_like(x[0])] * (1 + hasattr(peer, "syn")), []
            for x_t in x.unbind(0):
                s, *state = peer(x_t, *state)
                spikes.append(s)
            found, _ = ours.scan(x, ours.init_state(args.batch))
            peers[name] = counted(found != torch.stack(spikes), found)
        for name, (build, scale, offset) in MODELS.items():
            exact, rounded = build(args.neurons).double(), build(args.neurons).float()
            x = torch.randn(*shape, generator=generator) * scale + offset
            state64, forced = exact.init_state(args.batch, dtype=torch.float64), []
            expected = []
            for x_t in x.unbind(0):
                forced.append(rounded.step(x_t, type(state64)(*(leaf.float() for leaf in state64)))[0])
                s, state64 = exact.step(x_t.double(), state64)
                expected.append(s.float())
            truth = torch.stack(expected)
            free, _ = rounded.scan(x, rounded.init_state(args.batch))
            itself[name] = {
                "teacher_forced": counted(torch.stack(forced) != truth, truth),
                "free_running_share": float((free != truth).double().mean()),
            }
    report = {
        "shape": dict(zip(("steps", "batch", "neurons"), shape, strict=True)),
        "updates": updates,
        "seed": args.seed,
        "snntorch": metadata.version("snntorch") if peers else None,
        "against_snntorch": peers,
        "float32_against_float64": itself,
        "machine": _machine.describe(),
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
