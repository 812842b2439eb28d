"""Does what a text expresses, or how it was spoken, make its memory better? REAL, SHUFFLED, READ and OFF salience.

    python benchmarks/limbic_memory.py --corpus helsinki-prosody     # or goemotions, emobank; --split dev to look

Sentences of one unit (a reader; of comments and EmoBank a piece of the file) go through a trained brain, then a piece of a
novel, then the sentences again in another order. A span may write 16 pairs of 64, in the order of salience times surprise (the
controller "salient"), and in the first showing the salience that orders them is replaced; their strength stays the brain's:

    off        1/2 everywhere: the controller "surprise", which is shipped
    real       by the label: how prominent the recording made the word; whether a comment has an emotion; how far a sentence
               lies from neutral valence and arousal. Ranks within the stream, from .05 to .95
    shuffled   the same values on other sentences (words: shifted along the stream; signs stay signs)
    within     the same values, shuffled among content words and among the others apart (prosody alone)
    read       as real, from what the shipped readers make of the words
    own        the amygdala's own, as trained

Settings: ``surprise`` is that; ``novelty``: the order is salience (0.05 + novelty), the controller "learned"; ``fed``: nothing
is replaced, but the values, doubled, are pitch and energy of the channel prosody, and the amygdala adds them to its own
salience by `amygdala.prosody_gain` of 2. Measured: nats per token of the second showing less than OFF's, over all tokens,
those of content words (letters, and not among the 150 commonest words), those whose real value is in the stream's upper half
(salient), and the others. Intervals: bootstrap over units, 95 %; a unit is its streams of all seeds. A seed draws sentences,
their order, the piece of the novel and the shuffle; there is one brain, nothing is trained or tuned. Prints one JSON object
and a table.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _machine
import numpy as np
import torch
from torch import Tensor

import neuro
from neuro import corpus
from neuro.affect import channel, corpora, prominence, reader
from neuro.brain import Brain
from neuro.evaluate import statistics
from neuro.evaluate.stream import evaluating
from neuro.state import SpanBuffer
from neuro.text import read_text

SCARCE = ["hippocampus.writes_per_span=16", "hippocampus.slots=1024"]
SETTINGS: dict[str, list[str]] = {
    "surprise": [*SCARCE, "hippocampus.controller=salient"],
    "novelty": [*SCARCE, "hippocampus.controller=learned"],
    "fed": [*SCARCE, "hippocampus.controller=salient", "amygdala.prosody_gain=2.0"],
}
ARMS = ("off", "real", "shuffled", "within", "read", "own")
COMMON, ENOUGH, LOW, HIGH = 150, 400, 0.05, 0.95
MEASURES = ("all", "content", "salient", "rest")


@dataclasses.dataclass(frozen=True)
class Sentence:
    """A text, where its words and signs lie, which are spoken and which content, and a labelled and a read value of each."""

    text: str
    spans: list[tuple[int, int]]
    spoken: np.ndarray  # bool [W]
    content: np.ndarray  # bool [W]
    real: np.ndarray  # [W]
    read: np.ndarray  # [W]


@dataclasses.dataclass(frozen=True)
class Streams:
    """Rows of equal length. ``salience``: of each arm but "own", 1/2 after the first showing."""

    ids: np.ndarray  # [B, T]
    salience: dict[str, np.ndarray]  # [B, T]
    again: np.ndarray  # bool [4, B, T], the tokens of each measure
    units: np.ndarray  # [B]


def spoken_sentences(split: str, limit: int) -> list[list[Sentence]]:
    """Units are readers of at least ENOUGH words."""
    by: dict[str, list[list[corpora.SpokenWord]]] = defaultdict(list)
    for name, words in corpora.prosody_by_file(split):
        if words:
            by[name.split("_")[0]].append(words)
    speaker, found = prominence.load(), []
    for name in [name for name in sorted(by) if sum(map(len, by[name])) >= ENOUGH][:limit]:
        said = speaker.read([[w.text for w in words] for words in by[name]], causal=True)
        unit = []
        for words, guess in zip(by[name], said, strict=True):
            text, spans = "", []
            for word in words:
                text += " " if word.prominence is not None else ""
                spans.append((len(text), len(text) + len(word.text)))
                text += word.text
            spoken = np.array([w.prominence is not None for w in words])
            real = np.array([w.prominence_value or 0.0 for w in words])
            content = contentful([w.text for w in words], speaker)
            unit.append(Sentence(text, spans, spoken, content, real, guess.value.astype(float)))
        found.append(unit)
    return found


def felt_sentences(name: str, split: str, limit: int, size: int = 40) -> list[list[Sentence]]:
    """Units are runs of so many texts in the order of the file."""
    data = getattr(corpora, name)(split)
    if name == "goemotions":
        real = (np.delete(data.labels, data.names.index("neutral"), 1).sum(1) > 0).astype(float)
    else:
        real = np.hypot(data.labels[:, 0] - 3.0, data.labels[:, 1] - 3.0).astype(float)
    rows = [n for n, text in enumerate(data.texts) if channel.words(text)][: limit * size]
    said = reader.load()
    neutral = said.emotions.index("neutral")
    guess = torch.sigmoid(-said.logits([data.texts[n] for n in rows])["emotion"][:, neutral]).numpy()
    speaker, found = prominence.load(), []
    for n, value in zip(rows, guess, strict=True):
        text = " " + " ".join(data.texts[n].split())
        words = channel.words(text)
        each, content = np.ones(len(words)), contentful([word for word, _, _ in words], speaker)
        spans = [(a, b) for _, a, b in words]
        found.append(Sentence(text, spans, each > 0, content, real[n] * each, float(value) * each))
    return [found[start : start + size] for start in range(0, len(found) - size + 1, size)]


def contentful(words: list[str], speaker: prominence.Speaker) -> np.ndarray:
    """Whether each is of letters and not among the commonest."""
    common = set(speaker.lexicon.known[:COMMON])
    return np.array([word.strip("'").isalpha() and word.lower() not in common for word in words])


def ranked(values: np.ndarray) -> np.ndarray:
    """Mean ranks, from LOW to HIGH; 1/2 where all are alike."""
    below = (values[:, None] > values).sum(1)
    same = (values[:, None] == values).sum(1)
    return LOW + (HIGH - LOW) * (below + 0.5 * same) / len(values)


def salience(unit: list[Sentence], by_word: bool, random: np.random.Generator) -> dict[str, list[np.ndarray]]:
    """By arm, a value of each word of each sentence; signs are LOW where words differ."""
    found: dict[str, list[np.ndarray]] = {"off": [np.full(len(s.spans), 0.5) for s in unit]}
    if not by_word:
        real, read = (ranked(np.array([getattr(s, kind)[0] for s in unit])) for kind in ("real", "read"))
        rows = {"real": real, "shuffled": random.permutation(real), "read": read}
        return found | {
            arm: [np.full(len(s.spans), value) for s, value in zip(unit, values, strict=True)]
            for arm, values in rows.items()
        }
    spoken = np.concatenate([s.spoken for s in unit])
    cuts = np.cumsum([len(s.spans) for s in unit])[:-1]
    content = np.concatenate([s.content for s in unit])[spoken]
    real, read = (ranked(np.concatenate([getattr(s, kind) for s in unit])[spoken]) for kind in ("real", "read"))
    within = real.copy()
    for some in (content, ~content):
        within[some] = random.permutation(real[some])
    shuffled = np.roll(real, int(random.integers(10, len(real) - 10)))
    for arm, values in {"real": real, "shuffled": shuffled, "within": within, "read": read}.items():
        whole = np.full(len(spoken), LOW)
        whole[spoken] = values
        found[arm] = np.split(whole, cuts)
    return found


def streams(brain: Brain, units: list[list[Sentence]], by_word: bool, options: argparse.Namespace) -> Streams:
    """Every unit once a seed."""
    tokenizer, length = brain.tokenizer, options.first
    novel = corpus.encode([read_text(corpora.locate(f"books/{options.novel}"))], tokenizer)
    ids, again, whose = [], [], []
    kept: dict[str, list[np.ndarray]] = defaultdict(list)
    for seed in range(options.seeds):
        for number, unit in enumerate(units):
            random = np.random.default_rng([seed, number])
            chosen: list[tuple[Sentence, list[int]]] = []
            room = length - 1
            for n in random.permutation(len(unit)):
                tokens = tokenizer.encode(unit[n].text)
                if len(tokens) <= room:
                    chosen.append((unit[n], tokens))
                    room -= len(tokens)
            some = [sentence for sentence, _ in chosen]
            at = int(random.integers(1000, len(novel) - room - options.between))
            filler = novel[at : at + room + options.between].tolist()
            valued = salience(some, by_word, random)
            pieces = [[tokenizer.token_bytes(token) for token in tokens] for _, tokens in chosen]
            places = [channel.token_spans(p, s.text) for p, s in zip(pieces, some, strict=True)]

            def on_tokens(values: list[np.ndarray], some=some, places=places) -> list[np.ndarray]:
                rows = zip(some, values, places, strict=True)
                return [channel.align(s.spans, x[:, None], p, causal=False)[:, 0] for s, x, p in rows]

            quiet = np.full(1 + room, 0.5)
            after = np.full(options.between + length - 1 - room, 0.5)
            for arm, values in valued.items():
                kept[arm].append(np.concatenate([quiet, *on_tokens(values), after]))
            content = [x > 0 for x in on_tokens([s.content.astype(float) for s in some])]
            salient = [x > 0.5 for x in on_tokens(valued["real"])]
            order = random.permutation(len(some))
            before = np.zeros(length + options.between, bool)
            marks = ([x | True for x in salient], content, salient, [~x for x in salient])
            again.append([np.concatenate([before, *(part[n] for n in order)]) for part in marks])
            first = [tokenizer.bos_id, *filler[:room], *(t for _, tokens in chosen for t in tokens)]
            ids.append([*first, *filler[room:], *(t for n in order for t in chosen[n][1])])
            whose.append(number)
    width = max(map(len, ids))
    mask = np.zeros((len(MEASURES), len(ids), width), bool)
    for row, parts in enumerate(again):
        for measure, part in enumerate(parts):
            mask[measure, row, : len(part)] = part
    pad = np.array([[*row, *[tokenizer.bos_id] * (width - len(row))] for row in ids])
    given = {
        arm: np.stack([np.pad(x, (0, width - len(x)), constant_values=0.5) for x in rows]).astype(np.float32)
        for arm, rows in kept.items()
    }
    return Streams(pad, given, mask, np.array(whose))


class Given:
    """Inside, the order of writing, or where ``fed`` the prosody that the amygdala hears, is by what was given."""

    def __init__(self, brain: Brain, values: np.ndarray | None, fed: bool) -> None:
        self.amygdala: Any = brain.region("amygdala")
        self.hippocampus: Any = brain.region("hippocampus")
        self.values, self.fed = None if values is None else torch.from_numpy(values), fed
        self.now = torch.zeros(0)  # [B, T] of the span that runs

    def __enter__(self) -> Given:
        if self.values is not None and self.fed:
            object.__setattr__(self.amygdala, "scan", self._scan(self.amygdala.scan))
        elif self.values is not None:
            object.__setattr__(self.hippocampus, "_priority", self._priority(self.hippocampus._priority))
        return self

    def __exit__(self, *error: object) -> None:
        self.amygdala.__dict__.pop("scan", None)
        self.hippocampus.__dict__.pop("_priority", None)

    def at(self, start: int, stop: int) -> None:
        """Go to these tokens."""
        if self.values is not None:
            self.now = self.values[:, start:stop]

    def _scan(self, scan: Callable[..., Any]) -> Callable[..., Any]:
        def changed(inputs: Any, state: Any) -> Any:
            said = torch.stack([2.0 * self.now, 2.0 * self.now, torch.zeros_like(self.now)], -1)
            return scan({**inputs, "prosody": said}, state)

        return changed

    def _priority(self, priority: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def changed(span: SpanBuffer, origins: Tensor) -> Tensor:
            salience = torch.full_like(span.salience, 0.5)
            salience[:, : self.now.shape[1]] = self.now
            return priority(span._replace(salience=salience), origins)

        return changed


def nats(brain: Brain, given: Streams, arm: str, fed: bool, batch: int) -> np.ndarray:
    """Of every token [B, T], given all before it."""
    found = np.zeros(given.ids.shape)
    for start in range(0, len(found), batch):
        rows = slice(start, start + batch)
        values = None if arm == "own" else given.salience[arm][rows]
        with Given(brain, values, fed) as replaced, evaluating(brain), torch.no_grad():
            state, parts, at = brain.init_state(len(given.ids[rows])), [], 0
            for span in torch.from_numpy(given.ids[rows]).split(brain.config.plasticity_span, 1):
                replaced.at(at, at + span.shape[1])
                at += span.shape[1]
                out = brain.scan(span, state)
                parts.append(out.aux.surprise)
                state = brain.commit(out.state)[0]
            found[rows] = torch.cat(parts, 1).numpy()
    return found


def compared(sums: dict[str, np.ndarray], counts: np.ndarray, units: np.ndarray) -> dict[str, Any]:
    """sums [4, B] of each arm, counts [4, B] -> for each pair [difference, low, high] of every measure: the gain in nats."""
    arms = list(sums)
    columns = np.concatenate([counts, *(sums[arm] for arm in arms)]).T
    tables = [columns[units == unit].sum(0, keepdims=True) for unit in np.unique(units)]
    draws, whole = statistics.resampled_sums(tables), np.concatenate(tables).sum(0)
    pairs = [(arm, "off") for arm in arms if arm != "off"]
    both = [(better, worse) for better in ("real", "read") for worse in ("shuffled", "within")]
    pairs += [pair for pair in both if set(pair) <= set(arms)]
    found: dict[str, Any] = {}
    for better, worse in pairs:
        row = found[f"{better} over {worse}"] = {}
        for m, measure in enumerate(MEASURES):
            a, b = (len(MEASURES) * (1 + arms.index(arm)) + m for arm in (worse, better))
            low, high = statistics.interval((draws[a] - draws[b]) / draws[m])
            row[measure] = [float((whole[a] - whole[b]) / whole[m]), low, high]
    level = {arm: float(sums[arm][0].sum() / counts[0].sum()) for arm in arms}
    return {"nats": level, "gains": found}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    by_word = options.corpus == "helsinki-prosody"
    load = spoken_sentences if by_word else lambda *given: felt_sentences(options.corpus, *given)
    units = load(options.split, options.units)
    found: dict[str, Any] = {}
    about: dict[str, Any] = {"units": len(units)}
    for setting in options.settings:
        brain = neuro.load(options.model, sets=SETTINGS[setting])
        given = streams(brain, units, by_word, options)
        counts = given.again.sum(2)
        about |= {"streams": len(given.ids), "tokens again": dict(zip(MEASURES, counts.sum(1).tolist(), strict=True))}
        sums = {}
        for arm in [arm for arm in (*given.salience, "own") if arm in options.arms]:
            started = time.process_time()
            each = nats(brain, given, arm, setting == "fed", options.batch)
            sums[arm] = np.stack([(each * mask).sum(1) for mask in given.again])
            print(f"{setting} {arm}: {time.process_time() - started:.0f} s", file=sys.stderr, flush=True)
        found[setting] = compared(sums, counts, given.units)
        if "real" in sums and "shuffled" in sums:
            gain = (sums["shuffled"] - sums["real"])[0].reshape(options.seeds, -1).sum(1)
            by_seed = gain / counts[0].reshape(options.seeds, -1).sum(1)
            found[setting]["real over shuffled by seed"] = by_seed.tolist()
        print(table({setting: found[setting]}), file=sys.stderr, flush=True)
    return about | {"settings": found}


def table(found: dict[str, Any]) -> str:
    lines = ["| priority | gain of | " + " | ".join(MEASURES) + " |", "|---" * (2 + len(MEASURES)) + "|"]
    for setting, part in found.items():
        for pair, row in part["gains"].items():
            cells = [f"{1e3 * mean:.1f} [{1e3 * low:.1f}, {1e3 * high:.1f}]" for mean, low, high in row.values()]
            lines.append(f"| {setting} | {pair} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\nthousandths of a nat per token of the second showing"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", choices=("helsinki-prosody", "goemotions", "emobank"), required=True)
    parser.add_argument("--split", choices=("dev", "test"), default="test")
    parser.add_argument("--model", default="small")
    parser.add_argument("--settings", nargs="+", choices=tuple(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), help="off is needed")
    parser.add_argument("--novel", default="alice_11.txt.gz")
    parser.add_argument("--units", type=int, default=12, help="at most")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=256, help="tokens of the first showing")
    parser.add_argument("--between", type=int, default=64, help="tokens of the novel")
    parser.add_argument("--batch", type=int, default=36)
    parser.add_argument("--out", type=Path, help="also write the JSON object there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(options)
    settings = {name: value for name, value in vars(options).items() if name != "out"}
    record = {"benchmark": "limbic_memory", "machine": _machine.describe(), "settings": settings, "found": found}
    if options.out:
        options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(record))
    print(table(found["settings"]))


if __name__ == "__main__":
    main()
