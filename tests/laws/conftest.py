"""What the laws of export share: a model's folder, and its float32 export."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from neuro import folder
from neuro.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def save_model(tiny_brain, tmp_path_factory) -> Callable[..., Path]:
    """Factory of model folders with a tokenizer of 300 ids."""
    tokenizer = Tokenizer.train(["The keeper counted the boats twice, and the boats counted him. "] * 30, 300)

    def make(sets=(), **options) -> Path:
        brain = tiny_brain([f"vocab_size={tokenizer.vocab_size}", *sets], **options)
        brain.tokenizer = tokenizer
        return folder.save(brain, tmp_path_factory.mktemp("model"))

    return make


@pytest.fixture(scope="module")
def exported(save_model, tmp_path_factory, traced_once) -> tuple[Path, Path]:
    """A model folder and its float32 export."""
    model, out = save_model(), tmp_path_factory.mktemp("export") / "out"
    from export import package

    package.export_onnx(model, out)
    return model, out
