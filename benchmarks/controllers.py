"""Does it matter which tokens the episodic memory writes? Controllers at one write budget, on the same weights.

    python benchmarks/controllers.py small --data $NEURO_DATA

learned (salience and novelty), surprise, random and periodic write a quarter of every span; "always" writes all of it,
"never" nothing. The procedural memory is off. Four tasks, none of them training text: a passage shown again after 8,000 other
tokens (`neuro eval --suite repeat`), a fact recalled after 2,048 tokens of another text (`benchmarks/facts.py`), another
domain (Grimm's tales) and WikiText-2 valid. Differences are paired; brackets: 95 % bootstrap over places of the text, facts,
or blocks of 1,000 tokens. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path

import _machine
import facts
import numpy as np
import torch

import neuro
from neuro import text
from neuro.brain import Brain
from neuro.config import CONTROLLERS
from neuro.evaluate import arms, perplexity, repeat
from neuro.evaluate.stream import Stream, evaluating
from neuro.session import Session

SHARE = 4  # a controller may write one token in so many
MEMORIES = ("episodic",)
BLOCK = 1000
FILLER = 2048


def brains(model: str) -> dict[str, Brain]:
    span = neuro.load(model).config.plasticity_span
    budget = f"hippocampus.writes_per_span={span // SHARE}"
    made = {name: neuro.load(model, sets=[f"hippocampus.controller={name}", budget]) for name in CONTROLLERS}
    return made | {"always": neuro.load(model, sets=[f"hippocampus.writes_per_span={span}"])}


def read(brain: Brain, ids: list[int], memories: tuple[str, ...]) -> np.ndarray:
    with evaluating(brain):
        return Stream(brain, memories).read([brain.tokenizer.bos_id, *ids])[1:]


def blocks(nats: np.ndarray) -> np.ndarray:
    """Mean of each block."""
    return np.array([part.mean() for part in np.array_split(nats, max(1, len(nats) // BLOCK))])


def repeated(brain: Brain, raw: str, samples: int, memories: tuple[str, ...]) -> np.ndarray:
    """Nats per token of the second showing of each sample."""
    found = []
    for place in repeat.samples(brain, raw, True, repeat.Protocol(samples=samples)):
        with evaluating(brain):
            stream = Stream(brain, memories)
            for part in ([brain.tokenizer.bos_id, *place.warm_up], place.passage, place.gap):
                stream.read(part)
            found.append(stream.read(place.passage).mean())
    return np.array(found)


def recalled(brain: Brain, rows: list[tuple[str, str]], filler: list[int], memories: tuple[str, ...]) -> np.ndarray:
    """-log p of each fact's answer after the filler."""
    found = []
    for cue, answer in rows:
        session = Session(brain, facts.memory_of(brain, cue + answer + "."))
        session.feed(torch.tensor([filler]))
        session.commit()
        kept = arms.keep_only(session.state, memories)
        found.append(
            -math.log(facts.answer_rank(brain, arms.with_memories_of(brain.init_state(1), kept), cue, answer)[0])
        )
    return np.array(found)


def interval(values: np.ndarray, draws: int = 2000) -> list[float]:
    random = np.random.default_rng(0)
    means = values[random.integers(0, len(values), (draws, len(values)))].mean(1)
    return [round(float(x), 4) for x in np.quantile(means, [0.025, 0.975])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, required=True, help="folder with wikitext-2/ and books/")
    parser.add_argument("--tokens", type=int, default=20_000, help="of each text")
    parser.add_argument("--samples", type=int, default=5, help="passages of the task repeat")
    parser.add_argument("--seeds", type=int, default=2, help="facts of every sentence form")
    options = parser.parse_args()
    torch.set_num_threads(1)
    valid = text.read_text(options.data / "wikitext-2" / "valid.txt.gz")
    grimm = text.read_text(options.data / "books" / "grimm_2591.txt.gz")
    alice = text.read_text(options.data / "books" / "alice_11.txt.gz")
    costs: dict[str, dict[str, np.ndarray]] = {}
    every = brains(options.model)
    for name, brain in (every | {"never": every["always"]}).items():
        memories = MEMORIES if name != "never" else ()
        coded = perplexity.code(valid, brain, wikitext=True)
        rows = [facts.facts(t, 1, np.random.default_rng(s))[0] for t in facts.TEMPLATES for s in range(options.seeds)]
        filler = brain.tokenizer.encode(alice)[:FILLER]
        costs[name] = {
            "repeat": repeated(brain, valid, options.samples, memories),
            "recall after 2,048 tokens": recalled(brain, rows, filler, memories),
            "adaptation (Grimm)": blocks(read(brain, brain.tokenizer.encode(grimm)[: options.tokens], memories)),
            "WikiText-2 valid": blocks(
                read(brain, [i for unit in coded.ids for i in unit][: options.tokens], memories)
            ),
        }
        print(f"{name}: " + ", ".join(f"{task} {x.mean():.3f}" for task, x in costs[name].items()), file=sys.stderr)
    heuristics = [name for name in CONTROLLERS if name != "learned"]
    report = {
        "benchmark": "controllers",
        "model": options.model,
        "machine": _machine.describe(),
        "writes_per_1000_tokens": {"always": 1000, "never": 0} | dict.fromkeys(CONTROLLERS, 1000 // SHARE),
        "nats_per_token": {
            arm: {task: round(float(x.mean()), 4) for task, x in by.items()} for arm, by in costs.items()
        },
        "learned_less_heuristic_95": {
            task: {name: interval(costs["learned"][task] - costs[name][task]) for name in heuristics}
            for task in costs["learned"]
        },
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
