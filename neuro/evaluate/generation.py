"""The suite ``generation``: what the model writes, beside what people wrote at the same places.

Prompts of 64 tokens (<bos> and 63 of an article, evenly spaced over it) are continued by 128 tokens with the default
sampler (`neuro.sampling.Sampler`). The row "human" is what the article goes on with (which may hold `<unk>`; no sampler
writes it). All measures are over the model's tokens, so they compare only within one tokenizer:

    rep_n        1 - distinct n-grams / n-grams of a continuation (Welleck et al. 2020, arXiv:1908.04319), mean
    diversity    product over n = 2, 3, 4 of 1 - rep_n (Su et al. 2022, arXiv:2202.06417), mean
    distinct_n   distinct n-grams / n-grams of all continuations together (Li et al. 2016, arXiv:1510.03055)
    zipf         minus the slope of log frequency over log rank, all continuations together (Holtzman et al. 2020,
                 arXiv:1904.09751); depends on how many there are, so compare at equal counts
    rep_in_32    share of tokens that are among the 32 before them in the continuation
    copied_4     share of the 4-grams that also occur in the prompt
    loops        share of continuations whose last 32 tokens have a period of at most 16
    entropy      of the tokens of all continuations together, nats
    nats         mean -log p of a token under the model itself, at temperature 1 from the whole vocabulary
    raw_entropy  mean entropy, in nats, of that distribution before each token; likeliest its mean largest probability

Arms: as `neuro/evaluate/arms.py`; the prompt ends its span, then SHUFFLED goes on with the memories of the next row's
prompt. Every arm draws with the same random numbers. Intervals: 95 % bootstrap over articles.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuro.brain import Brain
from neuro.errors import UsageError
from neuro.evaluate import arms, perplexity, statistics
from neuro.evaluate.parts import Parts
from neuro.evaluate.stream import evaluating
from neuro.plots import grouped
from neuro.sampling import Sampler
from neuro.session import Session
from neuro.state import select_rows

PROMPT, WRITTEN, BATCH = 64, 128, 16


def run(
    brain: Brain,
    raw: str,
    out: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
    wikitext: bool = False,
    samples: int = 100,
    seed: int = 0,
) -> dict[str, Any]:
    """The suite -> its JSON record.

    Args:
        raw: the text that is continued.
        out: where finished pieces, one of each arm, are kept.
        wikitext: the text is in WikiText's word-token form.
        samples: continuations.
        seed: of the sampler.

    Raises:
        UsageError: fewer than two samples, or a text too short for them.
    """
    if samples < 2:
        raise UsageError(
            f"generation: got {samples} samples, expected at least 2.", "Leave out --samples, or give more."
        )
    rows, owners = windows(brain, raw, samples, wikitext)
    if len(rows) < samples:
        raise UsageError(
            f"generation: got a text with {len(rows)} places of {PROMPT - 1 + WRITTEN} tokens inside its articles or "
            f"blocks, expected {samples}.",
            "Give a longer text or fewer --samples.",
        )
    settings = {"wikitext": wikitext, "samples": samples, "seed": seed}
    sampler = {"temperature": Sampler().temperature, "top_p": Sampler().top_p}
    parts = Parts(out, "generation", brain, raw, settings | sampler, say)
    prompts = rows[:, :PROMPT]
    found = {"human": parts.get("human", "what people wrote", lambda: _written(brain, rows, None, seed))}
    names = arms.of(brain)
    if arms.memories(brain):
        names.insert(-1, "shuffled")
    for arm in names:
        found[arm] = parts.get(
            arm,
            f"writing with {arms.LABELS[arm]}",
            lambda arm=arm: _written(brain, prompts, arm, seed),  # type: ignore[misc]
        )
    measures = {
        arm: measure(prompts.numpy(), np.array(piece["ids"]), np.array(piece["nats"]), owners)
        | {"raw_entropy": piece["raw_entropy"], "likeliest": piece["likeliest"]}
        for arm, piece in found.items()
    }
    decode = brain.tokenizer.decode
    return {
        **settings,
        "articles": len(np.unique(owners)),
        "tokens_each": WRITTEN,
        "sampler": sampler,
        "found": measures,
        "first": {arm: decode(piece["ids"][0]) for arm, piece in found.items()}
        | {"prompt": decode(prompts[0].tolist())},
    }


def table(record: dict[str, Any]) -> list[str]:
    """The record in words."""
    told = [
        f"{record['samples']} continuations of {record['tokens_each']} tokens, {record['articles']} articles or blocks; "
        f"temperature {record['sampler']['temperature']}, top_p {record['sampler']['top_p']}; brackets: 95 %",
        f"{'':<22}  {'rep_2':>6}  {'rep_3':>6}  {'rep_4 [95 %]':<21}  {'diversity [95 %]':<21}  {'loops':>5}  {'dist_1':>6}  "
        f"{'dist_2':>6}  {'zipf':>5}  {'nats':>5}  {'raw entropy':>11}  likeliest",
    ]
    for arm, m in record["found"].items():
        rep, spread = (_bracketed(m[name], m[f"{name}_interval"]) for name in ("rep_4", "diversity"))
        label = "what people wrote" if arm == "human" else arms.LABELS[arm]
        told.append(
            f"{label:<22}  {m['rep_2']:6.4f}  {m['rep_3']:6.4f}  {rep:<21}  {spread:<21}  {m['loops']:5.3f}  "
            f"{m['distinct_1']:6.3f}  {m['distinct_2']:6.3f}  {m['zipf']:5.2f}  {m['nats']:5.2f}  "
            f"{m['raw_entropy']:11.2f}  {m['likeliest']:.2f}"
        )
    return told


def picture(record: dict[str, Any], out: Path) -> Path | None:
    """rep_4 and 1 - diversity of each arm and of people; None without matplotlib."""
    bars: dict[str, list[tuple[float, tuple[float, float] | None]]] = {}
    for arm, m in record["found"].items():
        label = "what people wrote" if arm == "human" else arms.LABELS[arm]
        again, varied = m["rep_4_interval"], m["diversity_interval"]
        bars[label] = [
            (m["rep_4"], None if again is None else (again[0], again[1])),
            (1 - m["diversity"], None if varied is None else (1 - varied[1], 1 - varied[0])),
        ]
    return grouped(["rep_4", "1 - diversity"], bars, "share repeated", out)


def windows(brain: Brain, raw: str, count: int, wikitext: bool = True) -> tuple[Tensor, np.ndarray]:
    """Prompts with their human continuation [count, PROMPT + WRITTEN], and the article of each; fewer if there are no more."""
    articles = perplexity.code(raw, brain, wikitext).ids
    body, rows, owners = PROMPT - 1 + WRITTEN, [], []
    each = -(-count // len(articles))
    for number, ids in enumerate(articles):
        fitting = min(each, len(ids) // body)
        for start in np.linspace(0, len(ids) - body, fitting).astype(int) if fitting else []:
            rows.append([brain.tokenizer.bos_id, *ids[start : start + body]])
            owners.append(number)
    kept = np.sort(np.random.default_rng(0).permutation(len(rows))[:count])
    return torch.tensor(rows).reshape(-1, PROMPT + WRITTEN)[kept], np.array(owners, dtype=int)[kept]


@torch.no_grad()
def _written(brain: Brain, rows: Tensor, arm: str | None, seed: int) -> dict[str, Any]:
    """Continuations of prompts under an arm, or with no arm the rest of the rows themselves, as the brain with all
    memories on sees it: ids [N, WRITTEN], the nats of each, and the raw distribution's mean entropy and largest probability."""
    kept = arms.ARMS["real" if arm in (None, "shuffled") else arm]
    sampler = _Nucleus(brain, seed)
    ids, nats, entropies, tops = [], [], [], []
    with evaluating(brain):
        for part in rows.split(BATCH):
            session = Session(brain, batch=len(part))
            logits = _fed(session, part[:, :PROMPT], kept)
            session.commit()
            if arm == "shuffled":
                others = torch.roll(torch.arange(len(part), device=session.state.started.device), 1)
                session.state = arms.with_memories_of(session.state, select_rows(session.state, others))
            session.state = arms.keep_only(session.state, kept)
            written = []
            for step in range(WRITTEN):
                log_p = torch.log_softmax(logits.double().cpu(), -1)
                token = part[:, PROMPT + step] if arm is None else sampler(logits)
                nats.append(-log_p.gather(1, token[:, None])[:, 0])
                entropies.append(-(log_p.exp() * log_p).sum(1))
                tops.append(log_p.max(1).values.exp())
                written.append(token)
                logits = _fed(session, token[:, None], kept)
            ids.append(torch.stack(written, 1))
    of_rows = torch.cat(ids)
    return {
        "ids": of_rows.tolist(),
        "nats": [round(float(x), 6) for x in torch.cat(nats)],
        "raw_entropy": float(torch.cat(entropies).mean()),
        "likeliest": float(torch.cat(tops).mean()),
    }


