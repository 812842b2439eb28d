"""Do the keys of the memory find the sentences an answer follows from? bAbI's supporting facts, beside plain rules.

    python benchmarks/supporting_facts.py small --data $NEURO_DATA
    python benchmarks/supporting_facts.py small --data $NEURO_DATA --adapter FOLDER     # of adapter.py

Every sentence of a story is read as an item, with fresh activity, and committed; its slots hold (key of the context before a
token, value of the token). The question is read the same way and written nowhere. Nothing is trained on bAbI. For a
question of T tokens with keys k_t, values v_t and surprises w_t a sentence with slots m scores

    keys     sum_t w_t max_m cos(k_t, K_m) / sum_t w_t        what the moments of the question are like
    values   the same of v_t and V_m                          which tokens came
    both     the mean of the two
    read     sum_t of the share that the sentence's slots have of what the memory recalls (its own rule: top_k slots, sharp)

SHUFFLED exchanges the slots among all sentences of the story. BM25 (Robertson and Zaragoza 2009, doi:10.1561/1500000019;
k1 1.2, b 0.75, frequencies of the story) is over words. ``aged`` takes off a constant for every sentence that has come
since. Those constants (0.02 of a cosine, 0.2 of BM25), the weights w and the space before a sentence were chosen on 60
questions of each training file. Of equals the newest is first, so that a rule which cannot tell falls back to recency.

Reported are recall@n, n as many as the question has supporting sentences, and recall@5, of test questions: of each task the
mean over questions and 95 % over stories, then means over tasks of as many hops; qa17 is in none, because both sentences
of its stories support. Prints one JSON object; a table goes to stderr.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import _machine
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import neuro
from neuro.brain import Brain
from neuro.evaluate import babi
from neuro.evaluate.babi import Line
from neuro.evaluate.statistics import interval, resampled_sums
from neuro.regions.hippocampus import Hippocampus
from neuro.session import Session
from neuro.state import HippocampusState

K1, B = 1.2, 0.75
AGED, BM25_AGED = 0.02, 0.2  # a sentence
HOPS = {
    "one": ("qa1", "qa4", "qa5", "qa6", "qa9", "qa10", "qa12", "qa20"),
    "two": ("qa2", "qa11", "qa13", "qa14", "qa15", "qa18", "qa19"),
    "three": ("qa3", "qa16"),
    "one to eight": ("qa7", "qa8"),
}
AGAINST = {  # differences that are reported, paired
    "keys": ("keys shuffled", "recency", "BM25"),
    "values": ("values shuffled", "recency", "BM25"),
    "both aged": ("recency", "BM25 aged"),
}


class Code(NamedTuple):
    """A text as the memory has it. n slots."""

    queries: Tensor  # [n, K] unit, of the context after each token
    keys: Tensor  # [n, K] unit, of the context before it
    values: Tensor  # [n, D] unit
    surprise: Tensor  # [n] nats
    strengths: Tensor  # [n]


class Question(NamedTuple):
    said: str
    sentences: list[Line]  # read before it
    support: tuple[int, ...]  # line numbers


Read = Callable[[Tensor, Tensor, Tensor], Tensor]  # queries [T,K], keys [M,K], strengths [M] -> shares [T,M]


def stories_of(path: Path, split: str) -> dict[str, list[list[Line]]]:
    """The files of a split by task."""
    found = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            match = re.search(rf"(qa\d+)_[^/]*_{split}\.txt$", name)
            if match:
                found[match[1]] = babi.parsed(archive.read(name).decode(), name)
    return dict(sorted(found.items(), key=lambda item: int(item[0][2:])))


def questions_of(stories: Sequence[Sequence[Line]], most: int) -> list[list[Question]]:
    """Of whole stories, ``most`` questions or a few more."""
    found: list[list[Question]] = []
    for story in stories:
        if sum(map(len, found)) >= most:
            break
        said = [line for line in story if line.answer is None]
        asked = [line for line in story if line.answer is not None]
        found.append([Question(q.said, [s for s in said if s.number < q.number], q.support) for q in asked])
    return found


def words(sentence: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", sentence.lower())


def bm25(asked: str, sentences: Sequence[str]) -> np.ndarray:
    """[N], over the words that a question has in common with each."""
    held = [words(sentence) for sentence in sentences]
    among = Counter(word for own in held for word in set(own))
    usual, found = float(np.mean([len(own) for own in held])), np.zeros(len(held))
    for row, own in enumerate(held):
        for word in set(words(asked)) & set(own):
            times, rarity = own.count(word), math.log(1 + (len(held) - among[word] + 0.5) / (among[word] + 0.5))
            found[row] += rarity * times * (K1 + 1) / (times + K1 * (1 - B + B * len(own) / usual))
    return found


def nearest(cosines: Tensor, weights: Tensor, starts: Sequence[int]) -> np.ndarray:
    """cosines [T,M] of a question's tokens and slots, of which sentence n begins at ``starts[n]`` -> scores [N]."""
    best = np.maximum.reduceat(cosines.numpy(), starts, axis=1)
    return (weights.numpy() / float(weights.sum())) @ best


