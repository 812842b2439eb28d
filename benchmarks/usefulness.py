"""Which stored moment will be used? A linear head on causal features against surprise, on WikiText-2.

    python benchmarks/usefulness.py small --data $NEURO_DATA

A stored pair is used as much as the reads of the next 4,096 tokens give it: the sum of its shares among the ``top_k`` slots,
each times how right it was (cosine of its value and what came, at least 0); with ``--use worth`` also times the nats that what
came cost without episodic memory, so that what the cortex knew anyway counts little; with ``--use saved`` it is what a
stronger slot would save (`neuro.train.usefulness`), and of a model that has a tag the tag is judged. Every token is stored, for
4,096 tokens; reads see what was committed before their span. A ridge regression, fitted on train streams, predicts the root of
that (of what was saved, at most a nat of it) from surprise, novelty, salience, log frequency, position in the article and the
hidden state (the pair); its penalty is chosen on the last train stream. On valid: area under the curve at finding the most used
quarter, mean use of the quarter that a score puts first less that of surprise's, with a bootstrap over articles; correlation
with use (of ranks) once surprise, log frequency and position are taken from both; means over content and function words (by
their most frequent tag in UD English EWT train), beside the prominence that readers gave the same kinds of words (Helsinki
Prosody, test). One set of weights, seed 0. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import _machine
import numpy as np
import torch
from torch import Tensor
from train_tag import tagged

import neuro
from neuro import text
from neuro.affect import corpora
from neuro.brain import Brain
from neuro.evaluate import arms, perplexity, statistics
from neuro.layers.norm import normalize
from neuro.memory.episodic import EpisodicMemory
from neuro.regions.hippocampus import Hippocampus
from neuro.train import usefulness

HORIZON = usefulness.HORIZON
LENGTH = 2 * HORIZON  # tokens of a stream; the first half is judged by the second
NAMES = ("surprise", "novelty", "salience", "log_frequency", "log_position")
PENALTIES = (1e1, 1e2, 1e3, 1e4)
CONTENT = ("NOUN", "PROPN", "VERB", "ADJ", "ADV", "NUM", "INTJ")


class Items(NamedTuple):
    """The judged pairs of some streams, one row each."""

    plain: np.ndarray  # [N, 5] in the order of NAMES
    hidden: np.ndarray  # [N, D], or what a pair is, [N, D + K]
    use: np.ndarray  # [N]
    token: np.ndarray  # [N]
    article: np.ndarray  # [N]
    tag: np.ndarray | None  # [N] what the model foretold


def collect(brain: Brain, raw: str, streams: int, frequency: np.ndarray | None, use: str) -> tuple[Items, np.ndarray]:
    """Items of the first ``streams`` streams of a text, and how often each token stands in them."""
    lines, ids, article, position = raw.split("\n"), [], [], []
    for number, unit in enumerate(text.articles(lines)):
        coded = [token for line in unit for token in perplexity.code_line(line, brain, True)[0]]
        ids += coded
        article += [number] * len(coded)
        position += range(len(coded))
        if len(ids) >= streams * LENGTH:
            break
    rows = torch.tensor(ids[: streams * LENGTH]).reshape(streams, LENGTH)
    counts = np.bincount(rows.flatten().numpy(), minlength=brain.config.vocab_size)
    frequency = counts if frequency is None else frequency
    half = slice(1, HORIZON)  # nothing leads to a stream's first token
    known = [
        np.log(frequency[rows.numpy()] + 1.0)[:, half],
        np.log1p(np.array(position[: rows.numel()]).reshape(rows.shape))[:, half],
    ]
    *told, hidden, use_of, tag = (_saved if use == "saved" else _read)(brain, rows, half, use)
    plain = np.stack([column.ravel() for column in (*told, *known)], 1)
    apart = np.array(article[: rows.numel()]).reshape(rows.shape)[:, half].ravel()
    return Items(plain, hidden, use_of, rows[:, half].flatten().numpy(), apart, tag), frequency


Columns = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]


def _saved(brain: Brain, rows: Tensor, half: slice, use: str) -> Columns:
    """Surprise, novelty, salience, the pair, what it saved and its tag."""
    features, saved = (x[:, half] for x in usefulness.worth(brain, rows))
    surprise, novelty, salience = (features[..., column].numpy() for column in (0, 2, 3))
    tag = cast(Hippocampus, brain.regions["hippocampus"]).tag
    assert tag is not None
    foretold = (features * tag.weight).sum(-1) + tag.bias
    return (
        surprise,
        novelty,
        salience,
        features[..., 4:].flatten(0, 1).double().numpy(),
        saved.flatten().numpy(),
        foretold.flatten().numpy() if tag.weight.any() else None,
    )


@torch.no_grad()
def _read(brain: Brain, rows: Tensor, half: slice, use: str) -> Columns:
    """Surprise, novelty, salience, the hidden state and how much of each pair was read."""
    region = brain.regions["hippocampus"]
    assert isinstance(region, Hippocampus)
    state, kept = brain.init_state(len(rows)), []
    seen: list[Tensor] = []
    hook = region.norm.register_forward_hook(lambda module, given, out: seen.append(given[0]))
    for part in rows.split(brain.config.plasticity_span, 1):
        seen.clear()
        out = brain.scan(part, state)
        buffer = out.state.buffer
        # The region's norm sees the context first, then the hidden state.
        kept.append((buffer.keys, buffer.values, out.events.surprise, out.events.salience, seen[-1]))
        # What a token costs without what is judged here: the episodic memory.
        state = arms.keep_only(brain.commit(out.state)[0], arms.ARMS["procedural"])
    hook.remove()
    keys, values, surprise, salience, hidden = (torch.cat(parts, 1) for parts in zip(*kept, strict=True))
    cost = surprise if use == "worth" else torch.ones_like(surprise)
    found = [
        later_use(region.memory, *row, brain.config.plasticity_span) for row in zip(keys, values, cost, strict=True)
    ]
    return (
        surprise.numpy()[:, half],
        np.stack([novelty for _, novelty in found])[:, half],
        salience.numpy()[:, half],
        normalize(hidden[:, half]).flatten(0, 1).double().numpy() * hidden.shape[-1] ** 0.5,
        np.concatenate([use_of[half] for use_of, _ in found]),
        None,
    )


def later_use(
    memory: EpisodicMemory, keys: Tensor, values: Tensor, cost: Tensor, span: int
) -> tuple[np.ndarray, np.ndarray]:
    """(use of the pair that ends at each token, novelty of its key) [T]; keys[t] is the query made at token t - 1.

    ``cost`` [T] is what it is worth to be told a token.
    """
    length, said = len(keys), normalize(values)
    use, novelty = torch.zeros(length), torch.ones(length)
    for start in range(span, length, 256):
        asked = torch.arange(start, min(start + 256, length))
        low = max(0, start - HORIZON)
        slot = torch.arange(low, int(asked[-1]))
        made = asked - 1  # token at which the query was made
        held = (slot < (made // span * span).unsqueeze(1)) & (slot > (made - HORIZON).unsqueeze(1))
        cosine = torch.where(held, keys[asked] @ keys[slot].T, torch.full((1, 1), -2.0))
        best = torch.topk(cosine, memory.top_k, 1)
        share = torch.softmax(torch.exp(memory.log_scale) * best.values, 1) * (best.values > -2.0)
        chosen = slot[best.indices]
        right = (said[chosen] * said[asked].unsqueeze(1)).sum(-1).clamp_min(0.0)
        use.index_add_(0, chosen.flatten(), (share * right * cost[asked].unsqueeze(1)).flatten())
        novelty[asked] = 1.0 - best.values[:, 0].clamp(0.0, 1.0)
    return use.numpy(), novelty.numpy()


class Head(NamedTuple):
    """A ridge regression on standardized features."""

    mean: np.ndarray
    deviation: np.ndarray
    weight: np.ndarray

    def __call__(self, features: np.ndarray) -> np.ndarray:
        return (features - self.mean) / self.deviation @ self.weight


def fit(features: np.ndarray, target: np.ndarray, penalty: float) -> Head:
    mean, deviation = features.mean(0), features.std(0) + 1e-9
    x = (features - mean) / deviation
    return Head(
        mean, deviation, np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ (target - target.mean()))
    )


def chosen(features: np.ndarray, target: np.ndarray, judged: int) -> tuple[Head, float]:
    """The head of all rows, with the penalty that predicts the last ``judged`` best from the others."""

    def score(penalty: float) -> float:
        head = fit(features[:-judged], target[:-judged], penalty)
        return float(np.corrcoef(head(features[-judged:]), target[-judged:])[0, 1])

    penalty = max(PENALTIES, key=score)
    return fit(features, target, penalty), penalty


def ranks(values: np.ndarray) -> np.ndarray:
    """From 1, equals share their mean."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2.0)[which]


