"""WikiText-2 over its closed vocabulary, from nothing, in an hour of two cores: the model without memories, then its memories.

    python benchmarks/wikitext_hour.py --data $NEURO_DATA --out runs/hour
    neuro eval runs/hour/memory/model $NEURO_DATA/wikitext-2/test.txt.gz --suite perplexity --set hippocampus.slots=16384

1. the preset `wikitext2-word` without memories (`neuro train`);
2. a procedural memory on it: how its errors vary, then its sensing and rates (`benchmarks/train_procedural.py`);
3. an episodic memory with a pointer, over the whole vocabulary, alone (`neuro train`, ``train.only``).

After 1 no weight of the model without memories moves, so with its memories off it is the model that was trained without. Every
stage is a command of its own and is printed; a folder that exists is refused, for what was broken off has no wall clock. Prints
one JSON object: seconds of each stage (start and reading of the text included), parameters, and the machine. On two cores
nothing else should run; one seed throughout. Other memories on the same static model: ``--static hour/static/model --seed 2``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import _machine

import neuro

HABITS = {
    "enabled": "true",
    "rank": "40",
    "rate": "0.02625",
    "max_step": "1.5",
    "max_norm": "9",
    "half_life_tokens": "36864",
    "outward_half_life_tokens": "2048",
    "bias_rate": "0.015",
    "through_dense": "true",
}
MOMENTS = {"slots": "4096", "key_width": "96", "place_cells": "256", "pointer": "true", "key_direct": "true"}
ALONE = {
    "only": "hippocampus",
    "batch": "8",
    "sampled": "0",
    "spelling": "0",
    "dropout": "0",
    "embedding_dropout": "0",
    "optimizer": "adamw",
    "learning_rate": "8e-3",
    "warmup_steps": "10",
    "memory_dropout": "0.25",
    "rehearsal": "0.08",
    "eval_every": "1000",
    "eval_tokens": "4096",
}


def sets(part: str, values: dict[str, str]) -> list[str]:
    return [word for key, value in values.items() for word in ("--set", f"{part}.{key}={value}")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with wikitext-2/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--static-steps", type=int, default=2700)
    parser.add_argument("--procedural-steps", type=int, default=40)
    parser.add_argument("--episodic-steps", type=int, default=57)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--static", type=Path, help="a model of stage 1, which is then left out")
    options = parser.parse_args()
    out, here = options.out, Path(__file__).parent
    if out.exists():
        parser.error(f"{out} exists: give another --out")
    if options.static is not None and not options.static.is_dir():
        parser.error(f"{options.static} is no folder: give the model that stage 1 left, as in hour/static/model")
    seconds: dict[str, float] = {}

    def stage(name: str, *command: object) -> None:
        words = [sys.executable, *map(str, command)]
        print(" ".join(words), file=sys.stderr)
        began = time.perf_counter()
        subprocess.run(words, check=True, stdout=sys.stderr)
        seconds[name] = round(time.perf_counter() - began, 1)

    words = out / "words"
    train = ("-m", "neuro", "train", words / "train.toml", "--out")
    seed = ("--set", f"train.seed={options.seed}")
    none = ("--set", "brain.hippocampus.enabled=false", "--set", "brain.procedural.enabled=false")
    stage("prepare", here / "prepare_corpus.py", "--data", options.data, "--out", words, "--words")
    static = options.static or out / "static" / "model"
    if options.static is None:
        stage("static", *train, out / "static", *none, "--set", f"train.steps={options.static_steps}", *seed)
    text = options.data / "wikitext-2" / "train.txt.gz"
    habits = (
        "--out",
        out / "habits",
        "--steps",
        options.procedural_steps,
        "--seed",
        options.seed,
        *sets("procedural", HABITS),
    )
    stage("procedural", here / "train_procedural.py", static, text, *habits)
    given = ("--set", f"train.init={out / 'habits'}", "--set", f"train.steps={options.episodic_steps}", *seed)
    brain = (*sets("brain.procedural", HABITS | {"natural": "true"}), *sets("brain.hippocampus", MOMENTS))
    stage("episodic", *train, out / "memory", *given, *sets("train", ALONE), *brain)
    parameters = {
        name: sum(neuro.load(model, "cpu").parameter_counts().values())
        for name, model in (("static", static), ("memory", out / "memory" / "model"))
    }
    report = {"benchmark": "wikitext_hour", "machine": _machine.describe(), "seed": options.seed}
    report |= {"seconds": seconds, "training_seconds": round(sum(seconds.values()) - seconds["prepare"], 1)}
    print(json.dumps(report | {"parameters": parameters}, indent=1))


if __name__ == "__main__":
    main()