def ranked(scores: np.ndarray) -> list[int]:
    """The best first; of equals (to 1e-5) the newest."""
    return sorted(range(len(scores)), key=lambda n: (-round(float(scores[n]), 5), -n))


def recall(order: Sequence[int], support: set[int], most: int) -> float:
    """Share of the supporting places among the first ``most``."""
    return len(support & set(order[:most])) / len(support)


def scores_of(
    question: Question, models: dict[str, dict[str, Code]], reads: dict[str, Read], random: np.random.Generator
) -> dict[str, np.ndarray]:
    """[N] by arm."""
    said = [line.said for line in question.sentences]
    age = np.arange(len(said))[::-1]
    overlap = bm25(question.said, said)
    found = {"recency": -age.astype(float), "BM25": overlap, "BM25 aged": overlap - BM25_AGED * age}
    for model, codes in models.items():
        asked, held = codes[question.said], [codes[sentence] for sentence in said]
        starts = np.cumsum([0, *(len(code.keys) for code in held[:-1])]).tolist()
        keys, values = torch.cat([code.keys for code in held]), torch.cat([code.values for code in held])
        mixed = torch.from_numpy(random.permutation(len(keys)))
        cosines = {"keys": asked.queries @ keys.T, "values": asked.values @ values.T}
        own = {name: nearest(part, asked.surprise, starts) for name, part in cosines.items()}
        own["both aged"] = (own["keys"] + own["values"]) / 2 - AGED * age
        own |= {f"{name} shuffled": nearest(part[:, mixed], asked.surprise, starts) for name, part in cosines.items()}
        if model in reads:
            shares = reads[model](asked.queries, keys, torch.cat([code.strengths for code in held]))
            own["read"] = np.add.reduceat(shares.sum(0).numpy(), starts)
        found |= {model + name: scores for name, scores in own.items()}
    return found


def judged(question: Question, scores: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """recall@n and recall@5 by arm; chance is what any order has in the mean."""
    places = {line.number: place for place, line in enumerate(question.sentences)}
    support, count = {places[number] for number in question.support}, len(question.sentences)
    found = {"chance": (min(len(support), count) / count, min(5, count) / count)}
    for arm, own in scores.items():
        order = ranked(own)
        found[arm] = (recall(order, support, len(support)), recall(order, support, 5))
    return found


def by_length(texts: Sequence[str], encode: Callable[[str], list[int]], bos: int) -> list[tuple[list[str], Tensor]]:
    """Texts and rows of ids, those of one length together, 64 at most."""
    groups: dict[int, list[tuple[str, list[int]]]] = {}
    for said in texts:
        ids = [bos, *encode(f" {said}")]
        groups.setdefault(len(ids), []).append((said, ids))
    parts = [group[at : at + 64] for group in groups.values() for at in range(0, len(group), 64)]
    return [([said for said, _ in part], torch.tensor([ids for _, ids in part])) for part in parts]


@torch.no_grad()
def read_by(brain: Brain, texts: Sequence[str]) -> dict[str, Code]:
    """Texts as items; the slots are what the commit has written."""
    region, found = brain.regions["hippocampus"], {}
    assert isinstance(region, Hippocampus)
    for said, rows in by_length(texts, brain.tokenizer.encode, brain.tokenizer.bos_id):
        session = Session(brain, batch=len(rows))
        session.feed(rows)
        surprise, state = session.state.buffer.surprise[:, 1 : rows.shape[1]], session.state.regions.hippocampus
        assert isinstance(state, HippocampusState)
        last = region.keys(state.last_key).unsqueeze(1)
        session.commit()
        state = session.state.regions.hippocampus
        assert isinstance(state, HippocampusState)
        count = rows.shape[1] - 1
        assert bool(((state.strengths > 0).sum(1) == count).all()), "a token was not written"
        order = torch.where(state.strengths > 0, state.origins, torch.inf).argsort(1)[:, :count]
        own = [torch.stack([x[at] for x, at in zip(part, order, strict=True)]) for part in (state.keys, state.values)]
        keys, values, strengths = own[0], F.normalize(own[1], dim=-1), state.strengths.gather(1, order)
        parts = (torch.cat([keys[:, 1:], last], 1), keys, values, surprise, strengths)
        found |= {name: Code(*(part[row] for part in parts)) for row, name in enumerate(said)}
    return found


def own_read(brain: Brain) -> Read:
    region = brain.regions["hippocampus"]
    assert isinstance(region, Hippocampus)

    @torch.no_grad()
    def shares(queries: Tensor, keys: Tensor, strengths: Tensor) -> Tensor:
        score, _, chosen = region.memory.scores(queries.unsqueeze(0), keys.unsqueeze(0), strengths.unsqueeze(0))
        return (torch.softmax(score, -1) * chosen)[0]

    return shares


@torch.no_grad()
def adapted(out: Path, texts: Sequence[str]) -> dict[str, Code]:
    """The same by the full adapter of seed 0 in a folder of `adapter.py`."""
    import adapter
    import adapter_base

    model, tokenizer, found = adapter.built(out, "full", 0), adapter_base.tokenizer_of(out), {}
    for said, rows in by_length(texts, tokenizer.encode, tokenizer.bos_id):
        traced = model.trace(rows)
        keys, values = model.fusion.encode(*(x.unflatten(0, rows.shape) for x in (traced.context, traced.embedded)))
        logits = model.base(input_ids=rows).logits[:, :-1].float()
        surprise = F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten(), reduction="none")
        surprise = surprise.reshape(len(rows), -1)
        values = F.normalize(values[:, 1:], dim=-1)
        parts = (keys[:, 1:], keys[:, :-1], values, surprise, torch.ones_like(surprise))
        found |= {name: Code(*(part[row] for part in parts)) for row, name in enumerate(said)}
    return found