def area(scores: np.ndarray, used: np.ndarray) -> float:
    """Area under the curve of ``scores`` [N] at finding ``used`` [N] bool."""
    yes = int(used.sum())
    return float((ranks(scores)[used].sum() - yes * (yes + 1) / 2) / (yes * (len(used) - yes)))


def partial(a: np.ndarray, b: np.ndarray, controls: np.ndarray) -> float:
    """Correlation of what a linear fit on ``controls`` [N, C] leaves of both."""
    x = np.column_stack([np.ones(len(a)), controls])
    left = [y - x @ np.linalg.lstsq(x, y, rcond=None)[0] for y in (a, b)]
    return float(np.corrcoef(*left)[0, 1])


def over_articles(items: Items, measure: Any, draws: int) -> list[float]:
    """95 % interval of ``measure(rows)``, articles drawn with replacement."""
    random = np.random.default_rng(0)
    groups = [np.nonzero(items.article == number)[0] for number in np.unique(items.article)]
    drawn = [
        measure(np.concatenate([groups[n] for n in random.integers(0, len(groups), len(groups))])) for _ in range(draws)
    ]
    return [round(x, 4) for x in statistics.interval(np.array(drawn))]


def kinds(data: Path) -> tuple[list[str], list[str]]:
    """Content words and function words, in small letters."""
    tags: dict[str, Counter[str]] = {}
    with gzip.open(data / "ud-ewt" / "en_ewt-ud-train.conllu.gz", "rt", encoding="utf-8") as file:
        for line in file:
            cells = line.rstrip("\n").split("\t")
            if len(cells) == 10 and cells[0].isdecimal() and re.fullmatch("[A-Za-z]+", cells[1]):
                tags.setdefault(cells[1].lower(), Counter())[cells[3]] += 1
    content = {word for word, counted in tags.items() if counted.most_common(1)[0][0] in CONTENT}
    return sorted(content), sorted(tags.keys() - content)


