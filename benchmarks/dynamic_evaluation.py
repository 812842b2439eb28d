"""The memories beside their published peers on the same weights: full dynamic evaluation and a neural cache.

    python benchmarks/dynamic_evaluation.py small $NEURO_DATA/wikitext-2/test.txt.gz --wikitext \\
        --valid $NEURO_DATA/wikitext-2/valid.txt.gz --train $NEURO_DATA/wikitext-2/train.txt.gz --log peers.jsonl
    python benchmarks/dynamic_evaluation.py runs/wikitext2/model --valid $NEURO_DATA/wikitext-2/valid.txt.gz --log valid.jsonl

The second, without a text to score, prints the arms and the caches on the tuning tokens of ``--valid`` themselves: the table
of docs/memory.md, "Predicting outright".

static           every memory emptied at every commit
real, episodic, procedural    the memories of this brain, as in `neuro.evaluate.arms`
dynamic          all weights learn (Krause et al. 2018, arXiv:1709.07432), memories emptied: a segment is scored, then
                 W <- W + decay r (W_0 - W) - rate g / (R + floor M),  r = R / M, decay r at most 1,
                 g the gradient of the segment's mean surprise, R its root mean square over training text, by element,
                 M the mean of R over all elements
cache N          p <- (1 - lambda) p + lambda c, where c gives the token that followed each of the last N places weight
                 exp(theta cos) of their features and the features now (Grave et al. 2017, arXiv:1612.04426, with cosines)
dynamic + cache N

A segment is a plasticity span. Text, words and flags are those of `neuro eval`; one stream, batch 1. All settings are chosen
on the first `--tuning-tokens` of `--valid` alone: every rate with every floor, then decay with the best of them; theta and
lambda for each size of the cache. Without a floor (Krause et al. add 2e-5 to gradients of short segments) rows of rare tokens,
whose R is below 1e-9, take steps that end in NaN. Each trial and result is a line of `--log`; a run that
finds its lines there does not do them again, so a run that was broken off goes on. Intervals: 95 %, paired bootstrap over
articles (seed 0, 1,000 draws). Prints one JSON object; progress goes to stderr.
"""

from __future__ import annotations

import argparse
import copy
import functools
import hashlib
import itertools
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import _machine
import numpy as np
import torch
from torch import Tensor

import neuro
from neuro import folder, text
from neuro.brain import Brain
from neuro.evaluate import arms, perplexity
from neuro.state import detach

SIZES = (500, 2000, 8000)  # places in the cache
THETAS = (4.0, 8.0, 12.0, 16.0, 24.0, 32.0)
LAMBDAS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
SETTING = ("rate", "floor", "decay")  # of dynamic evaluation
BLOCK = 256  # tokens whose cosines are taken at once


class Pass(NamedTuple):
    """What one way through a stream of N + 1 tokens found. D width."""

    nats: np.ndarray  # [N] float64 surprise of each token after the first
    features: Tensor  # [N, D] unit vectors that each was predicted from


class Learner:
    """Full dynamic evaluation of a copy of a brain, which starts each pass from the weights that training left."""

    def __init__(self, brain: Brain, training: list[int]) -> None:
        self.brain = copy.deepcopy(brain)
        self.weights = [p for p in self.brain.parameters() if p.requires_grad]
        self.start = [p.detach().clone() for p in self.weights]
        squares, segments = [torch.zeros_like(p) for p in self.weights], 0
        for surprise, _ in scanned(self.brain, training, ()):
            for total, gradient in zip(squares, self.gradients(surprise), strict=True):
                total += gradient * gradient
            segments += 1
        self.rms = [(total / segments).sqrt() for total in squares]
        self.mean = sum(float(r.sum()) for r in self.rms) / sum(r.numel() for r in self.rms)

    def gradients(self, surprise: Tensor) -> list[Tensor]:
        """Of the segment's mean; zero for what it did not use."""
        if not surprise.requires_grad:  # a segment of one token, which was predicted in the one before
            return [torch.zeros_like(p) for p in self.weights]
        found = torch.autograd.grad(surprise.mean(), self.weights, allow_unused=True)
        return [torch.zeros_like(p) if g is None else g for p, g in zip(self.weights, found, strict=True)]

    def run(self, stream: list[int], rate: float, floor: float, decay: float) -> Pass:
        """Score every segment and learn from it."""
        with torch.no_grad():
            for weight, start in zip(self.weights, self.start, strict=True):
                weight.copy_(start)
        nats, features = [], []
        for surprise, unit in scanned(self.brain, stream, ()):
            nats.append(surprise.detach())
            features.append(unit)
            gradients = self.gradients(surprise)
            with torch.no_grad():
                for w, start, g, rms in zip(self.weights, self.start, gradients, self.rms, strict=True):
                    pull = (decay / self.mean * rms).clamp_max(1.0)
                    w += pull * (start - w) - rate * g / (rms + floor * self.mean)
        return gather(nats, features)


