"""Synthetic recall tasks: seeded rows of tokens, and which of those tokens the past of the row already says.

    tokens [B,T]   ids below ``vocab``; 0 and 1 (`<eos>`, `<unk>` of the numbered vocabulary) are no key and no value
    scored [B,T]   true where the token is an answer: it must be predicted from the tokens before it

A question is a key, its answer the token after it. A key is asked once a row, so an answer that has come helps no other.
Lower half of the vocabulary: keys; upper half: values (`delayed` splits otherwise, see there).
"""

from __future__ import annotations

import dataclasses
import typing
from typing import ClassVar, NamedTuple

import numpy as np

from neuro.errors import UsageError, nearest

PREFIX = "task:"
FIRST = 2  # the lowest id of a key


class Rows(NamedTuple):
    """Examples of one length, each a stream of its own."""

    tokens: np.ndarray  # [B, T] int64
    scored: np.ndarray  # [B, T] bool


@dataclasses.dataclass(frozen=True)
class Task:
    """One task at one size; ``weight`` is its share in a mixture."""

    name: ClassVar[str]
    weight: int = 1

    @property
    def length(self) -> int:
        """Tokens of a row."""
        raise NotImplementedError

    def values(self, vocab: int) -> range:
        """The ids an answer may have; one over their number is chance."""
        return range(vocab // 2, vocab)

    def keys(self, vocab: int) -> range:
        return range(FIRST, vocab // 2)

    def needs(self) -> tuple[int, int]:
        """Distinct (keys, values) of a row."""
        raise NotImplementedError

    def rows(self, random: np.random.Generator, count: int, vocab: int) -> Rows:
        """``count`` rows drawn from ``random``."""
        raise NotImplementedError

    def check(self, vocab: int) -> None:
        """Raises UsageError: numbers below 1, or a vocabulary with too few keys or values."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value < 1:
                _refuse(self, f"{field.name}={value}", "at least 1", f"Set {field.name}.")
        for what, have, need in zip(
            ("keys", "values"), (self.keys(vocab), self.values(vocab)), self.needs(), strict=True
        ):
            if len(have) < need:
                _refuse(
                    self, f"{len(have)} {what} in a vocabulary of {vocab}", f"at least {need}", "Set brain.vocab_size."
                )


@dataclasses.dataclass(frozen=True)
class Mqar(Task):
    """Multi-query associative recall (Arora et al. 2023, arXiv:2312.04927; the generator of HazyResearch/zoology).

    ``pairs`` of key and value, then T - 2 pairs tokens in which every key comes again once, at an even place drawn
    without replacement by a power law with exponent .01 - 1; what is no question and no answer is any id.
    Published rows hold any id where the answer stands here, and get the answer as a label.
    """

    name = "mqar"
    T: int = 256
    pairs: int = 16

    POWER: ClassVar[float] = 0.01

    @property
    def length(self) -> int:
        return self.T

    def needs(self) -> tuple[int, int]:
        return self.pairs, self.pairs

    def check(self, vocab: int) -> None:
        super().check(vocab)
        if self.T % 2 or self.T < 4 * self.pairs:
            expected = f"an even number, at least four times pairs ({4 * self.pairs})"
            _refuse(self, f"T={self.T}", expected, "Set T or pairs.")

    def rows(self, random: np.random.Generator, count: int, vocab: int) -> Rows:
        keys = distinct(random, count, self.keys(vocab), self.pairs)
        values = distinct(random, count, self.values(vocab), self.pairs)
        told, places = 2 * self.pairs, self.T // 2 - self.pairs
        # The best of log p + Gumbel noise, in order, are draws without replacement.
        chance = np.arange(1, places + 1) ** (self.POWER - 1.0)
        gaps = np.argsort(-(np.log(chance) + random.gumbel(size=(count, places))), axis=1)[:, : self.pairs]
        tokens = random.integers(0, vocab, (count, self.T))
        tokens[:, :told] = _interleave(keys, values)
        np.put_along_axis(tokens, told + 2 * gaps, keys, 1)
        np.put_along_axis(tokens, told + 2 * gaps + 1, values, 1)
        scored = np.zeros(tokens.shape, bool)
        np.put_along_axis(scored, told + 2 * gaps + 1, True, 1)
        return Rows(tokens, scored)


@dataclasses.dataclass(frozen=True)
class Delayed(Task):
    """Delayed recall: pairs, ``delay`` tokens of filler, then every key once, in another order.

    Keys are the first quarter of the vocabulary, values the second; the filler is drawn from the upper half.
    """

    name = "delayed"
    pairs: int = 8
    delay: int = 256

    @property
    def length(self) -> int:
        return 4 * self.pairs + self.delay

    def keys(self, vocab: int) -> range:
        return range(FIRST, vocab // 4)

    def values(self, vocab: int) -> range:
        return range(vocab // 4, vocab // 2)

    def needs(self) -> tuple[int, int]:
        return self.pairs, self.pairs

    def rows(self, random: np.random.Generator, count: int, vocab: int) -> Rows:
        keys = distinct(random, count, self.keys(vocab), self.pairs)
        values = distinct(random, count, self.values(vocab), self.pairs)
        filler = random.integers(vocab // 2, vocab, (count, self.delay))
        return _asked(random, np.concatenate([_interleave(keys, values), filler], 1), keys, values)


@dataclasses.dataclass(frozen=True)
class Rebinding(Task):
    """Every one of ``pairs`` keys is bound ``bindings`` times, each time to another value; the newest counts.

    The bindings come in rounds, each of all keys in an order of its own; then every key is asked once.
    """

    name = "rebinding"
    pairs: int = 16
    bindings: int = 2

    @property
    def length(self) -> int:
        return 2 * self.pairs * (self.bindings + 1)

    def needs(self) -> tuple[int, int]:
        return self.pairs, self.pairs * self.bindings

    def rows(self, random: np.random.Generator, count: int, vocab: int) -> Rows:
        keys = distinct(random, count, self.keys(vocab), self.pairs)
        values = distinct(random, count, self.values(vocab), self.pairs * self.bindings)
        rounds = random.random((count, self.bindings, self.pairs)).argsort(-1).reshape(count, -1)
        bound = np.take_along_axis(keys, rounds, 1)
        order = rounds[:, -self.pairs :].argsort(-1)  # where in the last round each key was bound
        newest = np.take_along_axis(values[:, -self.pairs :], order, 1)
        return _asked(random, _interleave(bound, values), keys, newest)


@dataclasses.dataclass(frozen=True)
class Overwriting(Rebinding):
    """Few keys, bound again and again: the newest binding among many old copies."""

    name = "overwriting"
    pairs: int = 4
    bindings: int = 32


TASKS: dict[str, type[Task]] = {task.name: task for task in (Mqar, Delayed, Rebinding, Overwriting)}


def named(source: str) -> bool:
    """Whether a data source is a task and no text."""
    return source.startswith(PREFIX)


def parse(source: str, vocab: int) -> tuple[Task, ...]:
    """``task:NAME[:KEY=NUMBER,...][+NAME...]`` as tasks, checked; ``weight`` is a part's share of the examples.

    Raises:
        UsageError: an unknown task or key (with the nearest match), a value that is no whole number, or a size that
            does not fit.
    """
    return tuple(_parse(part.strip(), vocab) for part in source.removeprefix(PREFIX).split("+"))


def spelled(task: Task) -> str:
    """The source that `parse` reads back to this task."""
    given = ",".join(f"{key}={value}" for key, value in dataclasses.asdict(task).items() if key != "weight")
    return f"{PREFIX}{task.name}:{given}"


def _parse(part: str, vocab: int) -> Task:
    name, _, rest = part.partition(":")
    if name not in TASKS:
        raise UsageError(f"task '{name}': got no such task, expected one that is known.", nearest(name, list(TASKS)))
    known = [field.name for field in dataclasses.fields(TASKS[name])]
    numbers = {}
    for item in filter(None, rest.split(",")):
        key, _, value = item.partition("=")
        if key not in known:
            raise UsageError(f"task '{name}': got parameter '{key}', expected a known one.", nearest(key, known))
        if not value.isdecimal():
            raise UsageError(
                f"task '{name}': got {key}='{value}', expected a whole number.", f"Write for example {key}=16."
            )
        numbers[key] = int(value)
    task = TASKS[name](**numbers)
    task.check(vocab)
    return task


def _refuse(task: Task, got: str, expected: str, do: str) -> typing.NoReturn:
    raise UsageError(f"task '{task.name}': got {got}, expected {expected}.", do)


def distinct(random: np.random.Generator, count: int, ids: range, number: int) -> np.ndarray:
    """[count, number] ids, different within a row, in any order."""
    noise = random.random((count, len(ids)))
    chosen = np.argpartition(noise, number - 1, 1)[:, :number]
    order = np.take_along_axis(noise, chosen, 1).argsort(1)
    return ids.start + np.take_along_axis(chosen, order, 1)


def _interleave(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[B, N] and [B, N] -> [B, 2N]: a0 b0 a1 b1 ..."""
    return np.stack([a, b], -1).reshape(len(a), -1)


def _asked(random: np.random.Generator, told: np.ndarray, keys: np.ndarray, answers: np.ndarray) -> Rows:
    """``told``, then every key with its answer in a new order."""
    order = random.random(keys.shape).argsort(1)
    asked = _interleave(np.take_along_axis(keys, order, 1), np.take_along_axis(answers, order, 1))
    tokens = np.concatenate([told, asked], 1)
    scored = np.zeros(tokens.shape, bool)
    scored[:, told.shape[1] + 1 :: 2] = True
    return Rows(tokens, scored)
