"""The training run as a function: reads text, learns, writes a checkpoint, a model folder and a loss curve."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

import backends
from neuro import atomic, corpus, folder, tasks, training_text
from neuro import config as configs
from neuro.brain import Brain
from neuro.config import RunConfig, TrainConfig
from neuro.errors import FormatError, NeuroError, NeuroWarning, UsageError
from neuro.layers import dropout, spiking_encoder
from neuro.regions.thalamus import Thalamus
from neuro.state import detach
from neuro.tokenizer import Tokenizer
from neuro.train import checkpoint, compiled, distributed, gradient, objective, optimizer, spelling
from neuro.train.average import Average
from neuro.train.distributed import Team, sum_of_squares
from neuro.train.examples import Examples, held_out_answers
from neuro.train.quantized import Quantized
from neuro.train.sampled import Sampler
from neuro.train.spelling import Spelling
from neuro.train.streams import Streams

Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Source:
    """What a run learns from and is held against."""

    tokenizer: Tokenizer
    streams: Streams | Examples
    held_out: Callable[[Brain], Record]  # the measures of an evaluation, ``valid_nats`` among them; pure
    train_tokens: int | None  # of the training text; None where examples are drawn without end
    sampler: Sampler | None = None  # of the vocabulary; None takes all of it
    seen: training_text.TrainingText | None = None  # what an evaluation is not to be made on


def train(
    run: RunConfig, out: Path, backend: str = "auto", report: Callable[[Record], None] = lambda record: None
) -> Brain:
    """Train into the folder ``out``, resuming from its checkpoint when there is one.

    Writes ``config.toml`` (fully resolved), ``tokenizer.json``, ``checkpoint.safetensors``, ``log.jsonl`` and the model
    folder ``model/``. An interrupt saves a checkpoint first.

    Args:
        run: brain, data and training. The vocabulary of the brain follows the tokenizer: the run's own when it resumes,
            otherwise the one that ``data.tokenizer`` asks for; of a task it is the brain's, and every word a number.
        report: called with one record per step and per evaluation.

    Warns:
        NeuroWarning: for each of `neuro.config.cautions`.

    Raises:
        NeuroError: a gradient that is not finite (after saving), or files that cannot be read or written.
        UsageError: fewer steps than the run in ``out`` has behind it.
    """
    for caution in configs.cautions(run.brain):
        warnings.warn(caution, NeuroWarning, stacklevel=2)
    with distributed.team(run.train, backend) as (team, chosen):
        return _train(run, out, chosen, report, team)


def _train(run: RunConfig, out: Path, chosen: backends.Backend, report: Callable[[Record], None], team: Team) -> Brain:
    t = run.train
    start = folder.locate(t.init) if t.init else None
    path, kept = out / "checkpoint.safetensors", out / "tokenizer.json"
    # Without a checkpoint, what lies there is of a try that failed, perhaps on another text.
    data = _source(run, start, kept if path.exists() and kept.exists() else None)
    run = configs.apply_sets(run, [f"brain.vocab_size={data.tokenizer.vocab_size}"])
    torch.manual_seed(t.seed)
    brain = Brain(run.brain, chosen)
    brain.tokenizer = data.tokenizer
    if start:
        folder.adopt_weights(brain, start)
    if t.spelling:
        brain.spelling = Spelling(brain, data.tokenizer, t.spelling, fresh=start is None)
    adam = optimizer.make(brain, chosen, t.learning_rate, t.weight_decay, t.optimizer, t.only)
    average = Average(brain, t.average)
    grid = Quantized(brain, t.quantize)
    streams = data.streams
    initial = brain.init_state(t.batch)
    state = initial
    progress: dict[str, Any] = {"step": 0, "tokens": 0, "seconds": 0.0}
    if path.exists():
        state, progress = checkpoint.restore(path, brain, adam, average, state, streams, run)
        if progress["step"] > t.steps:
            raise UsageError(
                f"train.steps: got {t.steps}, but the run in {out} has {progress['step']} steps behind it.",
                f"Ask for at least {progress['step']}, or choose another --out.",
            )
    team.divide(brain, adam)
    initial, state = team.own(initial), team.own(state)
    # Only now: what does not fit the checkpoint must not replace what does.
    if team.rank == 0:
        data.tokenizer.save(kept)
        atomic.write_text(out / "config.toml", configs.to_toml(run))
    log = _read_log(out / "log.jsonl", progress["step"])
    started = time.monotonic() - progress["seconds"]

    def save() -> None:
        progress["seconds"] = time.monotonic() - started
        # The log first: one that is ahead of the checkpoint is cut when resuming, one that is behind has a hole.
        if team.rank == 0:
            atomic.write_text(out / "log.jsonl", "".join(json.dumps(record) + "\n" for record in log))
        checkpoint.save(path, brain, adam, average, state, streams, run, progress, team)

    def emit(record: Record) -> None:
        log.append(record)
        if team.rank == 0:
            report(record)

    with compiled.scans(brain, t.compile), _interrupts(team.signals) as interrupted:
        while progress["step"] < t.steps:
            step, position = progress["step"], streams.state()
            window = streams.window(t.spans_per_step)
            tokens, fresh = (
                team.own(torch.from_numpy(array)).to(chosen.device) for array in (window.tokens, window.fresh)
            )
            scored = None if window.scored is None else team.own(torch.from_numpy(window.scored))
            spiking_encoder.anneal(brain, step, t.spike_anneal * t.steps)
            generator = dropout.begin(brain, t.dropout, _draw(t.seed, step), chosen.device)
            entering = objective.fresh_rows(state, initial, fresh)
            adam.zero_grad(set_to_none=True)
            with grid.held():
                if data.sampler is None:
                    loss = gradient.of_window(brain, tokens, entering, t, scored, team)
                else:
                    loss = objective.sampled_loss(brain, data.sampler.draw(step, tokens), entering, t, generator)
                    loss.total.backward()
            norm = clip_gradient(brain.parameters(), t.clip_norm, team.squares)
            if not math.isfinite(norm):
                streams.restore(position)
                save()
                raise NeuroError(
                    f"train: the gradient of step {step + 1} is not finite (loss {float(loss.nats):.3f}).",
                    f"The state before it is saved in {path}; lower train.learning_rate and run again.",
                )
            for group in adam.param_groups:
                group["lr"] = learning_rate(t, step)
            adam.step()
            average.update()
            if "thalamus" in brain.regions:
                cast(Thalamus, brain.regions["thalamus"]).hold_budget(loss.route)
            state = detach(loss.state)
            progress["step"] += 1
            progress["tokens"] += window.tokens.size
            emit(
                {
                    "event": "step",
                    "step": step + 1,
                    "nats": float(loss.nats),
                    "spike_rate": float(loss.spike_rate),
                    "route": float(loss.route),
                    "gradient_norm": norm,
                    "learning_rate": learning_rate(t, step),
                    "tokens": progress["tokens"],
                    "seconds": round(time.monotonic() - started, 2),
                }
            )
            if progress["step"] % t.eval_every == 0 or progress["step"] == t.steps:
                with average.held(), spelling.held(brain), grid.held():
                    found = team.first_alone(lambda: data.held_out(brain))
                emit({"event": "eval", "step": step + 1, **(found or {})})
                save()
            if team.any(bool(interrupted)):
                save()
                raise KeyboardInterrupt
    if not progress["step"]:  # a run of no steps: one to go on from, like any other
        save()
    brain = team.undivided(brain)
    spiking_encoder.anneal(brain, 0, 0.0)
    dropout.begin(brain, 0.0, 0, chosen.device)
    average.settle()
    spelling.settle(brain)
    grid.settle()
    brain.requires_grad_(True).eval()
    if team.rank:
        return brain
    about: Record = {"steps": progress["step"], "tokens": progress["tokens"], "seconds": round(progress["seconds"], 1)}
    about |= {"train_tokens": data.train_tokens, "valid_nats": log[-1].get("valid_nats") if log else None}
    before = training_text.read(start) if start else None
    seen = [made for made in (before, data.seen) if made is not None]
    brain.seen = functools.reduce(training_text.joined, seen) if seen else None
    folder.save(brain, out / "model", about | {"train": configs.to_dict(t)})
    return brain


def _source(run: RunConfig, start: Path | None, kept: Path | None) -> Source:
    """A text with the tokenizer of ``start`` or ``kept``, if there is one, or a recall task."""
    t, data, vocab = run.train, run.data, run.brain.vocab_size
    if t.sampled and run.brain.points:
        raise UsageError(
            "train.sampled: a pointer gives chances to stored tokens, which may be no candidates.",
            "Set train.sampled=0, or brain.hippocampus.pointer=false and train the pointer later (train.init, train.only).",
        )
    if t.sampled and run.brain.fast_bias:
        raise UsageError(
            "train.sampled: a fast bias counts what all words of the vocabulary were expected to do.",
            "Set train.sampled=0 or brain.procedural.bias_rate=0: nothing of it is trained, so it can be set later.",
        )
    if t.sampled and "branched" in run.brain.cortex.feedforwards:
        raise UsageError(
            "train.sampled: a branch belongs to a token's place in the whole vocabulary.",
            "Set train.sampled=0, or brain.cortex.feedforwards without 'branched'.",
        )
    if tasks.named(data.train):
        if t.sampled:
            raise UsageError(
                "train.sampled: a recall task has few words and all of them count.", "Set train.sampled=0."
            )
        valid = data.valid or data.train
        examples = Examples(data.train, vocab, t.batch, t.seed)
        tasks.parse(valid, vocab)

        def answers(brain: Brain) -> Record:
            return held_out_answers(brain, valid, t.eval_tokens, t.seed)

        return Source(Tokenizer.numbered(vocab), examples, answers, None)
    if start:
        data = dataclasses.replace(data, tokenizer=str(start / "tokenizer.json"))
    text = corpus.prepare(data, vocab, kept)
    span = run.brain.plasticity_span
    if len(text.train) < span:
        raise UsageError(
            f"{data.train}: got {len(text.train)} tokens to learn from, expected at least one span ({span}).",
            "Give more text, or a smaller brain.plasticity_span.",
        )
    streams = Streams(text.train, text.starts, t.batch, span, t.rehearsal, t.seed)

    def nats(brain: Brain) -> Record:
        return {"valid_nats": held_out_nats(brain, text.valid, t.eval_tokens)}

    sampler = Sampler(text.train, text.tokenizer.vocab_size, t.sampled, t.seed) if t.sampled else None
    return Source(text.tokenizer, streams, nats, int(text.train.size), sampler, text.seen)


def _draw(seed: int, step: int) -> int:
    """The seed of what a step drops: its own, so that a run that goes on drops the same."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0]) >> 1


