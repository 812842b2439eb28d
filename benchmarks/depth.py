"""What do skipped layers cost in quality, and what do they save? `thalamus.skips=layer` against less of the same brain.

    python benchmarks/depth.py train --data $NEURO_DATA --out DIR --arm routed:0.4 --seed 0
    python benchmarks/depth.py train --data $NEURO_DATA --out TAUGHT --arm routed:0.4 --seed 0 --teacher DIR/dense-8-0/model
    python benchmarks/depth.py score --data $NEURO_DATA --out DIR --seed 0
    python benchmarks/depth.py decode

train: one arm on WikiText-2. ``dense:L`` runs every one of L layers for every token, ``routed:S`` is held to a share S of
(token, layer) pairs, ``random:S`` draws them by lot with chance S. All arms have the same data, order, steps, rates, and, at
equal L, parameters (those of a router that nobody asks included). A byte BPE of the training split; no hippocampus, no
procedural memory, amygdala or endocrine system: it is the cortex that skips.

With a third number, ``routed:S:N``, every feed-forward has N branches of which a token goes through its own
(`neuro.layers.branched_feedforward`): more parameters at the same products. ``random:S:N`` draws branches by lot as well.

With --teacher half of the loss is the cross entropy with what a trained dense model predicts at each token, which reads the
same text beside the one that learns (born-again networks, arXiv:1805.04770). Its training and its reading are compute that the
arms without a teacher do not have: only arms with the same teacher are like each other. With score it is one more arm.

score: nats per token over the first tokens of every article of a split, each article a stream of its own; products of the
whole model, vocabulary included, as integers (`neuro.accounting`). The difference of two arms comes with its 95 % interval
from a paired bootstrap over articles: another seed is not in it. ``as much as routed:S``: a dense model of as many products, by
linear interpolation, article by article, between the two that were trained next to it.

decode: a brain of GPT-2's width and depth with random weights and dense feed-forwards, one thread, one token at a time (and
64), layers skipped by lot. Rounds are interleaved; process time. gain = share of time saved / share of products saved.

Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics as stats
import time
from pathlib import Path
from typing import Any

import _machine
import numpy as np
import torch
from spiking_cortex import documents
from torch import Tensor

from neuro import accounting, corpus, folder, presets
from neuro.brain import Brain
from neuro.config import RunConfig, apply_sets
from neuro.evaluate import statistics
from neuro.evaluate.stream import evaluating
from neuro.layers.branched_feedforward import BranchedFeedforward
from neuro.layers.mixture_of_depths import DepthRouter
from neuro.regions import cortex
from neuro.session import Session
from neuro.train import loop, objective


class Every(DepthRouter):
    """No choice: every layer for every token."""

    def forward(self, x: Tensor, drive: Tensor) -> Tensor:
        return torch.ones_like(drive)


class Lot(DepthRouter):
    """Layers drawn by lot, whatever the token."""

    chance = 1.0
    generator = torch.Generator()

    def forward(self, x: Tensor, drive: Tensor) -> Tensor:
        return (torch.rand(drive.shape, generator=self.generator) < self.chance).to(drive.dtype)


class Drawn(BranchedFeedforward):
    """Branches drawn by lot, whatever the token."""

    def scan(self, x: Tensor, route: Tensor, state: tuple[()], token: Tensor) -> Any:
        lot = torch.randint(len(self.table), token.shape, generator=Lot.generator)
        return super().scan(x, route, state, lot)


class Taught:
    """`objective.window_loss` with a trained dense brain's predictions as half of the target."""

    def __init__(self, place: Path) -> None:
        cortex.DepthRouter = Every  # type: ignore[misc]
        self.teacher = folder.load(place, "cpu").eval().requires_grad_(False)
        self.state = self.initial = None
        self.said: list[Tensor] = []
        self.loss, self.read, self.fresh = objective.window_loss, objective._read, objective.fresh_rows
        objective.window_loss, objective._read, objective.fresh_rows = self.window_loss, self._read, self.fresh_rows

    def fresh_rows(self, state: Any, initial: Any, fresh: Tensor) -> Any:
        if self.state is None:
            self.state = self.initial = self.teacher.init_state(len(fresh))
        self.state = self.fresh(self.state, self.initial, fresh)
        return self.fresh(state, initial, fresh)

    def _read(self, brain: Brain, span: Tensor, state: Any) -> Any:
        out, after = self.read(brain, span, state)
        self.said.append(out.logits)
        return out, after

    def window_loss(self, brain: Brain, tokens: Tensor, *given: Any) -> objective.WindowLoss:
        self.said = []
        loss, goals = self.loss(brain, tokens, *given), []
        with torch.no_grad():
            for span in tokens.split(self.teacher.config.plasticity_span, 1):
                out, self.state = self.read(self.teacher, span, self.state)
                goals.append(out.logits)
        goal, said = torch.cat(goals, 1).softmax(-1), torch.cat(self.said, 1).log_softmax(-1)
        return loss._replace(total=(loss.total - (goal * said).sum(-1).mean()) / 2)


