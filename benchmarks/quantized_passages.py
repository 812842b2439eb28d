"""What quantizing costs on running text: word perplexity over float32's by passage, and what the teaching signal loses.

    python benchmarks/quantized_passages.py small $NEURO_DATA/wikitext-2/valid.txt.gz --passages 3
    python benchmarks/quantized_passages.py small $NEURO_DATA/wikitext-2/valid.txt.gz --passages 0 --teaching 1500

Passages of ``--characters`` one after the other from the beginning of the file as it lies there, each a fresh stream of the
exported runner with its own state and commits; the first is that of `tests/laws/test_export_equals_torch.py`. ``error``: the
standard error of the nats a token, tokens taken one by one, which it is too small for.

``--teaching N``: over the first N tokens of the fourth passage, float32's predictions p and rows E. Ways of writing
sum_v p_v E_v, each with the distance from the exact sum times the precision Q of the last projection's errors: root mean
square (``rms``) and length of the mean (``mean``), over the root mean square of the true errors times Q (without the norm that
hands them back). ``true mean`` is the length of those errors' own mean. No chance in it. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, cast

import _machine
import numpy as np
import quantization
import torch

import neuro
from export import parity, quantize, recipes
from export.runtime import Runtime
from neuro import text
from neuro.brain import Brain
from neuro.regions.cortex import Cortex

RECIPES = {"int8": quantize.int8, "int4": quantize.int4}
TEACHING_PASSAGE = 3


def nats(folder: Path, ids: list[int]) -> np.ndarray:
    """Of each of ids[1:] in one fresh stream."""
    runtime = Runtime(folder)
    return np.array([parity.nats_of(runtime.step([now]), np.array([after])) for now, after in itertools.pairwise(ids)])


def passage(folders: dict[str, Path], ids: list[int], words: int) -> dict[str, Any]:
    base = nats(folders["float32"], ids)
    row: dict[str, Any] = {"tokens": len(base), "words": words}
    for name, folder in folders.items():
        if name != "float32":
            more = nats(folder, ids) - base
            row[name] = {
                "perplexity_ratio": float(np.exp(more.sum() / words)),
                "nats_a_token": float(more.mean()),
                "error": float(more.std() / len(more) ** 0.5),
            }
    return row


def teaching(brain: Brain, folder: Path, ids: list[int]) -> dict[str, Any]:
    runtime = Runtime(folder)
    logits = np.concatenate([runtime.step([token]) for token in ids[:-1]]).astype(np.float64)
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    rows = brain.embedding.detach().double().numpy()
    memory = cast(Cortex, brain.regions["cortex"]).procedural
    assert memory is not None
    precision = memory.precision[-1].detach().double().numpy()
    exact = p @ rows
    true = (rows[ids[1:]] - exact) @ precision
    size = float(np.sqrt(np.square(true).sum(1).mean()))
    order, scale = np.argsort(-p, 1), np.abs(rows).max(1, keepdims=True) / 127
    levels = np.rint(rows / scale)

    def likeliest(k: int, of: np.ndarray) -> np.ndarray:
        best = np.zeros_like(of)
        np.put_along_axis(best, order[:, :k], np.take_along_axis(of, order[:, :k], 1), 1)
        return best

    def row(way: np.ndarray) -> dict[str, float]:
        apart = (way - exact) @ precision
        return {
            "rms": float(np.sqrt(np.square(apart).sum(1).mean())) / size,
            "mean": float(np.linalg.norm(apart.mean(0))) / size,
        }

    found: dict[str, Any] = {"tokens": len(p), "true mean": float(np.linalg.norm(true.mean(0))) / size}
    found["int8 rows, exact sum"] = row(p @ (levels * scale))
    for k in (128, 512, 1024):
        best = likeliest(k, p)
        rest = 1.0 - best.sum(1, keepdims=True)
        found[f"{k} likeliest rows, the mean row for the rest"] = row(best @ rows + rest * rows.mean(0)) | {
            "rest": float(rest.mean())
        }
    for k in (0, 32, 128):
        scaled = p * scale.T
        best = likeliest(k, scaled)
        step = (scaled - best).max(1, keepdims=True) / 255
        found[f"{k} likeliest rows, the rest in integers"] = row(
            best @ levels + np.rint((scaled - best) / step) * step @ levels
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("text", type=Path)
    parser.add_argument("--passages", type=int, default=3)
    parser.add_argument("--characters", type=int, default=16_000)
    parser.add_argument("--teaching", type=int, default=0, help="tokens; 0: none")
    options = parser.parse_args()
    torch.set_num_threads(1)
    brain, raw = neuro.load(options.model, "cpu"), text.read_text(options.text)

    def read(index: int) -> tuple[list[int], int]:
        part = raw[options.characters * index : options.characters * (index + 1)]
        return [brain.tokenizer.bos_id, *brain.tokenizer.encode(part)], len(part.split())

    report: dict[str, Any] = {"benchmark": "quantized_passages", "model": options.model, "text": options.text.name}
    with tempfile.TemporaryDirectory() as place:
        folders = {"float32": Path(place) / "float32"}
        quantization.write(brain, folders["float32"])
        for name, make in RECIPES.items() if options.passages else ():
            folders[name] = Path(shutil.copytree(folders["float32"], Path(place) / name))
            make(folders[name] / recipes.file_of("step", None))
        report["passages"] = [passage(folders, *read(index)) for index in range(options.passages)]
        if options.teaching:
            ids = read(TEACHING_PASSAGE)[0][: options.teaching + 1]
            report["teaching"] = teaching(brain, folders["float32"], ids)
    print(json.dumps(report | {"machine": _machine.describe()}, indent=1))


if __name__ == "__main__":
    main()
