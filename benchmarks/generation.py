"""How the settings of generation change what is written: repetition, diversity and likelihood beside the human text.

    python benchmarks/generation.py small $NEURO_DATA/wikitext-2/valid.txt.gz
    python benchmarks/generation.py small $NEURO_DATA/wikitext-2/test.txt.gz --settings "temperature 0.9, top_p 0.95"

Prompts of 64 tokens (<bos> and 63 of an article, evenly spaced over it) are continued by 128 tokens under each setting,
through `NeuroForCausalLM.generate`, with the episodic memory on as users have it, and with it emptied at every commit.
The row "human" is what the article goes on with (which may hold `<unk>`; no setting writes it). The measures are those of
`neuro/evaluate/generation.py`, over the model's tokens of the continuation.

Intervals: 95 % bootstrap over articles. The rule of choice, written down before the numbers: of the settings whose rep_4 is
at most twice the human's, the one whose diversity is nearest to the human's, memory on. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from pathlib import Path
from typing import Any

import _machine
import numpy as np
import torch
import torch.nn.functional as F

import neuro
from neuro import text
from neuro.brain import Brain
from neuro.evaluate import arms
from neuro.evaluate.generation import PROMPT, WRITTEN, measure, windows
from neuro.hf import NeuroForCausalLM
from neuro.hf.cache import CACHE_NAME

BATCH = 50


OWN_DRY = {"dry_multiplier": 0.8, "dry_prompt": False}


def _sampling(**options: Any) -> dict[str, Any]:
    return {"do_sample": True, "top_k": 0} | options


SETTINGS: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "contrastive, alpha 0.6, top_k 4": {"penalty_alpha": 0.6, "top_k": 4},
    "temperature 0.8, top_p 0.9": _sampling(temperature=0.8, top_p=0.9),
    "temperature 0.9, top_p 0.9, DRY of its own text": _sampling(temperature=0.9, top_p=0.9, **OWN_DRY),
    "temperature 0.9, top_p 0.95": _sampling(temperature=0.9, top_p=0.95),
    "temperature 0.9, top_p 0.95, DRY": _sampling(temperature=0.9, top_p=0.95, dry_multiplier=0.8),
    "temperature 0.9, top_p 0.95, DRY of its own text": _sampling(temperature=0.9, top_p=0.95, **OWN_DRY),
    "temperature 0.95, top_p 0.95": _sampling(temperature=0.95, top_p=0.95),
    "temperature 1, top_p 0.9": _sampling(temperature=1.0, top_p=0.9),
    "temperature 1, top_p 0.95": _sampling(temperature=1.0, top_p=0.95),
    "temperature 1, top_p 1": _sampling(temperature=1.0),
    "temperature 1, min_p 0.05": _sampling(temperature=1.0, min_p=0.05),
}
FORGETTING = ("temperature 0.8, top_p 0.9", "temperature 0.9, top_p 0.95")


def forgetting(brain: Brain, forget: bool) -> None:
    """Empty the episodic memory at every commit from now on, or no longer."""
    commit = functools.partial(Brain.commit, brain)

    def commit_and_forget(state):
        state, events = commit(state)
        return arms.without_memory(state), events

    brain.commit = commit_and_forget if forget else commit  # type: ignore[method-assign]


@torch.no_grad()
def write(
    model: NeuroForCausalLM, rows: torch.Tensor, options: dict[str, Any], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Continuations [N, WRITTEN] of the rows' prompts, and the nats of their tokens."""
    torch.manual_seed(seed)
    written, nats = [], []
    for prompts in rows[:, :PROMPT].split(BATCH):
        cache = model(prompts[:, :-1], logits_to_keep=1)[CACHE_NAME]
        out = model.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            max_new_tokens=WRITTEN,
            return_dict_in_generate=True,
            output_logits=True,
            **{CACHE_NAME: cache},
            **options,
        )
        ids = out.sequences[:, PROMPT:]
        written.append(ids.numpy())
        steps = [F.cross_entropy(logits, ids[:, t], reduction="none") for t, logits in enumerate(out.logits)]
        nats.append(torch.stack(steps, 1).numpy())
    return np.concatenate(written), np.concatenate(nats)


@torch.no_grad()
def human(model: NeuroForCausalLM, rows: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """What the articles go on with, and its nats."""
    nats = []
    for part in rows.split(BATCH):
        logits = model(part, logits_to_keep=WRITTEN + 1).logits[:, :-1]
        nats.append(F.cross_entropy(logits.mT, part[:, PROMPT:], reduction="none").numpy())
    return rows[:, PROMPT:].numpy(), np.concatenate(nats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("text", type=Path)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument(
        "--forgetting", nargs="*", choices=SETTINGS, default=FORGETTING, help="also with the memory off"
    )
    parser.add_argument("--continuations", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    model = NeuroForCausalLM.from_brain(neuro.load(options.model, "cpu").eval())
    rows, owners = windows(model.brain, text.read_text(options.text), options.continuations)
    prompts, begun = rows[:, :PROMPT].numpy(), time.process_time()
    found: dict[str, dict[str, Any]] = {"memory on": {}, "memory off": {}}
    samples = {}
    for arm, table in found.items():
        forgetting(model.brain, arm == "memory off")
        table["human"] = measure(prompts, *human(model, rows), owners)
        for name in options.settings:
            if arm == "memory off" and name not in options.forgetting:
                continue
            since = time.process_time()
            written, nats = write(model, rows, SETTINGS[name], options.seed)
            table[name] = measure(prompts, written, nats, owners) | {"cpu_seconds": time.process_time() - since}
            samples.setdefault(name, model.brain.tokenizer.decode(written[0].tolist()))
    on = found["memory on"]
    allowed = [name for name in options.settings if on[name]["rep_4"] <= 2 * on["human"]["rep_4"]]
    report = {
        "benchmark": "generation",
        "model": options.model,
        "text": options.text.name,
        "seed": options.seed,
        "machine": _machine.describe(),
        "continuations": len(rows),
        "articles": len(np.unique(owners)),
        "tokens_each": WRITTEN,
        "found": found,
        "rep_4_within_twice_human": allowed,
        "nearest_in_diversity": min(
            allowed, key=lambda name: abs(on[name]["diversity"] - on["human"]["diversity"]), default=None
        ),
        "cpu_seconds": time.process_time() - begun,
        "first_sample": samples,
    }
    print(json.dumps(report, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
