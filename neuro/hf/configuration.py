"""The configuration of a brain as transformers carries it: one config.json that `neuro.load` reads as well."""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig

from neuro import config, folder
from neuro.config import BrainConfig


class NeuroConfig(PretrainedConfig):
    """A `BrainConfig` with what transformers wants to know around it.

    Args:
        brain: the brain's configuration, as an object or as the nested dictionary that config.json holds; None is the
            default brain.
        schema: of the folder format; must be this version's.
        tokenizer: fingerprint of the tokenizer the weights belong to.
        about: record of the model's making.
        use_cache: return the state from ``forward`` unless a call says otherwise.
        kwargs: whatever transformers keeps in a configuration.

    Raises:
        UsageError: an unknown key or a wrong value in ``brain``.
    """

    model_type = "neuro"
    keys_to_ignore_at_inference = ["past_key_values", "cache"]  # noqa: RUF012 - transformers reads it from the class

    def __init__(
        self,
        brain: BrainConfig | dict[str, Any] | None = None,
        schema: str = folder.SCHEMA,
        tokenizer: str = "",
        about: dict[str, Any] | None = None,
        use_cache: bool = True,
        **kwargs: Any,
    ) -> None:
        if not isinstance(brain, BrainConfig):
            brain = config.from_dict(BrainConfig, brain or {}, "config.json brain")
        self.brain = config.to_dict(brain)
        self.schema, self.tokenizer, self.about, self.use_cache = schema, tokenizer, about or {}, use_cache
        super().__init__(**kwargs)

    def brain_config(self) -> BrainConfig:
        """The brain's configuration as the object that `neuro.brain.Brain` takes."""
        return config.from_dict(BrainConfig, self.brain, "config.json brain")

    @property
    def vocab_size(self) -> int:
        """Ids are below it."""
        return self.brain["vocab_size"]

    @property
    def hidden_size(self) -> int:
        """Width of the relay, the cortex and the memory's values."""
        return self.brain["d_model"]

    @property
    def num_hidden_layers(self) -> int:
        """Layers of the cortex."""
        cortex = self.brain["cortex"]
        return len(cortex["mixers"]) if cortex["enabled"] else 0