def configured(options: argparse.Namespace, arm: str) -> RunConfig:
    kind, number, *branches = arm.split(":")
    layers = int(number) if kind == "dense" else options.layers
    off = ("amygdala", "endocrine", "hippocampus", "procedural")
    sets = [
        *(f"brain.{name}.enabled=false" for name in off),
        "brain.thalamus.skips=layer",
        f"brain.thalamus.route_budget={1.0 if kind == 'dense' else float(number)}",
        f"brain.d_model={options.width}",
        f"brain.cortex.feedforward_width={4 * options.width}",
        f"brain.cortex.mixers={','.join((['recurrence', 'recurrence', 'window'] * layers)[:layers])}",
        "brain.cortex.heads=2",
        f"brain.cortex.feedforwards={','.join(['branched' if branches else 'dense'] * layers)}",
        *(f"brain.cortex.branches={n}" for n in branches),
        f"data.train={options.out / 'train'}",
        f"data.valid={options.out / 'valid'}",
        f"data.tokenizer={options.out / 'tokenizer.json'}",
        f"train.steps={options.steps}",
        f"train.batch={options.batch}",
        f"train.warmup_steps={options.steps // 10}",
        f"train.seed={options.seed}",
        f"train.learning_rate={options.learning_rate}",
        f"train.eval_every={max(1, options.steps // 4)}",
        f"train.spans_per_step={options.spans}",
        "train.rehearsal=0",
    ]
    return apply_sets(presets.small(), sets)


def routed(arm: str, seed: int) -> type[DepthRouter]:
    """The router of an arm; the branches of one by lot are drawn as well."""
    kind, number, *_ = arm.split(":")
    if kind != "random":
        cortex.BranchedFeedforward = BranchedFeedforward  # type: ignore[misc]
        return DepthRouter if kind == "routed" else Every
    cortex.BranchedFeedforward = Drawn  # type: ignore[misc]
    Lot.chance = float(number)
    Lot.generator.manual_seed(seed)
    return Lot


def train(options: argparse.Namespace) -> dict[str, Any]:
    documents(options.data, options.out, options.vocab)
    if options.teacher:
        Taught(options.teacher)
    cortex.DepthRouter = routed(options.arm, options.seed)  # type: ignore[misc]
    place = options.out / f"{options.arm.replace(':', '-')}-{options.seed}"
    started = time.process_time()
    loop.train(configured(options, options.arm), place, "cpu")
    return {"arm": options.arm, "cpu_seconds": round(time.process_time() - started, 1)}


def articles(options: argparse.Namespace, brain: Brain) -> Tensor:
    """The first tokens of every article that has as many, [articles, tokens]."""
    rows = []
    for text in corpus.read_documents(str(options.out / options.split)):
        ids = corpus.encode([text], brain.tokenizer)[: options.tokens + 1]
        if len(ids) == options.tokens + 1:
            rows.append(ids.astype(np.int64))
    return torch.from_numpy(np.stack(rows))


def scored(brain: Brain, ids: Tensor) -> tuple[np.ndarray, accounting.Tally]:
    """Nats of every article, and what was counted."""
    tally, state, nats = accounting.Tally(brain), brain.init_state(len(ids)), torch.zeros(len(ids), dtype=torch.float64)
    with evaluating(brain), torch.no_grad():
        for span in ids.split(brain.config.plasticity_span, 1):
            out = brain.scan(span, state)
            nats += out.aux.surprise.double().sum(1)
            state, commit = brain.commit(out.state)
            tally.span([out.events], commit)
    return nats.numpy(), tally


def products(brain: Brain, tally: accounting.Tally) -> int:
    load = accounting.workload(brain, tally, "depth", (1.0, 1.0))
    return sum(row.count for row in load.operations if row.kind == "mac")


def score(options: argparse.Namespace) -> dict[str, Any]:
    found, rows = {}, {}
    places = {
        ":".join(place.parent.name.split("-")[:-1]): place for place in options.out.glob(f"*-{options.seed}/model")
    }
    if options.teacher:
        places["teacher"] = options.teacher
    for arm, place in sorted(places.items()):
        cortex.DepthRouter = Every if arm == "teacher" else routed(arm, options.seed)  # type: ignore[misc]
        brain = folder.load(place, "cpu")
        ids = articles(options, brain)
        found[arm], tally = scored(brain, ids)
        rows[arm] = {
            "nats": float(found[arm].sum()) / (ids.shape[0] * options.tokens),
            "products": products(brain, tally),
            "tokens": tally.tokens,
            "ran": [round(count / tally.tokens, 3) for count in tally.routed],
        }
    whole = max(rows, key=lambda arm: rows[arm]["products"])
    for row in rows.values():
        row["of_dense"] = row["products"] / rows[whole]["products"]
    found |= shallower(found, rows)
    pairs = {}
    for arm in (arm for arm in rows if arm.startswith("routed")):
        for other in found:
            if other == arm or (other.startswith("as much") and not other.endswith(arm)):
                continue
            table = [np.array([[options.tokens, a - b]]) for a, b in zip(found[arm], found[other], strict=True)]
            tokens, gap = statistics.resampled_sums(table)
            mean = float((found[arm] - found[other]).sum()) / (len(table) * options.tokens)
            pairs[f"{arm} less {other}"] = {"nats": mean, "interval": statistics.interval(gap / tokens)}
    return {"split": options.split, "articles": len(ids), "arms": rows, "differences": pairs}


