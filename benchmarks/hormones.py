"""What is each hormone and each region worth? REAL, OFF and SHUFFLED arms of a trained brain on five measures.

    python benchmarks/hormones.py --data $NEURO_DATA --model small

A stream is the beginning of a WikiText-2 valid article, a piece of a novel, and the article's beginning again. Rows of a
batch are streams of different articles and pieces. REAL is the brain as it is. OFF holds a signal at its resting level: the
mean of the REAL run (of recall and fast weights: nothing; of the route: every layer runs). SHUFFLED puts the next row's in
its place: as strong and as varied, of another text. Nothing is trained or tuned here.

    first         nats per token of the article
    shift         nats per token of the novel: adaptation to another domain
    calibration   expected calibration error of the likeliest token, 10 bins, over article and novel
    retention     nats per token of the article again, after the novel
    selection     retention where a span may write 8 pairs of 64, chosen by salience and novelty, and 64 slots are kept

A positive difference from REAL says that the signal helped. Intervals: paired bootstrap over rows, 95 %; nothing corrects
for looking at many. ``warmth``: nats of article and novel if noradrenaline set the temperature of the prediction
(`endocrine.temperature_octaves`): own level, held level, the next row's. Prints one JSON object and a table.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _machine
import numpy as np
import prepare_corpus
import torch
from torch import Tensor

import neuro
from neuro import corpus
from neuro.brain import Brain
from neuro.config import HORMONES
from neuro.evaluate import statistics
from neuro.evaluate.stream import evaluating
from neuro.state import BrainState, EndocrineState, ProceduralState
from neuro.text import read_text

SETTINGS = {
    "plain": ["hippocampus.slots=1024"],
    "scarce": ["hippocampus.slots=64", "hippocampus.writes_per_span=8", "hippocampus.controller=learned"],
}
CHANNELS = {"gate": ("thalamus", "relay"), "route": ("thalamus", "route"), "salience": ("amygdala", "salience")}
CHANNELS |= {"affect": ("amygdala", "affect"), "recall": ("hippocampus", "recall"), "cortex": ("cortex", "hidden")}
SIGNALS = (*HORMONES, "all hormones", *CHANNELS, "fast weights")
BINS, OCTAVES = 10, (-1.0, -0.5, 0.5, 1.0)
PARTS = ("first", "shift", "retention")


class Trial:
    """One run of all rows, with one signal replaced; the REAL run also records what the others are made of."""

    def __init__(self, brain: Brain, signal: str, arm: str, real: Trial | None) -> None:
        self.brain, self.signal, self.arm, self.real = brain, signal, arm, real
        self.hormones: list[Tensor] = []  # [B, H] of each commit
        self.sums: dict[str, tuple[Tensor, int]] = {}
        self.undo: list[tuple[Any, str]] = []

    def __enter__(self) -> Trial:
        for name, (region, channel) in CHANNELS.items():
            if region in self.brain.regions and (self.real is None or name == self.signal):
                self._replace(self.brain.regions[region], "scan", self._scan(self.brain.region(region), name, channel))
        if "endocrine" in self.brain.regions:
            self._replace(self.brain.regions["endocrine"], "commit", self._commit(self.brain.region("endocrine")))
        return self

    def __exit__(self, *error: object) -> None:
        for thing, name in self.undo:
            thing.__dict__.pop(name, None)  # two channels of one region are replaced by two functions

    def _replace(self, thing: Any, name: str, by: Callable[..., Any]) -> None:
        object.__setattr__(thing, name, by)
        self.undo.append((thing, name))

    def _scan(self, region: Any, name: str, channel: str) -> Callable[..., Any]:
        scan = region.scan

        def changed(inputs: Any, state: Any) -> Any:
            outputs, after = scan(inputs, state)
            x = outputs[channel]
            ratio = x
            if name == "gate":  # what is 0 passes as it is
                ratio = torch.where(inputs["embedding"] == 0, torch.ones_like(x), x / inputs["embedding"])
            if self.real is None:
                total, count = self.sums.get(name, (torch.zeros_like(ratio[0, 0]), 0))
                self.sums[name] = (total + ratio.sum((0, 1)), count + ratio.shape[0] * ratio.shape[1])
                return outputs, after
            rest = {"recall": 0.0, "route": 1.0}.get(name)
            if self.arm == "shuffled":
                ratio = ratio.roll(1, 0)
            else:
                total, count = self.real.sums[name]
                ratio = (total / count if rest is None else torch.full_like(total, rest)).expand_as(ratio)
            return outputs | {channel: ratio * inputs["embedding"] if name == "gate" else ratio}, after

        return changed

    def _commit(self, region: Any) -> Callable[..., Any]:
        commit = region.commit
        columns = [i for i, name in enumerate(HORMONES) if self.signal in (name, "all hormones")]

        def changed(*given: Any) -> EndocrineState:
            levels = commit(*given).modulators
            if self.real is not None and columns:
                trace = torch.stack(self.real.hormones)
                other = trace.mean((0, 1)).expand_as(levels)
                if self.arm == "shuffled":
                    other = trace[len(self.hormones)].roll(1, 0)
                levels = levels.clone()
                levels[:, columns] = other[:, columns]
            self.hormones.append(levels)
            return EndocrineState(levels)

        return changed

    def after_commit(self, state: BrainState) -> BrainState:
        memory = state.regions.cortex.procedural
        if self.signal != "fast weights" or not isinstance(memory, ProceduralState):
            return state
        fast = torch.zeros_like(memory.fast) if self.arm == "off" else memory.fast.roll(1, 0)
        cortex = state.regions.cortex._replace(procedural=memory._replace(fast=fast))
        return state._replace(regions=state.regions._replace(cortex=cortex))


def run(brain: Brain, ids: dict[str, Tensor], signal: str, arm: str, real: Trial | None) -> tuple[np.ndarray, Trial]:
    """A table of each row: nats of every part, then count, confidence and hits of every bin, then warm nats."""
    rows = ids["first"].shape[0]
    nats = {name: torch.zeros(rows, dtype=torch.float64) for name in PARTS}
    bins = torch.zeros(rows, 3, BINS, dtype=torch.float64)
    warm = torch.zeros(rows, len(OCTAVES), 3, dtype=torch.float64)
    noradrenaline = HORMONES.index("noradrenaline")
    with Trial(brain, signal, arm, real) as trial, evaluating(brain), torch.no_grad():
        state = brain.init_state(rows)
        for name in PARTS:
            for span in ids[name].split(brain.config.plasticity_span, 1):
                before = torch.log_softmax(state.logits, -1)
                out = brain.scan(span, state)
                nats[name] += out.aux.surprise.double().sum(1)
                scores = torch.cat([before.unsqueeze(1), torch.log_softmax(out.logits[:, :-1], -1)], 1)
                if name != "retention":
                    confidence, likeliest = scores.exp().max(-1)
                    place = (confidence * BINS).long().clamp_max(BINS - 1)
                    hit = (likeliest == span) * out.aux.predicted
                    for row, x in enumerate((out.aux.predicted, confidence * out.aux.predicted, hit)):
                        bins[:, row].scatter_add_(1, place, x.double())
                if name != "retention" and real is None:
                    levels = brain.modulators(state)[:, noradrenaline]
                    rest = torch.full_like(levels, 0.5) if not trial.hormones else levels.mean().expand_as(levels)
                    for o, octaves in enumerate(OCTAVES):
                        for k, level in enumerate((levels, rest, levels.roll(1, 0))):
                            cooler = torch.exp2(-octaves * (2 * level - 1)).reshape(-1, 1, 1)
                            picked = torch.log_softmax(scores * cooler, -1).gather(-1, span.unsqueeze(-1)).squeeze(-1)
                            warm[:, o, k] -= (picked * out.aux.predicted).double().sum(1)
                state = trial.after_commit(brain.commit(out.state)[0])
    return torch.cat([torch.stack([nats[n] for n in PARTS], 1), bins.flatten(1), warm.flatten(1)], 1).numpy(), trial


def calibration_error(sums: np.ndarray) -> np.ndarray:
    """Of column sums [C, ...] of `run`'s table."""
    count, confidence, hits = sums[3 : 3 + 3 * BINS].reshape(3, BINS, *sums.shape[1:])
    return np.abs(confidence - hits).sum(0) / count.sum(0)


