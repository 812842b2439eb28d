"""Is what will be used worth writing? Controllers at a quarter of the writes: the tag, and the head of `usefulness.py`.

    python benchmarks/useful_writes.py small --data $NEURO_DATA
    python benchmarks/usefulness.py small --data $NEURO_DATA --train 2 --valid 2 --draws 100 --out head.npz
    python benchmarks/useful_writes.py small --data $NEURO_DATA --head head.npz

surprise, random and tagged as the hippocampus has them, and all, with every pair written; with ``--head`` also useful by the
use that the head predicts, and useful x surprise by the product. Places of WikiText-2 valid or test: warm-up, passage, gap,
passage again, episodic memory alone; nats per token of what is read once (text) and of the second showing (again), less those
of surprise. Brackets: 95 % bootstrap over samples and blocks of 100 tokens. One set of weights. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _machine
import numpy as np
import torch
from sleep import blocked, read
from torch import Tensor

import neuro
from neuro import text
from neuro.brain import Brain
from neuro.evaluate import arms, repeat
from neuro.layers.norm import normalize
from neuro.regions.hippocampus import Hippocampus
from neuro.state import SpanBuffer

SHARE = 4  # one token in so many is written
Priority = Callable[[SpanBuffer, Tensor], Tensor]


def predicted(brain: Brain, head: Path) -> Priority:
    """What the head says of each pair of a span [B,P]: the root of its later use. Only of streams that are cut at spans."""
    given = {name: torch.from_numpy(np.asarray(array)).float() for name, array in np.load(head).items()}
    often = torch.log(given["frequency"] + 1.0)
    seen: list[Tensor] = []
    region, width = brain.regions["hippocampus"], brain.config.d_model
    assert isinstance(region, Hippocampus)
    region.norm.register_forward_hook(lambda module, inputs, out: seen.append(inputs[0]))
    tokens: list[Tensor] = []
    scan = brain.scan

    def noting(ids: Tensor, *others: Any) -> Any:
        tokens.append(ids)
        return scan(ids, *others)

    brain.scan = noting

    def use(span: SpanBuffer, origins: Tensor) -> Tensor:
        before = torch.cat([span.novelty[:, :1], span.novelty[:, :-1]], 1)  # a pair's key is of the token before
        missing = span.valid.shape[1] - tokens[-1].shape[1]
        frequency = torch.nn.functional.pad(often[tokens[-1]], (0, missing))
        hidden = torch.nn.functional.pad(normalize(seen[-1]) * width**0.5, (0, 0, 0, missing))
        plain = torch.stack([span.surprise, before, span.salience, frequency, torch.log1p(origins)], -1)
        features = (torch.cat([plain, hidden], -1) - given["mean"]) / given["deviation"]
        return (features @ given["weight"] + given["centre"]).clamp_min(0.0)

    return use


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, required=True, help="folder with wikitext-2/")
    parser.add_argument("--head", type=Path, help="what usefulness.py --out wrote")
    parser.add_argument("--split", default="valid", choices=("valid", "test"))
    parser.add_argument("--samples", type=int, default=3)
    parser.add_argument("--length", type=int, default=1000, help="tokens of the warm-up, the passage and the gap")
    options = parser.parse_args()
    torch.set_num_threads(1)
    span = neuro.load(options.model).config.plasticity_span
    raw = text.read_text(options.data / "wikitext-2" / f"{options.split}.txt.gz")
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name in ("surprise", "random", "tagged", "all", *(("useful", "useful x surprise") if options.head else ())):
        controller = name if name in ("random", "tagged") else "surprise"
        writes = span if name == "all" else span // SHARE
        sets = [f"hippocampus.slots={4 * options.length}", f"hippocampus.writes_per_span={writes}"]
        brain = neuro.load(options.model, sets=[*sets, f"hippocampus.controller={controller}"]).eval()
        if "useful" in name:
            use, region = predicted(brain, options.head), brain.regions["hippocampus"]
            assert isinstance(region, Hippocampus)
            worth = (lambda s, o, u=use: u(s, o) ** 2 * s.surprise) if "x" in name else use
            region._priority = lambda s, o, w=worth: w(s, o) + 1e-3
        places = repeat.samples(
            brain, raw, True, repeat.Protocol(options.length, options.length, options.samples, 0, options.length)
        )
        once = torch.tensor([[brain.tokenizer.bos_id, *p.warm_up[:-1], *p.passage, *p.gap] for p in places])
        nats, state = read(brain, brain.init_state(len(places)), once, arms.ARMS["episodic"])
        again, _ = read(brain, state, torch.tensor([place.passage for place in places]), arms.ARMS["episodic"])
        found[name] = nats[:, 1:], again
    first = found["surprise"]
    report = {
        "benchmark": "useful_writes",
        "model": options.model,
        "machine": _machine.describe(),
        "split": options.split,
        "samples": options.samples,
        "length": options.length,
        "nats": {name: [round(float(x.mean()), 4) for x in both] for name, both in found.items()},
        "text_and_again_less_surprise": {
            name: [blocked(list(x - y)) for x, y in zip(both, first, strict=True)]
            for name, both in found.items()
            if name != "surprise"
        },
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
