"""The quantized steps beside the float32 one: size, loss, likeliest token, spikes, recalled facts, time per token.

    python benchmarks/quantization.py small $NEURO_DATA/wikitext-2/valid.txt.gz --wikitext --tokens 4096
    python benchmarks/quantization.py small $NEURO_DATA/wikitext-2/valid.txt.gz --wikitext --tokens 0 --facts 0 --rounds 30

One stream at batch 1, every token of the text fed to each graph, all memories on, commits at span ends, the exported commit.
Two columns each for what is compared with float32:

own    the graph carries its own state: what differs once differs on, in membranes and in what the memories hold
same   the graph starts every token from the state of float32: what one step does, nothing carried
Row "noise 1e-6" is float32 with every weight times 1 + 1e-6 n, n normal: how far rounding alone carries this model apart.
Row "float32, rewritten" is `export.quantize.rewrites` alone: what of the speed is not quantization.

``same_divergence`` is KL(float32 || graph) of the next token in nats: of all columns the one that needs the fewest tokens.
Which part of the model loses what is `benchmarks/int8_agreement.py`'s.
Spikes are compared neuron by neuron: the share of all neuron updates that differ. The interval of the loss resamples blocks of
64 tokens. Facts are those of `benchmarks/facts.py`: read once, committed, asked for in a fresh stream with that memory; the
share whose answer comes first. Times are of the process's CPU, rounds interleaved over all rows; ratios are of the medians
and of the minima of the rounds. Calibration of int8-static and of int4's rounding: the beginning of ``--calibration``, never
the text itself.
Prints one JSON object.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _machine
import facts
import numpy as np
import onnx  # noqa: TID251 - looks inside the exported graphs
import onnxruntime  # noqa: TID251
import torch
from onnx import TensorProto, helper, numpy_helper  # noqa: TID251

import neuro
from export import manifest, onnx_graph, ports, quantize, recipes
from export.parity import divergence_of, nats_of
from export.quantize import rewrites
from export.runtime import Runtime
from neuro import text
from neuro.brain import Brain
from neuro.evaluate import arms, perplexity
from neuro.state import BrainState, leaves, replace_leaves

NOISE = 1e-6
BLOCK = 64  # tokens of one unit of the bootstrap
DRAWS = 2000
PROFILE = "dml"  # the one without a prefill: only its file names are used


def write(brain: Brain, folder: Path) -> dict[str, Path]:
    """Folder of the float32 graphs with what `Runtime` reads."""
    (folder / recipes.FOLDER).mkdir(parents=True)
    files = {name: folder / recipes.file_of(name, None) for name in ("step", "commit")}
    onnx_graph.write(brain, files)
    (folder / "manifest.json").write_text(json.dumps(manifest.describe(brain, folder, None, PROFILE)), encoding="utf-8")
    return files


def noisy(step: Path, relative: float = NOISE) -> None:
    random, model = np.random.default_rng(0), onnx.load(step)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) >= 2:
            weight = numpy_helper.to_array(tensor)
            moved = weight * (1.0 + relative * random.standard_normal(weight.shape)).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(moved, tensor.name))
    onnx.save(model, step)


def rewritten(step: Path) -> None:
    model = onnx.load(step)
    rewrites.rewrite(model)
    onnx.save(model, step)


class Probe:
    """A step graph that also gives the spikes of every neuron, for one token from a given state."""

    def __init__(self, step: Path, rasters: list[str]) -> None:
        model = onnx.load(step)
        for name in rasters:
            model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 3, 1
        self.session = onnxruntime.InferenceSession(model.SerializeToString(), options)
        self.inputs = [port.name for port in self.session.get_inputs()]
        self.outputs = [port.name for port in self.session.get_outputs()]
        self.rasters = rasters

    def step(self, state: dict[str, np.ndarray], token: int, channels: int) -> tuple[np.ndarray, np.ndarray, dict]:
        """-> logits [1,V], spikes of every neuron, every output by name."""
        given = {**state, "token": np.array([token]), "prosody": np.zeros((1, channels), np.float32)}
        found = dict(
            zip(self.outputs, self.session.run(None, {name: given[name] for name in self.inputs}), strict=True)
        )
        spikes = [found[name].ravel() for name in self.rasters]
        return found["logits"], np.concatenate(spikes) if spikes else np.zeros(0), found


def rasters_of(step: Path) -> list[str]:
    """The values that hold the spikes of each layer: what the projections behind them read."""
    graph = onnx.load(step).graph
    fired = {name for node in graph.node if node.op_type in ("GreaterOrEqual", "Cast") for name in node.output}
    makers = {name: node for node in graph.node for name in node.output}
    found = []
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1].endswith("feedforward.project.weight"):
            source = node.input[0]
            while source in makers and makers[source].op_type in ("Transpose", "Reshape", "Unsqueeze", "Squeeze"):
                source = makers[source].input[0]
            assert source in fired, source
            found.append(node.input[0])
    return found


def compare(folders: dict[str, Path], ids: list[int], rasters: list[str]) -> dict[str, dict[str, Any]]:
    """Every graph over ``ids`` with its own state, and from the state of float32."""
    runtimes = {name: Runtime(folder) for name, folder in folders.items()}
    probes = {name: Probe(folder / recipes.file_of("step", None), rasters) for name, folder in folders.items()}
    channels = runtimes["float32"].manifest["prosody_channels"]
    rows: dict[str, dict[str, list[float]]] = {name: {} for name in folders}

    def note(name: str, **values: float) -> None:
        for key, value in values.items():
            rows[name].setdefault(key, []).append(value)

    for now, after in itertools.pairwise(ids):
        following = np.array([after])
        shared = dict(runtimes["float32"].state)
        expected, fired, _ = probes["float32"].step(shared, now, channels)
        base, best = nats_of(expected, following), expected.argmax()
        for name, runtime in runtimes.items():
            own_logits, own_spikes, found = probes[name].step(runtime.state, now, channels)
            for into, out in runtime.manifest["graphs"]["step"]["state"].items():
                runtime.state[into] = found[out]
            if runtime.state["state.clock"] >= runtime.manifest["plasticity_span"]:
                runtime.commit()
            note(name, own_loss=nats_of(own_logits, following) - base, own_top1=float(own_logits.argmax() == best))
            note(name, own_divergence=divergence_of(expected, own_logits))
            note(name, own_spikes=float((own_spikes != fired).mean()), own_rate=float(own_spikes.mean() - fired.mean()))
            if name == "float32":
                continue
            logits, spikes, _ = probes[name].step(shared, now, channels)
            note(name, same_loss=nats_of(logits, following) - base, same_top1=float(logits.argmax() == best))
            note(name, same_divergence=divergence_of(expected, logits))
            note(name, same_spikes=float((spikes != fired).mean()), same_rate=float(spikes.mean() - fired.mean()))
    report: dict[str, dict[str, Any]] = {}
    for name, columns in rows.items():
        report[name] = {key: float(np.mean(values)) for key, values in columns.items()}
        report[name] |= {
            f"{key}_95": block_interval(np.array(values))
            for key, values in columns.items()
            if key.endswith(("loss", "top1", "divergence"))
        }
    return report


def block_interval(values: np.ndarray) -> list[float]:
    """95 % of the mean over resampled blocks of tokens."""
    blocks = values[: max(1, len(values) // BLOCK) * BLOCK]
    blocks = blocks.reshape(-1, BLOCK).mean(1) if len(blocks) >= BLOCK else values
    random = np.random.default_rng(0)
    draws = blocks[random.integers(0, len(blocks), (DRAWS, len(blocks)))].mean(1)
    return [float(x) for x in np.quantile(draws, [0.025, 0.975])]


def carried(brain: Brain, runtime: Runtime) -> BrainState:
    """The runtime's state as torch has it."""
    template = brain.init_state(1)
    tensors = [torch.from_numpy(np.array(runtime.state[ports.INTO + path])) for path, _ in leaves(template)]
    return replace_leaves(template, tensors)


