"""The suite ``babi``: the twenty bAbI tasks as streams of text, and whether the memory finds the supporting facts.

Weston et al. 2015, arXiv:1502.05698 (CC BY 3.0). FILE is the zip, a folder or one file in its format
(``ID text`` lines, ``ID question TAB answer TAB supporting IDs``); of a zip or folder only the files named ``*_test.txt``
are read. Nothing of the training files is.

An episode is a fresh stream over some stories in a row, as a text: a sentence a line, a question with its answer on a
line, a blank line between stories. Each question is asked when the stream comes to it (`neuro/evaluate/probes.py`) and
then read with its right answer, so the stream can learn the form of the task from what it has read, under every arm but
OFF. An answer is right if greedy decoding says all of it; ``first choice`` is among all answers of the task.

**Support** is the share of what the episodic memory recalls at the question's end that was read in the supporting
sentences, beside the share these are of all that was read: a memory that looks anywhere has the second.

differs: published numbers are of models trained on each task's training file; a model of language that was not, as the
shipped one, is measured on what reading alone gives it. ``majority`` is what always saying the task's commonest answer
would get.
"""

from __future__ import annotations

import re
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from neuro import text
from neuro.brain import Brain
from neuro.errors import FormatError, MissingError, UsageError, nearest
from neuro.evaluate import probes
from neuro.evaluate.parts import Parts
from neuro.evaluate.probes import Episode, Step

QUESTIONS = 10  # of an episode


class Line(NamedTuple):
    """One line of a story."""

    number: int  # in its story, from 1
    said: str
    answer: str | None  # of a question
    support: tuple[int, ...]  # line numbers that a question's answer follows from


def read(path: Path) -> dict[str, str]:
    """The test files by task ("qa1", ...), in the order of their numbers.

    Raises:
        MissingError: nothing there.
        FormatError: not a zip file, or not text.
        UsageError: no task in it.
    """
    if path.is_dir():
        files = {p.name: text.read_text(p) for p in path.rglob("*_test.txt")}
    elif path.suffix == ".zip":
        try:
            with zipfile.ZipFile(path) as archive:
                names = [name for name in archive.namelist() if name.endswith("_test.txt")]
                files = {Path(name).name: archive.read(name).decode("utf-8") for name in names}
        except FileNotFoundError as error:
            raise MissingError(f"{path}: got no such file, expected bAbI's zip.", "Check the path.") from error
        except (OSError, UnicodeDecodeError, zipfile.BadZipFile) as error:
            raise FormatError(f"{path}: {error}.", "Give bAbI's zip, a folder of its files or one of them.") from error
    else:
        files = {path.name: text.read_text(path)}
    found = {}
    for name, raw in files.items():
        match = re.match(r"qa(\d+)", name)
        found[f"qa{match[1]}" if match else Path(name).stem] = raw
    if not found:
        raise UsageError(f"babi: got {path} without a *_test.txt, expected bAbI's tasks.", "Give bAbI's zip or folder.")
    return dict(sorted(found.items(), key=lambda item: (len(item[0]), item[0])))


def run(
    brain: Brain,
    raw: dict[str, str],
    out: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
    task: str = "all",
    seeds: int = 3,
    episodes: int = 2,
    seed: int = 0,
) -> dict[str, Any]:
    """The suite -> its JSON record.

    Args:
        raw: the text of each task's file (`read`).
        out: where finished pieces, one of each task, arm and seed, are kept.
        task: "all", or names joined by commas ("qa1,qa16").
        seeds, episodes: an episode is `QUESTIONS` questions from a place of the file that no other one of its seed reads.

    Raises:
        UsageError: a number below 1, an unknown task, a line that is not of the format, or too few questions.
    """
    probes.at_least("babi", seeds=seeds, episodes=episodes)
    names = list(raw) if task == "all" else task.split(",")
    for name in names:
        if name not in raw:
            raise UsageError(f"--task: got '{name}'.", nearest(name, tuple(raw)))
    rows: list[dict[str, Any]] = []
    for name in names:
        stories = parsed(raw[name], name)
        options = [f" {line.answer}" for story in stories for line in story if line.answer is not None]
        settings = {"task": name, "episodes": episodes, "questions": QUESTIONS}
        parts = Parts(out, f"babi-{name}", brain, raw[name], settings, lambda line, name=name: say(f"{name}: {line}"))  # type: ignore[misc]

        def make(number: int, name: str = name, stories: list = stories, options: list = options) -> list[Episode]:
            return made(brain, stories, sorted(set(options)), episodes, number, name)

        found = probes.measure(brain, make, range(seed, seed + seeds), parts)
        asked = [q for step in make(seed)[0] for q in step.questions]
        majority = Counter(options).most_common(1)[0][1] / len(options)
        for row in probes.cells([q.label for q in asked], [1 / len(q.firsts) for q in asked], found, seed):
            row |= {"task": name, "majority": majority, "support": None, "support_by_length": None}
            shares = [a.support for s in found[row["arm"]] for e in s for a in e if a.support is not None]
            if shares:
                row |= {"support": float(np.mean(shares)), "support_by_length": _share_by_length(make(seed))}
            rows.append(row)
    return {
        "tasks": names,
        "questions": QUESTIONS,
        "seed": seed,
        **probes.facts_of(brain, seeds, episodes),
        "rows": rows,
        "mean_exact": {
            arm: float(np.mean([row["exact"] for row in rows if row["arm"] == arm]))
            for arm in dict.fromkeys(row["arm"] for row in rows)
        },
        "mean_majority": float(np.mean([row["majority"] for row in rows])),
    }


