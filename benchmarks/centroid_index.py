"""Centroid index against the exact scan and faiss, and one-shot recall after a delay of 64k tokens.

    python benchmarks/centroid_index.py --data FOLDER --out index.json --picture docs/index.png

Items are unit vectors: ``hidden`` what the keys of the shipped model `small` are made of (its normed context, 256 wide) over
WikiText-2, training text for items and validation text for queries; ``clusters`` 1,000 random directions with noise, queries
from the same. Both faiss indexes have as many lists as ours: ``faiss fitted`` is trained on all items, ``faiss early`` on the
first tenth, as an index must be that grows. Recall@10 is against the exact scan of the same items; ``scanned`` are products
of a query with centroids and rows, as a share of the items. faiss runs with one thread, in this process, in turn with ours;
times are processor seconds of one thread, the median of ``--repeats`` with the least and the most, in a turn of their own for
queries one by one and all at once. The ratio is ours as it grew to faiss fitted, at equal probes.
delay: a quarter of the capacity is stored once; then 64k tokens arrive, of which a share is written; then each item is
asked for with a cue of cosine ``cue`` to it. Needs faiss-cpu (any environment of its own; nothing of ours imports it).
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _machine
import faiss
import numpy as np
import torch
from torch import Tensor

from neuro import atomic, folder, text
from neuro.evaluate import perplexity
from neuro.memory.centroid_index import CentroidIndex, IndexConfig
from neuro.plots.index import curves as picture
from neuro.session import Session

STREAMS = 16
DELAY_TOKENS = 65536
CAPACITY = 65536
SETS = {"hidden": "hidden states of small", "clusters": "clusters"}
ARMS = ["grown", "rebuilt", "faiss fitted", "faiss early"]


def states(path: Path, count: int) -> Tensor:
    """[count,256] normed contexts of STREAMS streams through `small`, each over its part of the text."""
    brain = folder.load("small", sets=["hippocampus.slots=512"])  # any states do, and a small store reads sooner
    coded = perplexity.code(text.read_text(path)[: 12 * count], brain, wikitext=True)
    each = -(-count // STREAMS)
    tokens = torch.tensor([*itertools.chain.from_iterable(coded.ids)][: STREAMS * each]).reshape(STREAMS, each)
    kept: list[Tensor] = []
    session = Session(brain, batch=STREAMS)
    norm = brain.region("hippocampus").norm
    handle = norm.register_forward_hook(lambda module, inputs, output: kept.append(output.detach()))
    for part in tokens.split(64, dim=1):
        session.feed(part)
    handle.remove()
    return torch.cat(kept[::2], 1).reshape(-1, brain.config.d_model)[:count]  # every other one is of the gate's input


def clusters(count: int, queries: int, seed: int) -> tuple[Tensor, Tensor]:
    """1,000 directions of 256 normal numbers, and noise of the same size: two items of a cluster have a cosine near 0.5."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(1000, 256, generator=generator)
    which = torch.randint(1000, (count + queries,), generator=generator)
    drawn = centres[which] + torch.randn(count + queries, 256, generator=generator)
    return drawn[:count], drawn[count:]


def unit(vectors: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vectors.double(), dim=1).float()


def seconds(work: Callable[[], Any]) -> float:
    """Of the processor, in this process."""
    started = time.process_time()
    work()
    return time.process_time() - started


def spread(values: list[float]) -> dict[str, float]:
    return {"median": float(np.median(values)), "least": min(values), "most": max(values)}


def inverted_file(items: np.ndarray, lists: int, fit: int, seed: int) -> faiss.IndexIVFFlat:
    """faiss's inverted file of inner products, trained on the first ``fit`` items."""
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(items.shape[1]), items.shape[1], lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed = seed
    index.train(items[:fit])
    index.add(items)
    index.parallel_mode = 0
    return index


def faiss_search(index: faiss.IndexIVFFlat, queries: np.ndarray, probes: int) -> tuple[np.ndarray, float]:
    """(ids [Q,10], products a query)."""
    index.nprobe = probes
    faiss.cvar.indexIVF_stats.reset()
    found = index.search(queries, 10)[1]
    return found, index.nlist + faiss.cvar.indexIVF_stats.ndis / len(queries)