def recalled(brain: Brain, runtime: Runtime, count: int) -> float:
    """Share of facts whose answer is the first choice, by the exported graphs."""
    encode, bos, hits = brain.tokenizer.encode, brain.tokenizer.bos_id, []
    for template in facts.TEMPLATES:
        for cue, answer in facts.facts(template, count, np.random.default_rng(0)):
            runtime.reset(1)
            for token in [bos, *encode(cue + answer + ".")]:
                runtime.step([token])
            runtime.commit()
            fresh = arms.with_memories_of(brain.init_state(1), carried(brain, runtime))
            runtime.reset(1)
            runtime.state |= {ports.INTO + path: leaf.numpy() for path, leaf in leaves(fresh)}
            for token in [bos, *encode(cue)]:
                logits = runtime.step([token])
            hits.append(int(logits.argmax()) == encode(answer)[0])
    return float(np.mean(hits))


def recalled_by_torch(brain: Brain, count: int) -> float:
    hits = []
    for template in facts.TEMPLATES:
        for cue, answer in facts.facts(template, count, np.random.default_rng(0)):
            hits.append(facts.answer_rank(brain, facts.memory_of(brain, cue + answer + "."), cue, answer)[1] == 1)
    return float(np.mean(hits))


def torch_reader(brain: Brain) -> Callable[[list[int]], None]:
    @torch.no_grad()
    def read(tokens: list[int]) -> None:
        state = brain.init_state(1)
        for token in tokens:
            state = brain.step(torch.tensor([token]), state).state
            if brain.remaining(state) == 0:
                state = brain.commit(state)[0]

    return read