def shallower(found: dict[str, np.ndarray], rows: dict[str, Any]) -> dict[str, np.ndarray]:
    """For each routed arm what a dense model of as many products would have, between the two dense ones next to it.

    Without branches, whatever the routed one has.
    """
    plain = [arm for arm in rows if arm.startswith("dense") and arm.count(":") == 1]
    dense = sorted(plain, key=lambda arm: rows[arm]["products"])
    between = {}
    for arm in (arm for arm in rows if arm.startswith("routed")):
        fewer = [other for other in dense if rows[other]["products"] <= rows[arm]["products"]]
        more = [other for other in dense if rows[other]["products"] > rows[arm]["products"]]
        if fewer and more:
            low, high = rows[fewer[-1]]["products"], rows[more[0]]["products"]
            share = (rows[arm]["products"] - low) / (high - low)
            between[f"as much as {arm}"] = (1 - share) * found[fewer[-1]] + share * found[more[0]]
    return between


def decode(options: argparse.Namespace) -> dict[str, Any]:
    layers = 12
    sets = [
        *(f"{name}.enabled=false" for name in ("hippocampus", "procedural")),
        "thalamus.skips=layer",
        f"cortex.feedforwards={','.join([options.feedforward] * layers)}",
    ]
    cortex.DepthRouter = Lot  # type: ignore[misc]
    torch.manual_seed(0)
    brain = Brain(apply_sets(presets.gpt2_size().brain, sets)).eval()
    ids = torch.randint(0, brain.config.vocab_size, (1, options.context), generator=torch.Generator().manual_seed(0))
    session = Session(brain)
    session.feed(ids)
    start, report = session.snapshot(), {}
    for name, length in (("token by token", 1), ("a span at once", brain.config.plasticity_span)):
        times: dict[float, list[float]] = {share: [] for share in options.shares}
        made = {}
        for _ in range(options.rounds + 1):  # the first warms up
            for share in options.shares:
                Lot.chance = share
                Lot.generator.manual_seed(1)
                tally = accounting.Tally(brain)
                session = Session(brain, start, observers=[tally])
                begun = time.process_time()
                for at in range(0, options.context, length):
                    session.feed(ids[:, at : at + length])
                times[share].append(time.process_time() - begun)
                session.commit()
                made[share] = products(brain, tally)
        whole = max(options.shares)
        for share in options.shares:
            seconds = times[share][1:]
            row: dict[str, Any] = {
                "milliseconds_per_token": [
                    round(1e3 * f(seconds) / options.context, 3) for f in (stats.median, min, max)
                ],
                "products_per_token": made[share] // options.context,
            }
            if share < whole:
                saved = 1.0 - made[share] / made[whole]
                quicker = [1.0 - a / b for a, b in zip(seconds, times[whole][1:], strict=True)]
                row["products_saved"] = saved
                row["time_saved"] = [f(quicker) for f in (stats.median, min, max)]
                row["gain"] = stats.median(quicker) / saved
            report[f"{name}, {share}"] = row
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("train", "score", "decode"))
    parser.add_argument("--data", type=Path, help="folder with wikitext-2/")
    parser.add_argument("--out", type=Path, help="for the corpus and the runs; the place to resume from")
    parser.add_argument("--arm", default="routed:0.5")
    parser.add_argument("--teacher", type=Path, help="folder of a trained dense model to learn from as well")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--spans", type=int, default=2)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--vocab", type=int, default=1024)
    parser.add_argument("--learning-rate", type=float, default=6e-3)
    parser.add_argument("--split", default="valid", choices=("valid", "test"))
    parser.add_argument("--tokens", type=int, default=1024, help="scored of each article")
    parser.add_argument("--context", type=int, default=128, help="tokens of a round of decoding")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--feedforward", default="dense", choices=("dense", "branched"), help="of what is decoded")
    parser.add_argument("--shares", type=float, nargs="+", default=[1.0, 0.75, 0.5])
    options = parser.parse_args()
    torch.set_num_threads(1)
    record = {"benchmark": f"depth {options.what}", "machine": _machine.describe()}
    record["settings"] = {k: v for k, v in vars(options).items() if k not in ("data", "out", "what", "teacher")}
    record["settings"]["taught"] = options.teacher is not None
    record["found"] = {"train": train, "score": score, "decode": decode}[options.what](options)
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
