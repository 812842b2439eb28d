"""Is a fact recalled that is asked for in other words than it was told in? Three arms: REAL memory, OFF, SHUFFLED.

    python benchmarks/restated.py small --facts 4

The twelve sentences of `facts.py` are read once and committed, each in a stream of its own, and then asked for by the words
they were told in and by others, which keep the names and end where the answer's first token is due. SHUFFLED is the memory of a
fact of the same template with another answer. Intervals are paired bootstraps over templates, then over a template's facts.
Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json

import _machine
import numpy as np
from facts import ANSWERS, PLACES, TEMPLATES, THINGS, answer_rank, memory_of

import neuro
from neuro.brain import Brain

OTHERWISE = (  # how each of facts.TEMPLATES is asked for in other words
    "In the old {place} the {thing} has a colour, which is",
    "The name that all people in the {place} have for the {thing} is",
    "Behind the {place} there is a {thing}, and its name is",
    "Who keeps the {thing} in the {place}? It is",
    "To get into the {place} you have to say the word",
    "The name of my {thing} is",
    "With whom is the {thing} now? We left it with",
    "The person who should get the {thing} is",
    "The {place} was painted by a man called",
    "The word that stood on the {thing} was",
    "Who is forgotten by all at the {place}? It is",
    "Last year somebody bought the {place}, and the buyer was",
)
ARMS = ("real", "off", "shuffled")


def asked(brain: Brain, index: int, count: int, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Probability and rank of the answer [facts, arms, 2], asked for in the same words and in others."""
    picks = []
    while len(picks) < count:  # no answer twice, so that each has another's memory
        pick = {"thing": str(random.choice(THINGS)), "place": str(random.choice(PLACES))}
        answer = str(random.choice(ANSWERS))
        if answer not in [done for _, done in picks]:
            picks.append((pick, answer))
    memories = [memory_of(brain, TEMPLATES[index].format(**pick, answer=answer)) for pick, answer in picks]
    found: dict[str, list[list[tuple[float, int]]]] = {"same": [], "other": []}
    for row, (pick, answer) in enumerate(picks):
        cues = {
            "same": TEMPLATES[index].format(**pick, answer="\0").split("\0")[0].rstrip(" "),
            "other": OTHERWISE[index].format(**pick),
        }
        states = (memories[row], brain.init_state(1), memories[(row + 1) % count])
        for words, cue in cues.items():
            found[words].append([answer_rank(brain, state, cue, " " + answer) for state in states])
    return {words: np.array(values) for words, values in found.items()}


def interval(values: list[np.ndarray]) -> list[float]:
    """95 % of the mean of [facts] of each template."""
    random, draws = np.random.default_rng(0), []
    for _ in range(2000):
        chosen = random.integers(0, len(values), len(values))
        draws.append(np.mean([random.choice(values[t], len(values[t])).mean() for t in chosen]))
    return [float(x) for x in np.quantile(draws, [0.025, 0.975])]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--facts", type=int, default=4, help="of each template, 2 to 10")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    brain, random = neuro.load(options.model), np.random.default_rng(options.seed)
    runs = [asked(brain, index, options.facts, random) for index in range(len(TEMPLATES))]
    record: dict[str, object] = {"machine": _machine.describe(), "model": options.model, "seed": options.seed}
    record["facts"] = options.facts * len(TEMPLATES)
    for words in ("same", "other"):
        nats = [np.log(run[words][..., 0]) for run in runs]  # each [facts, arms]
        row: dict[str, object] = {}
        for column, arm in enumerate(ARMS):
            row[arm] = {
                "first_choice": float(np.mean([run[words][:, column, 1] == 1 for run in runs])),
                "nats": float(-np.mean([part[:, column] for part in nats])),
            }
        for column, arm in list(enumerate(ARMS))[1:]:
            gained = [part[:, 0] - part[:, column] for part in nats]
            row[f"gained_over_{arm}"] = [float(np.mean(gained)), *interval(gained)]
        record[words] = row
    print(json.dumps(record, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
