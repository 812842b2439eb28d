"""A step of Muon over a preset's matrices: ours in float32 beside torch's own, whose Newton-Schulz is in bfloat16.

    python benchmarks/muon.py wikitext2-word

Both learn from the same random gradients (seed 0), one thread, a step of each in turn. Prints one JSON object: seconds of a
step, median and least to most, the ratio of the medians, and how far apart both are after the steps, relative to how far ours
has moved.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import _machine
import torch
from torch import nn

from neuro import presets
from neuro.brain import Brain
from neuro.train.muon import Muon


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset", choices=sorted(presets.PRESETS))
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    cortex = Brain(presets.PRESETS[options.preset]().brain).regions["cortex"].get_submodule("layers")
    start = [p.detach() for p in cortex.parameters() if p.dim() == 2]
    ours, theirs = ([nn.Parameter(p.clone()) for p in start] for _ in range(2))
    rules = {
        "ours": Muon(ours, 6e-3, 0.1),
        "torch": torch.optim.Muon(theirs, lr=6e-3, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in rules}
    for repeat in range(options.repeats + 1):
        gradients = [torch.randn_like(p) for p in start]
        for name, matrices in (("ours", ours), ("torch", theirs)):
            for p, gradient in zip(matrices, gradients, strict=True):
                p.grad = gradient.clone()
            began = time.perf_counter()
            rules[name].step()
            if repeat:  # the first warms up
                seconds[name].append(time.perf_counter() - began)
    with torch.no_grad():
        apart = sum(float((a - b).square().sum()) for a, b in zip(ours, theirs, strict=True))
        moved = sum(float((a - b).square().sum()) for a, b in zip(ours, start, strict=True))
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    report = {"benchmark": "muon", "preset": options.preset, "machine": _machine.describe(), "seed": 0}
    report |= {"matrices": len(start), "numbers": sum(p.numel() for p in start), "repeats": options.repeats}
    report |= {name: [round(x, 4) for x in (medians[name], min(found), max(found))] for name, found in seconds.items()}
    report |= {
        "torch_over_ours": round(medians["torch"] / medians["ours"], 2),
        "apart": round((apart / moved) ** 0.5, 5),
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