def compare(real: np.ndarray, other: np.ndarray, tokens: dict[str, int]) -> dict[str, list[float]]:
    """[difference, low, high] of every measure: the other arm less REAL."""
    width = real.shape[1]
    pairs = [np.concatenate([a, b])[None] for a, b in zip(real, other, strict=True)]
    draws, whole = statistics.resampled_sums(pairs), np.concatenate([real.sum(0), other.sum(0)])
    found = {}
    for column, name in enumerate(PARTS):
        each = tokens[name] * len(real)
        low, high = statistics.interval((draws[width + column] - draws[column]) / each)
        found[name] = [float(whole[width + column] - whole[column]) / each, low, high]
    low, high = statistics.interval(calibration_error(draws[width:]) - calibration_error(draws[:width]))
    mean = calibration_error(whole[width:, None])[0] - calibration_error(whole[:width, None])[0]
    return found | {"calibration": [float(mean), low, high]}


def streams(options: argparse.Namespace, brain: Brain) -> dict[str, Tensor]:
    """Token ids [rows, tokens] of each part."""
    first: list[np.ndarray] = []
    for text in prepare_corpus.wikitext(options.data / "wikitext-2" / "valid.txt.gz")[0]:
        ids = corpus.encode([text], brain.tokenizer)[: options.first]
        if len(ids) == options.first and len(first) < options.rows:
            first.append(ids)
    novel = corpus.encode([read_text(options.data / "books" / options.novel)], brain.tokenizer)
    starts = np.linspace(1000, len(novel) - options.shift - 1, len(first)).astype(int)
    shift = [novel[at : at + options.shift] for at in starts]
    parts = {"first": first, "shift": shift, "retention": [ids[: options.again] for ids in first]}
    return {name: torch.from_numpy(np.stack(rows).astype(np.int64)) for name, rows in parts.items()}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, dict[str, Any]] = {}
    about: dict[str, Any] = {"real": {}}
    for setting in options.settings:
        brain = neuro.load(options.model, sets=SETTINGS[setting])
        ids = streams(options, brain)
        tokens = {name: rows.shape[1] for name, rows in ids.items()}
        real, trial = run(brain, ids, "", "real", None)
        levels = torch.stack(trial.hormones)
        if setting == "plain":
            about["rows"], about["tokens"] = len(real), tokens
            about["real"] |= {n: float(real[:, i].sum()) / (tokens[n] * len(real)) for i, n in enumerate(PARTS)}
            about["real"]["calibration"] = float(calibration_error(real.sum(0)[:, None])[0])
            about["levels"] = {
                name: [round(float(f(levels[:, :, i])), 3) for f in (torch.min, torch.mean, torch.max)]
                for i, name in enumerate(HORMONES)
            }
            warm = real[:, 3 + 3 * BINS :].reshape(len(real), len(OCTAVES), 3)
            plain = real[:, :2].sum(1)
            about["warmth"] = {}
            for o, octaves in enumerate(OCTAVES):
                table = [np.concatenate([row, [base]])[None] for row, base in zip(warm[:, o], plain, strict=True)]
                draws, each = statistics.resampled_sums(table), len(real) * (tokens["first"] + tokens["shift"])
                row = {}
                for k, name in ((1, "held level"), (2, "shuffled"), (3, "no warmth")):
                    mean = float(sum(t[0, k] - t[0, 0] for t in table)) / each
                    row[f"{name} less own"] = [mean, *statistics.interval((draws[k] - draws[0]) / each)]
                about["warmth"][str(octaves)] = row
        else:
            about["real"]["selection"] = float(real[:, 2].sum()) / (tokens["retention"] * len(real))
        for signal in options.signals:
            for arm in ("off", "shuffled"):
                started = time.process_time()
                gaps = compare(real, run(brain, ids, signal, arm, trial)[0], tokens)
                cell = found.setdefault(f"{signal}, {arm}", {})
                cell |= gaps if setting == "plain" else {"selection": gaps["retention"]}
                print(f"{setting} {signal} {arm}: {time.process_time() - started:.1f} s", file=sys.stderr, flush=True)
    return about | {"differences": found}


def table(found: dict[str, Any]) -> str:
    every = ("first", "shift", "calibration", "retention", "selection")
    names = [name for name in every if name in next(iter(found["differences"].values()))]
    lines = ["| signal, arm | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for arm, row in found["differences"].items():
        cells = [f"{1e3 * mean:.1f} [{1e3 * low:.1f}, {1e3 * high:.1f}]" for mean, low, high in map(row.get, names)]
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\nthousandths of a nat per token, of a share for calibration; less REAL"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with wikitext-2/ and books/")
    parser.add_argument("--model", default="small")
    parser.add_argument("--settings", nargs="+", choices=tuple(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--signals", nargs="+", choices=SIGNALS, default=list(SIGNALS))
    parser.add_argument("--novel", default="alice_11.txt.gz")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--first", type=int, default=384)
    parser.add_argument("--shift", type=int, default=320)
    parser.add_argument("--again", type=int, default=192)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(options)
    settings = {name: value for name, value in vars(options).items() if name != "data"}
    print(json.dumps({"benchmark": "hormones", "machine": _machine.describe(), "settings": settings, "found": found}))
    print(table(found))


if __name__ == "__main__":
    main()
