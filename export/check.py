"""Is an exported folder still what was exported? Files, manifest and graphs, then parity with torch once more."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from export import manifest as manifests
from export import onnx_graph, parity, quantize, recipes, web
from export.manifest import describe_file
from export.parity import Parity
from export.runtime import SCHEMA, Runtime
from neuro import folder
from neuro.brain import Brain
from neuro.errors import CheckError, MissingError, NeuroError

GAP_LIMIT = (
    1e-5  # float32: of logits and state, over the largest value where that is above 1, where spikes are the same
)
FLIP_LIMIT = 1e-5  # float32: spikes that fall on the other side, per neuron and token (one is always forgiven)
# Nats per token: a memory that is sure of itself on one side and not on the other costs much at once.
DIVERGENCE_LIMIT = 0.1  # int8
DIVERGENCE_LIMITS = {"int8": DIVERGENCE_LIMIT, "int8-static": DIVERGENCE_LIMIT, "int4": 0.3}
# What every export holds besides its graphs; a manifest that lists less would let the others change unseen.
FILES = (
    "run.py", "tokenizer.json", "golden.npz", "workload.json",
    "torch/config.json", "torch/model.safetensors", "torch/tokenizer.json",
)  # fmt: skip
GENAI_FILES = ("genai_config.json", "tokenizer_config.json")
MADE_WITH = ("neuro", "versions")  # of the machine that exported; the one that verifies may have others
# onnxruntime's errors share no base class of their own.
_ort = onnxruntime.capi.onnxruntime_pybind11_state
_NOT_RUNNING: tuple[type[Exception], ...] = (
    OSError, KeyError, ValueError, RuntimeError,
    _ort.Fail, _ort.InvalidArgument, _ort.InvalidGraph, _ort.InvalidProtobuf, _ort.NoSuchFile,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Report:
    """What `verify` found in a folder that is fine."""

    quantization: str | None
    files: int
    parity: Parity

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


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
    manifest = read_manifest(path)
    more = web.FILES if manifest.get("profile") == "web" else ()
    _check_files(path, manifest["files"], (*FILES, *more, *_graph_files(path, manifest)))
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
        gaps = parity.others(path, manifest, golden)
    except _NOT_RUNNING as error:
        raise CheckError(
            f"{path}: the export does not run ({type(error).__name__}: {_first_line(error)}).", "Export again."
        ) from error
    judge(measured, quantized["recipe"] if quantized else None, f"{path}", "Export again; do not use this folder.")
    judge_others(gaps, f"{path}")
    return Report(quantized["recipe"] if quantized else None, len(manifest["files"]), measured)


def judge(measured: Parity, recipe: str | None, where: str, do: str) -> None:
    """Raises CheckError unless the difference from torch is within the limits of its kind."""
    if recipe:
        good = measured.divergence <= DIVERGENCE_LIMITS[recipe]
        got = f"a divergence of {measured.divergence:.4f} nats per token"
        limits = f"at most {DIVERGENCE_LIMITS[recipe]}"
    else:
        gap = max(measured.logits_relative, measured.state_relative)
        good = gap <= GAP_LIMIT and (measured.spike_flips <= 1 or measured.spike_mismatch <= FLIP_LIMIT)
        got = (
            f"logits {measured.logits_relative:.1e} and state {measured.state_relative:.1e} away, "
            f"{measured.spike_flips} other spikes"
        )
        limits = f"at most {GAP_LIMIT:g} away and the same spikes"
    if not good:
        raise CheckError(f"{where}: parity with torch is broken: got {got}, expected {limits}.", do)


def judge_others(gaps: dict[str, dict[str, float]], where: str) -> None:
    """Raises CheckError where prefill or decoder say something else than step and commit."""
    for name, gap in gaps.items():
        if gap["relative"] > GAP_LIMIT:
            raise CheckError(
                f"{where}: the {name} is not the step: got logits {gap['relative']:.1e} away, expected at most {GAP_LIMIT:g}.",
                "Report this model's configuration; do not use the folder.",
            )


def _graph_files(path: Path, manifest: dict[str, Any]) -> list[str]:
    try:
        needed = [name for name in recipes.PROFILES[manifest["profile"]] if name != "prefill"]
        found = [manifest["graphs"][name]["file"] for name in dict.fromkeys([*needed, *manifest["graphs"]])]
        return [*found, *(GENAI_FILES if "decoder" in manifest["graphs"] else ())]
    except (KeyError, TypeError) as error:
        raise CheckError(
            f"{path / 'manifest.json'}: 'graphs' is not that of the graphs and the model in this folder.",
            "Export again; the runner would not do what the model does.",
        ) from error


def _check_graph(file: Path, entry: dict[str, Any]) -> None:
    """Raises CheckError unless the graph has the opset and the ports that the manifest tells the runner of."""
    model = onnx.load(file, load_external_data=False)
    opset = {one.domain or "ai.onnx": one.version for one in model.opset_import}.get("ai.onnx")
    if opset != onnx_graph.OPSET:
        raise CheckError(f"{file}: got opset {opset}, expected {onnx_graph.OPSET}.", "Export again.")
    for kind, values in (("inputs", model.graph.input), ("outputs", model.graph.output)):
        got = [value.name for value in values]
        expected = [port["name"] for port in entry[kind]] if isinstance(entry.get(kind), list) else []
        if got != expected:
            odd = min(set(got) ^ set(expected), default="their order")
            raise CheckError(
                f"{file}: its {kind} are not those of the manifest: got {len(got)}, expected {len(expected)}, odd is '{odd}'.",
                "Export again; do not mix files of two exports.",
            )


def _check_files(path: Path, files: Any, required: tuple[str, ...]) -> None:
    do = "Copy or export the folder again."
    unlisted = set(required) - set(files) if isinstance(files, dict) else set(required)
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
    quantization = manifest["quantization"]
    recipe = quantization.get("recipe") if isinstance(quantization, dict) else quantization
    do = "Export again; the runner would not do what the model does."
    if recipe not in recipes.SUFFIXES:
        raise CheckError(f"{path / 'manifest.json'}: 'quantization' names no recipe: {recipe!r}.", do)
    profile = manifest.get("profile")
    if profile not in recipes.PROFILES:
        raise CheckError(f"{path / 'manifest.json'}: 'profile' is none of ours: {profile!r}.", do)
    for name in recipes.graphs(profile, recipe):
        file = recipes.file_of(name, recipe)
        try:
            onnx.checker.check_model(path / file)
        except (OSError, onnx.checker.ValidationError) as error:
            if not (path / file).is_file():
                continue  # then the manifest is wrong about the recipe
            raise CheckError(f"{path / file}: is no graph ({_first_line(error)}).", "Export again.") from error
    step = path / recipes.file_of("step", recipe)
    found = quantize.recipe_of(step) if step.is_file() else None
    if not step.is_file() or found != recipe:
        raise CheckError(
            f"{path / 'manifest.json'}: 'quantization' is not that of the graphs and the model in this folder.", do
        )
    for name in recipes.graphs(profile, recipe):
        _check_graph(path / recipes.file_of(name, recipe), manifest["graphs"][name])
    expected = json.loads(json.dumps(manifests.describe(brain, path, recipe, profile)))
    for key, value in expected.items():
        if key not in MADE_WITH and manifest.get(key) != value:
            raise CheckError(
                f"{path / 'manifest.json'}: '{key}' is not that of the graphs and the model in this folder.", do
            )
    for name in recipes.graphs(profile, recipe):
        graph = path / recipes.file_of(name, recipe)
        props = {prop.key: prop.value for prop in onnx.load(graph, load_external_data=False).metadata_props}
        if props != manifests.inside(expected, name, recipe):
            raise CheckError(f"{graph}: says something else about itself than the manifest does.", do)


def read_manifest(path: Path) -> dict[str, Any]:
    """Raises CheckError unless ``path`` holds a manifest of this version."""
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
