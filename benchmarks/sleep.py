"""What does a night change? A passage and facts are read, the stream sleeps, reads on, and is asked again.

    python benchmarks/sleep.py small --data $NEURO_DATA --samples 3 --rounds 2

A sample is one place of WikiText-2 valid: warm-up, passage, twelve facts (`benchmarks/facts.py`), then one of

    awake   nothing
    sleep   `neuro.sleep`
    other   as many tokens replayed in as many commits, of what another sample's stream holds

then a gap of other text, with a store that the gap overruns; then each fact's cue and the passage, on forks. Nats per token of
the passage and of each fact's first answer token, with all memories, the episodic and the procedural memory alone; nats per
token of the gap say what the night costs other text. Paired differences; brackets: 95 % bootstrap over samples and blocks
of 100 tokens (facts: samples, then facts). One set of weights. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import _machine
import facts
import numpy as np
import torch
from torch import Tensor

import neuro
from neuro import sleep, text
from neuro.brain import Brain
from neuro.evaluate import arms, repeat, statistics
from neuro.evaluate.stream import Stream
from neuro.state import BrainState, tree_map

NIGHTS = ("awake", "sleep", "other")
MODES = ("real", "episodic", "procedural")
BLOCK = 100


@torch.no_grad()
def read(brain: Brain, state: BrainState, rows: Tensor, kept: tuple[str, ...]) -> tuple[np.ndarray, BrainState]:
    """Nats [B,T] of a batch of streams, and their state after the last commit."""
    nats = []
    for part in rows.split(brain.config.plasticity_span, 1):
        out = brain.scan(part, state)
        nats.append(out.events.surprise)
        state = arms.keep_only(brain.commit(out.state)[0], kept)
    return torch.cat(nats, 1).double().numpy(), state


def together(states: list[BrainState]) -> BrainState:
    return tree_map(lambda *rows: rows[0] if rows[0].dim() == 0 else torch.cat(rows), *states)


def row_of(state: BrainState, row: int) -> BrainState:
    return tree_map(lambda leaf: leaf if leaf.dim() == 0 else leaf[row : row + 1], state)


def asleep(brain: Brain, state: BrainState, other: BrainState, night: str, rounds: int) -> BrainState:
    if night == "awake":
        return state
    if night == "sleep":
        return sleep.sleep(brain, state, rounds)[0]
    # The other stream's slots dream in this stream's cortex; this one's slots stay as they are.
    guest = state._replace(regions=state.regions._replace(hippocampus=other.regions.hippocampus))
    dreamt = sleep.sleep(brain, guest, rounds, strengthens=False, merges=False)[0]
    return state._replace(regions=state.regions._replace(cortex=dreamt.regions.cortex))


def blocked(difference: list[np.ndarray]) -> dict[str, Any]:
    """Mean of a difference of nats per token and its interval."""
    units = [np.stack([row, np.ones(len(row))], 1) for row in difference]
    sums = statistics.resampled_sums(units, BLOCK)
    mean = float(np.concatenate(difference).mean())
    low, high = statistics.interval(sums[0] / sums[1])
    return {"mean": round(mean, 4), "95": [round(low, 4), round(high, 4)]}


def nested(difference: np.ndarray) -> dict[str, Any]:
    """[samples, facts] -> mean and interval."""
    groups = [np.stack([row, np.ones(len(row))], 1) for row in difference]
    sums = statistics.nested_sums(groups)
    low, high = statistics.interval(sums[0] / sums[1])
    return {"mean": round(float(difference.mean()), 4), "95": [round(low, 4), round(high, 4)]}


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, required=True, help="folder with wikitext-2/")
    parser.add_argument("--samples", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--slots", type=int, default=2048)
    parser.add_argument("--length", type=int, default=1000, help="tokens of the passage, and of the warm-up")
    parser.add_argument("--gap", type=int, default=8000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    brain = neuro.load(options.model, sets=[f"hippocampus.slots={options.slots}"]).eval()
    raw = text.read_text(options.data / "wikitext-2" / "valid.txt.gz")
    protocol = repeat.Protocol(options.length, options.gap, options.samples, options.seed, options.length)
    places = repeat.samples(brain, raw, True, protocol)
    questions = [
        [facts.facts(form, 1, np.random.default_rng([options.seed, n]))[0] for form in facts.TEMPLATES]
        for n in range(len(places))
    ]
    before, bos = [], brain.tokenizer.bos_id
    for place, asked in zip(places, questions, strict=True):
        stream = Stream(brain, arms.ARMS["real"])
        stream.read([bos, *place.warm_up])
        stream.read(place.passage)
        for cue, answer in asked:
            stream.read([bos, *brain.tokenizer.encode(f"{cue}{answer}.")])
        before.append(stream.state)
    nights, seconds = [], {}
    for night in NIGHTS:
        started = time.process_time()
        nights += [
            asleep(brain, state, before[(n + 1) % len(before)], night, options.rounds) for n, state in enumerate(before)
        ]
        seconds[night] = round(time.process_time() - started, 1)
    count = len(places)
    gap, after = read(brain, together(nights), torch.tensor([p.gap for p in places] * len(NIGHTS)), arms.ARMS["real"])
    passage = torch.tensor([place.passage for place in places] * len(NIGHTS))
    again = {m: read(brain, arms.keep_only(after, arms.ARMS[m]), passage, arms.ARMS[m])[0] for m in MODES}
    known = {m: np.zeros((len(after.started), len(facts.TEMPLATES))) for m in MODES}
    for mode, table in known.items():
        kept = arms.keep_only(after, arms.ARMS[mode])
        for row in range(len(table)):
            memory = arms.with_memories_of(brain.init_state(1), row_of(kept, row))
            table[row] = [-math.log(facts.answer_rank(brain, memory, *pair)[0]) for pair in questions[row % count]]
    of = {night: slice(n * count, (n + 1) * count) for n, night in enumerate(NIGHTS)}
    report: dict[str, Any] = {
        "benchmark": "sleep",
        "model": options.model,
        "machine": _machine.describe(),
        "samples": count,
        "rounds": options.rounds,
        "slots": options.slots,
        "gap": options.gap,
        "seed": options.seed,
        "nights_cpu_seconds": seconds,
        "passage_nats": {m: {n: round(float(t[of[n]].mean()), 4) for n in NIGHTS} for m, t in again.items()},
        "fact_nats": {m: {n: round(float(t[of[n]].mean()), 4) for n in NIGHTS} for m, t in known.items()},
        "gap_nats": {n: round(float(gap[of[n]].mean()), 4) for n in NIGHTS},
    }
    for other in ("awake", "other"):
        report[f"sleep_less_{other}"] = {
            "gap": blocked(list(gap[of["sleep"]] - gap[of[other]])),
            "passage": {m: blocked(list(t[of["sleep"]] - t[of[other]])) for m, t in again.items()},
            "facts": {m: nested(t[of["sleep"]] - t[of[other]]) for m, t in known.items()},
        }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