def summary(rows: list[dict[str, np.ndarray]], arms: list[str]) -> dict[str, Any]:
    """Of tasks, each with sums over a story's questions [stories,2] by arm and with ``asked`` [stories], the mean of means."""
    means, draws = [], []
    for number, row in enumerate(rows):
        table = np.concatenate([*(row[arm] for arm in arms), row["asked"][:, None]], 1)
        sums, total = resampled_sums(list(table[:, None]), seed=number), table.sum(0)
        means.append((total[:-1] / total[-1]).reshape(-1, 2))
        draws.append((sums[:-1] / sums[-1]).reshape(len(arms), 2, -1))
    mean, drawn = np.mean(means, 0), np.mean(draws, 0)

    def told(value: np.ndarray, own: np.ndarray) -> list[float]:
        return [round(100 * float(x), 1) for x in (value, *interval(own))]

    def both(at: int, less: int | None = None) -> dict[str, list[float]]:
        value, own = (mean[at], drawn[at]) if less is None else (mean[at] - mean[less], drawn[at] - drawn[less])
        return {name: told(value[column], own[column]) for column, name in enumerate(("recall@n", "recall@5"))}

    found: dict[str, Any] = {arm: both(at) for at, arm in enumerate(arms)}
    for arm in arms:
        model, _, name = arm.rpartition(": ")
        for other in AGAINST.get(name, ()):
            against = next(known for known in (f"{model}: {other}", other) if known in arms)
            found[f"{arm} less {against}"] = both(arms.index(arm), arms.index(against))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, required=True, help="folder with babi/")
    parser.add_argument("--adapter", type=Path, help="folder of adapter.py, whose keys are asked too")
    parser.add_argument("--split", default="test", choices=("train", "test"))
    parser.add_argument("--questions", type=int, default=1000, help="of each task")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    brain = neuro.load(options.model, sets=["hippocampus.slots=64"]).eval()
    asked = {
        task: questions_of(stories, options.questions)
        for task, stories in stories_of(options.data / "babi" / "babi_en.zip", options.split).items()
    }
    every = [q for stories in asked.values() for story in stories for q in story]
    texts = list(dict.fromkeys(said for q in every for said in (q.said, *(line.said for line in q.sentences))))
    models = {f"{options.model}: ": read_by(brain, texts)}
    reads = {f"{options.model}: ": own_read(brain)}
    if options.adapter:
        models["adapter: "] = adapted(options.adapter, texts)
    random, sums = np.random.default_rng(options.seed), {}
    for task, stories in asked.items():
        found = [[judged(q, scores_of(q, models, reads, random)) for q in story] for story in stories]
        arms = list(found[0][0])
        sums[task] = {arm: np.array([np.sum([q[arm] for q in story], 0) for story in found]) for arm in arms}
        sums[task]["asked"] = np.array([len(story) for story in stories])
        mean = {arm: 100 * sums[task][arm][:, 0].sum() / sums[task]["asked"].sum() for arm in arms}
        print(task, ", ".join(f"{arm} {x:.0f}" for arm, x in mean.items()), file=sys.stderr, flush=True)
    record: dict[str, Any] = {"machine": _machine.describe(), "model": options.model, "split": options.split}
    record |= {"questions": {task: int(row["asked"].sum()) for task, row in sums.items()}, "seed": options.seed}
    record["tasks"] = {task: summary([row], arms) for task, row in sums.items()}
    groups = HOPS | {"all": tuple(task for tasks in HOPS.values() for task in tasks)}
    record["hops"] = {hops: summary([sums[task] for task in tasks], arms) for hops, tasks in groups.items()}
    for hops, row in record["hops"].items():
        print(hops, json.dumps({arm: cell["recall@n"] for arm, cell in row.items()}), file=sys.stderr)
    record["cpu_seconds"] = round(time.process_time())
    print(json.dumps(record, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