def _fed(session: Session, tokens: Tensor, kept: Sequence[str]) -> Tensor:
    """Logits [B, V] after the last of tokens [B, T], the other memories emptied after every commit."""
    span, start = session.brain.config.plasticity_span, 0
    while start < tokens.shape[1]:
        part = tokens[:, start : start + session.brain.remaining(session.state)]
        logits = session.feed(part)
        if session.brain.remaining(session.state) == span:  # it has just committed
            session.state = arms.keep_only(session.state, kept)
        start += part.shape[1]
    return logits


class _Nucleus:
    """`Sampler` over a batch [B, V] -> [B], its defaults and its forbidden tokens, from one generator."""

    def __init__(self, brain: Brain, seed: int) -> None:
        self.like = Sampler(banned=tuple(brain.tokenizer.never_written))
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, logits: Tensor) -> Tensor:
        logits = logits.detach().float().cpu().clone()
        logits[:, list(self.like.banned)] = -torch.inf
        p, ids = torch.softmax(logits / self.like.temperature, -1).sort(-1, descending=True)
        p = p.masked_fill(p.cumsum(-1) - p >= self.like.top_p, 0.0)
        return ids.gather(1, torch.multinomial(p, 1, generator=self.generator))[:, 0]


def grams(ids: Sequence[int], n: int) -> list[tuple[int, ...]]:
    """Its n-grams in order."""
    return list(zip(*(ids[i:] for i in range(n)), strict=False))


