"""The configuration of a hippocampal adapter: what it was put around, and the sizes of what was added."""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig

from neuro.config import BrainConfig, CortexConfig, HippocampusConfig
from neuro.errors import UsageError

FUSIONS = ("memory", "feedforward", "none")
CONTROLLERS = ("learned", "random", "periodic")
MODEL_TYPE = "hippocampal_adapter"


class AdapterConfig(PretrainedConfig):
    """Sizes and rules of a `HippocampalAdapter`.

    Args:
        base: what it belongs to: name, model_type, width and vocab_size; filled in when a base is wrapped.
        fusion: what is added to the hidden state before the head: "memory"; "feedforward", a block without a memory
            for a fair comparison; "none", low-rank updates of the base alone.
        hidden: width of the feedforward block.
        span: tokens between two commits.
        window: tokens after which the base's own context starts again, the last ``overlap`` of them read again; None lets
            it grow as the base does. The memory goes on: this is how a text longer than the base's positions is read.
        overlap: see ``window``.
        key_layer: which decoder layer's output addresses the memory, from 0; None is what the head reads.
        place_cells, sparsity, key_width, slots, top_slots, writes_per_span, controller, half_life_tokens, rebind: of the
            hippocampus (`neuro.config.HippocampusConfig`); None for writes_per_span writes every token. The
            controllers that ask how surprising a token was are not to be had: what is written is known before the head has run.
        probes: lists of slots that a token looks at (`neuro.memory.slot_lists`) outside training; None looks at all slots.
        probes_from: filled slots from which lists are worth their work; below, all slots are read.
        lora_rank: of the low-rank updates of the base's linear layers; 0 is none.
        lora_alpha: their scale is alpha / rank.
        lora_targets: "all-linear" or names of layers, as peft takes them.
        use_cache: return the state from ``forward`` unless a call says otherwise.
        kwargs: whatever transformers keeps in a configuration.

    Raises:
        UsageError: a value out of range.
    """

    model_type = MODEL_TYPE
    keys_to_ignore_at_inference = ["past_key_values", "cache"]  # noqa: RUF012 - transformers reads it from the class

    def __init__(
        self,
        base: dict[str, Any] | None = None,
        fusion: str = "memory",
        hidden: int = 512,
        span: int = 64,
        window: int | None = None,
        overlap: int = 0,
        key_layer: int | None = None,
        place_cells: int = 512,
        sparsity: float = 0.03,
        key_width: int = 64,
        slots: int = 4096,
        top_slots: int = 16,
        writes_per_span: int | None = None,
        controller: str = "learned",
        half_life_tokens: float = 65536.0,
        rebind: bool = False,
        probes: int | None = None,
        probes_from: int = 32768,
        lora_rank: int = 8,
        lora_alpha: float = 16.0,
        lora_targets: str | list[str] = "all-linear",
        use_cache: bool = True,
        **kwargs: Any,
    ) -> None:
        self.base = base or {"name": "", "model_type": "", "width": 1, "vocab_size": 2}
        self.fusion, self.hidden, self.span, self.window, self.overlap = fusion, hidden, span, window, overlap
        self.key_layer, self.place_cells, self.sparsity, self.key_width = key_layer, place_cells, sparsity, key_width
        self.slots, self.top_slots, self.writes_per_span, self.controller = (
            slots,
            top_slots,
            writes_per_span,
            controller,
        )
        self.half_life_tokens, self.rebind = half_life_tokens, rebind
        self.probes, self.probes_from = probes, probes_from
        self.lora_rank, self.lora_alpha, self.lora_targets = lora_rank, lora_alpha, lora_targets
        self.use_cache = use_cache
        _need(fusion in FUSIONS, "fusion", fusion, ", ".join(FUSIONS))
        _need(hidden >= 1, "hidden", hidden, "at least 1")
        _need(window is None or window >= 1, "window", window, "None or at least 1 token")
        _need(0 <= overlap < (window or 1), "overlap", overlap, "at least 0 and below the window")
        _need(slots >= 1, "slots", slots, "at least 1")
        _need(1 <= top_slots <= slots, "top_slots", top_slots, f"1 to slots ({slots})")
        _need(probes is None or probes >= 1, "probes", probes, "None or at least 1 list")
        _need(probes_from >= 1, "probes_from", probes_from, "at least 1 slot")
        _need(lora_rank >= 0, "lora_rank", lora_rank, "at least 0")
        _need(controller in CONTROLLERS, "controller", controller, ", ".join(CONTROLLERS))
        self.brain_config()
        super().__init__(**kwargs)

    def brain_config(self) -> BrainConfig:
        """The hippocampus's part, and its width, as the configuration that a `Hippocampus` is built from."""
        return BrainConfig(
            d_model=self.base["width"],
            plasticity_span=self.span,
            cortex=CortexConfig(heads=1),
            hippocampus=HippocampusConfig(
                place_cells=self.place_cells,
                sparsity=self.sparsity,
                key_width=self.key_width,
                slots=self.slots,
                top_k=self.top_slots,
                writes_per_span=min(self.span, self.slots) if self.writes_per_span is None else self.writes_per_span,
                controller=self.controller,
                half_life_tokens=self.half_life_tokens,
                rebind=self.rebind,
            ),
        )

    @property
    def vocab_size(self) -> int:
        """Ids are below it."""
        return self.base["vocab_size"]

    @property
    def hidden_size(self) -> int:
        """Width of what the head reads."""
        return self.base["width"]


def _need(ok: bool, name: str, got: Any, expected: str) -> None:
    if not ok:
        raise UsageError(f"adapter {name}: got {got!r}, expected {expected}.", f"Correct {name}.")
