"""Decoding speed at batch 1 beside GPT-2 124M with its key-value cache, by the length of the context.

    python benchmarks/decode.py
    python benchmarks/decode.py --onnx --rounds 5

Two models of equal width, depth, heads and vocabulary with random weights, in float32 and one process: the preset
`gpt2-size`, every region and the episodic memory on, and transformers' GPT2LMHeadModel (fused attention, DynamicCache).
Each reads a context of random tokens, then writes the likeliest token, again and again; a sample is `--tokens` of them, by
default one span, so that each of the brain's holds one commit. With `--read N` only N tokens are really read, for a short
run: longer contexts of the brain start from the state after those (1,024 slots are full after 1,024 tokens, and no tensor
of it grows), GPT-2's cache holds theirs again and again. A round takes one sample of every
model at every context in shuffled order, each from the same state. Per context: median, quartiles and best over the
rounds in ms per token, and ratios of medians, of bests, and the median of the rounds' own ratios; by the clock on the wall,
and by the processor's time, which leaves out what other processes of a busy machine took. With `--onnx` the same brain's
exported graphs run too, from the same states. Prints one JSON object; progress goes to stderr.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _machine
import torch
from torch import Tensor
from transformers import DynamicCache, GPT2Config, GPT2LMHeadModel  # noqa: TID251 - the peer itself, no door of ours

from backends.kernels import cpu, pages
from neuro.brain import Brain
from neuro.config import load
from neuro.session import Session
from neuro.state import leaves

CONTEXTS = (1, 1024, 2048, 4096, 8192)
PREFILL = 512  # tokens that GPT-2 reads at once
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
Write = Callable[[int, int], object]  # (context, tokens): write so many tokens after so long a context


def of_brain(brain: Brain, ids: Tensor, contexts: list[int]) -> tuple[Write, dict[int, Any]]:
    """The brain's writer, and its state after each context (after all of ids [1,N] for longer ones)."""
    states, session = {}, Session(brain)
    for start, stop in zip([0, *contexts], contexts, strict=False):
        if start < ids.shape[1]:
            session.feed(ids[:, start:stop])
            print(f"neuro has read {min(stop, ids.shape[1])} tokens", file=sys.stderr)
        states[stop] = session.state

    def write(context: int, tokens: int) -> None:
        session = Session(brain, states[context])
        for _ in range(tokens):
            session.feed(session.state.logits.argmax(1, keepdim=True))

    return write, states


