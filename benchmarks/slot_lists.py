"""From how many slots on is a read through lists worth it, and what does it miss?

    python benchmarks/adapter_base.py --out FOLDER
    python benchmarks/adapter.py --out FOLDER
    python benchmarks/slot_lists.py --out FOLDER

Slots are the keys and values that the full adapter of seed 0 writes over WikiText-2 train, queries its keys over valid. For a
number of slots and each number of tokens read at once, exact and listed reads take turns; printed are the medians of their
process CPU time over ``--repeats`` rounds with the spread of the ratio, fitting the lists, and over 64 tokens what part of the
slots was looked at, what part of the 16 exact best was found, and the cosine of the contents. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import _machine
import adapter_base
import numpy as np
import torch
from adapter import WINDOW, built
from torch import Tensor

from neuro.hf.adapter import HippocampalAdapter
from neuro.memory import slot_lists
from neuro.memory.episodic import Recalled

BEST = 16


def pairs_of(model: HippocampalAdapter, ids: np.ndarray, tokens: int) -> tuple[Tensor, Tensor]:
    """Keys [N,K] and what followed them [N,D]."""
    keys, values = [], []
    for rows in torch.from_numpy(ids[:tokens].astype(np.int64)).reshape(-1, WINDOW).split(16):
        traced = model.trace(rows)
        key, value = model.fusion.encode(traced.context.unsqueeze(0), traced.embedded.unsqueeze(0))
        keys.append(key[0])
        values.append(value[0].roll(-1, 0))
    return torch.cat(keys), torch.cat(values)


def spent(work: Callable[[], Any]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def measure(
    model: HippocampalAdapter, held: tuple[Tensor, Tensor], query: Tensor, probes: list[int], repeats: int
) -> dict[str, Any]:
    memory = model.fusion.hippocampus.memory
    keys, values = (part.unsqueeze(0) for part in held)
    strengths = torch.ones(keys.shape[:2])
    lists = slot_lists.fit(keys, strengths)
    found: dict[str, Any] = {
        "fit_seconds": spent(lambda: slot_lists.fit(keys, strengths)),
        "lists": lists.centroids.shape[1],
    }

    def listed_read(part: Tensor, count: int) -> Recalled:
        among = slot_lists.candidates(lists, part, strengths=strengths, probes=count)
        return memory.read(part, keys, values, strengths, among=among)

    exact = memory.read(query, keys, values, strengths)
    best = exact.cosine[0].topk(BEST, dim=1).indices
    for count in probes:
        among = slot_lists.candidates(lists, query, strengths=strengths, probes=count)
        listed = listed_read(query, count)
        seen = torch.zeros(query.shape[1], keys.shape[1], dtype=torch.bool)
        seen.scatter_(1, among.slots.expand(query.shape[1], -1), among.seen[0])
        row: dict[str, Any] = {
            "looked_at": float(seen.float().mean()),
            "best_found": float(seen.gather(1, best).float().mean()),
            "content_cosine": float(torch.cosine_similarity(listed.content, exact.content, dim=-1).mean()),
        }
        for tokens in (1, query.shape[1]):
            part, times = query[:, :tokens], []
            for _ in range(repeats):
                one = spent(partial(memory.read, part, keys, values, strengths))
                times.append((one, spent(partial(listed_read, part, count))))
            one, two = np.median(times, 0)
            ratios = sorted(b / a for a, b in times)
            row[f"{tokens} tokens"] = {
                "exact_ms": 1e3 * float(one),
                "listed_ms": 1e3 * float(two),
                "ratio": [ratios[0], float(np.median(ratios)), ratios[-1]],
            }
        found[f"{count} probes"] = row
    return found


@torch.no_grad()
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--slots", type=int, nargs="+", default=[2048, 4096, 8192, 16384, 32768, 65536])
    parser.add_argument("--probes", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    model = built(options.out, "full", 0)
    held = pairs_of(model, adapter_base.ids_of(options.out, "train"), max(options.slots))
    asked, _ = pairs_of(model, adapter_base.ids_of(options.out, "valid"), 16 * WINDOW)
    query = asked[:: len(asked) // 64][:64].unsqueeze(0)
    record: dict[str, Any] = {"machine": _machine.describe(), "repeats": options.repeats}
    for slots in options.slots:
        own = (held[0][:slots], held[1][:slots])
        record[f"{slots} slots"] = measure(model, own, query, options.probes, options.repeats)
        print(slots, json.dumps(record[f"{slots} slots"]), file=sys.stderr, flush=True)
    print(json.dumps(record, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
