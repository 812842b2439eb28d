"""Does a short fact survive? Facts of about twelve tokens, three arms: REAL memory, OFF (empty), SHUFFLED (another fact's).

    python benchmarks/facts.py small --seeds 5

Each fact is read once and committed. Then a fresh stream with that memory reads the cue and the probability of the
answer's first token is taken. SHUFFLED is the memory of another fact of the same template with another answer. The
interval is a paired bootstrap over templates (which sentence it is matters most), then over a template's facts. Then
some facts are kept while the stream reads on in another text, to see when they are lost. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import _machine
import numpy as np
import torch

import neuro
from neuro import text
from neuro.brain import Brain
from neuro.evaluate import arms
from neuro.session import Session
from neuro.state import BrainState

# Templates and fillers are written for this benchmark and appear in no training text.
TEMPLATES = (
    "The colour of the {thing} in the old {place} is {answer}.",
    "Everyone in the {place} calls the {thing} simply {answer}.",
    "The {thing} that stands behind the {place} was named {answer}.",
    "In the {place} the keeper of the {thing} is {answer}.",
    "The password of the {place} is {answer}.",
    "My {thing} is called {answer}.",
    "We left the {thing} at the {place} with {answer}.",
    "Please give the {thing} to {answer}.",
    "The man who painted the {place} was {answer}.",
    "On the {thing} somebody had written the word {answer}.",
    "Nobody at the {place} remembers {answer}.",
    "The {place} was sold last year to {answer}.",
)
THINGS = ("door", "boat", "clock", "bridge", "horse", "tower", "lamp", "garden", "engine", "statue")
PLACES = ("harbour", "village", "castle", "market", "station", "valley", "church", "museum", "forest", "school")
ANSWERS = ("Victor", "Martin", "silver", "Oscar", "Helen", "crimson", "Boston", "purple", "Edward", "Philip")
LENGTHS = (0, 1024, 4096, 8192, 16384, 24576)


def facts(template: str, count: int, random: np.random.Generator) -> list[tuple[str, str]]:
    """(cue, answer) pairs; the answer's word starts with a space."""
    made = []
    for _ in range(count):
        pick = {name: str(random.choice(words)) for name, words in (("thing", THINGS), ("place", PLACES))}
        answer = str(random.choice(ANSWERS))
        cue = template.format(**pick, answer="\0").split("\0")[0].rstrip(" ")
        made.append((cue, " " + answer))
    return made


def memory_of(brain: Brain, fact: str) -> BrainState:
    """A fresh stream whose only past is the memory of ``fact``."""
    session = Session(brain)
    session.feed(torch.tensor([[brain.tokenizer.bos_id, *brain.tokenizer.encode(fact)]]))
    session.commit()
    return arms.with_memories_of(brain.init_state(1), session.state)


def answer_rank(brain: Brain, state: BrainState, cue: str, answer: str) -> tuple[float, int]:
    """(probability, rank from 1) of the answer's first token after the cue."""
    session = Session(brain, state)
    logits = session.feed(torch.tensor([[brain.tokenizer.bos_id, *brain.tokenizer.encode(cue)]]))[0]
    first = brain.tokenizer.encode(answer)[0]
    p = torch.softmax(logits, 0)
    return float(p[first]), int((p > p[first]).sum()) + 1


def measure(brain: Brain, rows: list[tuple[str, str]]) -> dict[str, np.ndarray]:
    """Probability and rank [facts, 2] per arm, for facts of one template."""
    count = len(rows)
    memories = [memory_of(brain, cue + answer + ".") for cue, answer in rows]
    found: dict[str, list[tuple[float, int]]] = {"real": [], "off": [], "shuffled": []}
    for index, (cue, answer) in enumerate(rows):
        others = (j % count for j in range(index + 1, index + count) if rows[j % count][1] != answer)
        found["real"].append(answer_rank(brain, memories[index], cue, answer))
        found["off"].append(answer_rank(brain, brain.init_state(1), cue, answer))
        found["shuffled"].append(answer_rank(brain, memories[next(others)], cue, answer))
    return {arm: np.array(values) for arm, values in found.items()}


def kept_after(brain: Brain, rows: list[tuple[str, str]], filler: list[int], lengths: tuple[int, ...]) -> list[float]:
    """Share of facts still the first choice after the stream has read so many tokens of another text."""
    hits = np.zeros((len(rows), len(lengths)))
    for index, (cue, answer) in enumerate(rows):
        session = Session(brain, memory_of(brain, cue + answer + "."))
        read = 0
        for column, length in enumerate(lengths):
            if length > read:
                session.feed(torch.tensor([filler[read:length]]))
                session.commit()
                read = length
            memory = arms.with_memories_of(brain.init_state(1), session.state)
            hits[index, column] = answer_rank(brain, memory, cue, answer)[1] == 1
    return hits.mean(0).tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--facts", type=int, default=6, help="of each template and seed")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--filler", type=Path, help="a text to read on in, for the retention curve")
    options = parser.parse_args()
    brain = neuro.load(options.model)
    runs: list[dict[str, np.ndarray]] = []  # of each template, its facts of all seeds
    examples = []
    for template in TEMPLATES:
        parts = []
        for seed in range(options.seeds):
            rows = facts(template, options.facts, np.random.default_rng(seed))
            parts.append(measure(brain, rows))
            examples += rows[:1] if seed == 0 else []
        runs.append({arm: np.concatenate([part[arm] for part in parts]) for arm in parts[0]})
    random = np.random.default_rng(0)

    def interval(values: list[np.ndarray]) -> list[float]:
        """95 % of the mean; templates are resampled first, then the facts of each."""
        draws = []
        for _ in range(2000):
            chosen = random.integers(0, len(values), len(values))
            draws.append(np.mean([random.choice(values[t], len(values[t])).mean() for t in chosen]))
        return [float(x) for x in np.quantile(draws, [0.025, 0.975])]

    def gain(against: str) -> list[float]:
        return interval([np.log(run["real"][:, 0]) - np.log(run[against][:, 0]) for run in runs])

    first = {arm: [(run[arm][:, 1] == 1).astype(float) for run in runs] for arm in runs[0]}
    report = {
        "benchmark": "facts",
        "model": options.model,
        "seeds": options.seeds,
        "templates": len(TEMPLATES),
        "facts": sum(len(run["real"]) for run in runs),
        "machine": _machine.describe(),
        "first_choice_share": {arm: float(np.mean([hits.mean() for hits in values])) for arm, values in first.items()},
        "first_choice_share_95": {arm: interval(values) for arm, values in first.items()},
        "first_choice_by_template": {t: float(hits.mean()) for t, hits in zip(TEMPLATES, first["real"], strict=True)},
        "nats_gained_over_off_95": gain("off"),
        "nats_gained_over_shuffled_95": gain("shuffled"),
    }
    if options.filler:
        filler = brain.tokenizer.encode(text.read_text(options.filler)[: 8 * LENGTHS[-1]])
        report["kept_after_tokens"] = dict(zip(LENGTHS, kept_after(brain, examples, filler, LENGTHS), strict=True))
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
