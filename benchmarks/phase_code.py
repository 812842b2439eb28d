"""Does the theta-gamma phase code say where a token is, at four times the length that was trained? Beside other position codes.

    python benchmarks/phase_code.py --data $NEURO_DATA

A byte model (width 64, two layers of four heads, 117 thousand parameters) is trained on windows of 128 bytes of WikiText-2
train, once for each code and seed, on the same windows: ``rotary`` turns queries and keys (Su et al. 2021, arXiv:2104.09864),
``sinusoidal`` (Vaswani et al. 2017, arXiv:1706.03762) and ``phase`` (`neuro/memory/phase_code.py`) are added to the embeddings,
``none`` says nothing. Codes have a root mean square of 1 and one trained factor. Scored are windows of 512 bytes of valid: nats
a byte of its first 128 (the length trained) and of its last 128. Differences of phase from each other code are paired, 95 %
over windows, seeds averaged. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import _machine
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuro import text
from neuro.evaluate.statistics import interval, resampled_sums
from neuro.memory.phase_code import PhaseCode

CODES = ("phase", "sinusoidal", "rotary", "none")
WIDTH, HEADS, LAYERS, TRAINED, TIMES, BATCH = 64, 4, 2, 128, 4, 16


def turns(count: int, width: int) -> Tensor:
    """Angles [count, width / 2], periods from 2 pi to 10,000 times that."""
    return torch.arange(count)[:, None] * 10000.0 ** (-torch.arange(0, width, 2) / width)


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.project, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.enter, self.leave = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor, rotary: bool) -> Tensor:
        rows, length, _ = x.shape
        q, k, v = self.project(self.before(x)).reshape(rows, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        if rotary:
            q, k = turned(q), turned(k)
        read = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(read.transpose(1, 2).reshape(rows, length, WIDTH))
        return x + self.leave(F.gelu(self.enter(self.between(x))))


def turned(x: Tensor) -> Tensor:
    angle = turns(x.shape[2], x.shape[3])
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1).flatten(-2)


class ByteModel(nn.Module):
    def __init__(self, code: str) -> None:
        super().__init__()
        self.code, self.phase = code, PhaseCode(WIDTH)
        self.embedding, self.loud = nn.Embedding(256, WIDTH), nn.Parameter(torch.tensor(0.3))
        self.layers, self.norm = nn.ModuleList(Layer() for _ in range(LAYERS)), nn.LayerNorm(WIDTH)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        if self.code == "phase":
            x = x + self.loud * self.phase(torch.arange(tokens.shape[1]))
        if self.code == "sinusoidal":
            angle = turns(tokens.shape[1], WIDTH)
            x = x + self.loud * math.sqrt(2) * torch.cat([angle.sin(), angle.cos()], 1)
        for layer in self.layers:
            x = layer(x, self.code == "rotary")
        return F.linear(self.norm(x), self.embedding.weight) / math.sqrt(WIDTH)


def nats(model: ByteModel, rows: Tensor) -> Tensor:
    """rows [B,T+1] -> [B,T]."""
    logits = model(rows[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten(), reduction="none").reshape(len(rows), -1)


def windows(data: np.ndarray, starts: np.ndarray, length: int) -> Tensor:
    return torch.from_numpy(np.stack([data[start : start + length + 1] for start in starts]).astype(np.int64))


def trained(code: str, seed: int, data: np.ndarray, steps: int, rate: float) -> ByteModel:
    torch.manual_seed(seed)
    model, random = ByteModel(code), np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.05)
    for step in range(steps):
        share = min(1.0, (step + 1) / 20) * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimizer.param_groups[0]["lr"] = rate * share
        loss = nats(model, windows(data, random.integers(0, len(data) - TRAINED - 1, BATCH), TRAINED)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"{code} {seed}: {loss.item():.3f}, {time.process_time():.0f} s", file=sys.stderr, flush=True)
    return model.eval()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with wikitext-2/")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--windows", type=int, default=64)
    parser.add_argument("--rate", type=float, default=4e-3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    read, valid = (
        np.frombuffer(text.read_text(options.data / "wikitext-2" / f"{split}.txt.gz").encode(), np.uint8)
        for split in ("train", "valid")
    )
    length = TIMES * TRAINED
    rows = windows(valid, np.arange(options.windows) * (len(valid) // options.windows), length)
    found: dict[str, list[np.ndarray]] = {code: [] for code in CODES}
    for seed in range(options.seeds):
        for code in CODES:
            model = trained(code, seed, read, options.steps, options.rate)
            with torch.no_grad():
                scored = torch.cat([nats(model, part) for part in rows.split(8)])
            found[code].append(torch.stack([scored[:, :TRAINED].mean(1), scored[:, -TRAINED:].mean(1)], 1).numpy())
    mean = {code: np.mean(parts, 0) for code, parts in found.items()}  # [windows, 2]
    record: dict[str, Any] = {"machine": _machine.describe(), **vars(options), "data": "wikitext-2"}
    record["nats_within_and_beyond"] = {code: own.mean(0).round(3).tolist() for code, own in mean.items()}
    record["by_seed"] = {code: [part.mean(0).round(3).tolist() for part in parts] for code, parts in found.items()}
    record["phase_less"] = {}
    for code in CODES[1:]:
        less = mean["phase"] - mean[code]
        drawn = resampled_sums(list(less[:, None])) / len(less)
        record["phase_less"][code] = [
            [round(float(x), 3) for x in (own.mean(), *interval(draws))]
            for own, draws in zip(less.T, drawn, strict=True)
        ]
    record["cpu_seconds"] = round(time.process_time())
    print(json.dumps(record, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
