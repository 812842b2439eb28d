"""Finish a model's procedural memory on training text: measure how its errors vary, then train what it senses and its rates.

    python benchmarks/train_procedural.py small $NEURO_DATA/wikitext-2/train.txt.gz --wikitext --out FOLDER \\
        --set procedural.rate=0.02625 --set procedural.max_step=1.5 --set procedural.max_norm=9 \\
        --set procedural.outward_half_life_tokens=2048

Streams are read in order and never reset, so that the fast weights are as full as they will be in use; one window in eight
is of 2,000 to 8,000 tokens ago. Episodic memory is empty. Only the sensing matrices and the rates learn (gradients through the
commits of a window), the precision is measured before (`neuro.train.precision`), and everything else stays bit for bit: with
its memories off the model is the one that came in. Sensing of what the cortex says begins as random directions of it, whitened.
This is how the shipped model was finished; settings were chosen on validation text (LOG.md). Prints one JSON object a report.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time

import _machine
import torch
from torch import Tensor
from train_tag import rebuilt

from neuro import folder, text
from neuro.brain import Brain
from neuro.evaluate import perplexity
from neuro.memory import contents
from neuro.state import detach
from neuro.train import precision

FLOOR = 0.02  # of the mean eigenvalue, where what the cortex says is whitened
MEASURED = 4096  # tokens a stream for the precision


def started(model: str, sets: list[str]) -> tuple[Brain, bool]:
    """The model with a natural procedural memory, its own rates if it had; whether it sensed what the cortex says."""
    before, brain = folder.load(model, "cpu"), rebuilt(model, ["procedural.natural=true", *sets])
    rates = "regions.cortex.procedural.log_rate"
    if rates in before.state_dict():
        old, new = before.state_dict()[rates], brain.state_dict()[rates]
        new[: len(old)].copy_(old)
    return brain, "regions.cortex.outward.sense" in before.state_dict()


@torch.no_grad()
def whiten(brain: Brain, tokens: Tensor) -> None:
    """Sensing of what the cortex says, in units of how that varies over ``tokens`` [B,T]."""
    outward = brain.regions["cortex"].outward
    if outward is None:
        return
    said: list[Tensor] = []
    hook = outward.register_forward_hook(lambda module, given, out: said.append(given[0].flatten(0, 1)))
    state = brain.init_state(len(tokens))
    for span in tokens.split(brain.config.plasticity_span, 1):
        state = contents.emptied(brain.commit(brain.scan(span, state).state)[0], "procedural")
    hook.remove()
    x = torch.cat(said)
    values, vectors = torch.linalg.eigh(x.T @ x / len(x))
    outward.sense.copy_(outward.sense @ (vectors * (values + FLOOR * values.mean()).rsqrt()) @ vectors.T)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("text", help="training text")
    parser.add_argument("--out", required=True, help="folder to write the model into")
    parser.add_argument("--wikitext", action="store_true", help="the text is WikiText's tokenized form")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--skip", type=int, default=0, help="tokens at the beginning of each stream")
    parser.add_argument("--spans", type=int, default=4, help="of a step")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--rehearsal", type=float, default=0.125)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override of the brain")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    brain, senses_outward = started(options.model, options.set)
    about = folder.read_record(folder.locate(options.model))["about"]
    coded = perplexity.code(text.read_text(options.text), brain, options.wikitext)
    ids = list(itertools.chain.from_iterable(coded.ids))
    streams = torch.tensor(ids[: len(ids) // options.streams * options.streams]).reshape(options.streams, -1)
    streams = streams[:, options.skip :]
    if not senses_outward:
        whiten(brain, streams[:, :1024])
    counted = precision.measure(brain, streams[:, :MEASURED])
    print(json.dumps({"machine": _machine.describe(), "tokens": streams.numel(), "errors": counted}), flush=True)

    learned = {
        name: p
        for name, p in brain.regions["cortex"].named_parameters()
        if name.endswith(("sense", "procedural.log_rate"))
    }
    brain.requires_grad_(False)
    for p in learned.values():
        p.requires_grad_(True)
    rates = [p for name, p in learned.items() if name.endswith("log_rate")]
    senses = [p for name, p in learned.items() if not name.endswith("log_rate")]
    adam = torch.optim.AdamW(
        [{"params": senses, "share": 1.0}, {"params": rates, "share": 3.0}], weight_decay=0.0, betas=(0.9, 0.95)
    )
    draw, at, window = torch.Generator().manual_seed(options.seed), 0, options.spans * brain.config.plasticity_span
    state, began, mean = brain.init_state(options.streams), time.perf_counter(), math.nan
    for step in range(options.steps):
        back = int(torch.randint(2000, 8001, (), generator=draw))
        again = bool(torch.rand((), generator=draw) < options.rehearsal) and back < at
        tokens = streams[:, at - back : at - back + window] if again else streams[:, at : at + window]
        at += 0 if again else window
        nats = []
        for span in tokens.split(brain.config.plasticity_span, 1):
            out = brain.scan(span, state)
            nats.append(out.aux.surprise.mean())
            state = contents.emptied(brain.commit(out.state)[0], "episodic")
        loss = torch.stack(nats).mean()
        adam.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(learned.values()), 1.0)
        cosine = 0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * step / options.steps))
        for group in adam.param_groups:
            group["lr"] = options.learning_rate * group["share"] * min(1.0, (step + 1) / 10) * cosine
        adam.step()
        state = detach(state)
        mean = loss.item() if math.isnan(mean) else 0.95 * mean + 0.05 * loss.item()
        if step % 10 == 9 or step + 1 == options.steps:
            report = {"step": step + 1, "nats": round(mean, 4), "seconds": round(time.perf_counter() - began, 1)}
            print(json.dumps(report), flush=True)
        if step % 50 == 49 or step + 1 == options.steps:
            done = {"steps": step + 1, "streams": options.streams, "errors": counted, "seed": options.seed}
            folder.save(brain, options.out, about | {"procedural": done})


if __name__ == "__main__":
    main()