def scanned(brain: Brain, stream: list[int], memories: tuple[str, ...]) -> Iterator[tuple[Tensor, Tensor]]:
    """(surprise [T], unit features [T,D]) of each segment, with its graph where gradients are on; then it commits."""
    brain.eval()
    state, span, began = brain.init_state(1), brain.config.plasticity_span, time.perf_counter()
    for start in range(0, len(stream), span):
        out = brain.scan(torch.tensor([stream[start : start + span]]), state)
        yield out.aux.surprise[0], torch.nn.functional.normalize(out.aux.features[0].detach().float(), dim=-1)
        with torch.no_grad():
            state = arms.keep_only(brain.commit(detach(out.state))[0], memories)
        if start and start % (128 * span) == 0:
            print(f"  {start} tokens, {1e3 * (time.perf_counter() - began) / start:.2f} ms each", file=sys.stderr)


def gather(nats: list[Tensor], features: list[Tensor]) -> Pass:
    # Features at a place predict the token after it; nothing predicted the first.
    return Pass(torch.cat(nats).double().numpy()[1:], torch.cat(features)[:-1])


@torch.no_grad()
def through(brain: Brain, stream: list[int], arm: str) -> Pass:
    nats, features = zip(*scanned(brain, stream, arms.ARMS[arm]), strict=True)
    return gather(list(nats), list(features))


@torch.no_grad()
def cached(found: Pass, said: list[int], sizes: tuple[int, ...], thetas: tuple[float, ...]) -> np.ndarray:
    """Probability of each token said [N] under the cache alone -> [sizes, thetas, N]; NaN where it was empty."""
    features, tokens, widest = found.features, torch.tensor(said), max(sizes)
    out = np.full((len(sizes), len(thetas), len(said)), np.nan)
    for start in range(0, len(said), BLOCK):
        stop, first = min(start + BLOCK, len(said)), max(0, start - widest)
        cosine = features[start:stop] @ features[first : stop - 1].T
        age = torch.arange(start, stop)[:, None] - torch.arange(first, stop - 1)[None, :]
        same = tokens[start:stop, None] == tokens[None, first : stop - 1]
        for t, theta in enumerate(thetas):
            weight = torch.exp(theta * (cosine - 1.0))
            for s, size in enumerate(sizes):
                inside = torch.where((age >= 1) & (age <= size), weight, 0.0)
                share = (inside * same).sum(1) / inside.sum(1)
                out[s, t, start:stop] = share.numpy()
    return out


def mixed(nats: np.ndarray, cache: np.ndarray, share: float) -> np.ndarray:
    """Surprise of the mixture; the model's own while the cache is empty."""
    both = -np.log((1.0 - share) * np.exp(-nats) + share * np.nan_to_num(cache))
    return np.where(np.isnan(cache), nats, both)


def tuned_cache(found: Pass, said: list[int]) -> dict[str, Any]:
    """The best theta and lambda of each size, and every trial."""
    chances, trials = cached(found, said, SIZES, THETAS), []
    for (s, size), (t, theta) in itertools.product(enumerate(SIZES), enumerate(THETAS)):
        for share in LAMBDAS:
            mean = float(mixed(found.nats, chances[s, t], share).mean())
            trials.append({"size": size, "theta": theta, "lambda": share, "nats_per_token": mean})
    best = {str(n): min((t for t in trials if t["size"] == n), key=lambda t: t["nats_per_token"]) for n in SIZES}
    return {"static_nats_per_token": float(found.nats.mean()), "best": best, "trials": trials}


class Log:
    """What was done, one JSON object a line: {"key": ..., "found": ..., "seconds": ...}."""

    def __init__(self, path: Path) -> None:
        self.path, self.found, self.seconds = path, {}, {}
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        for line in map(json.loads, lines):
            self._keep(line)

    def _keep(self, line: dict[str, Any]) -> None:
        name = json.dumps(line["key"], sort_keys=True)
        self.found[name], self.seconds[name] = line["found"], line["seconds"]

    def once(self, key: dict[str, Any], work: Callable[[], Any]) -> Any:
        name = json.dumps(key, sort_keys=True)
        if name not in self.found:
            print(" ".join(f"{k}={v}" for k, v in key.items() if k != "model"), file=sys.stderr)
            began = time.perf_counter()
            line = {"key": key, "found": work(), "seconds": round(time.perf_counter() - began, 1)}
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            self._keep(line)
        return self.found[name]


