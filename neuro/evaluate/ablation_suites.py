"""What the ablation of parts measures of one trained brain: of each suite the memories-on arm, unit by unit.

A measure is a ratio of sums over units (articles, blocks, episodes, rows), so a brain gives a table [units, 2] of numerators
and denominators for each. The units follow from the text, the settings and the seed alone: every brain that shares a
tokenizer is asked the same, so differences are paired. Items, texts and questions are those of the suite of that name.

    perplexity  nats per word of a text in one stream                                        (unit: article or block)
    repeat      nats per word that a passage costs again, less what it cost the first time   (block of 100 tokens)
    recall      nats at an answer of a recall task; share answered right                     (row)
    habit       share of wrong tokens of a new grammar's form, from its second showing on    (episode)
    profile     nats per token of a fact said again in the same words; share word for word   (episode)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from neuro import accounting, tasks
from neuro.brain import Brain
from neuro.errors import UsageError, nearest
from neuro.evaluate import habit, perplexity, probes, profile, recall, repeat
from neuro.evaluate import templates as forms
from neuro.sampling import Sampler
from neuro.session import Session
from neuro.workload import Workload

READ, WRITTEN = 256, 64  # tokens of the run that energy is priced from


class Measure(NamedTuple):
    """A number of a suite."""

    words: str
    better: int  # 1: more is better; -1: less is
    percent: bool  # a share


MEASURES = {
    "perplexity": Measure("nats a word", -1, False),
    "repeat": Measure("nats a word, second showing less first", -1, False),
    "recall": Measure("nats an answer", -1, False),
    "recall right": Measure("right first, %", 1, True),
    "habit": Measure("form wrong, %", -1, True),
    "profile": Measure("nats a token", -1, False),
    "profile right": Measure("word for word, %", 1, True),
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Of the suites; those of the same name as an option of `neuro eval`."""

    wikitext: bool = False
    articles: int | None = None  # of the text, for perplexity
    length: int = 2000
    gap: int = 8000  # of repeat, and the one distance of profile
    samples: int = 5
    task: str = "task:delayed:pairs=8,delay=256"
    rows: int = 200
    episodes: int = 4  # of habit and of profile
    seed: int = 0


Units = dict[str, np.ndarray]  # [units, 2] of each measure


def measure(brain: Brain, suite: str, raw: str, settings: Settings) -> Units:
    """The units of a suite's measures."""
    return SUITES[suite](brain, raw, settings)


def named(names: str | None) -> list[str]:
    """Suites by their names, with commas between; None is all.

    Raises:
        UsageError: an unknown one, or none at all.
    """
    asked = list(SUITES) if names is None else [name.strip() for name in names.strip("[] ").split(",") if name.strip()]
    for name in asked:
        if name not in SUITES:
            raise UsageError(f"--suites: got '{name}', expected a suite of the ablation.", nearest(name, [*SUITES]))
    if not asked:
        raise UsageError("--suites: got none, expected a suite.", "Known: " + ", ".join(SUITES) + ".")
    return list(dict.fromkeys(asked))


def workload(brain: Brain, raw: str, name: str, settings: Settings) -> Workload:
    """The counted work of reading the text's begin and writing on from it, as `neuro energy` counts it."""
    ids = [brain.tokenizer.bos_id, *_ids(brain, raw, settings)[:READ]]
    tally = accounting.Tally(brain, prefill=len(ids))
    session = Session(brain, observers=[tally])
    session.feed(torch.tensor([ids]))
    for _ in session.generate(Sampler(banned=brain.tokenizer.never_written, seed=settings.seed), WRITTEN):
        pass
    session.commit()
    return accounting.workload(brain, tally, name, (0.0, 0.0))


def _perplexity(brain: Brain, raw: str, settings: Settings) -> Units:
    coded = perplexity.first_units(raw, brain, settings.wikitext, settings.articles)
    nats = perplexity.scored(brain, coded, "real")["nats"]
    return {"perplexity": _table(nats, coded.words)}


