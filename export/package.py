"""The exported folder: written whole or not at all, self-contained, and checked by `verify`.

step.onnx commit.onnx     the two graphs
manifest.json             ports, what they start from and where they go, operators, sizes, hashes, measured parity
run.py tokenizer.json     a runner that needs numpy and onnxruntime
golden.npz                tokens and what the graphs answered here
torch/                    the model they came from
README.md                 a card (and LICENSE, where the model has one)
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

import neuro
from export import onnx_graph, parity, ports, quantize
from export.parity import Parity
from export.runtime import SCHEMA, Runtime
from neuro import config, folder
from neuro.brain import Brain
from neuro.errors import CheckError, MissingError, NeuroError, UsageError, nearest

GAP_LIMIT = 1e-4  # float32: of logits and state, where the spikes are the same
FLIP_LIMIT = 1e-5  # float32: spikes that fall on the other side, per neuron and token (one is always forgiven)
# int8, nats per token: a memory that is sure of itself on one side and not on the other costs much at once.
DIVERGENCE_LIMIT = 0.1
MODEL_FILES = ("config.json", "model.safetensors", "tokenizer.json", "README.md", "LICENSE")
# What every export holds; a manifest that lists less would let the others change unseen.
FILES = (
    "step.onnx", "commit.onnx", "run.py", "tokenizer.json", "golden.npz",
    "torch/config.json", "torch/model.safetensors", "torch/tokenizer.json",
)  # fmt: skip
MADE_WITH = ("neuro", "versions")  # of the machine that exported; the one that verifies may have others
_GOLDEN_STRIDE = 8  # golden.npz keeps every eighth row of logits
_SIDE_BATCH, _SIDE_TOKENS = 3, 16  # a second shape, unlike the traced one
# onnxruntime's errors share no base class of their own.
_ort = onnxruntime.capi.onnxruntime_pybind11_state
_NOT_RUNNING: tuple[type[Exception], ...] = (
    OSError, KeyError, ValueError, RuntimeError,
    _ort.Fail, _ort.InvalidArgument, _ort.InvalidGraph, _ort.InvalidProtobuf, _ort.NoSuchFile,
)  # fmt: skip
# Written for this check; longer than its 128 tokens with any byte-level vocabulary of the usual size.
GOLDEN_TEXT = """The harbour lay under the old tower, and the keeper of the light walked down to the boats every evening. \
He counted them, wrote the number in a book, and went home. One evening there was a boat too many. The keeper counted \
again, slowly, and touched each mast as he passed. Twelve, and the night before there had been eleven. Nobody in the \
village had bought a boat, and no ship had come in since the storm. In the morning the new boat was gone, but its rope \
still hung on the ring, wet and knotted in a way that only his father had known. He took the rope home, and on the last \
page of the book he wrote a name instead of a number.
"""


@dataclasses.dataclass(frozen=True)
class Report:
    """What `verify` found in a folder that is fine."""

    quantization: str | None
    files: int
    parity: Parity

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def export_onnx(
    model: str | Path, out: str | Path, quantization: str | None = None, sets: Sequence[str] = ()
) -> dict[str, Any]:
    """Export a model -> the manifest that was written.

    Args:
        model: a shipped model's name or a model folder.
        out: a folder that does not exist, is empty, or holds an earlier export, which is replaced.
        quantization: None (float32) or one of `quantize.RECIPES`.
        sets: ``--set`` overrides of the brain's configuration that leave its tensors as they are.

    Raises:
        UsageError: an unknown recipe, or ``out`` holds something else.
        MissingError: no such model, or a torch without the exporter.
        CheckError: the graphs do not say what torch says.
        NeuroError: tracing, quantization or writing failed. Nothing is left behind by any of these.
    """
    if quantization is not None and quantization not in quantize.RECIPES:
        raise UsageError(f"--quantize: got '{quantization}'.", nearest(quantization, quantize.RECIPES))
    out = Path(out).resolve()
    _refuse_foreign(out)
    source = folder.locate(model)
    brain = folder.load(source, "cpu", sets=list(sets))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise NeuroError(f"{out}: cannot write ({error.strerror}).", "Choose a folder you may write to.") from error
    try:
        new, old = work / "new", work / "old"
        new.mkdir()
        manifest = _fill(new, brain, source, quantization, bool(sets))
        if out.exists():
            out.rename(old)
        try:
            new.rename(out)
        except OSError:
            if old.exists():
                old.rename(out)
            raise
    except OSError as error:
        raise NeuroError(
            f"{out}: cannot write ({error.strerror or error}).", "Check its permissions and the free space."
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return manifest


def verify(path: str | Path) -> Report:
    """Check every file of an exported folder and its manifest, then measure parity against its torch model again.

    Raises:
        MissingError: no such folder.
        CheckError: it is no longer what was exported: a file is missing, truncated, changed or of another version, or the
            graphs do not say what torch says.
    """
    path = Path(path)
    if not path.is_dir():
        raise MissingError(f"{path}: no such folder.", "Give a folder that 'neuro export' wrote.")
    manifest = _read_manifest(path)
    _check_files(path, manifest["files"])
    try:
        brain = folder.load(path / "torch", "cpu")
    except NeuroError as error:
        raise CheckError(error.what, "Export again.") from error
    _check_manifest(path, manifest, brain)
    try:
        golden = np.load(path / "golden.npz")["tokens"]
        runtime = Runtime(path)
        quantized = manifest["quantization"]
        measured = parity.measure(brain, runtime, golden[None], realign=not quantized)
    except _NOT_RUNNING as error:
        raise CheckError(
            f"{path}: the export does not run ({type(error).__name__}: {_first_line(error)}).", "Export again."
        ) from error
    _judge(measured, bool(quantized), f"{path}", "Export again; do not use this folder.")
    return Report(quantized["recipe"] if quantized else None, len(manifest["files"]), measured)


def _fill(new: Path, brain: Brain, source: Path, recipe: str | None, overridden: bool) -> dict[str, Any]:
    """Write everything into the empty folder ``new`` -> the manifest."""
    onnx_graph.write(brain, new)
    float_bytes = (new / "step.onnx").stat().st_size
    quantization = quantize.int8(new / "step.onnx") if recipe else None
    _copy_model(brain, source, new / "torch", overridden)
    shutil.copyfile(source / "tokenizer.json", new / "tokenizer.json")
    if (source / "LICENSE").is_file():
        shutil.copyfile(source / "LICENSE", new / "LICENSE")
    shutil.copyfile(Path(__file__).with_name("runtime.py"), new / "run.py")
    manifest = describe(brain, new) | {"quantization": quantization, "float_step_bytes": float_bytes}
    (new / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")  # what the runner reads; parity follows

    tokens = golden_tokens(brain)
    runtime = Runtime(new)
    measured = parity.measure(brain, runtime, tokens[None], realign=not recipe)
    do = "Export without --quantize." if recipe else "Report this model's configuration; nothing was written."
    _judge(measured, bool(recipe), "export", do)
    side = tokens[: _SIDE_BATCH * _SIDE_TOKENS].reshape(_SIDE_BATCH, _SIDE_TOKENS)
    beside = parity.measure(brain, runtime, side, realign=not recipe)
    if not recipe:
        _judge(beside, False, f"export, batch {_SIDE_BATCH}", do)
    manifest["parity"], manifest["parity_of_a_batch"] = measured.to_dict(), beside.to_dict()
    _write_golden(new / "golden.npz", runtime, tokens)
    (new / "README.md").write_text(_card(manifest, source), encoding="utf-8", newline="\n")
    files = sorted(file for file in new.rglob("*") if file.is_file() and file.name != "manifest.json")
    manifest["files"] = {file.relative_to(new).as_posix(): describe_file(file) for file in files}
    (new / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8", newline="\n")
    return manifest


def golden_tokens(brain: Brain) -> np.ndarray:
    """The ids [128] that parity is measured on: a short English text after the beginning-of-text token."""
    ids = [brain.tokenizer.bos_id, *brain.tokenizer.encode(GOLDEN_TEXT)]
    return np.resize(np.array(ids, dtype=np.int64), parity.TOKENS)  # repeats what is shorter


def describe(brain: Brain, new: Path) -> dict[str, Any]:
    """The manifest of the graphs that lie in ``new``, without what is measured."""
    tokenizer = brain.tokenizer
    return {
        "schema": SCHEMA,
        "neuro": neuro.__version__,
        "versions": {name: metadata.version(name) for name in ("torch", "onnx", "onnxruntime", "numpy")},
        "fingerprint": folder.fingerprint(brain),
        "vocab_size": brain.config.vocab_size,
        "plasticity_span": brain.config.plasticity_span,
        "prosody_channels": brain.config.prosody_channels,
        "bos": tokenizer.bos_id,
        "never_written": list(tokenizer.never_written),
        "state": [dataclasses.asdict(port) for port in ports.state_ports(brain)],
        "graphs": {name: _describe_graph(new / f"{name}.onnx") for name in onnx_graph.GRAPHS},
    }


def _describe_graph(path: Path) -> dict[str, Any]:
    model = onnx.load(path)
    into = [_describe_port(value) for value in model.graph.input]
    out = [_describe_port(value) for value in model.graph.output]
    given = {port["name"] for port in out}
    pairs = {name: ports.OUT + name.removeprefix(ports.INTO) for name in _state_names(into, out)}
    pairs = {name: next_name for name, next_name in pairs.items() if next_name in given}
    return {
        "file": path.name,
        "bytes": path.stat().st_size,
        "opset": {opset.domain or "ai.onnx": opset.version for opset in model.opset_import},
        "inputs": into,
        "outputs": out,
        "state": pairs,
        "constant": [p["name"] for p in into if p["name"].startswith(ports.INTO) and p["name"] not in pairs],
        "operators": dict(Counter(node.op_type for node in model.graph.node).most_common()),
    }


def _state_names(into: list[dict[str, Any]], out: list[dict[str, Any]]) -> list[str]:
    """State ports that the graph reads or writes, by their input name."""
    read = [port["name"] for port in into if port["name"].startswith(ports.INTO)]
    written = [ports.INTO + p["name"].removeprefix(ports.OUT) for p in out if p["name"].startswith(ports.OUT)]
    return list(dict.fromkeys(read + written))


def _describe_port(value: onnx.ValueInfoProto) -> dict[str, Any]:
    tensor = value.type.tensor_type
    return {
        "name": value.name,
        "dtype": onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name,
        "shape": [axis.dim_param or axis.dim_value for axis in tensor.shape.dim],
    }


def _copy_model(brain: Brain, source: Path, target: Path, overridden: bool) -> None:
    target.mkdir()
    for name in MODEL_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    if overridden:
        record = folder.read_record(source) | {"brain": config.to_dict(brain.config)}
        (target / "config.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8", newline="\n")


def _write_golden(path: Path, runtime: Runtime, tokens: np.ndarray) -> None:
    runtime.reset(1)
    positions = np.arange(_GOLDEN_STRIDE - 1, len(tokens), _GOLDEN_STRIDE)
    logits = np.concatenate([runtime.step([token]) for token in tokens])[positions]
    np.savez(path, tokens=tokens, positions=positions, logits=logits)


def _judge(measured: Parity, quantized: bool, where: str, do: str) -> None:
    if quantized:
        good = measured.divergence <= DIVERGENCE_LIMIT
        got = f"a divergence of {measured.divergence:.4f} nats per token"
        limits = f"at most {DIVERGENCE_LIMIT}"
    else:
        gap = max(measured.logits_max_abs, measured.state_max_abs)
        good = gap <= GAP_LIMIT and (measured.spike_flips <= 1 or measured.spike_mismatch <= FLIP_LIMIT)
        got = (
            f"logits {measured.logits_max_abs:.1e} and state {measured.state_max_abs:.1e} away, "
            f"{measured.spike_flips} other spikes"
        )
        limits = f"at most {GAP_LIMIT:g} away and the same spikes"
    if not good:
        raise CheckError(f"{where}: parity with torch is broken: got {got}, expected {limits}.", do)


def _refuse_foreign(out: Path) -> None:
    """Raises UsageError unless ``out`` is new, empty, or an earlier export."""
    if out == Path.cwd():
        raise UsageError(f"{out}: is the folder you are in, and would be replaced.", "Name a new folder with --out.")
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    try:
        _read_manifest(out)
    except CheckError:
        raise UsageError(f"{out}: holds something that is no export.", "Name an empty or new folder.") from None


def _check_files(path: Path, files: Any) -> None:
    do = "Copy or export the folder again."
    unlisted = set(FILES) - set(files) if isinstance(files, dict) else set(FILES)
    if unlisted:
        raise CheckError(f"{path / 'manifest.json'}: does not list {min(unlisted)}.", do)
    for name, record in files.items():
        file = path / name
        found = describe_file(file) if file.is_file() else None
        if found == record:
            continue
        got = f"{found['bytes']} bytes, sha256 {found['sha256'][:12]}" if found else "nothing"
        expected = "what the manifest lists"
        if isinstance(record, dict) and {"bytes", "sha256"} <= record.keys():
            expected = f"{record['bytes']} bytes, sha256 {str(record['sha256'])[:12]}"
        raise CheckError(f"{file}: is not as exported: got {got}, expected {expected}.", do)


def _check_manifest(path: Path, manifest: dict[str, Any], brain: Brain) -> None:
    """Raises CheckError where the manifest says something else than the graphs and the model beside it."""
    try:
        for name in onnx_graph.GRAPHS:
            onnx.checker.check_model(path / f"{name}.onnx")
    except (OSError, onnx.checker.ValidationError) as error:
        raise CheckError(f"{path}: {name}.onnx is no graph ({_first_line(error)}).", "Export again.") from error
    expected = json.loads(json.dumps(describe(brain, path))) | {"quantization": quantize.recipe_of(path / "step.onnx")}
    quantization = manifest["quantization"]
    told = manifest | {"quantization": quantization.get("recipe") if isinstance(quantization, dict) else quantization}
    for key, value in expected.items():
        if key not in MADE_WITH and told.get(key) != value:
            raise CheckError(
                f"{path / 'manifest.json'}: '{key}' is not that of the graphs and the model in this folder.",
                "Export again; the runner would not do what the model does.",
            )


def _read_manifest(path: Path) -> dict[str, Any]:
    do = "Give a folder that 'neuro export' wrote, whole."
    try:
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckError(f"{path / 'manifest.json'}: cannot be read ({_first_line(error)}).", do) from error
    schema = manifest.get("schema") if isinstance(manifest, dict) else None
    if schema != SCHEMA:
        raise CheckError(f"{path / 'manifest.json'}: got schema {schema!r}, expected '{SCHEMA}'.", do)
    missing = {"state", "graphs", "files", "quantization", "parity"} - manifest.keys()
    if missing:
        raise CheckError(f"{path / 'manifest.json'}: has no '{min(missing)}'.", do)
    return manifest


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")


def describe_file(path: Path) -> dict[str, Any]:
    """Its entry in the manifest."""
    with open(path, "rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _card(manifest: dict[str, Any], source: Path) -> str:
    measured, quantization = manifest["parity"], manifest["quantization"]
    step = manifest["graphs"]["step"]
    kind = "int8" if quantization else "float32"
    size = f"{step['bytes'] / 1e6:.2f} MB"
    if quantization:
        size += f" ({step['bytes'] / manifest['float_step_bytes']:.2f} of float32)"
    licence = "LICENSE holds the terms of the weights." if (source / "LICENSE").is_file() else ""
    return f"""# A neuro brain in ONNX, {kind}

Two graphs with explicit state: `step.onnx` ({size}) takes one token per stream, `commit.onnx` ends a span of
{manifest["plasticity_span"]} tokens: it writes the episodic memory and updates the hormones.

    python run.py "Once upon a time"     # numpy, onnxruntime, tokenizers
    python run.py 12 7 43                # numpy, onnxruntime
    python run.py --check                # does this machine compute what the exporting one did?
    neuro verify .                       # against torch/, the model this was made from

`manifest.json` names every port with type, shape and initial value, which output becomes which input
(`graphs.*.state`) and which inputs a graph leaves as they are (`graphs.*.constant`: keep those on the device).
Opset {step["opset"]["ai.onnx"]}; `prosody` is optional (zeros are silence); the axis `batch` is free.

Measured against torch over {measured["tokens"]} tokens with carried state and {measured["commits"]} commits: logits within
{measured["logits_max_abs"]:.1e}, the same likeliest token for {100 * measured["top1_agreement"]:.1f} %,
a divergence of {measured["divergence"]:.5f} nats per token,
spike counts apart by {100 * measured["spike_mismatch"]:.3f} % of all neuron updates.
{licence}
"""
