"""What tests of one door share: a model's folder; small bases of transformers, and adapters around them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

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


@pytest.fixture(scope="session")
def base_of() -> Callable[[str], Any]:
    """Factory of causal language models of 61 ids, as they are initialised: "llama", "gpt2" or "gemma"."""
    import transformers

    shape = dict(
        vocab_size=61,
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        bos_token_id=0,
        eos_token_id=None,
        pad_token_id=1,
    )

    def make(kind: str) -> Any:
        match kind:
            case "llama":
                return transformers.LlamaForCausalLM(transformers.LlamaConfig(**shape))
            case "gemma":  # soft-capped logits, embeddings scaled, tied
                config = transformers.Gemma2Config(**shape, head_dim=12, sliding_window=16)
                return transformers.Gemma2ForCausalLM(config)
        ends = dict(bos_token_id=0, eos_token_id=None, pad_token_id=1)
        config = transformers.GPT2Config(vocab_size=61, n_embd=24, n_layer=2, n_head=2, n_positions=256, **ends)
        return transformers.GPT2LMHeadModel(config)

    return make


@pytest.fixture(scope="session")
def adapter_of(base_of) -> Callable[..., Any]:
    """Factory of small adapters in float64 around a base, or around a new one of a kind."""
    from neuro.hf import HippocampalAdapter

    sizes = dict(span=8, slots=64, place_cells=48, key_width=12, top_slots=4, sparsity=0.1, lora_rank=2)

    def make(base: Any, **settings: Any) -> Any:
        torch.manual_seed(3)
        base = base_of(base).double().eval() if isinstance(base, str) else base
        return HippocampalAdapter.from_pretrained(base, **sizes | settings).double()

    return make


@pytest.fixture(scope="session")
def ids_of() -> Callable[..., Tensor]:
    """Factory of ids [rows, length] in which the same passages come again."""

    def make(rows: int, length: int, seed: int = 0) -> Tensor:
        passage = torch.randint(2, 61, (rows, 13), generator=torch.Generator().manual_seed(seed))
        return passage.repeat(1, length // 13 + 1)[:, :length]

    return make