def repeated(ids: Sequence[int], n: int) -> float:
    """Share of the n-grams that are there already."""
    found = grams(ids, n)
    return 1 - len(set(found)) / len(found)


def loops(ids: Sequence[int]) -> bool:
    """Whether its end goes round: the last 32 tokens have a period of at most 16."""
    end = list(ids[-32:])
    return any(end[period:] == end[:-period] for period in range(1, 17))


def zipf(counts: Sequence[int]) -> float:
    """Minus the least-squares slope of log frequency over log rank, the 5,000 most frequent."""
    often = np.log(np.sort(np.array(counts, dtype=float))[::-1][:5000])
    rank = np.log(np.arange(1, len(often) + 1))
    return float(-np.polyfit(rank, often, 1)[0]) if len(often) > 1 else 0.0


def measure(prompts: np.ndarray, written: np.ndarray, nats: np.ndarray, owners: np.ndarray) -> dict[str, Any]:
    """The measures of the module's docstring that need no logits.

    Args:
        prompts, written: token ids [N, PROMPT] and [N, T].
        nats: of each written token.
        owners: article of each row [N].
    """
    columns: dict[str, list[float]] = {}
    for prompt, ids in zip(prompts.tolist(), written.tolist(), strict=True):
        reps = {n: repeated(ids, n) for n in (2, 3, 4)}
        known = set(grams(prompt, 4))
        row = {f"rep_{n}": rep for n, rep in reps.items()} | {
            "diversity": float(np.prod([1 - rep for rep in reps.values()])),
            "rep_in_32": float(np.mean([ids[t] in ids[max(0, t - 32) : t] for t in range(1, len(ids))])),
            "copied_4": float(np.mean([gram in known for gram in grams(ids, 4)])),
            "loops": float(loops(ids)),
        }
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
    report: dict[str, Any] = {name: float(np.mean(values)) for name, values in columns.items()}
    for n in (1, 2, 3):
        every = [gram for ids in written.tolist() for gram in grams(ids, n)]
        report[f"distinct_{n}"] = len(set(every)) / len(every)
    counts = list(Counter(written.ravel().tolist()).values())
    share = np.array(counts) / written.size
    report |= {"zipf": zipf(counts), "entropy": float(-(share * np.log(share)).sum()), "nats": float(nats.mean())}
    for name in ("rep_4", "diversity"):
        report[f"{name}_interval"] = interval(np.array(columns[name]), owners)
    return report


def _bracketed(value: float, interval: list[float] | None) -> str:
    return f"{value:.4f} " + ("[one article]" if interval is None else f"[{interval[0]:.4f}, {interval[1]:.4f}]")


def interval(values: np.ndarray, owners: np.ndarray) -> list[float] | None:
    """95 % of the mean, articles resampled; None of one article, every draw of which is that article."""
    groups = [values[owners == owner] for owner in np.unique(owners)]
    if len(groups) < 2:
        return None
    sums, sizes = statistics.resampled_sums([np.stack([group, np.ones_like(group)], 1) for group in groups])
    return list(statistics.interval(sums / sizes))