def learning_rate(t: TrainConfig, step: int) -> float:
    """Linear warm-up, then a cosine to ``final_share``."""
    if step < t.warmup_steps:
        return t.learning_rate * (step + 1) / t.warmup_steps
    done = (step - t.warmup_steps) / max(1, t.steps - t.warmup_steps)
    return t.learning_rate * (t.final_share + (1.0 - t.final_share) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done))))


def clip_gradient(
    parameters: Iterable[torch.nn.Parameter], most: float, squares: Callable[[list[Tensor]], Tensor] = sum_of_squares
) -> float:
    """Scale all gradients so that their joint norm is at most ``most`` -> the norm before."""
    grads = [p.grad for p in parameters if p.grad is not None]
    norm = float(squares(grads).sqrt())
    if norm > most:
        for grad in grads:
            grad.mul_(most / norm)
    return norm


@torch.no_grad()
def held_out_nats(brain: Brain, tokens: np.ndarray, most: int, batch: int = 8) -> float:
    """Mean nats per token over the first ``most`` tokens, as ``batch`` fresh streams, memory on; pure."""
    most = min(most, len(tokens))
    batch = min(batch, max(1, most // 2))
    length = most // batch
    if length < 2:
        raise UsageError("train: the validation text has fewer than two tokens.", "Give a longer data.valid.")
    rows = torch.from_numpy(tokens[: batch * length].astype(np.int64)).reshape(batch, length).to(brain.backend.device)
    state, nats, count = brain.init_state(batch), 0.0, 0.0
    training = brain.training
    brain.eval()
    try:
        for span in rows.split(brain.config.plasticity_span, 1):
            out = brain.scan(span, state)
            surprise = out.aux.surprise.double() if brain.backend.fp64 else out.aux.surprise
            nats += float(surprise.sum())
            count += float(out.aux.predicted.sum())
            state = brain.commit(out.state)[0]
    finally:
        brain.train(training)
    return nats / count


@contextlib.contextmanager
def _interrupts(signals: Iterable[signal.Signals]) -> Iterator[list[int]]:
    """Collect these signals instead of raising them, so that a step is never cut in half."""
    seen: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield seen
        return
    before = {which: signal.signal(which, lambda number, frame: seen.append(number)) for which in signals}
    try:
        yield seen
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)


def _read_log(path: Path, step: int) -> list[Record]:
    """Records up to ``step``: what came after the checkpoint will be made again."""
    if not path.exists():
        return []
    try:
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
        return [record for record in records if record["step"] <= step]
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(
            f"{path}: not a log of this program ({error}).", "Delete it: the run goes on without the curve so far."
        ) from error
