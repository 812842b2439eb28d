"""Is a memory around a frozen base worth its parameters? Facts restated beyond the base's window, six arms, three seeds.

    python benchmarks/adapter_base.py --out FOLDER
    python benchmarks/adapter.py --out FOLDER

The base (`adapter_base.py`, 256 tokens of context) is frozen. Three adapters are trained on it for each seed, of the same
number of parameters, on the same streams of WikiText-2 train, for the same steps: low-rank updates alone; updates and a block
without a memory; updates and the hippocampus. A training stream is a passage of 128 tokens, 256 others, and the passage again.

Scored is WikiText-2 test: of each article a passage, 1,024 tokens that follow it (four windows), and the passage again. Arms
of the full adapter differ in what the memory holds before the second showing: what was read (REAL), nothing (OFF), what
another article's stream holds at the same point, of the same age and as many slots (SHUFFLED). ``gain_by_position`` is a
difference in differences: what REAL saves over OFF in the second showing, less what it saves in the first, by place in the
passage. Settings were chosen on the valid split. Finished trainings are kept in FOLDER/arms. Prints one JSON object; tables go
to stderr. What a drift of the base costs is in `adapter_drift.py`.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import _machine
import adapter_base
import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from neuro import atomic
from neuro.evaluate import ablation
from neuro.hf.adapter import HippocampalAdapter
from neuro.hf.adapter_cache import AdapterCache
from neuro.hf.adapter_config import AdapterConfig
from neuro.hf.adapter_fusion import MemoryState
from neuro.hf.adapter_host import load_base
from neuro.hf.streaming import CACHE_NAME

WINDOW = adapter_base.WINDOW
PASSAGE, TRAIN_GAP, GAP = 128, 256, 1024
START = (PASSAGE + GAP) // WINDOW * WINDOW  # of the base's window in which the second showing begins
BATCH, RANK = 4, 4
TRAINED = ("low-rank updates", "updates and block", "full")


def config_of(arm: str) -> AdapterConfig:
    """Sizes so that the arms have equally many trained parameters."""
    common: dict[str, Any] = {"window": WINDOW, "slots": 2048, "lora_alpha": 16.0}
    if arm == "low-rank updates":
        return AdapterConfig(fusion="none", lora_rank=17, **common)
    if arm == "updates and block":
        return AdapterConfig(fusion="feedforward", hidden=515, lora_rank=RANK, **common)
    return AdapterConfig(fusion="memory", lora_rank=RANK, **common)


def trained_of(model: HippocampalAdapter) -> dict[str, Tensor]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def built(out: Path, arm: str, seed: int, base: str = "base") -> HippocampalAdapter:
    torch.manual_seed(seed)
    model = HippocampalAdapter(config_of(arm), load_base(out / base))
    kept = out / "arms" / f"{arm}-{seed}.safetensors"
    if kept.is_file():
        with torch.no_grad():
            for name, tensor in load_file(kept).items():
                model.get_parameter(name).copy_(tensor)
    return model.eval()


def streams(ids: np.ndarray, random: np.random.Generator) -> Tensor:
    """[BATCH, T]: a passage, what followed it, and the passage again."""
    starts = random.integers(0, len(ids) - PASSAGE - TRAIN_GAP, BATCH)
    rows = np.stack([ids[start : start + PASSAGE + TRAIN_GAP] for start in starts]).astype(np.int64)
    return torch.from_numpy(np.concatenate([rows, rows[:, :PASSAGE]], 1))


def train(out: Path, arm: str, seed: int, ids: np.ndarray, steps: int, rate: float) -> dict[str, Any]:
    """One adapter; kept in FOLDER/arms."""
    kept = out / "arms" / f"{arm}-{seed}.safetensors"
    told = kept.with_suffix(".json")
    if kept.is_file():
        return json.loads(told.read_text())
    model = built(out, arm, seed).train()
    parameters = trained_of(model)
    optimizer = torch.optim.AdamW(parameters.values(), lr=rate, betas=(0.9, 0.95), weight_decay=0.01)
    random, began, losses = np.random.default_rng(1000 + seed), time.process_time(), []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 10) * 0.5 * (1 + math.cos(math.pi * step / steps))
        rows = streams(ids, random)
        loss = model(rows, labels=rows, use_cache=False).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if (step + 1) % 20 == 0:
            spent = time.process_time() - began
            print(f"{arm} {seed}: {step + 1} {np.mean(losses[-20:]):.4f}, {spent:.0f} s", file=sys.stderr, flush=True)
    with atomic.replacing(kept) as temporary:
        save_file({name: parameter.detach().clone() for name, parameter in parameters.items()}, temporary)
    record = {
        "parameters": sum(parameter.numel() for parameter in parameters.values()),
        "cpu_seconds": round(time.process_time() - began),
        "last_loss": float(np.mean(losses[-20:])),
    }
    atomic.write_text(told, json.dumps(record))
    return record


def documents(out: Path, split: str, gap: int = GAP) -> Tensor:
    """[N, T]: of each article that is long enough, from its 64th token, passage, gap, and the passage again."""
    tokenizer, found = adapter_base.tokenizer_of(out), []
    article: list[str] = []
    for line in [*adapter_base.lines_of(split), "= end ="]:
        top = line.startswith("= ") and not line.startswith("= =") and line.endswith(" =")
        if top and article:
            ids = tokenizer.encode("\n".join(article))[64 : 64 + PASSAGE + gap]
            if len(ids) == PASSAGE + gap:
                found.append(ids + ids[:PASSAGE])
            article = []
        article.append(line)
    return torch.tensor(found)


@torch.no_grad()
def nats_after(model: HippocampalAdapter, cache: AdapterCache, tokens: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
    """Nats of tokens [B,T] of which the first was predicted by ``first`` [B,V] -> ([B,T], logits after the last)."""
    logits = model(tokens, **{CACHE_NAME: cache}).logits
    before = torch.cat([first.unsqueeze(1), logits[:, :-1]], 1)
    return F.cross_entropy(before.flatten(0, 1).float(), tokens.flatten(), reduction="none").reshape(
        tokens.shape
    ), logits[:, -1]


class Reading(NamedTuple):
    """Streams that have got to just before the second showing."""

    rows: Tensor  # [b, T]
    cache: AdapterCache
    logits: Tensor  # [b, V] of the second showing's first token


def in_spans(model: HippocampalAdapter, cache: AdapterCache, tokens: Tensor, first: Tensor, off: bool) -> Tensor:
    """Nats of a passage but its first token; with ``off`` the memory is emptied before every span."""
    found = []
    for piece in tokens.split(model.config.span, 1):
        if off:
            cache.forget()
        nats, first = nats_after(model, cache, piece, first)
        found.append(nats)
    return torch.cat(found, 1)[:, 1:]


def readings(model: HippocampalAdapter, rows: Tensor, start: int = 0) -> tuple[list[Reading], np.ndarray]:
    """Streams until the second showing, from token ``start`` on, and nats [N, PASSAGE - 1] of the first showing if it is 0.

    Without a memory, and where the memory is exchanged anyway, only the base's last window matters: START begins it.
    """
    found, first = [], []
    for part in rows.split(12):
        cache, none = AdapterCache(), torch.zeros(len(part), model.config.vocab_size)
        if start == 0:
            first.append(in_spans(model, cache, part[:, :PASSAGE], none, off=False))
        _, logits = nats_after(model, cache, part[:, max(start, PASSAGE) : -PASSAGE], none)
        cache.commit(model)
        found.append(Reading(part, cache, logits))
    return found, torch.cat(first).numpy() if first else np.zeros(0)


def held_by(found: list[Reading]) -> list[MemoryState]:
    """What each stream remembers."""
    return [reading.cache.memory_of(row) for reading in found for row in range(len(reading.rows))]


def second(
    model: HippocampalAdapter, found: list[Reading], off: bool = False, held: list[MemoryState] | None = None
) -> np.ndarray:
    """Nats [N, PASSAGE - 1] of the second showing, with the memories ``held`` instead of their own where given."""
    nats, done = [], 0
    for rows, kept, logits in found:
        cache = copy.deepcopy(kept)
        if held is not None:
            cache.put_memories(held[done : done + len(rows)])
        nats.append(in_spans(model, cache, rows[:, -PASSAGE:], logits, off))
        done += len(rows)
    return torch.cat(nats).numpy()


def first_without(model: HippocampalAdapter, rows: Tensor) -> np.ndarray:
    """Nats of the first showing with an empty memory."""
    none = torch.zeros(len(rows), model.config.vocab_size)
    return in_spans(model, AdapterCache(), rows[:, :PASSAGE], none, off=True).numpy()


def sizes(out: Path, rows: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Words and bytes of each passage, its first token left out."""
    tokenizer, words, size = adapter_base.tokenizer_of(out), [], []
    for row in rows[:, 1:PASSAGE].tolist():
        words.append(len(tokenizer.decode(row).split()))
        size.append(sum(len(tokenizer.token_bytes(token)) for token in row))
    return np.array(words), np.array(size)


