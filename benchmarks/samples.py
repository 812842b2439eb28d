"""A thousand samples of a model: does WikiText's own markup ever come out of it, and how much of it repeats itself?

    python benchmarks/samples.py small --samples 1000

Each sample is an unconditional stream from the beginning-of-text token at temperature 1 from the whole distribution,
except the control tokens that `neuro run` never writes either: `<unk>` stands in the training text, so the model
believes in it, and every sampler here forbids it. How much of its belief that is, is printed too. The share of 3-grams
of tokens that are distinct inside a sample is a plain measure of loops. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json

import _machine
import torch

import neuro
from neuro.brain import Brain
from neuro.session import Session

MARKUP = ("<unk>", "@-@", "@,@", "@.@", "<eos>", "<bos>", "<pad>")


@torch.no_grad()
def sample(brain: Brain, count: int, length: int, generator: torch.Generator) -> tuple[torch.Tensor, float]:
    """``count`` independent streams at once -> (ids [count, length], mean probability of what was forbidden)."""
    session = Session(brain, batch=count)
    logits = session.feed(torch.full((count, 1), brain.tokenizer.bos_id))
    banned = list(brain.tokenizer.never_written)
    written, forbidden = [], 0.0
    for _ in range(length):
        logits = logits.float()
        forbidden += float(torch.softmax(logits, 1)[:, banned].sum(1).mean()) / length
        logits[:, banned] = -torch.inf
        token = torch.multinomial(torch.softmax(logits, 1), 1, generator=generator)
        written.append(token)
        logits = session.feed(token)
    return torch.cat(written, 1), forbidden


def distinct_trigrams(ids: list[int]) -> float:
    grams = list(zip(ids, ids[1:], ids[2:], strict=False))
    return len(set(grams)) / len(grams)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    brain = neuro.load(options.model)
    generator = torch.Generator().manual_seed(options.seed)
    texts, distinct, forbidden = [], [], []
    while len(texts) < options.samples:
        ids, share = sample(brain, min(options.batch, options.samples - len(texts)), options.tokens, generator)
        rows = ids.tolist()
        forbidden.append(share)
        texts += [brain.tokenizer.decode(row) for row in rows]
        distinct += [distinct_trigrams(row) for row in rows]
    report = {
        "benchmark": "samples",
        "model": options.model,
        "seed": options.seed,
        "machine": _machine.describe(),
        "samples": len(texts),
        "tokens_each": options.tokens,
        "samples_with": {mark: sum(mark in text for text in texts) for mark in MARKUP},
        "probability_of_forbidden_tokens": sum(forbidden) / len(forbidden),
        "distinct_trigrams": sum(distinct) / len(distinct),
        "first": texts[0],
    }
    print(json.dumps(report, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