def _repeat(brain: Brain, raw: str, settings: Settings) -> Units:
    protocol = repeat.Protocol(settings.length, settings.gap, settings.samples, settings.seed)
    places = repeat.samples(brain, raw, settings.wikitext, protocol)
    streams, saved, words = repeat.Streams(brain, places), [], []
    for number, place in enumerate(places):
        shown = streams.shown("real", number)
        starts = np.arange(0, settings.length, repeat.BLOCK)
        saved.append(np.add.reduceat(np.subtract(shown["second"], shown["first"]), starts))
        words.append(np.add.reduceat(place.words, starts))
    return {"repeat": _table(np.concatenate(saved), np.concatenate(words))}


def _recall(brain: Brain, raw: str, settings: Settings) -> Units:
    right, nats, answers = [], [], []
    for task in tasks.parse(settings.task, brain.config.vocab_size):
        random = np.random.default_rng([settings.seed, *tasks.spelled(task).encode()])
        for start in range(0, settings.rows, recall.ROWS_AT_ONCE):
            count = min(recall.ROWS_AT_ONCE, settings.rows - start)
            found = recall.answer(brain, task.rows(random, count, brain.config.vocab_size))
            right.append(found.right.double().sum(1).numpy())
            nats.append(found.nats.double().sum(1).numpy())
            answers.append(np.full(count, found.right.shape[1]))
    count = np.concatenate(answers)
    return {"recall": _table(np.concatenate(nats), count), "recall right": _table(np.concatenate(right), count)}


def _habit(brain: Brain, raw: str, settings: Settings) -> Units:
    wrong, form = [], []
    for episode, mask in habit.grammars(brain, forms.named("held-out"), settings.episodes, settings.seed):
        # One episode at a time: alone it has no SHUFFLED.
        answered = probes.answers(brain, [episode], "real")["real"][0]
        counts = habit.form_by_showing(answered, mask)[0][:, 1:].sum(1)
        wrong.append(counts[0])
        form.append(counts[1])
    return {"habit": _table(wrong, form)}


def _profile(brain: Brain, raw: str, settings: Settings) -> Units:
    ids = _ids(brain, raw, settings)
    need = settings.episodes * (profile.PAUSE + settings.gap)
    if len(ids) < need:
        raise UsageError(
            f"profile: got a text of {len(ids)} tokens, expected at least {need} ({settings.episodes} episodes of "
            f"{profile.PAUSE} + {settings.gap}).",
            "Give a longer text, a smaller --gap or fewer --episodes.",
        )
    made = profile.made(brain, ids, [settings.gap], settings.episodes, settings.seed, forms.named("held-out"))
    nats, tokens, right, facts = [], [], [], []
    for episode in made:
        asked = [question for step in episode for question in step.questions]
        answered = probes.answers(brain, [episode], "real")["real"][0]
        same = [a for q, a in zip(asked, answered, strict=True) if q.label.endswith(profile.WORDINGS[0])]
        nats.append(sum(answer.nats for answer in same))
        tokens.append(sum(len(answer.wrong) for answer in same))
        right.append(sum(not any(answer.wrong) for answer in same))
        facts.append(len(same))
    return {"profile": _table(nats, tokens), "profile right": _table(right, facts)}


def _ids(brain: Brain, raw: str, settings: Settings) -> list[int]:
    return [token for unit in perplexity.code(raw, brain, settings.wikitext).ids for token in unit]


def _table(numerators: Any, denominators: Any) -> np.ndarray:
    return np.stack([np.asarray(numerators, dtype=float), np.asarray(denominators, dtype=float)], 1)


SUITES: Mapping[str, Callable[[Brain, str, Settings], Units]] = {
    "perplexity": _perplexity,
    "repeat": _repeat,
    "recall": _recall,
    "habit": _habit,
    "profile": _profile,
}