@torch.no_grad()
def arms_of(out: Path, rows: Tensor, seeds: int) -> dict[str, Any]:
    """The ablation table, and the gain by position."""
    words, size = sizes(out, rows)
    bare = HippocampalAdapter(AdapterConfig(fusion="none", lora_rank=0, window=WINDOW), load_base(out / "base")).eval()
    costs: dict[str, list[np.ndarray]] = {"base": [second(bare, readings(bare, rows, START)[0])]}
    saved_first = []
    for seed in range(seeds):
        for arm in TRAINED[:2]:
            model = built(out, arm, seed)
            costs.setdefault(arm, []).append(second(model, readings(model, rows, START)[0]))
        full = built(out, "full", seed)
        found, first = readings(full, rows)
        held = held_by(found)
        costs.setdefault("off", []).append(second(full, found, off=True))
        costs.setdefault("shuffled", []).append(second(full, found, held=[*held[1:], held[0]]))
        costs.setdefault("real", []).append(second(full, found))
        saved_first.append(first_without(full, rows) - first)
        print(f"seed {seed} scored", file=sys.stderr, flush=True)
    record = ablation.compare({name: np.stack(arm).sum(2) for name, arm in costs.items()}, words, size, "real")
    print("\n".join(ablation.table(record)), file=sys.stderr)
    before = np.mean(saved_first, 0)
    saved = np.mean(costs["off"], 0) - np.mean(costs["real"], 0) - before  # [N, PASSAGE - 1]
    draws = np.random.default_rng(0).choice(saved.mean(1), (10000, len(saved))).mean(1)
    record["gain_nats_per_token"] = float(saved.mean())
    record["gain_interval"] = [float(x) for x in np.quantile(draws, [0.025, 0.975])]
    record["gain_by_position"] = [float(part.mean()) for part in np.array_split(saved.mean(0), 8)]
    record["saved_in_first_showing"] = float(before.mean())
    return record


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", default="test", choices=("valid", "test"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--rate", type=float, default=3e-3)
    options = parser.parse_args()
    ids = adapter_base.ids_of(options.out, "train")
    record: dict[str, Any] = {"machine": _machine.describe(), "split": options.split, "steps": options.steps}
    record["trained"] = {
        f"{arm} {seed}": train(options.out, arm, seed, ids, options.steps, options.rate)
        for seed in range(options.seeds)
        for arm in TRAINED
    }
    rows = documents(options.out, options.split)
    record["arms"] = arms_of(options.out, rows, options.seeds)
    print(json.dumps(record, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