def whole(words: list[str], brain: Brain) -> np.ndarray:
    """Ids of the tokens that are one of these words, in small letters or capitalized."""
    coded = [brain.tokenizer.encode(f" {word}") for known in words for word in (known, known.capitalize())]
    return np.unique([ids[0] for ids in coded if len(ids) == 1])


def spoken(words: tuple[list[str], list[str]], draws: int) -> dict[str, Any]:
    """Mean prominence (0, 1, 2) of content words over that of function words, readers drawn with replacement."""
    sums: dict[str, np.ndarray] = {}
    known = [set(kind) for kind in words]
    for name, sentence in corpora.prosody_by_file("test"):
        row = sums.setdefault(name.split("_")[0], np.zeros((2, 2)))
        for word in sentence:
            for place, kind in enumerate(known):
                if word.prominence is not None and word.text.lower() in kind:
                    row[place] += word.prominence, 1
    each = np.stack(list(sums.values()))

    def ratio(at: np.ndarray) -> float:
        (content, many), (function, few) = each[at].sum(0)
        return float(content / many / (function / few))

    random, every = np.random.default_rng(0), np.arange(len(each))
    drawn = np.array([ratio(random.choice(every, len(every))) for _ in range(draws)])
    return {
        "readers": len(each),
        "ratio": round(ratio(every), 3),
        "95": [round(x, 3) for x in statistics.interval(drawn)],
    }


