"""Run an exported brain with numpy and ONNX Runtime alone; this file lies in the exported folder as ``run.py``.

    python run.py "Once upon a time"    # text, when the package tokenizers is installed
    python run.py 12 7 431              # token ids in, token ids out
    python run.py --temperature 1       # sampled; hormones warm it where the model's configuration says so
    python run.py --check               # does this machine compute what the exporting one did?

    from run import Runtime
    brain = Runtime(".")
    logits = brain.step([12])           # [B, V] for the next token; commits by itself at the end of a span

manifest.json names the graphs' files, every port, what it starts from and where it goes.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

SCHEMA = "neuro.export/2"
LEAST_LENGTH = 3  # of a prefill; what is shorter goes through the step
HORMONES, NORADRENALINE = "state.regions.endocrine.modulators", 1  # the port, and which of its columns


class Runtime:
    """One stream, or a batch of them, through an exported brain. ``state`` is carried here, by port name.

    Args:
        folder: what ``neuro export`` wrote.
        batch: number of streams.
        threads: of ONNX Runtime; at batch 1 the products are too small to share.

    Raises:
        ValueError: a manifest of another version, or a graph that is missing or has other ports than the manifest says.
    """

    def __init__(self, folder: str | Path, batch: int = 1, threads: int = 1) -> None:
        folder = Path(folder)
        self.manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        if not isinstance(self.manifest, dict):
            raise ValueError(f"{folder / 'manifest.json'}: got a {type(self.manifest).__name__}, expected an object.")
        if self.manifest.get("schema") != SCHEMA:
            raise ValueError(f"{folder}: got schema {self.manifest.get('schema')!r}, expected '{SCHEMA}'.")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads
        for entry in self.manifest["graphs"].values():
            if not (folder / entry["file"]).is_file():
                raise ValueError(f"{folder / entry['file']}: got nothing, expected a graph.")
        self._graphs = {
            name: _opened(folder / self.manifest["graphs"][name]["file"], options)
            for name in ("step", "commit", "prefill")
            if name in self.manifest["graphs"]
        }
        self._inputs = {name: [port.name for port in graph.get_inputs()] for name, graph in self._graphs.items()}
        self._outputs = {name: [port.name for port in graph.get_outputs()] for name, graph in self._graphs.items()}
        for name, found in (*self._inputs.items(), *self._outputs.items()):
            entry = self.manifest["graphs"][name]
            told = [port["name"] for port in entry["inputs" if found is self._inputs[name] else "outputs"]]
            if told != found:
                raise ValueError(f"{folder / entry['file']}: its ports are not those of the manifest.")
        self.reset(batch)

    def reset(self, batch: int = 1) -> None:
        """Forget everything: ``batch`` fresh streams."""
        self.batch = batch
        self.spikes = np.zeros((batch, 0), np.int64)  # [B, S] of the last step, per spiking layer
        self.state: dict[str, np.ndarray] = {}
        for port in self.manifest["state"]:
            shape = [batch if axis == "batch" else axis for axis in port["shape"]]
            self.state[port["name"]] = np.full(shape, port["initial"], dtype=port["dtype"])

    def step(self, token: Any, prosody: Any = None) -> np.ndarray:
        """token [B] ids, prosody [B, C] (None is silence) -> logits [B, V] for the next one. Commits when the span is full.

        Raises:
            ValueError: an id outside the vocabulary, or another batch.
        """
        ids = np.asarray(token, dtype=np.int64).reshape(-1)
        if len(ids) != self.batch or ids.min() < 0 or ids.max() >= self.manifest["vocab_size"]:
            raise ValueError(
                f"step: got {ids.tolist()}, expected {self.batch} ids below {self.manifest['vocab_size']}."
            )
        if prosody is None:
            prosody = np.zeros((self.batch, self.manifest["prosody_channels"]), np.float32)
        results = self._run("step", {"token": ids, "prosody": np.asarray(prosody, dtype=np.float32)})
        self.spikes = results["spikes"]
        self._end_span()
        return results["logits"]

    def feed(self, tokens: Any) -> np.ndarray:
        """tokens [B, T] ids, in silence -> logits [B, T, V]. As `step` on each, as few runs of the prefill as can be.

        Raises:
            ValueError: an id outside the vocabulary, or another batch.
        """
        ids, found, start = np.asarray(tokens, dtype=np.int64), [], 0
        if ids.ndim != 2 or len(ids) != self.batch or ids.min() < 0 or ids.max() >= self.manifest["vocab_size"]:
            raise ValueError(
                f"feed: got ids of shape {list(ids.shape)}, expected {self.batch} rows of ids below "
                f"{self.manifest['vocab_size']}."
            )
        while start < ids.shape[1]:
            left = self.manifest["plasticity_span"] - int(self.state["state.clock"])
            part = ids[:, start : start + left]
            if part.shape[1] < LEAST_LENGTH or "prefill" not in self._graphs:
                found.append(self.step(part[:, 0])[:, None])
                start += 1
                continue
            silence = np.zeros((*part.shape, self.manifest["prosody_channels"]), np.float32)
            results = self._run("prefill", {"tokens": part, "prosody": silence})
            self.spikes = results["spikes"][:, -1]
            self._end_span()
            found.append(results["logits"])
            start += part.shape[1]
        return np.concatenate(found, 1)

    def _end_span(self) -> None:
        if self.state["state.clock"] >= self.manifest["plasticity_span"]:
            self.commit()

    def commit(self) -> np.ndarray:
        """End the span now: update the hormones, write the memory -> slots written [B]."""
        return self._run("commit", {})["writes"]

    def warmth(self) -> np.ndarray:
        """What noradrenaline multiplies each stream's sampling temperature by [B]; 1 unless the model was set to it."""
        octaves = self.manifest.get("temperature_octaves", 0.0)
        if not octaves or HORMONES not in self.state:
            return np.ones(self.batch)
        return 2.0 ** (octaves * (2.0 * self.state[HORMONES][:, NORADRENALINE].astype(np.float64) - 1.0))

    def generate(
        self, ids: list[int], n: int, temperature: float = 0.0, top_p: float = 0.95, seed: int = 0
    ) -> list[int]:
        """Read ``ids`` (none: the beginning of a text), then write ``n`` tokens. One stream.

        Args:
            temperature: 0 always takes the likeliest; else it is multiplied by `warmth` and drawn at.
            top_p: smallest set of tokens with this joint probability.
            seed: of numpy's generator.

        Raises:
            ValueError: a temperature below 0, or a share outside (0, 1].
        """
        if temperature < 0 or not 0 < top_p <= 1:
            raise ValueError(
                f"generate: got temperature {temperature} and top_p {top_p}, expected 0 or more and a share in (0, 1]."
            )
        random = np.random.default_rng(seed)
        logits = self.feed([ids or [self.manifest["bos"]]])[:, -1]
        written: list[int] = []
        while len(written) < n:
            row = logits[0].copy()
            row[self.manifest["never_written"]] = -np.inf
            if temperature == 0:
                written.append(int(row.argmax()))
            else:
                chances = nucleus(row, temperature * float(self.warmth()[0]), top_p)
                written.append(int(random.choice(len(chances), p=chances)))
            logits = self.step(written[-1:])
        return written

    def _run(self, name: str, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        values = {**self.state, **given}
        found = self._graphs[name].run(None, {port: values[port] for port in self._inputs[name]})
        results = dict(zip(self._outputs[name], found, strict=True))
        for into, out in self.manifest["graphs"][name]["state"].items():
            self.state[into] = results[out]
        return results


def _opened(path: Path, options: Any) -> Any:
    """The graph in a file.

    Raises:
        ValueError: it is damaged, or of an operator set that the installed onnxruntime does not have.
    """
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library has a dozen types, none of which it documents
        said = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path}: onnxruntime {onnxruntime.__version__} cannot open it ({said}).") from error