def graph_reader(folder: Path) -> Callable[[list[int]], None]:
    runtime = Runtime(folder)

    def read(tokens: list[int]) -> None:
        runtime.reset(1)
        for token in tokens:
            runtime.step([token])

    return read


def timed(
    readers: dict[str, Callable[[list[int]], None]], tokens: list[int], rounds: int
) -> dict[str, dict[str, float]]:
    """CPU milliseconds per token with commits, and how often each is as quick as float32 and as torch."""
    found: dict[str, list[float]] = {name: [] for name in readers}
    for read in readers.values():
        read(tokens)  # the first run allocates
    for _ in range(rounds):
        for name, read in readers.items():
            started = time.process_time()
            read(tokens)
            found[name].append(1e3 * (time.process_time() - started) / len(tokens))
    summary = {}
    for name, ms in found.items():
        row = {"ms_min": min(ms), "ms_median": statistics.median(ms), "ms_max": max(ms)}
        for base in ("float32", "torch"):
            row[f"times_{base}_min"] = min(found[base]) / min(ms)
            row[f"times_{base}_median"] = statistics.median(
                there / here for there, here in zip(found[base], ms, strict=True)
            )
        summary[name] = row
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("text", type=Path)
    parser.add_argument("--wikitext", action="store_true", help="undo WikiText's tokenization, as `neuro eval` does")
    parser.add_argument("--tokens", type=int, default=4096, help="of the text, from its beginning; 0: no comparison")
    parser.add_argument(
        "--calibration", type=Path, help="a text for int8-static and int4's rounding: rows of their own"
    )
    parser.add_argument("--only", nargs="+", help="rows beside float32: the others are left out")
    parser.add_argument("--facts", type=int, default=3, help="of each template; 0: none")
    parser.add_argument("--rounds", type=int, default=7, help="of timing; 0: none")
    parser.add_argument("--step-tokens", type=int, default=128, help="of one round")
    options = parser.parse_args()
    torch.set_num_threads(1)
    brain = neuro.load(options.model, "cpu")
    coded = perplexity.code(text.read_text(options.text), brain, options.wikitext)
    ids = [brain.tokenizer.bos_id, *(i for unit in coded.ids for i in unit)]
    kinds: dict[str, Callable[[Path], Any]] = {
        f"noise {NOISE:g}": noisy,
        "float32, rewritten": rewritten,
        "int8": quantize.int8,
        "int4": quantize.int4,
    }
    if options.calibration:
        read = {
            kind: quantize.calibration_ids(options.calibration, brain, n) for kind, n in quantize.CALIBRATED.items()
        }
        kinds["int8-static"] = lambda step: quantize.static(step, quantize.feeds(brain, read["int8-static"]))
        kinds["int4, calibrated"] = lambda step: quantize.int4(step, quantize.feeds(brain, read["int4"]))
    kinds = {name: make for name, make in kinds.items() if not options.only or name in options.only}
    report: dict[str, Any] = {"benchmark": "quantization", "model": options.model, "text": options.text.name}
    with tempfile.TemporaryDirectory() as place:
        folders = {"float32": Path(place) / "float32"}
        step = write(brain, folders["float32"])["step"]
        whole, rasters = step.stat().st_size, rasters_of(step)
        rows: dict[str, dict[str, Any]] = {"torch": {}, "float32": {"bytes": whole, "size": 1.0}}
        for name, make in kinds.items():
            folders[name] = Path(shutil.copytree(folders["float32"], Path(place) / name))
            path = folders[name] / recipes.file_of("step", None)
            record = make(path)
            rows[name] = {"bytes": path.stat().st_size, "size": path.stat().st_size / whole}
            if record:
                rows[name]["share_of_weight_bytes"] = record["share_of_weight_bytes"]
        if options.tokens:
            for name, row in compare(folders, ids[: options.tokens + 1], rasters).items():
                rows[name] |= row
        if options.facts:
            rows["torch"]["facts"] = recalled_by_torch(brain, options.facts)
            for name, folder in folders.items():
                rows[name]["facts"] = recalled(brain, Runtime(folder), options.facts)
        if options.rounds:
            readers = {"torch": torch_reader(brain)} | {name: graph_reader(at) for name, at in folders.items()}
            for name, row in timed(readers, ids[: options.step_tokens], options.rounds).items():
                rows[name] |= row
    report |= {"tokens": options.tokens, "facts": options.facts * len(facts.TEMPLATES), "rounds": options.rounds}
    report |= {"seed": 0, "step_tokens": options.step_tokens, "rows": rows, "machine": _machine.describe()}
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
