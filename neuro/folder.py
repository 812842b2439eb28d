"""A model as a folder: config.json, model.safetensors, tokenizer.json, and training_text.safetensors where it is known what
was read in training; what `neuro.load` reads. Weights are float16; matrices on the grid of a quantized export
(`neuro.rounding`) are its levels and scales, and come back bit for bit.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

import backends
from neuro import atomic, config, levels, presets, tensor_file, training_text
from neuro.brain import Brain
from neuro.config import BrainConfig
from neuro.errors import FormatError, MissingError, nearest
from neuro.tokenizer import Tokenizer

SCHEMA = "neuro.model/1"
SHIPPED = Path(__file__).parent / "models"


def shipped() -> list[str]:
    """Names of the models that come with the package."""
    return (
        sorted(path.name for path in SHIPPED.iterdir() if (path / "config.json").is_file()) if SHIPPED.is_dir() else []
    )


def locate(model: str | Path) -> Path:
    """The folder of a shipped model's name or of a path.

    Raises:
        MissingError: neither, with the nearest shipped name; a preset, with how to train it.
    """
    path = Path(model)
    if (path / "config.json").is_file():
        return path
    if (SHIPPED / str(model) / "config.json").is_file() and str(model) == path.name:
        return SHIPPED / str(model)
    if path.is_dir():
        inside = path / "model"  # of a run's folder
        do = (
            f"Give {inside}."
            if (inside / "config.json").is_file()
            else "Give a folder of a model that 'neuro train' wrote."
        )
        raise MissingError(f"model '{model}': the folder has no config.json.", do)
    if str(model) in presets.PRESETS:
        text = "" if presets.PRESETS[str(model)]().data.train else "--set data.train=TEXT "
        raise MissingError(
            f"model '{model}': got a configuration, which has no weights, expected a trained model.",
            f"Train it first: neuro train {model} {text}--out FOLDER; its model is then FOLDER/model.",
        )
    hint = nearest(str(model), shipped()) if shipped() else "No model is shipped with this installation."
    raise MissingError(f"model '{model}': neither a shipped model nor a folder.", hint)


def save(brain: Brain, folder: str | Path, about: dict[str, Any] | None = None) -> Path:
    """Write the model; ``about`` (JSON-able) is kept in config.json as the record of its making."""
    folder = Path(folder)
    weights = dict(brain.state_dict())
    weights.pop("regions.readout.weight", None)  # tied to the embedding
    exact, rest = levels.packed(weights)
    tensor_file.write(folder / "model.safetensors", tensor_file.floats(rest, torch.float16) | exact, {"schema": SCHEMA})
    brain.tokenizer.save(folder / "tokenizer.json")
    if brain.seen is not None:
        training_text.write(folder, brain.seen)
    record = {
        "schema": SCHEMA,
        "model_type": "neuro",  # what transformers' Auto classes know it by
        "brain": config.to_dict(brain.config),
        "tokenizer": brain.tokenizer.fingerprint,
        "about": about or {},
    }
    atomic.write_text(folder / "config.json", json.dumps(record, indent=1) + "\n")
    return folder


def read_record(folder: Path) -> dict[str, Any]:
    """config.json of a model folder, its schema checked.

    Raises:
        FormatError: not JSON, another schema, or no brain in it.
    """
    try:
        record = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise FormatError(f"{folder / 'config.json'}: {error}.", "Use another copy of the model.") from error
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise FormatError(f"{folder / 'config.json'}: expected schema '{SCHEMA}'.", "Use a model of this version.")
    if not isinstance(record.get("brain"), dict):
        raise FormatError(f"{folder / 'config.json'}: has no table 'brain'.", "Use another copy of the model.")
    return record


def load(
    model: str | Path = "small",
    backend: str = "auto",
    record_raster: bool = False,
    sets: list[str] | None = None,
    record_membrane: bool = False,
) -> Brain:
    """Load a model in evaluation mode, with its tokenizer at ``brain.tokenizer`` and what it was trained on at ``brain.seen``.

    Args:
        model: a shipped model's name or a folder.
        backend: one of `backends.NAMES`.
        record_raster: keep every spike in the events.
        sets: ``--set`` overrides of the brain's configuration that leave its tensors as they are.
        record_membrane: keep every membrane potential in the events.

    Raises:
        MissingError: no such model.
        FormatError: truncated or foreign files, or a tokenizer that is not the one it was trained with.
    """
    folder = locate(model)
    record = read_record(folder)
    brain_config = config.from_dict(BrainConfig, record["brain"], "config.json brain")
    brain_config = config.apply_sets(brain_config, [item.removeprefix("brain.") for item in sets or []])
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    if tokenizer.fingerprint != record.get("tokenizer") or tokenizer.vocab_size != brain_config.vocab_size:
        raise FormatError(
            f"{folder}: tokenizer.json ({tokenizer.vocab_size} tokens) is not the one this model was trained with "
            f"({brain_config.vocab_size} tokens).",
            "Put the model's own tokenizer.json back.",
        )
    tensors = read_weights(folder)
    brain = Brain(brain_config, backends.select(backend), record_raster, record_membrane)
    load_weights(brain, tensors, str(folder / "model.safetensors"))
    brain.tokenizer, brain.seen = tokenizer, training_text.read(folder)
    return brain.eval()


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Tensors by name, as `Brain.state_dict` has them but for what is tied.

    Raises:
        MissingError: no such file.
        FormatError: truncated, foreign, or levels without their scales.
    """
    path = folder / "model.safetensors"
    tensors, _ = tensor_file.read(path, SCHEMA)
    return levels.unpacked(tensors, str(path))


def load_weights(brain: Brain, tensors: dict[str, torch.Tensor], where: str) -> None:
    """Put stored tensors into a brain of the same configuration.

    Raises:
        FormatError: names or shapes differ, or a value is not finite.
    """
    expected = dict(brain.state_dict())
    expected.pop("regions.readout.weight", None)
    tensor_file.check_shapes(tensors, expected, where)
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise FormatError(
                f"{where}: '{name}' holds values that are not finite.", "Its training diverged: use another model."
            )
    weights = tensor_file.floats(tensors, brain.backend.dtype)
    brain.load_state_dict(weights | {"regions.readout.weight": weights["embedding"]})


def adopt_weights(brain: Brain, model: Path) -> None:
    """Start from a model folder: its tensors wherever name and shape agree; the others stay as they are.

    Raises:
        FormatError: not a model folder, or nothing in it fits.
    """
    tensors = read_weights(model)
    own = dict(brain.state_dict())
    fits = {name: x for name, x in tensors.items() if name in own and own[name].shape == x.shape}
    if not fits:
        raise FormatError(f"{model}: none of its weights fits this brain.", "Start from a model of the same sizes.")
    if "embedding" in fits:
        fits["regions.readout.weight"] = fits["embedding"]
    brain.load_state_dict(own | tensor_file.floats(fits, brain.backend.dtype))


def fingerprint(brain: Brain) -> str:
    """sha256 over the configuration and every weight: which model a memory belongs to."""
    digest = hashlib.sha256(json.dumps(config.to_dict(brain.config), sort_keys=True).encode())
    for name, tensor in sorted(brain.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()