def nucleus(logits: np.ndarray, temperature: float, top_p: float) -> np.ndarray:
    """logits [V] -> the chance of each id [V]: 0 outside the smallest set with joint probability ``top_p``."""
    scaled = (logits.astype(np.float64) - logits.max()) / temperature
    chances = np.exp(scaled) / np.exp(scaled).sum()
    order = np.argsort(-chances, kind="stable")
    before = np.cumsum(chances[order]) - chances[order]
    chances[order[before >= top_p]] = 0.0
    return chances / chances.sum()


def check(folder: Path) -> bool:
    """Replay golden.npz and compare with what the exporting machine computed -> good enough."""
    golden, runtime = np.load(folder / "golden.npz"), Runtime(folder)
    logits = np.concatenate([runtime.step([token]) for token in golden["tokens"]])[golden["positions"]]
    same = float((logits.argmax(1) == golden["logits"].argmax(1)).mean())
    worst = float(np.abs(logits - golden["logits"]).max())
    sys.stdout.write(f"logits within {worst:.1e}, same likeliest token {100 * same:.1f} %\n")
    return same >= 0.9


def main() -> int:
    """The command line of an exported folder -> exit code: 0 done, 2 wrong usage, 3 no tokenizers, 4 no whole export."""
    folder = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description="Continue a text (or token ids) with the brain in this folder.")
    parser.add_argument("prompt", nargs="*", help="a text, or token ids")
    parser.add_argument("--tokens", type=int, default=40, help="how many to write (default: 40)")
    parser.add_argument("--temperature", type=float, default=0.0, help="0 always takes the likeliest (default)")
    parser.add_argument("--top-p", type=float, default=0.95, help="share of probability to sample from (default: 0.95)")
    parser.add_argument("--seed", type=int, default=0, help="of the sampling (default: 0)")
    parser.add_argument("--check", action="store_true", help="compare this machine with the exporting one")
    options = parser.parse_args()
    if options.tokens < 0:
        sys.stderr.write(f"run.py: got --tokens {options.tokens}, expected 0 or more.\nLeave it out, or give more.\n")
        return 2
    if options.temperature < 0 or not 0 < options.top_p <= 1 or options.seed < 0:
        sys.stderr.write(
            f"run.py: got --temperature {options.temperature}, --top-p {options.top_p}, --seed {options.seed}, expected "
            "0 or more, a share in (0, 1], 0 or more.\nLeave them out, or give --temperature 0.9.\n"
        )
        return 2
    how = (options.temperature, options.top_p, options.seed)
    try:
        runtime = Runtime(folder)
        if options.check:
            return 0 if check(folder) else 4
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        sys.stderr.write(f"run.py: {error}\nCopy or export the folder again, whole.\n")
        return 4
    bos = [runtime.manifest["bos"]]
    if options.prompt and all(word.isdecimal() for word in options.prompt):
        ids = [int(word) for word in options.prompt]
        if max(ids) >= runtime.manifest["vocab_size"]:
            sys.stderr.write(
                f"run.py: got the token id {max(ids)}, expected ids below {runtime.manifest['vocab_size']}.\n"
                "Give ids of this folder's tokenizer.json, or a text.\n"
            )
            return 2
        written = runtime.generate(bos + ids, options.tokens, *how)
        sys.stdout.write(" ".join(map(str, written)) + "\n")
        return 0
    try:
        from tokenizers import Tokenizer
    except ImportError:
        sys.stderr.write("run.py: the package tokenizers is missing.\nInstall it, or give token ids instead of text.\n")
        return 3
    try:
        tokenizer = Tokenizer.from_str((folder / "tokenizer.json").read_text(encoding="utf-8"))
    except Exception as error:
        if type(error) is not Exception and not isinstance(error, OSError | ValueError):
            raise
        sys.stderr.write(f"run.py: {folder / 'tokenizer.json'}: {error}\nCopy or export the folder again, whole.\n")
        return 4
    prompt = " ".join(options.prompt)
    # A literal "<bos>" is cut in two: text can never forge the start of a document.
    parts = re.split("(?<=<bo)(?=s>)", prompt)
    ids = [i for part in parts for i in tokenizer.encode(part, add_special_tokens=False).ids]
    sys.stdout.write(prompt + tokenizer.decode(runtime.generate(bos + ids, options.tokens, *how)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