@torch.no_grad()
def of_gpt2(model: GPT2LMHeadModel, ids: Tensor, contexts: list[int]) -> Write:
    """GPT-2's writer: one cache, read to the end of ids [1,N], repeated to the longest context and cut back to each."""
    cache = DynamicCache(config=model.config)
    for given in ids.split(PREFILL, 1):
        model(given, past_key_values=cache, logits_to_keep=1)
    print(f"gpt2 has read {ids.shape[1]} tokens", file=sys.stderr)
    times = -(-contexts[-1] // ids.shape[1])
    kept = [(layer.keys.repeat(1, 1, times, 1), layer.values.repeat(1, 1, times, 1)) for layer in cache.layers]

    @torch.no_grad()
    def write(context: int, tokens: int) -> None:
        for layer, (keys, values) in zip(cache.layers, kept, strict=True):
            layer.keys, layer.values = keys[:, :, :context], values[:, :, :context]
        token = ids[:, :1]
        for _ in range(tokens):
            token = model(token, past_key_values=cache).logits[:, -1].argmax(1, keepdim=True)

    return write


def of_onnx(brain: Brain, folder: Path, quantized: bool, states: dict[int, Any], threads: int) -> tuple[Write, int]:
    """A writer of the exported graphs, and the bytes of the one that runs every token."""
    from export import package, ports
    from export.runtime import Runtime

    folder.mkdir()
    manifest = package.write_graphs(brain, folder, "int8" if quantized else None)
    runtime = Runtime(folder, threads=threads)

    def write(context: int, tokens: int) -> None:
        runtime.state = {ports.INTO + path: leaf.numpy() for path, leaf in leaves(states[context])}
        logits = runtime.state[f"{ports.INTO}logits"]
        for _ in range(tokens):
            logits = runtime.step([int(logits.argmax())])

    return write, manifest["graphs"]["step"]["bytes"]


def describe(found: list[float]) -> dict[str, float]:
    """ms per token over the rounds."""
    low, middle, high = statistics.quantiles(found, n=4, method="inclusive")
    return {name: round(x, 3) for name, x in (("best", min(found)), ("q1", low), ("median", middle), ("q3", high))}


def ratio(slow: list[float], quick: list[float]) -> dict[str, float]:
    """How many times quicker the second is; both measured in the same rounds."""
    own = [a / b for a, b in zip(slow, quick, strict=True)]
    found = {
        "of_medians": statistics.median(slow) / statistics.median(quick),
        "of_bests": min(slow) / min(quick),
        "median_of_rounds": statistics.median(own),
        "least_of_rounds": min(own),
    }
    return {name: round(x, 3) for name, x in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contexts", type=int, nargs="+", default=list(CONTEXTS), help="rising")
    parser.add_argument("--tokens", type=int, default=64, help="of a sample")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--read", type=int, metavar="N", help="really read at most N tokens")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--onnx", action="store_true", help="also the exported graphs, float32 and int8")
    parser.add_argument("--peer-in-huge-pages", action="store_true", help="GPT-2's weights too, as the brain's are")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the brain's preset")
    options = parser.parse_args()
    contexts = options.contexts
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    brain = Brain(load("gpt2-size", options.set).brain).eval()
    brain.tokenizer = types.SimpleNamespace(bos_id=0, never_written=())  # type: ignore[assignment] # no text is read
    positions = contexts[-1] + options.tokens
    config = GPT2Config(n_positions=positions, attn_implementation="sdpa")
    gpt2 = GPT2LMHeadModel(config).eval()
    if options.peer_in_huge_pages:
        pages.collapse(gpt2.parameters())
    read = min(options.read or contexts[-1], contexts[-1])
    ids = torch.randint(0, brain.config.vocab_size, (1, read))
    writers: dict[str, Write] = {}
    writers["neuro"], states = of_brain(brain, ids, contexts)
    writers["gpt2"] = of_gpt2(gpt2, ids, contexts)
    sizes: dict[str, int] = {}
    times: dict[tuple[str, str, int], list[float]] = {}
    order = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as place:
        for kind in ("float32", "int8") if options.onnx else ():
            print(f"exporting to ONNX, {kind}", file=sys.stderr)
            name = f"onnx_{kind}"
            writers[name], sizes[name] = of_onnx(brain, Path(place) / kind, kind == "int8", states, options.threads)
        jobs = [(name, context) for name in writers for context in contexts]
        for name, context in jobs:
            writers[name](context, 2)
        times = {(clock, *job): [] for clock in CLOCKS for job in jobs}
        for number in range(options.rounds):
            for name, context in order.sample(jobs, len(jobs)):
                started = {clock: now() for clock, now in CLOCKS.items()}
                writers[name](context, options.tokens)
                for clock, now in CLOCKS.items():
                    times[clock, name, context].append(1e3 * (now() - started[clock]) / options.tokens)
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
    ours = [name for name in writers if name != "gpt2"]
    first, last = contexts[0], contexts[-1]
    report = {
        "benchmark": "decode",
        "machine": _machine.describe(),
        "cpp_library": cpu.status()[1],
        "seed": options.seed,
        "rounds": options.rounds,
        "tokens_of_a_sample": options.tokens,
        "tokens_really_read": read,
        "set": options.set,
        "peer_in_huge_pages": options.peer_in_huge_pages,
        "parameters": {
            "neuro": sum(brain.parameter_counts().values()),
            "gpt2_without_positions": sum(p.numel() for p in gpt2.parameters()) - positions * config.n_embd,
        },
        "state_bytes": {
            "neuro": sum(4 * leaf.numel() for _, leaf in leaves(states[last])),
            "gpt2_at_the_longest": 8 * config.n_layer * last * config.n_embd,
        },
        "step_graph_bytes": sizes,
    }
    for clock in CLOCKS:
        found = {(name, c): times[clock, name, c] for name in writers for c in contexts}
        report[clock] = {
            "ms_per_token": {name: {c: describe(found[name, c]) for c in contexts} for name in writers},
            "times_as_quick_as_gpt2": {
                name: {c: ratio(found["gpt2", c], found[name, c]) for c in contexts} for name in ours
            },
            f"speed_at_{last}_over_speed_at_{first}": {
                name: ratio(found[name, first], found[name, last]) for name in writers
            },
        }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
