"""The exported folder: written whole or not at all, self-contained, and checked by `verify`.

onnx/                     the graphs: step (model*.onnx) and commit
manifest.json             ports, what they start from and where they go, operators, sizes, hashes, measured parity
run.py tokenizer.json     a runner that needs numpy and onnxruntime
golden.npz                tokens and what the graphs answered here
workload.json             what a run over them does, counted: `neuro energy` prices it
torch/                    the model they came from
README.md                 a card (and LICENSE, where the model has one)
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from export import card, check, decoder, directml, genai, latency, onnx_graph, parity, quantize, recipes, sharing, web
from export import manifest as manifests
from export.placing import placed
from export.runtime import Runtime
from neuro import accounting, config, folder
from neuro.brain import Brain
from neuro.errors import CheckError, UsageError, nearest
from neuro.session import Session

MODEL_FILES = ("config.json", "model.safetensors", "tokenizer.json", "README.md", "LICENSE")
WORKLOAD = "workload.json"
_GOLDEN_STRIDE = 8  # golden.npz keeps every eighth row of logits
_SIDE_BATCH, _SIDE_TOKENS = 3, 16  # a second shape, unlike the traced one
# Written for this check; longer than its 128 tokens with any byte-level vocabulary of the usual size.
GOLDEN_TEXT = """The harbour lay under the old tower, and the keeper of the light walked down to the boats every evening. \
He counted them, wrote the number in a book, and went home. One evening there was a boat too many. The keeper counted \
again, slowly, and touched each mast as he passed. Twelve, and the night before there had been eleven. Nobody in the \
village had bought a boat, and no ship had come in since the storm. In the morning the new boat was gone, but its rope \
still hung on the ring, wet and knotted in a way that only his father had known. He took the rope home, and on the last \
page of the book he wrote a name instead of a number.
"""


def export_onnx(
    model: str | Path,
    out: str | Path,
    quantization: str | None = None,
    sets: Sequence[str] = (),
    profile: str = "cpu",
    calibration: str | Path | None = None,
) -> dict[str, Any]:
    """Export a model -> the manifest that was written.

    Args:
        model: a shipped model's name or a model folder.
        out: a folder that does not exist, is empty, or holds an earlier export, which is replaced.
        quantization: None (float32) or one of `quantize.RECIPES`.
        profile: one of `recipes.PROFILES`: what will run it.
        calibration: a text that "int8-static" finds its scales on and "int4", if given, its rounding; the others take none.
        sets: ``--set`` overrides of the brain's configuration that leave its tensors as they are.

    Raises:
        UsageError: an unknown recipe or one that the profile cannot have, or ``out`` holds something else.
        MissingError: no such model, or a torch without the exporter.
        CheckError: the graphs do not say what torch says.
        NeuroError: tracing, quantization or writing failed. Nothing is left behind by any of these.
    """
    if quantization is not None and quantization not in quantize.RECIPES:
        raise UsageError(f"--quantize: got '{quantization}'.", nearest(quantization, quantize.RECIPES))
    if calibration is not None and quantization not in quantize.CALIBRATED:
        raise UsageError(
            f"--calibration: got with --quantize {quantization or 'nothing'}, expected a text with int8-static or int4 alone.",
            "Give --quantize int8-static or int4 with it, or leave it out.",
        )
    if calibration is None and quantization == "int8-static":
        raise UsageError(
            "--calibration: got nothing with --quantize int8-static, expected a text.",
            "Give --calibration FILE, or --quantize int8.",
        )
    if profile not in recipes.PROFILES:
        raise UsageError(f"--profile: got '{profile}'.", nearest(profile, list(recipes.PROFILES)))
    recipes.refuse(profile, quantization)
    out = Path(out).resolve()
    _refuse_foreign(out)
    source = folder.locate(model)
    brain = folder.load(source, "cpu", sets=list(sets))
    ids, said = None, {}
    if calibration is not None and quantization is not None:
        ids = quantize.calibration_ids(Path(calibration), brain, quantize.CALIBRATED[quantization])
        said = {"text": Path(calibration).name, **manifests.describe_file(Path(calibration))}
    with placed(out) as new:
        manifest = _fill(new, brain, source, quantization, profile, bool(sets), ids, said)
    return manifest


def write_graphs(
    brain: Brain, new: Path, recipe: str | None = None, profile: str = "cpu", calibration: np.ndarray | None = None
) -> dict[str, Any]:
    """Write the graphs into ``new``/onnx and the manifest that the runner needs beside them -> that manifest."""
    (new / recipes.FOLDER).mkdir()
    files = {name: new / recipes.file_of(name, recipe) for name in recipes.graphs(profile, recipe)}
    traced = {name: file for name, file in files.items() if name in recipes.TRACED}
    raster = profile == "web" and bool(accounting.emitters(brain))  # what the page shows
    onnx_graph.write(brain, traced, scatter=profile != "dml", raster=raster)
    float_bytes = files["step"].stat().st_size
    feeds = () if calibration is None else quantize.feeds(brain, calibration)
    quantization = recipes.apply(files["step"], recipe, feeds)
    if "decoder" in files:
        decoder.compose(files, manifests.describe(brain, new, recipe, profile, list(traced)))
    if profile == "dml":
        for file in files.values():
            directml.check(file)
    described = manifests.describe(brain, new, recipe, profile)
    for name, file in files.items():
        manifests.stamp(file, manifests.inside(described, name, recipe))
    for name in files.keys() - {"step", "commit"}:
        sharing.share(files[name], files["step"])
    manifest = manifests.describe(brain, new, recipe, profile) | {
        "quantization": quantization,
        "float_step_bytes": float_bytes,
    }
    (new / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return manifest


def _fill(
    new: Path,
    brain: Brain,
    source: Path,
    recipe: str | None,
    profile: str,
    overridden: bool,
    calibration: np.ndarray | None,
    said: dict[str, Any],
) -> dict[str, Any]:
    """Write everything into the empty folder ``new`` -> the manifest, where ``said`` is of the file of calibration."""
    manifest = write_graphs(brain, new, recipe, profile, calibration)
    if said:
        manifest["quantization"]["calibration"] |= said
    _copy_model(brain, source, new / "torch", overridden)
    shutil.copyfile(source / "tokenizer.json", new / "tokenizer.json")
    if (source / "LICENSE").is_file():
        shutil.copyfile(source / "LICENSE", new / "LICENSE")
    shutil.copyfile(Path(__file__).with_name("runtime.py"), new / "run.py")
    if "decoder" in manifest["graphs"]:
        genai.write(new, manifest)

    tokens = golden_tokens(brain)
    runtime = Runtime(new)
    measured = parity.measure(brain, runtime, tokens[None], realign=not recipe)
    do = "Export without --quantize." if recipe else "Report this model's configuration; nothing was written."
    check.judge(measured, recipe, "export", do)
    side = tokens[: _SIDE_BATCH * _SIDE_TOKENS].reshape(_SIDE_BATCH, _SIDE_TOKENS)
    beside = parity.measure(brain, runtime, side, realign=not recipe)
    if not recipe:
        check.judge(beside, None, f"export, batch {_SIDE_BATCH}", do)
    manifest["parity"], manifest["parity_of_a_batch"] = measured.to_dict(), beside.to_dict()
    gaps = parity.others(new, manifest, tokens)
    check.judge_others(gaps, "export")
    manifest["parity_with_the_step"] = gaps
    manifest["latency"] = latency.measure(new, manifest, tokens)
    manifest["energy"] = _write_workload(new / WORKLOAD, brain, tokens)
    _write_golden(new / "golden.npz", runtime, tokens)
    if profile == "web":
        web.write(new, runtime, tokens)
    (new / "README.md").write_text(card.write(manifest, source), encoding="utf-8", newline="\n")
    files = sorted(file for file in new.rglob("*") if file.is_file() and file.name != "manifest.json")
    manifest["files"] = {file.relative_to(new).as_posix(): manifests.describe_file(file) for file in files}
    (new / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8", newline="\n")
    return manifest


def golden_tokens(brain: Brain) -> np.ndarray:
    """The ids [128] that parity is measured on: a short English text after the beginning-of-text token."""
    ids = [brain.tokenizer.bos_id, *brain.tokenizer.encode(GOLDEN_TEXT)]
    return np.resize(np.array(ids, dtype=np.int64), parity.TOKENS)  # repeats what is shorter


def _copy_model(brain: Brain, source: Path, target: Path, overridden: bool) -> None:
    target.mkdir()
    for name in MODEL_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    if overridden:
        record = folder.read_record(source) | {"brain": config.to_dict(brain.config)}
        (target / "config.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8", newline="\n")


@torch.no_grad()
def _write_workload(path: Path, brain: Brain, tokens: np.ndarray) -> dict[str, Any]:
    """Count what the torch model does over ``tokens``, one at a time -> the manifest's words on energy.

    Joules need a chip and its prices, which are not this package's: `neuro energy` reads the file.
    """
    tally = accounting.Tally(brain, prefill=0)
    session = Session(brain, observers=[tally])
    started = time.perf_counter()
    for token in tokens:
        session.feed(torch.tensor([[int(token)]]))
    session.commit()
    counted = accounting.workload(brain, tally, path.parent.name, (0.0, time.perf_counter() - started))
    path.write_text(counted.to_json() + "\n", encoding="utf-8", newline="\n")
    products = sum(row.count for row in counted.operations if row.kind == "mac")
    spikes = sum(population.spikes for population in counted.populations)
    return {
        "workload": path.name,
        "counted_on": "torch, float32",
        "tokens": len(tokens),
        "multiply_accumulates_per_token": round(products / len(tokens)),
        "spikes_per_token": round(spikes / len(tokens), 2),
        "joules": f"neuro energy {path.name} --chip loihi1 --against cpu",
    }


def _write_golden(path: Path, runtime: Runtime, tokens: np.ndarray) -> None:
    runtime.reset(1)
    positions = np.arange(_GOLDEN_STRIDE - 1, len(tokens), _GOLDEN_STRIDE)
    logits = np.concatenate([runtime.step([token]) for token in tokens])[positions]
    np.savez(path, tokens=tokens, positions=positions, logits=logits)


def _refuse_foreign(out: Path) -> None:
    """Raises UsageError unless ``out`` is new, empty, or an earlier export."""
    if out == Path.cwd():
        raise UsageError(f"{out}: is the folder you are in, and would be replaced.", "Name a new folder with --out.")
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    try:
        check.read_manifest(out)
    except CheckError:
        raise UsageError(f"{out}: holds something that is no export.", "Name an empty or new folder.") from None
