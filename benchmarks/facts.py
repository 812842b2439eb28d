"""Does a short fact survive? Twelve-token facts, three arms: REAL memory, OFF (empty), SHUFFLED (another fact's).

    python benchmarks/facts.py small --seeds 3

Each fact is read once and committed. Then a fresh stream with that memory reads the cue and the probability of the
answer's first token is taken. SHUFFLED is the memory of another fact of the same form. Paired bootstrap over facts,
seeds as the outer level. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json

import _machine
import numpy as np
import torch

import neuro
from neuro.brain import Brain
from neuro.session import Session
from neuro.state import BrainState

# Templates and fillers are written for this benchmark and appear in no training text.
TEMPLATES = (
    "The colour of the {thing} in the old {place} is {answer}.",
    "Everyone in the {place} calls the {thing} simply {answer}.",
    "The {thing} that stands behind the {place} was named {answer}.",
    "In the {place} the keeper of the {thing} is {answer}.",
)
THINGS = ("door", "boat", "clock", "bridge", "horse", "tower", "lamp", "garden", "engine", "statue")
PLACES = ("harbour", "village", "castle", "market", "station", "valley", "church", "museum", "forest", "school")
ANSWERS = ("Victor", "Martin", "silver", "Oscar", "Helen", "crimson", "Boston", "purple", "Edward", "Philip")


def facts(count: int, seed: int) -> list[tuple[str, str]]:
    """(cue, answer) pairs; the answer's word starts with a space."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        template = TEMPLATES[random.integers(len(TEMPLATES))]
        pick = {name: str(random.choice(words)) for name, words in (("thing", THINGS), ("place", PLACES))}
        answer = str(random.choice(ANSWERS))
        cue = template.format(**pick, answer="\0").split("\0")[0].rstrip(" ")
        made.append((cue, " " + answer))
    return made


def memory_of(brain: Brain, text: str) -> BrainState:
    """A fresh stream whose only past is the memory of ``text``."""
    session = Session(brain)
    session.feed(torch.tensor([[brain.tokenizer.bos_id, *brain.tokenizer.encode(text)]]))
    session.commit()
    fresh = brain.init_state(1)
    return fresh._replace(regions=fresh.regions._replace(hippocampus=session.state.regions.hippocampus))


def answer_rank(brain: Brain, state: BrainState, cue: str, answer: str) -> tuple[float, int]:
    """(probability, rank from 1) of the answer's first token after the cue."""
    session = Session(brain, state)
    logits = session.feed(torch.tensor([[brain.tokenizer.bos_id, *brain.tokenizer.encode(cue)]]))[0]
    first = brain.tokenizer.encode(answer)[0]
    p = torch.softmax(logits, 0)
    return float(p[first]), int((p > p[first]).sum()) + 1


def measure(brain: Brain, count: int, seed: int) -> dict[str, np.ndarray]:
    """Probability and rank per fact and arm."""
    rows = facts(count, seed)
    memories = [memory_of(brain, cue + answer + ".") for cue, answer in rows]
    found: dict[str, list[tuple[float, int]]] = {"real": [], "off": [], "shuffled": []}
    for index, (cue, answer) in enumerate(rows):
        # The next fact whose answer differs: another stream's memory of the same size.
        other = next(j % count for j in range(index + 1, index + count) if rows[j % count][1] != answer)
        found["real"].append(answer_rank(brain, memories[index], cue, answer))
        found["off"].append(answer_rank(brain, brain.init_state(1), cue, answer))
        found["shuffled"].append(answer_rank(brain, memories[other], cue, answer))
    return {arm: np.array(values) for arm, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--facts", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    brain = neuro.load(options.model)
    runs = [measure(brain, options.facts, seed) for seed in range(options.seeds)]
    random = np.random.default_rng(0)

    def interval(against: str) -> list[float]:
        """95 % of the mean log-probability gain of REAL; seeds resampled first, then facts."""
        gains = np.stack([np.log(run["real"][:, 0]) - np.log(run[against][:, 0]) for run in runs])
        draws = []
        for _ in range(2000):
            seeds = random.integers(0, len(runs), len(runs))
            rows = random.integers(0, options.facts, (len(runs), options.facts))
            draws.append(np.mean([gains[s][r].mean() for s, r in zip(seeds, rows, strict=True)]))
        return [float(x) for x in np.quantile(draws, [0.025, 0.975])]

    report = {
        "benchmark": "facts",
        "model": options.model,
        "seeds": options.seeds,
        "facts_per_seed": options.facts,
        "machine": _machine.describe(),
        "first_choice_share": {arm: float(np.mean([run[arm][:, 1] == 1 for run in runs])) for arm in runs[0]},
        "median_probability": {arm: float(np.median([run[arm][:, 0] for run in runs])) for arm in runs[0]},
        "nats_gained_over_off_95": interval("off"),
        "nats_gained_over_shuffled_95": interval("shuffled"),
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
