"""A tiny brain with a tokenizer, as transformers sees it."""

from __future__ import annotations

import pytest
import torch

from neuro import folder
from neuro.tokenizer import Tokenizer

TEXT = "The city began when the river rose.\nA fox ran over the hill, and people said it was <unk> good.\n\n" * 3


@pytest.fixture(scope="module")
def tokenizer():
    trained = Tokenizer.train(TEXT.split("\n"), 300)
    assert trained.vocab_size == 300
    return trained


@pytest.fixture
def brain(tiny_brain, tokenizer):
    """In float64, so that no spike hangs on the order of a sum; tied weights must not make it repeat its last token."""
    made = tiny_brain(dtype=torch.float64).eval()
    with torch.no_grad():
        made.regions["readout"].norm.weight.copy_(3 * torch.randn(32, generator=torch.Generator().manual_seed(3)))
    made.tokenizer = tokenizer
    return made


@pytest.fixture
def model(brain):
    pytest.importorskip("transformers")
    from neuro.hf import NeuroForCausalLM

    return NeuroForCausalLM.from_brain(brain)


@pytest.fixture
def saved(brain, tmp_path):
    return folder.save(brain, tmp_path / "ours", {"steps": 7})