def stream_of(brain: Brain, coded: perplexity.Coded) -> list[int]:
    return [brain.tokenizer.bos_id, *itertools.chain.from_iterable(coded.ids)]


def head(path: Path, brain: Brain, wikitext: bool, tokens: int) -> list[int]:
    """<bos> and the first ``tokens`` of a text."""
    return stream_of(brain, perplexity.code(text.read_text(path), brain, wikitext))[: tokens + 1]


def valid_table(brain: Brain, valid: list[int], cache: dict[str, Any], log: Log, key: dict[str, Any]) -> dict[str, Any]:
    """Nats per token of each arm and of each cache on the tokens that the caches were tuned on."""
    found = {"off": cache["static_nats_per_token"]}
    for arm in arms.of(brain)[:-1]:
        found[arm] = log.once(key | {"method": arm}, lambda arm=arm: float(through(brain, valid, arm).nats.mean()))
    return found | {f"cache {size}": best["nats_per_token"] for size, best in cache["best"].items()}


def rows(nats: dict[str, list[float]], words: np.ndarray, tokens: int, flags: np.ndarray) -> dict[str, Any]:
    """The table: nats of each article under each method -> word perplexity, drop against static, share of dynamic's gain."""
    picks = np.random.default_rng(0).integers(0, len(words), (1000, len(words)))

    def interval(statistic: Callable[[np.ndarray], Any]) -> list[float] | None:
        if len(words) < 2:
            return None
        return [float(x) for x in np.quantile([statistic(pick) for pick in picks], [0.025, 0.975])]

    def total(name: str, pick: np.ndarray) -> float:
        return float((np.array(nats[name]) + flags)[pick].sum())

    everything, table = np.arange(len(words)), {}
    for name in nats:

        def drop(pick: np.ndarray, name: str = name) -> float:
            return 100 * (1 - math.exp((total(name, pick) - total("static", pick)) / words[pick].sum()))

        def share(pick: np.ndarray, name: str = name) -> float:
            gain = total("static", pick) - total("dynamic", pick)
            return 100 * (total("static", pick) - total(name, pick)) / gain

        table[name] = {
            "word_perplexity": math.exp(total(name, everything) / words.sum()),
            "nats_per_token": sum(nats[name]) / tokens,
            "drop_percent": drop(everything),
            "drop_interval": interval(drop),
            "percent_of_dynamic_gain": share(everything),
            "percent_of_dynamic_gain_interval": interval(share),
        }
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("text", type=Path, nargs="?", help="what is scored; without it the tuning tokens are")
    parser.add_argument("--wikitext", action="store_true", help="undo WikiText's tokenization, as `neuro eval` does")
    parser.add_argument("--valid", type=Path, required=True, help="what everything is tuned on")
    parser.add_argument("--train", type=Path, help="where gradients get their root mean square from")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a configuration key")
    parser.add_argument("--log", type=Path, required=True, help="JSON lines; continued where it exists")
    parser.add_argument("--articles", type=int, help="only the first ones of the text")
    parser.add_argument("--tuning-tokens", type=int, default=12_000)
    parser.add_argument("--statistics-tokens", type=int, default=32_768)
    parser.add_argument("--rates", type=float, nargs="+", default=[1.5e-4, 3e-4, 6e-4])
    parser.add_argument("--floors", type=float, nargs="+", default=[0.3, 1.0, 3.0])
    parser.add_argument("--decays", type=float, nargs="+", default=[1e-3, 1e-2], help="besides none")
    options = parser.parse_args()
    if options.text and not options.train:
        parser.error("a text needs --train too")
    torch.set_num_threads(1)
    brain = neuro.load(options.model, "cpu", sets=options.set).eval()
    before = folder.fingerprint(brain)
    log = Log(options.log)

    @functools.cache
    def learner() -> Learner:
        print(f"gradients over {options.statistics_tokens} tokens of {options.train.name}", file=sys.stderr)
        return Learner(brain, head(options.train, brain, options.wikitext, options.statistics_tokens))

    valid = head(options.valid, brain, options.wikitext, options.tuning_tokens)
    tuning = {"model": before, "tuned on": options.valid.name, "tokens": len(valid) - 1}
    cache = log.once(tuning | {"method": "cache"}, lambda: tuned_cache(through(brain, valid, "off"), valid[1:]))
    if options.text is None:
        report = {"benchmark": "dynamic_evaluation", "model": options.model, "text": options.valid.name, "seed": 0}
        report |= {"tokens": len(valid) - 1, "machine": _machine.describe(), "cache": cache["best"]}
        print(json.dumps(report | {"nats_per_token": valid_table(brain, valid, cache, log, tuning)}, indent=1))
        return
    learning = {"statistics": f"{options.train.name}:{options.statistics_tokens}"}
    trials: dict[tuple[float, ...], float] = {}  # nats per token of (rate, floor, decay)

    def attempt(*setting: float) -> None:
        key = tuning | learning | {"method": "dynamic"} | dict(zip(SETTING, setting, strict=True))
        found = log.once(key, lambda: float(learner().run(valid, *setting).nats.mean()))
        trials[setting] = found if math.isfinite(found) else math.inf

    for rate, floor in itertools.product(options.rates, options.floors):
        attempt(rate, floor, 0.0)
    best = min(trials, key=lambda setting: trials[setting])
    for decay in options.decays:
        attempt(*best[:2], decay)
    best = min(trials, key=lambda setting: trials[setting])
    chosen = learning | dict(zip(SETTING, best, strict=True))
    key = tuning | chosen | {"method": "dynamic + cache"}
    cache_too = log.once(key, lambda: tuned_cache(learner().run(valid, *best), valid[1:]))

    coded = perplexity.code(text.read_text(options.text), brain, options.wikitext)
    kept = slice(options.articles)
    coded = perplexity.Coded(coded.ids[kept], coded.words[kept], coded.flag_nats[kept], coded.size_bytes)
    stream = stream_of(brain, coded)
    ends = np.cumsum([len(unit) for unit in coded.ids])[:-1]

    def by_article(nats: np.ndarray) -> list[float]:
        return [float(part.sum()) for part in np.split(nats, ends)]

    def with_caches(name: str, found: Pass, settings: dict[str, Any]) -> dict[str, Any]:
        scored = {name: by_article(found.nats), "sha256": hashlib.sha256(found.nats.tobytes()).hexdigest()}
        for size, setting in settings.items():
            chances = cached(found, stream[1:], (int(size),), (setting["theta"],))[0, 0]
            label = f"cache {size}" if name == "static" else f"{name} + cache {size}"
            scored[label] = by_article(mixed(found.nats, chances, setting["lambda"]))
        return scored

    scoring = {"model": before, "scored": options.text.name, "tokens": len(stream) - 1}
    key = scoring | {"method": "static and cache", "cache": cache["best"]}
    static = log.once(key, lambda: with_caches("static", through(brain, stream, "off"), cache["best"]))
    nats = {name: found for name, found in static.items() if name != "sha256"}
    for arm in arms.of(brain)[:-1]:
        key = scoring | {"method": arm}
        nats[arm] = log.once(key, lambda arm=arm: by_article(through(brain, stream, arm).nats))
    key = scoring | chosen | {"method": "dynamic and cache", "cache": cache_too["best"]}
    learned = log.once(key, lambda: with_caches("dynamic", learner().run(stream, *best), cache_too["best"]))
    nats |= {name: found for name, found in learned.items() if name != "sha256"}
    print("static once more", file=sys.stderr)
    after = hashlib.sha256(through(brain, stream, "off").nats.tobytes()).hexdigest()
    assert folder.fingerprint(brain) == before, "a weight of the brain has changed"
    report = {
        "benchmark": "dynamic_evaluation",
        "model": options.model,
        "text": options.text.name,
        "articles": len(coded.words),
        "tokens": len(stream) - 1,
        "words": sum(coded.words),
        "machine": _machine.describe(),
        "tuned_on": {"text": options.valid.name, "tokens": len(valid) - 1},
        "segment": brain.config.plasticity_span,
        "dynamic": chosen | {"nats_per_token_on_valid": trials[best]},
        "cache": cache["best"],
        "dynamic_and_cache": cache_too["best"],
        "static_nats_per_token_on_valid": cache["static_nats_per_token"],
        "rows": rows(nats, np.array(coded.words), len(stream) - 1, np.array(coded.flag_nats)),
        "static_is_bit_identical_afterwards": "yes" if after == static["sha256"] else "no",
        "seconds": round(sum(log.seconds.values()), 1),
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
