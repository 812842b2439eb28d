"""A base drifts under a memory that it wrote: what that costs, and what of it comes back.

    python benchmarks/adapter_base.py --out FOLDER
    python benchmarks/adapter.py --out FOLDER
    python benchmarks/adapter_drift.py --out FOLDER

Streams and scoring are those of `adapter.py`, its full adapter of one seed. The memory of the passages is written by the base
of before and read by the base of after: another code of the same function (rotation, scale, offset), or a real later
checkpoint. Linear maps are fitted to the first ``--windows`` windows of the valid split. ``reread`` encodes the slots afresh
from the text they came of, which has to have been kept; ``held`` does so from the text that the slots themselves hold;
``keys`` and ``contents`` are the two halves of ``reread`` alone, and ``both`` is a second reading through an affine map.
``chosen`` is ``held`` through the share of the affine map with which ``--rows`` other rows of valid, of as many tokens as the
documents hold, cost least when they are told again (`HippocampalAdapter.calibrate` with ``choose_on``).
``recovered`` is the share of the cost that is gone, with 95 % over documents. ``left`` says what an affine map
leaves on eight windows of valid that it was not fitted to: the share of the states' variance that it explains, the mean cosine
of a token's key with its own key of before, and how often that one is the nearest of all. Prints one JSON object; a line for
each drift goes to stderr.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import _machine
import adapter_base
import numpy as np
import torch
from adapter import GAP, PASSAGE, START, WINDOW, Reading, built, documents, held_by, readings, second
from torch import Tensor, nn

from neuro.evaluate.statistics import interval, resampled_sums
from neuro.hf.adapter import HippocampalAdapter
from neuro.hf.adapter_drift import KINDS, fit
from neuro.hf.adapter_fusion import MemoryState
from neuro.hf.adapter_reread import held_texts, reread

LEFT_WINDOWS = 8
LATER = {"25 steps later": "soon", "200 steps later": "later"}
REPAIRS = ("reread", "held", "keys", "contents", *KINDS, "both", "chosen")
DRIFTS = ("rotation", "scale", "offset", "all three", *LATER, "200 steps later and rotation")


def turned(model: HippocampalAdapter, rotation: float, scale: float, offset: float) -> HippocampalAdapter:
    """The same function with another code: hidden -> scale R hidden + offset, undone in the head. ``rotation`` in 0..1."""
    other = copy.deepcopy(model)
    head, width = other.base.lm_head, model.config.hidden_size
    torch.manual_seed(7)
    skew = torch.randn(width, width)
    turn = torch.matrix_exp(rotation * (skew - skew.T) / math.sqrt(width))
    shift = offset * torch.randn(width)
    enter, leave = nn.Linear(width, width), nn.Linear(width, head.out_features)
    with torch.no_grad():
        enter.weight.copy_(scale * turn)
        enter.bias.copy_(shift)
        leave.weight.copy_(head.weight @ turn.T / scale)
        leave.bias.copy_(-leave.weight @ shift)
    other.base.model.norm = nn.Sequential(other.base.model.norm, enter)
    other.base.lm_head = leave
    return other.eval()


def drifted(out: Path, model: HippocampalAdapter, name: str, seed: int) -> HippocampalAdapter:
    """The base of after, around which everything else is as it was."""
    match name:
        case "rotation":
            return turned(model, 1.0, 1.0, 0.0)
        case "scale":
            return turned(model, 0.0, 0.1, 0.0)
        case "offset":
            return turned(model, 0.0, 1.0, 3.0)
        case "all three":
            return turned(model, 1.0, 2.0, 1.0)
        case "200 steps later and rotation":
            return turned(built(out, "full", seed, base="later"), 1.0, 1.0, 0.0)
    return built(out, "full", seed, base=LATER[name])


def swapped(stored: list[MemoryState], other: list[MemoryState], name: str) -> list[MemoryState]:
    """What is stored, with the "keys" or "values" of the other memories of the same slots."""
    pairs = zip(stored, other, strict=True)
    return [a._replace(hippocampus=a.hippocampus._replace(**{name: getattr(b.hippocampus, name)})) for a, b in pairs]


def keys_of(model: HippocampalAdapter, context: Tensor) -> Tensor:
    return model.fusion.encode(context.unsqueeze(0), context.unsqueeze(0))[0][0]


def left_by(model: HippocampalAdapter, other: HippocampalAdapter, fitted: Tensor, rest: Tensor) -> dict[str, Any]:
    """What an affine map of the states, fitted to rows of tokens, leaves on the rest; without one, and with it."""
    before, after = model.trace(fitted).context, other.trace(fitted).context
    wanted, got = model.trace(rest).context, other.trace(rest).context
    spread, keys = (wanted - wanted.mean(0)).square().sum(), keys_of(model, wanted)
    found = {}
    for name, states in (("without", got), ("affine", fit(after, before)(got).float())):
        now = keys_of(model, states)
        found[name] = {
            "variance_explained": float(1 - (states - wanted).square().sum() / spread),
            "key_cosine": float((now * keys).sum(1).mean()),
            "own_key_nearest": float(((now @ keys.T).argmax(1) == torch.arange(len(now))).float().mean()),
        }
    return found


def recovered(lost: np.ndarray, left: np.ndarray, plain: np.ndarray) -> list[float]:
    """The share of the cost that is gone, and 95 % over documents [N]."""
    drawn = resampled_sums(list(np.stack([lost - left, lost - plain], 1)[:, None]))
    return [float((lost - left).sum() / (lost - plain).sum()), *interval(drawn[0] / drawn[1])]


def right_tokens(model: HippocampalAdapter, stored: list[MemoryState], rows: Tensor) -> float:
    """Share of the tokens that are rightly told from the values of their slots."""
    right = []
    for memory, row in zip(stored, rows, strict=True):
        for start, text in zip(*held_texts(model, memory), strict=True):
            right.append(text[1:] == row[start + 1 : start + len(text)])
    return float(torch.cat(right).float().mean())


@torch.no_grad()
def drift(
    out: Path, rows: Tensor, names: list[str], repairs: list[str], windows: int, choose_rows: int, seed: int
) -> dict[str, Any]:
    """Nats per token of the second showing."""
    model = built(out, "full", seed)
    valid = torch.from_numpy(adapter_base.ids_of(out, "valid").astype(np.int64))
    sizes = [windows * WINDOW, LEFT_WINDOWS * WINDOW, choose_rows * (PASSAGE + GAP)]
    fitted, rest, choose_on = valid[: sum(sizes)].split(sizes)
    fitted, rest, choose_on = fitted.view(-1, WINDOW), rest.view(-1, WINDOW), choose_on.view(choose_rows, -1)
    before, stored = model.trace(fitted), held_by(readings(model, rows)[0])

    def costs(other: HippocampalAdapter, found: list[Reading], held: list[MemoryState]) -> np.ndarray:
        return second(other, found, held=held).mean(1)

    def again(other: HippocampalAdapter) -> list[MemoryState]:
        return [reread(other, memory, [row[:-PASSAGE]]) for memory, row in zip(stored, rows, strict=True)]

    found, _ = readings(model, rows, START)
    plain = costs(model, found, stored)
    record: dict[str, Any] = {"calibration_tokens": fitted.numel(), "choice_tokens": choose_on.numel()}
    record["no_drift"] = float(plain.mean())
    record["no_drift_memory_off"] = float(second(model, found, off=True).mean())
    record["no_drift_reread"] = float(costs(model, found, again(model)).mean())
    record["no_drift_held"] = float(costs(model, found, [reread(model, memory) for memory in stored]).mean())
    same = copy.deepcopy(model)
    same.calibrate(before, before)
    record["no_drift_calibrated"] = float(costs(same, readings(same, rows, START)[0], stored).mean())
    if "chosen" in repairs:
        same.calibrate(before, before, choose_on=choose_on)
        record["no_drift_chosen"] = float(costs(same, readings(same, rows, START)[0], stored).mean())
    record["drifts"] = {}
    for name in names:
        other = drifted(out, model, name, seed)
        found, _ = readings(other, rows, START)
        lost = costs(other, found, stored)
        row: dict[str, Any] = {"memory_off": float(second(other, found, off=True).mean())}
        row["cost"] = float((lost - plain).mean())
        left = {"uncorrected": lost}
        if {"reread", "keys", "contents"} & set(repairs):
            today = again(other)
            halves = {
                "reread": today,
                "keys": swapped(stored, today, "keys"),
                "contents": swapped(stored, today, "values"),
            }
            left |= {repair: costs(other, found, held) for repair, held in halves.items() if repair in repairs}
        if "held" in repairs:
            left["held"] = costs(other, found, [reread(other, memory) for memory in stored])
            row["held_tokens_right"] = right_tokens(other, stored, rows)
        after = other.trace(fitted)
        for repair in (*KINDS, "both"):
            if repair in repairs:
                other.calibrate(before, after, "affine" if repair == "both" else repair)
                held = again(other) if repair == "both" else stored
                left[repair] = costs(other, readings(other, rows, START)[0], held)
                other.fusion.alignment = None
        if "chosen" in repairs:
            row["choice"] = other.calibrate(before, after, choose_on=choose_on)
            held = [reread(other, memory) for memory in stored]
            left["chosen"] = costs(other, readings(other, rows, START)[0], held)
        row["nats"] = {key: float(nats.mean()) for key, nats in left.items()}
        row["recovered"] = {key: recovered(lost, nats, plain) for key, nats in left.items()}
        if name in LATER and "affine" in repairs:
            row["left"] = left_by(model, other, fitted, rest)
        record["drifts"][name] = row
        print(name, json.dumps(row), file=sys.stderr, flush=True)
    return record


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", default="test", choices=("valid", "test"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--windows", type=int, default=48)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--drifts", nargs="+", choices=DRIFTS, default=DRIFTS)
    parser.add_argument("--repairs", nargs="+", choices=REPAIRS, default=REPAIRS)
    options = parser.parse_args()
    record: dict[str, Any] = {"machine": _machine.describe(), "split": options.split, "seed": options.seed}
    rows = documents(options.out, options.split)
    names, repairs = list(options.drifts), list(options.repairs)
    record |= drift(options.out, rows, names, repairs, options.windows, options.rows, options.seed)
    record["cpu_seconds"] = round(time.process_time())
    print(json.dumps(record, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
