"""Is a memory worth its parameters on text that is read once? WikiText-2 test whole, as one stream, six arms, three seeds.

    python benchmarks/adapter_base.py --out FOLDER
    python benchmarks/adapter_stream.py --out FOLDER

Base and adapters are those of `adapter.py` (trained here where FOLDER/arms has them not). They are saved as folders, which
`neuro eval FULL TEXT --suite ablation --against ... --other OTHER --wikitext` scores; this calls the same function. SHUFFLED
has the memory of a stream over the valid split and, where that ends, over the beginning of train. Nothing is chosen here: the
memory has as many slots as in training. What was scored is kept in FOLDER/stream. Prints one JSON object; tables go to stderr.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import _machine
import adapter
import adapter_base

from neuro import text
from neuro.evaluate import ablation_adapter

NAMES = {"low-rank updates": "lora", "updates and block": "block", "full": "full"}  # as --against calls them


def raw(split: str) -> str:
    return text.read_text(Path(os.environ["NEURO_DATA"]) / "wikitext-2" / f"{split}.txt.gz")


def saved(out: Path, arm: str, seed: int) -> Path:
    """The folder of a trained arm; the base stays where it is."""
    where = out / "folders" / f"{NAMES[arm]}-{seed}"
    if not (where / "config.json").is_file():
        adapter.built(out, arm, seed).save_pretrained(where)
    return where


def other_than(read: str) -> str:
    """Valid and the beginning of train, longer than the text by a tenth."""
    valid, train = raw("valid"), raw("train")
    rest = max(0, len(read) * 11 // 10 - len(valid))
    return valid + train[: train.index("\n", rest) + 1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--rate", type=float, default=3e-3)
    options = parser.parse_args()
    out: Path = options.out
    ids = adapter_base.ids_of(out, "train")
    record: dict[str, Any] = {"machine": _machine.describe(), "seeds": list(range(options.seeds))}
    record["trained"] = {
        f"{arm} {seed}": adapter.train(out, arm, seed, ids, options.steps, options.rate)
        for seed in range(options.seeds)
        for arm in adapter.TRAINED
    }
    read = raw("test")
    further = [(arm, seed) for seed in range(options.seeds) for arm in adapter.TRAINED if (arm, seed) != ("full", 0)]
    record["test"] = ablation_adapter.run(
        saved(out, "full", 0),
        read,
        lambda line: print(line, file=sys.stderr, flush=True),
        against=[f"{NAMES[arm]}={saved(out, arm, seed)}" for arm, seed in further],
        tokenizer=out / "tokenizer.json",
        other=other_than(read),
        out=out / "stream",
        wikitext=True,
    )
    print("\n".join(ablation_adapter.table(record["test"])), file=sys.stderr)
    print(json.dumps(record, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
