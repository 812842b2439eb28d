"""The Hugging Face face: a brain as a `transformers` model, and the one door to transformers, datasets and peft.

    from neuro.hf import NeuroForCausalLM, NeuroTokenizer
    model = NeuroForCausalLM.from_pretrained("small")
    tokenizer = NeuroTokenizer.from_pretrained("small", add_bos_token=True)
    model.generate(**tokenizer("The city", return_tensors="pt"), max_new_tokens=20)

Importing this package imports nothing; the first name taken from it imports transformers and registers the classes with
its ``Auto`` classes, so that ``AutoModelForCausalLM.from_pretrained(folder)`` works from then on.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuro.hf.adapter import HippocampalAdapter
    from neuro.hf.adapter_cache import AdapterCache
    from neuro.hf.adapter_config import AdapterConfig
    from neuro.hf.cache import NeuroCache
    from neuro.hf.configuration import NeuroConfig
    from neuro.hf.contrastive import contrastive_search
    from neuro.hf.logits import (
        DryLogitsProcessor,
        FrequencyPenaltyLogitsProcessor,
        PresencePenaltyLogitsProcessor,
        breaker_ids,
    )
    from neuro.hf.modeling import NeuroForCausalLM
    from neuro.hf.tokenization import NeuroTokenizer

__all__ = [
    "AdapterCache",
    "AdapterConfig",
    "DryLogitsProcessor",
    "FrequencyPenaltyLogitsProcessor",
    "HippocampalAdapter",
    "NeuroCache",
    "NeuroConfig",
    "NeuroForCausalLM",
    "NeuroTokenizer",
    "PresencePenaltyLogitsProcessor",
    "breaker_ids",
    "contrastive_search",
    "register",
]

_HOMES = {
    "AdapterCache": "adapter_cache",
    "AdapterConfig": "adapter_config",
    "DryLogitsProcessor": "logits",
    "FrequencyPenaltyLogitsProcessor": "logits",
    "HippocampalAdapter": "adapter",
    "NeuroCache": "cache",
    "NeuroConfig": "configuration",
    "NeuroForCausalLM": "modeling",
    "NeuroTokenizer": "tokenization",
    "PresencePenaltyLogitsProcessor": "logits",
    "breaker_ids": "logits",
    "contrastive_search": "contrastive",
}


def register() -> None:
    """Tell transformers' ``Auto`` classes about ours. Taking any class from this package does it too.

    Raises:
        MissingError: transformers is not installed.
    """
    from neuro.extras import require

    transformers = require("transformers", "hf")
    from neuro.hf.configuration import NeuroConfig
    from neuro.hf.modeling import NeuroForCausalLM
    from neuro.hf.tokenization import NeuroTokenizer

    transformers.AutoConfig.register(NeuroConfig.model_type, NeuroConfig, exist_ok=True)
    transformers.AutoModelForCausalLM.register(NeuroConfig, NeuroForCausalLM, exist_ok=True)
    transformers.AutoTokenizer.register(NeuroConfig, fast_tokenizer_class=NeuroTokenizer, exist_ok=True)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    register()
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
