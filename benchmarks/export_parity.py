"""Float32 graphs beside torch over long streams: every logit, every leaf of the state, every spike, commits included.

    python benchmarks/export_parity.py small $NEURO_DATA/wikitext-2/valid.txt.gz --wikitext --tokens 512 --batches 1 2 5

Each batch is one shape: so many streams of ``--tokens`` tokens, each stream another part of the text. Step and commit carry
their own state beside torch's; after a token whose spikes differ torch's state replaces theirs (`export.parity.measure`). The
prefill reads the same streams in pieces of a span, its logits beside the step's. Gaps are over the largest value where that is
above 1. Prints a JSON object a batch, then one of the machine. No chance in it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import _machine
import numpy as np
import torch

import neuro
from export import package, parity
from export.runtime import Runtime
from neuro import text
from neuro.evaluate import perplexity


def prefilled(runtime: Runtime, tokens: np.ndarray) -> float:
    """The largest relative gap of the prefill's logits from the step's over tokens [B,T]."""
    runtime.reset(len(tokens))
    gap, stepped = parity.Gap(), np.stack([runtime.step(column) for column in tokens.T], 1)
    runtime.reset(len(tokens))
    gap.add(runtime.feed(tokens), stepped)
    return gap.relative


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("text", type=Path)
    parser.add_argument("--wikitext", action="store_true", help="undo WikiText's tokenization, as `neuro eval` does")
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 5])
    options = parser.parse_args()
    torch.set_num_threads(1)
    brain = neuro.load(options.model, "cpu")
    coded = perplexity.code(text.read_text(options.text), brain, options.wikitext)
    ids = np.array([i for unit in coded.ids for i in unit])[: options.tokens * sum(options.batches)]
    with tempfile.TemporaryDirectory() as place:
        package.write_graphs(brain, Path(place))
        runtime = Runtime(place)
        for batch in options.batches:
            count = batch * options.tokens
            tokens, ids = ids[:count].reshape(batch, options.tokens), ids[count:]
            found = parity.measure(brain, runtime, tokens, realign=True).to_dict()
            print(json.dumps(found | {"prefill_relative": prefilled(runtime, tokens)}), flush=True)
    report = {"benchmark": "export_parity", "model": options.model, "text": options.text.name}
    print(json.dumps(report | {"machine": _machine.describe()}))


if __name__ == "__main__":
    main()
