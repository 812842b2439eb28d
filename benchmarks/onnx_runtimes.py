"""The exported graphs beside torch: size, time per token at batch 1, and WikiText-2 perplexity in float32 and int8.

    python benchmarks/onnx_runtimes.py small $NEURO_DATA/wikitext-2/test.txt.gz --wikitext

Perplexity feeds every token, one stream, memory on, to `run.py` of either export. Times are interleaved: a round takes
`--step-tokens` tokens in each runtime, the quickest and the median of `--rounds` rounds are printed. Prints one JSON
object. No chance in it.
"""

from __future__ import annotations

import argparse
import collections
import json
import math
import statistics
import tempfile
import time
from pathlib import Path

import _machine
import torch

import neuro
from export import package, parity
from export.latency import Decoder
from export.runtime import Runtime
from neuro import text
from neuro.brain import Brain
from neuro.evaluate import perplexity

KINDS = (None, "int8")


def torch_step(brain: Brain, tokens: list[int]) -> float:
    """Seconds per token of `Brain.step` with commits."""
    state = brain.init_state(1)
    started = time.perf_counter()
    with torch.no_grad():
        for token in tokens:
            state = brain.step(torch.tensor([token]), state).state
            if brain.remaining(state) == 0:
                state = brain.commit(state)[0]
    return (time.perf_counter() - started) / len(tokens)


def runtime_step(runtime: Runtime, tokens: list[int]) -> float:
    """Seconds per token of the exported graphs."""
    runtime.reset(1)
    started = time.perf_counter()
    for token in tokens:
        runtime.step([token])
    return (time.perf_counter() - started) / len(tokens)


def fed(runtime: Runtime, tokens: list[int]) -> float:
    """Seconds per token of a prompt, with commits: by the prefill, where there is one."""
    runtime.reset(1)
    started = time.perf_counter()
    runtime.feed([tokens])
    return (time.perf_counter() - started) / len(tokens)


def decoder_step(decoder: Decoder, tokens: list[int]) -> float:
    """Seconds per token of the one graph that ONNX Runtime GenAI runs; it commits by itself."""
    started = time.perf_counter()
    for token in tokens:
        decoder.step([token])
    return (time.perf_counter() - started) / len(tokens)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("text", type=Path)
    parser.add_argument("--wikitext", action="store_true", help="undo WikiText's tokenization, as `neuro eval` does")
    parser.add_argument("--articles", type=int, help="only the first ones")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--step-tokens", type=int, default=256)
    options = parser.parse_args()
    torch.set_num_threads(1)
    brain = neuro.load(options.model, "cpu")
    coded = perplexity.code(text.read_text(options.text), brain, options.wikitext)
    units = slice(options.articles)
    ids = [brain.tokenizer.bos_id, *(i for unit in coded.ids[units] for i in unit)]
    words, flags = sum(coded.words[units]), sum(coded.flag_nats[units])
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        runtimes, decoders = {}, {}
        for kind in KINDS:
            manifest = package.export_onnx(options.model, Path(folder) / str(kind), kind)
            runtimes[kind] = Runtime(Path(folder) / str(kind))
            decoders[kind] = Decoder(Path(folder) / str(kind), manifest)
            rows.append({"kind": kind or "float32", "step_bytes": manifest["graphs"]["step"]["bytes"]})
            rows[-1]["parity"] = manifest["parity"]
        part = ids[: options.step_tokens]
        times: dict[str, list[float]] = collections.defaultdict(list)
        for _ in range(options.rounds):
            times["torch"].append(torch_step(brain, part))
            for kind in KINDS:
                name = kind or "float32"
                times[name].append(runtime_step(runtimes[kind], part))
                times[f"{name} fed"].append(fed(runtimes[kind], part))
                times[f"{name} decoder"].append(decoder_step(decoders[kind], part))
        for row, kind in zip(rows, KINDS, strict=True):
            nats = parity.stream_nats(runtimes[kind], ids) + flags
            row |= {"nats": nats, "word_perplexity": math.exp(nats / words)}
    report = {
        "benchmark": "onnx_runtimes",
        "model": options.model,
        "text": options.text.name,
        "articles": options.articles,
        "tokens": len(ids) - 1,
        "words": words,
        "machine": _machine.describe(),
        "rows": rows,
        "int8_over_float32_perplexity": rows[1]["word_perplexity"] / rows[0]["word_perplexity"],
        "ms_per_token": {
            name: {"min": 1e3 * min(found), "median": 1e3 * statistics.median(found)} for name, found in times.items()
        },
        "rounds": options.rounds,
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
