"""Put a model's matrices on the grid of a quantized export, which then rounds nothing: how `small` came to hold eight bits.

    python benchmarks/round_weights.py MODEL --recipe int8 --out DIR
    python benchmarks/round_weights.py runs/int4/model --recipe int4 --slots 16384 --out DIR

Nothing is trained. Of a model from ``train.quantize``, which is there already, the second line changes the slots of its
memory alone. Prints one JSON object: the bytes of the weights' file before and after, and how far the matrices moved.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from neuro import folder, rounding
from neuro.train.quantized import Quantized


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--recipe", choices=rounding.RECIPES, required=True)
    parser.add_argument("--slots", type=int, help="of the episodic memory (as the model has)")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the model into")
    options = parser.parse_args()
    source = folder.locate(options.model)
    brain = folder.load(
        options.model, "cpu", sets=[f"hippocampus.slots={options.slots}"] if options.slots is not None else []
    )
    grid = Quantized(brain, options.recipe)
    before = {name: p.detach().numpy().copy() for name, p in grid.weights.items()}
    grid.settle()
    moved = [
        float(np.linalg.norm(p.detach().numpy() - before[name]) / np.linalg.norm(before[name]))
        for name, p in grid.weights.items()
    ]
    about = folder.read_record(source)["about"]
    folder.save(brain, options.out, about | {"rounded": {"recipe": options.recipe, "matrices": len(moved)}})
    sizes = [(place / "model.safetensors").stat().st_size for place in (source, options.out)]
    print(json.dumps({"bytes": sizes, "relative_distance": [min(moved), max(moved)], "matrices": len(moved)}))


if __name__ == "__main__":
    main()
