"""A hippocampus around any causal language model of transformers: the base is frozen, what it reads is remembered.

    from neuro.hf import HippocampalAdapter
    model = HippocampalAdapter.from_pretrained("base folder or name", window=1024)
    model.generate(ids, max_new_tokens=20)

Axes: B batch, T tokens of this call, S columns run before it, D width of what the base's head reads, V vocabulary.

What is trained are the hippocampus (`neuro.hf.adapter_fusion`) and low-rank updates of the base. A state (`AdapterCache`) says
where every row has got to; it is given and returned, and what one row remembers can be saved, swapped and forgotten.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

import backends
from neuro import atomic, tensor_file
from neuro.errors import FormatError, UsageError
from neuro.extras import require
from neuro.hf import adapter_host as host
from neuro.hf.adapter_cache import AdapterCache, load_memory
from neuro.hf.adapter_config import MODEL_TYPE, AdapterConfig
from neuro.hf.adapter_drift import Alignment, Traces, choose
from neuro.hf.adapter_fusion import FeedforwardFusion, MemoryFusion, MemoryState
from neuro.hf.streaming import CACHE_NAME, StreamingCausalLM, left_padding

SCHEMA = "neuro.adapter/1"
WEIGHTS, LORA_WEIGHTS, LORA_CONFIG, BASE = (
    "adapter.safetensors",
    "adapter_model.safetensors",
    "adapter_config.json",
    "base",
)

_PREFIX = "base_model.model."  # peft's files name a layer as its own wrapper holds it


class HippocampalAdapter(StreamingCausalLM):
    """A base model with a memory of what it has read. The base is at ``model.base``, what was added at ``model.fusion``.

    Args:
        config: sizes of what is added.
        base: the model to wrap. It is frozen, and low-rank updates are put into it, in place.

    Raises:
        UsageError: the base is of an architecture that cannot be wrapped.
        MissingError: low-rank updates are asked for and peft is not installed.
    """

    config_class = AdapterConfig
    base_model_prefix = "base"
    cache_class = AdapterCache
    config: AdapterConfig

    def __init__(self, config: AdapterConfig, base: PreTrainedModel) -> None:
        found = host.check(base)
        host.refuse_acausal(base)
        settings = config.to_dict()
        super().__init__(AdapterConfig(**settings | {"base": found}))
        self.base = base
        weight = host.tables(base)[1]
        ops = backends.select(weight.device.type).ops
        self.fusion = {"memory": MemoryFusion, "feedforward": FeedforwardFusion}.get(config.fusion, torch.nn.Identity)(
            *([self.config, ops] if config.fusion == "memory" else [self.config])
        )
        if config.fusion == "memory":
            self.fusion.start_towards(host.directions(base))
        if config.key_layer is not None:
            host.decoder_layers(base, config.key_layer)
        host.add_lora(base, self.config)
        self.fusion.to(weight.device)
        self.loss_type = "ForCausalLM"
        own = getattr(base, "generation_config", None)
        self.generation_config = GenerationConfig() if own is None else copy.deepcopy(own)
        self.train(base.training)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str] | PreTrainedModel,
        *,
        base: str | os.PathLike[str] | PreTrainedModel | None = None,
        config: AdapterConfig | None = None,
        base_options: dict[str, Any] | None = None,
        **settings: Any,
    ) -> HippocampalAdapter:
        """Put a new adapter around a base, or load one that `save_pretrained` wrote. In evaluation mode.

        Args:
            pretrained_model_name_or_path: a base (object, folder or Hugging Face id), or the folder of an adapter.
            base: of a saved adapter, where it lies elsewhere than it says or is at hand as an object.
            config: of a new adapter; or give its fields as ``settings``.
            base_options: handed to the base's own from_pretrained (dtype, device_map, revision, ...).
            settings: fields of `AdapterConfig`.

        Raises:
            MissingError: no such base.
            FormatError: truncated or foreign files.
            UsageError: an architecture that cannot be wrapped, another base than the adapter's, or wrong settings.
        """
        given, options = pretrained_model_name_or_path, base_options or {}
        if not isinstance(given, (str, os.PathLike, PreTrainedModel)):
            raise UsageError(
                f"from_pretrained: got a {type(given).__name__}, expected a causal language model of transformers.",
                "Give such a model, or its folder or Hugging Face id.",
            )
        if isinstance(given, PreTrainedModel):
            return cls(config or AdapterConfig(**_known(settings)), given).eval()
        record = _record(Path(given))
        if record is None:
            return cls(config or AdapterConfig(**_known(settings)), host.load_base(given, **options)).eval()
        if config is not None or settings:
            raise UsageError(
                f"from_pretrained: {given} is an adapter with sizes of its own; got others.", "Leave the settings out."
            )
        where, own = Path(given), AdapterConfig(**record)
        if base is None:
            base = where / BASE if (where / BASE).is_dir() else own.base["name"]
        if not isinstance(base, PreTrainedModel):
            base = host.load_base(base, **options)
        found = host.check(base)
        for name in ("model_type", "width", "vocab_size"):
            if found[name] != own.base[name]:
                raise UsageError(
                    f"{where}: got a base of {name} {found[name]}, expected {own.base[name]} as the adapter was trained on.",
                    "Give the base it belongs to as base=.",
                )
        model = cls(own, base).eval()
        model._load(where)
        return model

    def save_pretrained(  # type: ignore[override]
        self, save_directory: str | os.PathLike[str], include_base: bool | None = None, **kwargs: Any
    ) -> None:
        """Write what was added: safetensors and JSON; the low-rank updates in the format of peft.

        Args:
            save_directory: made if need be.
            include_base: also the base, in a folder of its own, without the updates; None does so where it has no name.
            kwargs: of other models' formats; not looked at.

        Raises:
            NeuroError: the folder cannot be written.
        """
        where = Path(save_directory)
        tensors = {f"fusion.{name}": tensor for name, tensor in self.fusion.state_dict().items()}
        tensor_file.write(where / WEIGHTS, tensors, {"schema": SCHEMA})
        if self.config.lora_rank:
            peft = require("peft", "adapter")
            updates = peft.get_peft_model_state_dict(self.base, adapter_name=host.LORA)
            plain = {_PREFIX + name: tensor.detach().cpu().contiguous() for name, tensor in updates.items()}
            with atomic.replacing(where / LORA_WEIGHTS) as temporary:
                save_file(plain, temporary, metadata={"format": "pt"})
            described = host.lora_config(self.config, self.base).to_dict()
            atomic.write_text(where / LORA_CONFIG, json.dumps(described, indent=1, default=_plain) + "\n")
        if include_base or (include_base is None and not self.config.base["name"]):
            host.save_without_lora(self.base, where / BASE)
        self.generation_config.save_pretrained(where)
        self.config.architectures = [type(self).__name__]
        # Last: a folder with this file is whole.
        atomic.write_text(where / "config.json", json.dumps(self.config.to_dict(), indent=1, default=_plain) + "\n")

    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        past_key_values: AdapterCache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        num_items_in_batch: Tensor | int | None = None,
        return_dict: bool | None = None,
        cache: AdapterCache | None = None,
    ) -> CausalLMOutputWithPast | tuple[Tensor, ...]:
        """Run tokens of any length, committing at every span's end, with the graph attached.

        Args:
            input_ids: [B, T] ids of the new tokens only.
            attention_mask: [B, T] or [B, S + T]; 0 is padding, on the left. A padded row behaves as it would alone.
            past_key_values: the cache of the tokens before, advanced in place; None starts afresh.
            labels: [B, T], shifted inside; -100 and padding are ignored. The loss is mean nats.
            use_cache: return the cache; None is ``config.use_cache``.
            logits_to_keep: how many last positions to return; 0 is all. The loss is over all of them anyway.
            num_items_in_batch: divides the summed loss instead of the number of labels.
            return_dict: False returns a tuple; None is ``config.return_dict``.
            cache: the name that transformers 5.24 gave to ``past_key_values``.

        Returns:
            loss [] or None, logits [B, T, V] for the token after each (zero at padding), and the cache.

        Raises:
            UsageError: an empty document, ids or positions the base does not have, wrong shapes, padding or cache.
        """
        if not isinstance(input_ids, Tensor):
            raise UsageError(
                f"forward: got input_ids of {type(input_ids).__name__}, expected a tensor [batch, tokens].",
                "Give ids of the base's tokenizer, called with return_tensors='pt'.",
            )
        if input_ids.dim() != 2 or input_ids.numel() == 0:
            flat = input_ids.dim() == 1 and input_ids.numel() > 0
            raise UsageError(
                f"forward: got input_ids {list(input_ids.shape)}, expected [batch, at least 1].",
                "Give one row as input_ids[None]." if flat else "Give a document of a token or more.",
            )
        table = host.tables(self.base)[0]
        if input_ids.dtype not in (torch.int64, torch.int32):
            raise UsageError(f"forward: got input_ids of {input_ids.dtype}, expected int64.", "Give ids of tokens.")
        if int(input_ids.min()) < 0 or int(input_ids.max()) >= len(table):
            raise UsageError(
                f"forward: got ids {int(input_ids.min())}..{int(input_ids.max())}, expected 0..{len(table) - 1}.",
                "Use the tokenizer of the base.",
            )
        tokens, length = input_ids.to(table.device), input_ids.shape[1]
        running = self.chosen(cache, past_key_values)
        running = AdapterCache() if running is None else running
        padding = left_padding(attention_mask, tokens, running.get_seq_length())
        keep = length if labels is not None or not logits_to_keep else min(logits_to_keep, length)
        logits, _ = running.run(self, tokens, padding, keep)
        loss = None
        if labels is not None:
            first = torch.arange(length, device=labels.device) <= torch.tensor(padding, device=labels.device)[:, None]
            loss = self.loss_function(
                logits=logits,
                labels=labels.masked_fill(first, -100),
                vocab_size=self.config.vocab_size,
                num_items_in_batch=num_items_in_batch,
            )
        out = CausalLMOutputWithPast(loss=loss, logits=logits[:, -logits_to_keep:])
        if self.config.use_cache if use_cache is None else use_cache:
            out[CACHE_NAME] = running
        return out if (self.config.return_dict if return_dict is None else return_dict) else out.to_tuple()

    @torch.no_grad()
    def remember(self, input_ids: Tensor, cache: AdapterCache | None = None) -> AdapterCache:
        """Read documents [B,T] into the memory, commit, and end the base's context: later text meets the memory alone.

        Raises:
            UsageError: an empty document, or an adapter without a memory.
        """
        self._need_memory("remember")
        cache = AdapterCache() if cache is None else cache
        self(input_ids, logits_to_keep=1, **{CACHE_NAME: cache})
        cache.commit(self)
        cache.end_context()
        return cache

    def load_memory(self, path: str | Path, batch: int = 1) -> AdapterCache:
        """A cache of ``batch`` rows, each with the slots that `AdapterCache.save_memory` wrote.

        Raises:
            MissingError, FormatError: no such file, or a foreign one.
            UsageError: of another width or of more slots than this adapter has.
        """
        self._need_memory("load_memory")
        fresh = cast(MemoryState, self.init_memory(batch))
        return AdapterCache(load_memory(path, fresh))

    @torch.no_grad()
    def trace(self, input_ids: Tensor) -> Traces:
        """What the base makes of rows [B,T] side by side, each from its own start: what a calibration is fitted to."""
        kept: list[Tensor] = []

        def keep(hidden: Tensor, context: Tensor) -> Tensor:
            kept.extend((hidden, context))
            return hidden[:, -1:]

        with self.evaluating(), host.before_head(self.base, keep, self.config.key_layer):
            self.base(input_ids=input_ids, use_cache=False)
        embedded = self.base.get_input_embeddings()(input_ids).float()
        embedded = embedded * torch.rsqrt((embedded * embedded).mean(-1, keepdim=True).clamp_min(1e-12))
        return Traces(*(part.float().flatten(0, 1) for part in (*kept, embedded)))

    def calibrate(
        self, before: Traces, after: Traces, kind: str = "affine", choose_on: Tensor | None = None
    ) -> dict[float, float]:
        """Read the base as it is now (``after``) in the terms of the base that the memory was written with (``before``).

        Args:
            before, after: of one text.
            kind: of the maps (`neuro.hf.adapter_drift.KINDS`).
            choose_on: None keeps the maps whole: for a store as it was written. For one that is read again
                (`AdapterCache.reread`), ids [B,T] of other text: the share of the maps, of `neuro.hf.adapter_drift.SHARES`,
                is kept with which these rows cost least when they are told again.

        Returns:
            nats a token of ``choose_on`` told again, by share; empty without it.

        Raises:
            UsageError: traces that do not fit each other or this adapter, an unknown kind, or rows of less than two tokens.
        """
        self._need_memory("calibrate")
        if before.hidden.shape[-1] != self.config.hidden_size:
            raise UsageError(
                f"calibrate: got traces {before.hidden.shape[-1]} wide, expected {self.config.hidden_size}.",
                "Trace bases of the width that this adapter was made for.",
            )
        whole = Alignment.between(before, after, kind).to(before.hidden.device)
        if choose_on is not None:
            return choose(self, whole, choose_on)
        self.fusion.alignment = whole
        return {}

    def init_memory(self, batch: int) -> MemoryState | None:
        """The memory of ``batch`` fresh rows; None for an adapter without one."""
        if self.config.fusion != "memory":
            return None
        return self.fusion.init_state(batch, self.fusion.hippocampus.norm.weight.device)

    def advance(
        self, tokens: Tensor, base_cache: Any, memory: MemoryState | None, wanted: int
    ) -> tuple[Tensor, Tensor, Any, MemoryState | None]:
        """Run tokens [b,T] in one context of the base -> (logits [b,wanted,V], gates [b,T], base cache, memory)."""
        gate = tokens.new_zeros(tokens.shape, dtype=torch.float32)

        def fuse(hidden: Tensor, context: Tensor) -> Tensor:
            nonlocal gate, memory
            if memory is not None:
                fused, memory = self.fusion.scan(hidden, context, self.base.get_input_embeddings()(tokens), memory)
                hidden, gate = fused.hidden, fused.gate
            elif self.config.fusion == "feedforward":
                hidden = self.fusion(hidden)
            return hidden[:, hidden.shape[1] - wanted :]

        with host.before_head(self.base, fuse, self.config.key_layer):
            out = host.run(self.base, tokens, base_cache)
        return out.logits, gate, host.cache_of(out, self.config.base["model_type"]), memory

    def read_again(self, tokens: Tensor) -> Any:
        """The base's cache after tokens [b,T] that the memory has seen already."""
        with host.before_head(self.base, lambda hidden, context: hidden[:, -1:], None):
            out = host.run(self.base, tokens, None)
        return host.cache_of(out, self.config.base["model_type"])

    def get_input_embeddings(self) -> Any:
        return self.base.get_input_embeddings()

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> Any:
        """Refused: resize the base first, then put an adapter around it.

        Raises:
            UsageError: always.
        """
        raise UsageError("resize_token_embeddings: an adapter's vocabulary is its base's.", "Resize the base first.")

    def _init_weights(self, module: torch.nn.Module) -> None:
        """Nothing: the parts have initialised themselves."""

    def _load(self, where: Path) -> None:
        tensors, _ = tensor_file.read(where / WEIGHTS, SCHEMA)
        if any(name.startswith("fusion.alignment.") for name in tensors):
            self.fusion.alignment = Alignment(self.config.hidden_size)
        expected = {f"fusion.{name}": tensor for name, tensor in self.fusion.state_dict().items()}
        tensor_file.check_shapes(tensors, expected, str(where / WEIGHTS))
        self.fusion.load_state_dict({name.removeprefix("fusion."): tensor for name, tensor in tensors.items()})
        if self.config.lora_rank:
            peft = require("peft", "adapter")
            try:
                updates = load_file(where / LORA_WEIGHTS)
                updates = {name.removeprefix(_PREFIX): tensor for name, tensor in updates.items()}
            except Exception as error:
                raise FormatError(
                    f"{where / LORA_WEIGHTS}: not a whole safetensors file ({error}).", "Use another copy."
                ) from error
            own = peft.get_peft_model_state_dict(self.base, adapter_name=host.LORA)
            tensor_file.check_shapes(updates, own, str(where / LORA_WEIGHTS))
            peft.set_peft_model_state_dict(self.base, updates, adapter_name=host.LORA)

    def _need_memory(self, what: str) -> None:
        if self.config.fusion != "memory":
            raise UsageError(
                f"{what}: this adapter has fusion '{self.config.fusion}', expected 'memory'.",
                "Make one with fusion='memory'.",
            )

    @contextlib.contextmanager
    def evaluating(self) -> Any:
        """Without dropout inside the block; training mode comes back after it."""
        training = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(training)


def _record(where: Path) -> dict[str, Any] | None:
    """config.json of an adapter's folder; None where it is something else."""
    path = where / "config.json"
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FormatError(f"{path}: not whole JSON ({error}).", "Use another copy.") from error
    if not isinstance(record, dict) or record.get("model_type") != MODEL_TYPE:
        return None
    return record


def _known(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings that are fields of a configuration.

    Raises:
        UsageError: one is not.
    """
    fields = set(AdapterConfig().__dict__) - {"base"}
    for name in settings:
        if name not in fields:
            raise UsageError(
                f"from_pretrained: got {name}, which an adapter does not take.",
                "Give what is meant for the base as base_options={...}.",
            )
    return settings


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, set) else str(value)
