"""Does the memory still work after export? The suite `recall` answered by torch and by the exported graphs, on the same rows.

    python benchmarks/export_recall.py micro --rows 40
    python benchmarks/export_recall.py runs/mqar --task mqar --recipes int8

Every row is a fresh stream of the runner that lies in an exported folder (`run.py`), at batch 1, so that no row shares a scale
with another; the exported commit writes the memories. An answer is right where its token has the highest logit. Rows are those
that `neuro eval --suite recall` draws: training never saw them. The interval of a difference from torch resamples rows. "off"
is torch with its memories emptied at every commit: what is left without them. int4 rounds to the nearest here. Prints one JSON
object.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import _machine
import numpy as np
import quantization
import torch

import neuro
from export import recipes
from export.runtime import Runtime
from neuro import tasks
from neuro.evaluate import recall

# What micro learned (`benchmarks/cortex_m.py` asks its C99 the same), the last two beyond its window of 32 tokens.
DELAYED = tuple(f"task:delayed:pairs={p},delay={d}" for p, d in ((4, 16), (4, 48), (8, 80), (8, 256)))
RECIPES = ("int8", "int4")
POINTS = 0.02  # how far an export's share of right answers may be from torch's


def answered(runtime: Runtime, rows: tasks.Rows) -> np.ndarray:
    """Which answers came first [B, C], each row a fresh stream."""
    found = []
    for tokens, scored in zip(rows.tokens, rows.scored, strict=True):
        runtime.reset(1)
        said = [int(runtime.step([token]).argmax()) for token in tokens[:-1]]
        found.append((np.array(said) == tokens[1:])[scored[1:]])
    return np.stack(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--task", help=f"as of neuro eval --suite recall (default: {DELAYED[0]} and three longer ones)")
    parser.add_argument("--rows", type=int, default=40, help="of each task")
    parser.add_argument("--recipes", nargs="+", default=RECIPES, help="beside float32")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    brain = neuro.load(options.model, "cpu")
    sources = recall.POINTS.get(options.task, (options.task,)) if options.task else DELAYED
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as place:
        plain = Path(place) / "float32"
        quantization.write(brain, plain)
        runtimes = {"float32": Runtime(plain)}
        for recipe in options.recipes:
            folder = Path(shutil.copytree(plain, plain.with_name(recipe)))
            recipes.apply(folder / recipes.file_of("step", None), recipe)
            runtimes[recipe] = Runtime(folder)
        for source in sources:
            task = tasks.parse(source, brain.config.vocab_size)[0]
            random = np.random.default_rng([options.seed, *tasks.spelled(task).encode()])
            rows = task.rows(random, options.rows, brain.config.vocab_size)
            right, off = (recall.answer(brain, rows, arm).right.numpy() for arm in ("real", "off"))
            row: dict[str, Any] = {"task": tasks.spelled(task), "tokens": task.length, "answers": right.size}
            row |= {"torch": float(right.mean()), "off": float(off.mean())}
            for name, runtime in runtimes.items():
                here = answered(runtime, rows)
                low, high = recall.interval(here.mean(1) - right.mean(1), options.seed)
                row[name] = {
                    "right": float(here.mean()),
                    "from_torch_95": [low, high],
                    "same_answers_right": float((here == right).mean()),
                    "within_2_points": bool(abs(here.mean() - right.mean()) <= POINTS),
                }
            results.append(row)
    report = {"benchmark": "export_recall", "model": options.model, "rows": options.rows, "seed": options.seed}
    print(json.dumps(report | {"results": results, "machine": _machine.describe()}, indent=1))


if __name__ == "__main__":
    main()