def judged(items: Items, scores: dict[str, np.ndarray], draws: int) -> dict[str, Any]:
    used = items.use > np.quantile(items.use, 0.75)
    rank = ranks(items.use)
    controls = items.plain[:, [NAMES.index(name) for name in ("surprise", "log_frequency", "log_position")]]
    surprise = scores["surprise"]
    report: dict[str, Any] = {}

    def first(scores: np.ndarray, at: np.ndarray | slice = slice(None)) -> float:
        """Mean use of the quarter that comes first."""
        return float(items.use[at][scores[at] > np.quantile(scores[at], 0.75)].mean())

    for name, given in scores.items():
        row: dict[str, Any] = {"area": round(area(given, used), 4), "first_quarter": round(first(given), 4)}
        if name != "surprise":
            row["first_quarter_less_surprise_95"] = over_articles(
                items, lambda at, s=given: first(s, at) - first(surprise, at), draws
            )
            row["area_less_surprise_95"] = over_articles(
                items, lambda at, s=given: area(s[at], used[at]) - area(surprise[at], used[at]), draws
            )
        if name not in ("surprise", "log_frequency", "log_position"):
            row["partial_correlation"] = round(partial(given, rank, controls), 4)
            row["partial_correlation_95"] = over_articles(
                items, lambda at, s=given: partial(s[at], rank[at], controls[at]), draws
            )
        report[name] = row
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, required=True, help="folder with wikitext-2/ and ud-ewt/")
    parser.add_argument("--train", type=int, default=6, help="streams of 8,192 tokens")
    parser.add_argument("--valid", type=int, default=4)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--use", default="reads", choices=("reads", "worth", "saved"), help="what counts as use")
    parser.add_argument("--out", type=Path, help="where to keep the head, as npz, for useful_writes.py")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.use == "saved":
        brain = tagged(options.model, [f"hippocampus.slots={LENGTH}"])
    else:  # the context does not depend on the store, so a small one is enough to read with
        brain = neuro.load(options.model, sets=["hippocampus.slots=512"]).eval()
    texts = [text.read_text(options.data / "wikitext-2" / f"{name}.txt.gz") for name in ("train", "valid")]
    train, frequency = collect(brain, texts[0], options.train, None, options.use)
    valid, _ = collect(brain, texts[1], options.valid, frequency, options.use)
    target, last = train.use.clip(-1.0, 1.0) if options.use == "saved" else np.sqrt(train.use), HORIZON - 1

    def features(items: Items, which: Sequence[str]) -> np.ndarray:
        columns = [items.plain[:, NAMES.index(name)][:, None] for name in NAMES if name in which]
        return np.concatenate([*columns, *([items.hidden] if "hidden" in which else [])], 1)

    every = {"head": (*NAMES, "hidden"), "head without hidden": NAMES, "head of hidden alone": ("hidden",)}
    scores = {name: valid.plain[:, number] for number, name in enumerate(NAMES)}
    scores |= {f"less {name}": -scores[name] for name in ("novelty", "surprise")}
    if valid.tag is not None:
        scores |= {"tag": valid.tag, "tagged": np.exp(valid.tag.clip(-2.5, 2.5) / 2) * (valid.plain[:, 0] + 1e-3)}
    penalties = {}
    for name, which in every.items():
        head, penalties[name] = chosen(features(train, which), target, last)
        scores[name] = head(features(valid, which)) + target.mean()
        if options.out and name == "head":
            np.savez(options.out, **head._asdict(), centre=target.mean(), frequency=frequency)
    compared = {"surprise": scores["surprise"], "salience": scores["salience"]}
    if options.use == "saved":  # what is saved has no fixed sign, and so no ratio
        compared |= {"tagged": scores["tagged"]} if "tagged" in scores else {}
    else:
        compared |= {"use": valid.use, "head": scores["head"].clip(0.0) ** 2}
    words = kinds(options.data)
    content, function = (np.isin(valid.token, whole(kind, brain)) for kind in words)

    def ratio(values: np.ndarray, at: np.ndarray | slice = slice(None)) -> float:
        return float(values[at][content[at]].mean() / values[at][function[at]].mean())

    report = {
        "benchmark": "usefulness",
        "model": options.model,
        "seed": 0,
        "use_in": options.use,
        "machine": _machine.describe(),
        "items": {"train": len(train.use), "valid": len(valid.use), "articles": len(np.unique(valid.article))},
        "use": {
            "mean": round(float(valid.use.mean()), 4),
            "less_than_0.01": round(float((valid.use < 0.01).mean()), 4),
            "content": round(float(valid.use[content].mean()), 4),
            "function": round(float(valid.use[function].mean()), 4),
        },
        "penalties": penalties,
        "valid": judged(valid, scores, options.draws),
        "content_over_function": {
            name: {
                "ratio": round(ratio(values), 3),
                "95": over_articles(valid, lambda at, v=values: ratio(v, at), options.draws),
            }
            for name, values in compared.items()
        },
        "spoken": spoken(words, options.draws),
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