def table(record: dict[str, Any]) -> list[str]:
    """The record in words."""
    support = {row["task"]: row for row in record["rows"] if row["support"] is not None and row["arm"] == "real"}
    told = [
        f"bAbI, {len(record['tasks'])} tasks, {record['episodes']} x {record['questions']} test questions of each of "
        f"{record['seeds']} seeds",
        *probes.lines(record["rows"]),
        "mean right, %: "
        + ", ".join(f"{probes.HEADS[arm]} {100 * mean:.1f}" for arm, mean in record["mean_exact"].items())
        + f"; the commonest answer {100 * record['mean_majority']:.1f}",
    ]
    if support:
        each = ", ".join(
            f"{name} {100 * row['support']:.0f} ({100 * row['support_by_length']:.0f})" for name, row in support.items()
        )
        told.append(f"recalled from the supporting sentences, % (their share of the text): {each}")
    return told + probes.closing(record)


def picture(record: dict[str, Any], out: Path) -> Path | None:
    """Share word for word of each task and arm; None without matplotlib."""
    return probes.picture(record["rows"], out)


def parsed(raw: str, where: str) -> list[list[Line]]:
    """The stories of a file.

    Raises:
        UsageError: a line that is not of the format.
    """
    stories: list[list[Line]] = []
    for place, line in enumerate(raw.strip("\n").split("\n"), 1):
        number, _, rest = line.partition(" ")
        fields = rest.split("\t")
        if not number.isdecimal() or len(fields) not in (1, 3) or not (stories or number == "1"):
            raise UsageError(
                f"{where}, line {place}: got {line[:60]!r}, expected 'ID text' or 'ID question TAB answer TAB IDs'.",
                "Give a file of bAbI.",
            )
        if number == "1":
            stories.append([])
        answer = fields[1].strip() if len(fields) == 3 else None
        support = tuple(map(int, fields[2].split())) if len(fields) == 3 else ()
        stories[-1].append(Line(int(number), fields[0].strip(), answer, support))
    return stories


def made(
    brain: Brain, stories: Sequence[Sequence[Line]], options: Sequence[str], episodes: int, seed: int, name: str
) -> list[Episode]:
    """The episodes of a seed: each begins at a story of its own and reads on until it has its questions.

    Raises:
        UsageError: too few questions in the file.
    """
    counts = [sum(line.answer is not None for line in story) for story in stories]
    before = np.cumsum([0, *counts[:-1]])
    size = QUESTIONS + max(counts)  # questions from one possible start to the next: no two episodes share any
    have = sum(counts) // size
    if have < episodes:
        raise UsageError(
            f"babi: got {sum(counts)} questions of {name}, expected at least {episodes * size}.",
            "Give fewer --episodes, or the whole file.",
        )
    chosen = np.random.default_rng([seed, 404]).permutation(have)[:episodes]
    firsts = np.searchsorted(before, chosen * size)
    return [_episode(brain, stories[first:], options, name) for first in sorted(firsts.tolist())]


def _episode(brain: Brain, stories: Sequence[Sequence[Line]], options: Sequence[str], name: str) -> Episode:
    encode = brain.tokenizer.encode
    steps: list[Step] = []
    tokens = [brain.tokenizer.bos_id]  # since the last question
    at = 1  # tokens of the stream
    for story in stories:
        where: dict[int, tuple[int, int]] = {}
        for line in story:
            if line.answer is None:
                said = encode(f"{line.said}\n")
                where[line.number] = (at, at + len(said))
                tokens, at = [*tokens, *said], at + len(said)
                continue
            asked = probes.question(brain, name, line.said, f" {line.answer}", options)
            asked = asked._replace(support=[where[number] for number in line.support if number in where])
            steps.append(Step(tokens, [asked]))
            if len(steps) == QUESTIONS:
                return steps
            tokens = [*asked.cue, *asked.answer, *encode("\n")]
            at += len(tokens)
        gap = encode("\n")
        tokens, at = [*tokens, *gap], at + len(gap)
    raise AssertionError("the caller has counted the questions")


def _share_by_length(episodes: Sequence[Episode]) -> float:
    """What share of all that was read before a question its supporting sentences are, mean."""
    shares = []
    for episode in episodes:
        read = 0
        for step in episode:
            read += len(step.tokens)
            shares += [sum(stop - start for start, stop in q.support) / read for q in step.questions if q.support]
    return float(np.mean(shares)) if shares else 0.0