def curves(items: Tensor, queries: Tensor, options: argparse.Namespace) -> dict[str, Any]:
    """Recall, products and times at each number of probes, of ours as it grew and rebuilt, and of faiss."""
    config = IndexConfig(items.shape[1], capacity=len(items))
    grown, rebuilt = CentroidIndex(config), CentroidIndex(config)
    record: dict[str, Any] = {"vectors": len(items)}
    ids = grown.add(items, times=torch.arange(len(items)))
    first = torch.cat([torch.ones(1, dtype=torch.bool), ids[1:] > ids.cummax(0).values[:-1]])
    stored = unit(items[first])  # faiss gets what is stored: its places are our ids
    record["seconds"] = {
        "ours, add": seconds(lambda: rebuilt.add(items, times=torch.arange(len(items)))),
        f"ours, {options.rounds} rounds of rebuild": seconds(lambda: rebuilt.rebuild(options.rounds)),
    }
    peers = {}
    for name, fit in (("faiss fitted", len(stored)), ("faiss early", len(stored) // 10)):

        def make(name: str = name, fit: int = fit) -> None:
            peers[name] = inverted_file(stored.numpy(), grown.lists, fit, options.seed)

        record["seconds"][f"{name}, train and add"] = seconds(make)
    truth = grown.exact(queries, 10)
    wide = (unit(queries).double() @ stored.double().T).topk(10).indices  # another way to the same
    full = grown.search(queries, 10, grown.lists)
    record |= {
        "items": len(grown),
        "lists": {"grown": grown.lists, "rebuilt": rebuilt.lists, "faiss": grown.lists},
        "full_probe_equals_exact": torch.equal(full.ids, truth.ids) and torch.equal(full.cosines, truth.cosines),
        "exact_equals_float64_scan": float((truth.ids == wide).double().mean()),
        "exact_microseconds": 1e6 * seconds(lambda: grown.exact(queries, 10)) / len(queries),
        "curve": [],
    }
    asked = unit(queries).numpy()
    few = range(min(100, len(queries)))
    for probes in (4, 8, 16, 32, 48, 64, 96, 128):
        row: dict[str, Any] = {"probes": probes}
        arms: dict[str, Callable[[slice], Any]] = {
            "grown": lambda part, p=probes: grown.search(queries[part], 10, p),
            "rebuilt": lambda part, p=probes: rebuilt.search(queries[part], 10, p),
            **{name: lambda part, p=probes, i=index: faiss_search(i, asked[part], p) for name, index in peers.items()},
        }
        times: dict[str, dict[str, list[float]]] = {name: {"batch": [], "single": []} for name in arms}
        for _ in range(options.repeats):
            for name, work in arms.items():
                times[name]["batch"].append(1e6 * seconds(lambda w=work: w(slice(None))) / len(queries))
                times[name]["single"].append(1e6 * seconds(lambda w=work: [w(slice(i, i + 1)) for i in few]) / len(few))
        for name, work in arms.items():
            found = work(slice(None))
            at, scanned = (found.ids, float(found.scanned.double().mean())) if name in ("grown", "rebuilt") else found
            hits = (torch.as_tensor(at).unsqueeze(2) == truth.ids.unsqueeze(1)).any(2).double().mean(1)
            row[name] = {
                "recall": float(hits.mean()),
                "recall_error": float(hits.std() / len(hits) ** 0.5),
                "scanned": scanned / len(grown),
                **{f"{way}_microseconds": spread(took) for way, took in times[name].items()},
            }
        for way in ("batch", "single"):
            ratios = [a / b for a, b in zip(times["grown"][way], times["faiss fitted"][way], strict=True)]
            row[f"{way}_ratio_to_faiss_fitted"] = spread(ratios)
        record["curve"].append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)
    return record


def delay(items: Tensor, share: float, strength: float, cue: float, seed: int) -> dict[str, Any]:
    """A quarter of the capacity once, then DELAY_TOKENS of which ``share`` is written with strengths uniform in (0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    quarter, written = CAPACITY // 4, int(DELAY_TOKENS * share)
    index = CentroidIndex(IndexConfig(items.shape[1], capacity=CAPACITY))
    ids = index.add(items[:quarter], strength, torch.arange(quarter))
    others = items[quarter : quarter + written]
    times = quarter + torch.arange(written) * DELAY_TOKENS // written
    index.add(others, 1.0 - torch.rand(written, generator=generator), times)
    wanted = unit(items[:quarter])
    noise = torch.randn(wanted.shape, generator=generator)
    noise = unit(noise - (noise * wanted).sum(1, keepdim=True) * wanted)
    found = index.search(cue * wanted + (1 - cue**2) ** 0.5 * noise, 1)
    exact = index.exact(cue * wanted + (1 - cue**2) ** 0.5 * noise, 1)
    return {
        "written_share": share,
        "strength": strength,
        "cue_cosine": cue,
        "stored": len(ids.unique()),
        "written_after": written,
        "items": len(index),
        "recall_at_1": float((found.ids[:, 0] == ids).double().mean()),
        "exact_recall_at_1": float((exact.ids[:, 0] == ids).double().mean()),
        "scanned": float(found.scanned.double().mean()) / len(index),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with wikitext-2/")
    parser.add_argument(
        "--parts", nargs="+", choices=[*SETS, "delay"], default=[*SETS, "delay"], help="what is measured"
    )
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3, help="of k-means in the rebuilt index")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--states", type=Path, help="keep the hidden states here (npz); made once")
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    parser.add_argument("--picture", type=Path, help="draw recall over products and times here")
    options = parser.parse_args()
    faiss.omp_set_num_threads(1)
    if options.states and options.states.exists():
        with np.load(options.states, allow_pickle=False) as kept:
            items, queries = torch.from_numpy(kept["x"]), torch.from_numpy(kept["q"])
    else:
        items = states(options.data / "wikitext-2" / "train.txt.gz", max(options.items, CAPACITY // 4 + DELAY_TOKENS))
        queries = states(options.data / "wikitext-2" / "valid.txt.gz", 2 * options.queries)
        if options.states:
            np.savez(options.states, x=items.numpy(), q=queries.numpy())
    pick = torch.randperm(len(queries), generator=torch.Generator().manual_seed(options.seed))[: options.queries]
    record: dict[str, Any] = {
        "machine": _machine.describe() | {"faiss": faiss.__version__, "faiss_threads": 1},
        "seed": options.seed,
        "repeats": options.repeats,
    }
    if "delay" in options.parts:
        record["delay"] = [
            delay(items, share, strength, cue, options.seed)
            for share, strength in ((0.25, 1.0), (1.0, 1.0), (1.0, 4.0))
            for cue in (1.0, 0.9)
        ]
        print(json.dumps(record["delay"]), file=sys.stderr, flush=True)
    if "hidden" in options.parts:
        record["hidden"] = curves(items[: options.items], queries[pick], options)
    if "clusters" in options.parts:
        record["clusters"] = curves(*clusters(options.items, options.queries, options.seed), options)
    print(json.dumps(record, indent=1))
    if options.out:
        atomic.write_text(options.out, json.dumps(record, indent=1) + "\n")
    if options.picture:
        picture({title: record[name]["curve"] for name, title in SETS.items() if name in record}, ARMS, options.picture)


if __name__ == "__main__":
    main()
