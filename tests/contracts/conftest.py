"""What the command line's tests share: a model's folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from neuro import folder, presets
from neuro.brain import Brain
from neuro.config import apply_sets
from neuro.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def saved_model(tmp_path_factory) -> Callable[..., Path]:
    """Factory of model folders: a tiny brain as it is initialised, with a tokenizer of 300 ids learned from these lines."""

    def make(lines: Sequence[str], *sets: str) -> Path:
        torch.manual_seed(0)
        tokenizer = Tokenizer.train(lines, 300)
        brain = Brain(apply_sets(presets.tiny().brain, [f"vocab_size={tokenizer.vocab_size}", *sets]))
        brain.tokenizer = tokenizer
        return folder.save(brain, tmp_path_factory.mktemp("model"))

    return make
