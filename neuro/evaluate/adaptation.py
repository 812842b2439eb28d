"""The suite ``adaptation``: one stream that moves from text to text, and what its memories make of each.

    <bos> [4,096 tokens of the first text] ? [of the second] ? [of the third] ???      ?: a held-out piece

The texts come in the order of the files given (Shakespeare, Grimm, Alice). After each of them a piece of 1,024 tokens of
it, which the stream never reads, is read on a fork; after the last one a piece of every text. ``gain`` is the nats a token
that an arm saves over OFF at the same place of the same stream (paired; above 0 helps):

    slope      of each text: gain per doubling of what was read of it (least squares over blocks of 128 tokens)
    drift      of each text but the first: gain in its first 256 tokens, when most that the memories hold is of another
    gain       on a held-out piece of the text just read
    retention  gain on the first text's piece after the last text, as a share of that right after the first

SHUFFLED reads each text's piece with the memories of a stream as old that read the texts in another order (the last one
first), so that what they hold is mostly of another text.

The unit of resampling is a block of 128 tokens, seeds (the places of the texts) are the outer level, arms are paired.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from neuro import text
from neuro.brain import Brain
from neuro.errors import UsageError
from neuro.evaluate import arms, probes, statistics
from neuro.evaluate.parts import Parts
from neuro.evaluate.stream import Stream, evaluating
from neuro.plots import suites as plots
from neuro.state import BrainState

BLOCK = 128
FIRST = 2  # blocks of a text that count as drift
HELD_OUT = 1024  # tokens of each piece


class Place(NamedTuple):
    """What a seed takes of one text."""

    tokens: list[int]
    piece: list[int]  # right after them; never part of a stream


def read(path: Path, *more: Path) -> dict[str, str]:
    """The texts by file name, in the order given; a folder is its files, sorted. Line ends are line feeds: learning a file's
    carriage returns would pass for learning its language.

    Raises:
        MissingError, FormatError, UsageError: as `neuro.text.read_text`.
    """
    files = [path, *more]
    if not more and path.is_dir():
        files = sorted(p for p in path.iterdir() if p.name.endswith((".txt", ".txt.gz")))
    return {
        file.name.removesuffix(".gz").removesuffix(".txt"): text.read_text(file).replace("\r\n", "\n") for file in files
    }


def run(
    brain: Brain,
    raw: dict[str, str],
    out: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
    length: int = 4096,
    seeds: int = 3,
    seed: int = 0,
) -> dict[str, Any]:
    """The suite -> its JSON record.

    Args:
        raw: the texts by name, in their order.
        out: where finished pieces, one of each arm and seed, are kept.
        length: tokens of each text; a multiple of `BLOCK` is read.
        seeds: how many; each takes another place of every text.

    Raises:
        UsageError: fewer than two texts, one that is too short, or a number below 1.
    """
    probes.at_least("adaptation", seeds=seeds)
    if len(raw) < 2:
        raise UsageError(
            f"adaptation: got {len(raw)} text, expected at least two.",
            "Give several files: neuro eval small A.txt B.txt",
        )
    if length < FIRST * BLOCK:
        raise UsageError(
            f"--length: got {length}, expected at least {FIRST * BLOCK}.", "Leave it out, or give more tokens."
        )
    length -= length % BLOCK
    ids = {name: brain.tokenizer.encode(whole) for name, whole in raw.items()}
    for name, tokens in ids.items():
        if len(tokens) < length + HELD_OUT:
            raise UsageError(
                f"adaptation: got {len(tokens)} tokens of {name}, expected at least {length + HELD_OUT} ({length} and a "
                f"piece of {HELD_OUT}).",
                "Give a longer text or a smaller --length.",
            )
    parts = Parts(out, "adaptation", brain, "\0".join(raw.values()), {"length": length}, say)
    names, numbers = arms.of(brain), range(seed, seed + seeds)
    found: dict[str, list[dict[str, Any]]] = {}
    for arm in [*names, *(["shuffled"] if arms.memories(brain) else [])]:
        for number in numbers:
            found.setdefault(arm, []).append(
                parts.get(
                    f"{arm}-{number}",
                    f"{arms.LABELS[arm]}, seed {number - seed + 1} of {seeds}",
                    lambda arm=arm, number=number: _stream(brain, places(ids, length, number), arm),  # type: ignore[misc]
                )
            )
    return {
        "texts": list(raw),
        "length": length,
        "held_out": HELD_OUT,
        "seed": seed,
        "seeds": seeds,
        "indicative": seeds < probes.CLAIM,
        "shuffled_left_out": None if arms.memories(brain) else "this brain has no memory",
        "rows": _rows(found, list(raw), seed),
        "nats_by_block": {
            arm: np.mean([piece["read"] for piece in pieces], 0).tolist()
            for arm, pieces in found.items()
            if arm != "shuffled"
        },
    }


def table(record: dict[str, Any]) -> list[str]:
    """The record in words."""
    told = [
        f"{' -> '.join(record['texts'])}, {record['length']} tokens each, {record['seeds']} seeds; nats a token gained over "
        "memory off, brackets: 95 %",
        f"{'':<22}  {'text':<20}  {'slope per doubling':<22}  {'drift':<22}  {'gain, held out':<22}  on this text at the end",
    ]
    for row in record["rows"]:
        for place, name in enumerate(record["texts"]):
            of = row["texts"][place]
            cells = [
                probes.spelled(of, key) if of.get(key) is not None else ""
                for key in ("slope", "drift", "gain", "at_end")
            ]
            head = arms.LABELS[row["arm"]] if place == 0 else ""
            told.append((f"{head:<22}  {name[:20]:<20}  " + "  ".join(f"{cell:<22}" for cell in cells)).rstrip())
        if row["arm"] != "shuffled":
            told.append(f"{'':<22}  retention of {record['texts'][0]}: {probes.spelled(row, 'retention')}")
    return told + probes.closing(record)


def picture(record: dict[str, Any], out: Path) -> Path | None:
    """Nats a token by block over the whole stream; None without matplotlib."""
    curves: dict[str, list[plots.Point]] = {
        arms.LABELS[arm]: [(value, None) for value in np.ravel(blocks)]
        for arm, blocks in record["nats_by_block"].items()
    }
    count = len(next(iter(curves.values())))
    x = [BLOCK * (n + 1) for n in range(count)]
    return plots.panels(x, {" -> ".join(record["texts"]): curves}, "tokens read", "nats per token", out, log=False)


def places(ids: dict[str, list[int]], length: int, seed: int) -> list[Place]:
    """What a seed reads of each text."""
    random = np.random.default_rng([seed, 505])
    found = []
    for tokens in ids.values():
        start = int(random.integers(0, len(tokens) - length - HELD_OUT + 1))
        end = start + length
        found.append(Place(tokens[start:end], tokens[end : end + HELD_OUT]))
    return found


def _stream(brain: Brain, shown: Sequence[Place], arm: str) -> dict[str, Any]:
    """Nats of each block: "read" [texts][blocks] along the stream, "pieces" [after which text][of which][blocks]:
    its own, and after the last text all."""
    kept = arms.ARMS["real" if arm == "shuffled" else arm]
    bos = brain.tokenizer.bos_id
    with evaluating(brain):
        stream = Stream(brain, kept)
        donor = Stream(brain, kept) if arm == "shuffled" else None
        along, pieces = [], []
        for number, place in enumerate(shown):
            start = [bos] if number == 0 else []
            along.append(_blocks(stream.read([*start, *place.tokens])[len(start) :]))
            state = stream.state
            if donor is not None:
                donor.read([*start, *shown[number - 1].tokens])  # the last text first
                state = arms.with_memories_of(state, donor.state)
            last = number == len(shown) - 1
            pieces.append([_piece(brain, state, kept, other) if last or other is place else [] for other in shown])
    return {"read": along, "pieces": pieces}


def _piece(brain: Brain, state: BrainState, kept: Sequence[str], place: Place) -> list[float]:
    return _blocks(Stream(brain, kept, state).read(place.piece))


def _blocks(nats: np.ndarray) -> list[float]:
    """Mean nats of each block."""
    return nats[: len(nats) // BLOCK * BLOCK].reshape(-1, BLOCK).mean(1).tolist()


def _rows(found: dict[str, list[dict[str, Any]]], names: Sequence[str], seed: int) -> list[dict[str, Any]]:
    rows = []
    off = found["off"] if "off" in found else found["real"]
    for arm, pieces in found.items():
        if arm == "off":
            continue
        row: dict[str, Any] = {"arm": arm, "texts": []}
        last = len(names) - 1
        for number, name in enumerate(names):
            of: dict[str, Any] = {"text": name}
            if arm != "shuffled":  # its stream is that of REAL
                along = [np.subtract(o["read"][number], p["read"][number]) for o, p in zip(off, pieces, strict=True)]
                of |= probes.told("slope", _slope(along, seed))
                if number:
                    of |= probes.told("drift", _mean([gain[:FIRST] for gain in along], seed))
            of |= probes.told("gain", _mean(_gains(off, pieces, number, number), seed))
            if number < last:
                of |= probes.told("at_end", _mean(_gains(off, pieces, last, number), seed))
            row["texts"].append(of)
        both = [
            np.stack([at_end, after], 1)
            for at_end, after in zip(_gains(off, pieces, last, 0), _gains(off, pieces, 0, 0), strict=True)
        ]
        with np.errstate(divide="ignore", invalid="ignore"):
            sums = _sums(both, seed)
            row |= probes.told("retention", sums[0] / sums[1])
        rows.append(row)
    return rows


def _gains(off: list[dict[str, Any]], pieces: list[dict[str, Any]], after: int, of: int) -> list[np.ndarray]:
    """Nats saved in each block of a text's piece, after a text of the stream; one array a seed."""
    return [np.subtract(o["pieces"][after][of], p["pieces"][after][of]) for o, p in zip(off, pieces, strict=True)]


def _sums(groups: Sequence[np.ndarray], seed: int) -> np.ndarray:
    """Sums of the columns [0], then of the draws [1:] -> [C, 1 + draws]."""
    total = np.concatenate(groups).sum(0)
    return np.concatenate([total[:, None], statistics.nested_sums(groups, seed=seed)], 1)


def _mean(groups: Sequence[np.ndarray], seed: int) -> np.ndarray:
    sums = _sums([np.stack([group, np.ones_like(group)], 1) for group in groups], seed)
    return sums[0] / sums[1]


def _slope(groups: Sequence[np.ndarray], seed: int) -> np.ndarray:
    """Least squares of gain over the doublings of what was read of the text."""
    tables = []
    for gain in groups:
        x = np.log2(np.arange(1, len(gain) + 1))
        tables.append(np.stack([np.ones_like(x), x, gain, x * x, x * gain], 1))
    n, x, y, xx, xy = _sums(tables, seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (n * xy - x * y) / (n * xx - x * x)
