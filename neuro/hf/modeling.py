"""A brain as a causal language model of transformers: labels and loss, generate(), save and load.

Axes: B batch, T tokens of this call, S columns run before it, C prosody channels, D width, V vocabulary.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList
from transformers.modeling_outputs import CausalLMOutputWithPast

from neuro import atomic, folder
from neuro.brain import Brain
from neuro.errors import UsageError
from neuro.hf.cache import CACHE_NAME, NeuroCache
from neuro.hf.configuration import NeuroConfig
from neuro.hf.contrastive import contrastive_search
from neuro.hf.hub import local_folder
from neuro.hf.logits import (
    SEQUENCE_BREAKERS,
    DryLogitsProcessor,
    FrequencyPenaltyLogitsProcessor,
    PresencePenaltyLogitsProcessor,
    WarmthLogitsProcessor,
    breaker_ids,
)
from neuro.hf.streaming import StreamingCausalLM, left_padding
from neuro.tokenizer import Tokenizer

# What AutoModelForCausalLM adds to a call, and what has no meaning for a model that is not assembled from shards.
_IGNORED = ("_from_auto", "adapter_kwargs", "trust_remote_code", "low_cpu_mem_usage", "use_safetensors", "proxies")


class NeuroForCausalLM(StreamingCausalLM):
    """A `Brain` under the interface of transformers. It is at ``model.brain``, with its tokenizer if it has one.

    Spans end and commit where they do everywhere else; the state travels as a `NeuroCache`, which generate() reorders
    under beam search. Not supported, and refused: assisted and prompt-lookup decoding, cropping a cache, input
    embeddings, attentions as outputs, other caches, another vocabulary size.

    Args:
        config: of the brain.
        brain: to wrap; None builds an untrained one of the configuration.
    """

    config_class = NeuroConfig
    base_model_prefix = "brain"
    cache_class = NeuroCache
    config: NeuroConfig

    def __init__(self, config: NeuroConfig, brain: Brain | None = None) -> None:
        super().__init__(config)
        self.brain = brain if brain is not None else Brain(config.brain_config())
        self.generation_config = _generation_config(getattr(self.brain, "tokenizer", None))
        self.post_init()

    @classmethod
    def from_brain(cls, brain: Brain) -> NeuroForCausalLM:
        """Wrap a brain; nothing is copied."""
        model = cls(NeuroConfig(brain.config, architectures=[cls.__name__]), brain)
        return model.train(brain.training)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        config: NeuroConfig | None = None,
        backend: str = "auto",
        dtype: torch.dtype | str | None = None,
        sets: list[str] | None = None,
        **kwargs: Any,
    ) -> NeuroForCausalLM:
        """Load a shipped model's name, a folder that `neuro train`, `neuro.folder.save` or `save_pretrained` wrote, or a
        Hugging Face id, in evaluation mode.

        Args:
            pretrained_model_name_or_path: which model.
            config: as read from that folder; change a brain with ``sets``.
            backend: where it runs, one of `backends.NAMES`.
            dtype: of the weights; None and "auto" are the backend's.
            sets: ``--set`` overrides of the brain's configuration that leave its tensors as they are.
            kwargs: cache_dir, force_download, local_files_only, revision, token for a Hugging Face id; device_map of one
                device for the whole model, ``{"": "cpu"}``, which is a backend (the evaluation harness gives it).

        Raises:
            MissingError: no such model.
            FormatError: truncated or foreign files, or another model's tokenizer.
            UsageError: an option that has no meaning here.
        """
        where = local_folder(pretrained_model_name_or_path, kwargs)
        whole = kwargs.get("device_map")
        if isinstance(whole, dict) and list(whole) == [""] and backend == "auto":
            backend = torch.device(kwargs.pop("device_map")[""]).type
        strange = [key for key, value in kwargs.items() if key not in _IGNORED and value not in (None, "")]
        if strange:
            raise UsageError(
                f"from_pretrained: got {', '.join(strange)}, which this model does not take.",
                "Choose where it runs with backend='cpu' or 'cuda', and change its configuration with sets=['key=value'].",
            )
        brain = folder.load(where, backend, sets=sets)
        record = folder.read_record(where)
        if config is not None and config.brain != NeuroConfig(record["brain"]).brain:
            raise UsageError(
                f"from_pretrained: got a configuration that is not that of {where}.",
                "Leave config out and give the changes as sets=['key=value'].",
            )
        own = NeuroConfig.from_dict(record | {"brain": brain.config, "name_or_path": str(where)})
        model = cls(own, brain).eval()
        if (where / "generation_config.json").is_file():
            model.generation_config = GenerationConfig.from_pretrained(where)
        if dtype not in (None, "auto"):
            model.to(getattr(torch, dtype) if isinstance(dtype, str) else dtype)
        return model

    def save_pretrained(  # type: ignore[override]
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,
        state_dict: dict[str, Tensor] | None = None,
        push_to_hub: bool = False,
        **kwargs: Any,
    ) -> None:
        """Write a folder that `neuro.load` and `from_pretrained` both read: weights (float16), tokenizer, one config.json.

        Args:
            save_directory: made if need be.
            is_main_process: False writes nothing.
            state_dict: taken for the Trainer's sake and not looked at: the model's own weights are written.
            push_to_hub: refused; upload the folder with huggingface_hub.
            kwargs: of other models' formats; not looked at.

        Raises:
            UsageError: the brain has no tokenizer, or ``push_to_hub``.
            NeuroError: the folder cannot be written.
        """
        if push_to_hub:
            raise UsageError("save_pretrained: got push_to_hub.", "Save, then use huggingface_hub.upload_folder.")
        if not hasattr(self.brain, "tokenizer"):
            raise UsageError("save_pretrained: the brain has no tokenizer.", "Set model.brain.tokenizer first.")
        if not is_main_process:
            return
        where = folder.save(self.brain, Path(save_directory), self.config.about)
        self.config.tokenizer = self.brain.tokenizer.fingerprint
        self.config.architectures = [type(self).__name__]
        record = self.config.to_diff_dict() | folder.read_record(where)
        atomic.write_text(where / "config.json", json.dumps(record, indent=1) + "\n")
        self.generation_config.save_pretrained(where)

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Also takes the tensors of a model folder (a Trainer's checkpoint), which are named without ``brain.``."""
        if "embedding" in state_dict:
            named = {f"brain.{name}": tensor for name, tensor in state_dict.items()}
            state_dict = named | {"brain.regions.readout.weight": state_dict["embedding"]}
        return super().load_state_dict(state_dict, strict=strict, assign=assign)

    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        past_key_values: NeuroCache | None = None,
        labels: Tensor | None = None,
        prosody: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        num_items_in_batch: Tensor | int | None = None,
        return_dict: bool | None = None,
        cache: NeuroCache | None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        warmth: WarmthLogitsProcessor | None = None,
    ) -> CausalLMOutputWithPast | tuple[Tensor, ...]:
        """Run tokens of any length, committing at every span's end, with the graph attached.

        Args:
            input_ids: [B, T] ids of the new tokens only.
            attention_mask: [B, T] or [B, S + T]; 0 is padding, on the left. A padded row behaves as it would alone.
            past_key_values: the cache of the tokens before, advanced in place; None starts afresh.
            labels: [B, T], shifted inside; -100 and padding are ignored. The loss is mean nats.
            prosody: [B, T, C] pitch, energy, duration; None is silence.
            use_cache: return the cache; None is ``config.use_cache``.
            logits_to_keep: how many last positions to return; 0 is all. The loss is over all of them anyway.
            num_items_in_batch: divides the summed loss instead of the number of labels (gradient accumulation).
            return_dict: False returns a tuple; None is ``config.return_dict``.
            cache: the name that transformers 5.24 gave to ``past_key_values``.
            output_hidden_states: also return what the vocabulary matrix turns into logits: hidden_states is a tuple of
                one, [B, T, D], zero at padding.
            inputs_embeds, output_attentions: refused.
            warmth: generate()'s own: is told how warm every row is.

        Returns:
            loss [] or None, logits [B, T, V] for the token after each (zero at padding), and the cache.

        Raises:
            UsageError: wrong shapes, ids, padding or cache, or an output that does not exist.
        """
        if inputs_embeds is not None or output_attentions:
            raise UsageError(
                "forward: got inputs_embeds or output_attentions, which this model does not have.",
                "Give input_ids; model.brain.scan returns what happened inside, as events.",
            )
        if input_ids is None or input_ids.dim() != 2 or input_ids.shape[1] == 0:
            got = None if input_ids is None else list(input_ids.shape)
            raise UsageError(f"forward: got input_ids {got}, expected [batch, at least 1].", "Start from <bos>.")
        tokens = input_ids.to(self.brain.embedding.device)
        prosody = None if prosody is None else prosody.to(tokens.device)
        length = tokens.shape[1]
        running = self.chosen(cache, past_key_values)
        running = NeuroCache() if running is None else running
        padding = left_padding(attention_mask, tokens, running.get_seq_length())
        keep = length if labels is not None or not logits_to_keep else min(logits_to_keep, length)
        logits, features = running.run(
            self.brain, tokens, padding, prosody, keep, length if output_hidden_states else 0
        )
        if warmth is not None:
            warmth.warmth = running.warmth(self.brain)
        loss = None
        if labels is not None:
            # The first token of a row is predicted by nothing, wherever its padding ends.
            first = torch.arange(length, device=labels.device) <= torch.tensor(padding, device=labels.device)[:, None]
            loss = self.loss_function(
                logits=logits,
                labels=labels.masked_fill(first, -100),
                vocab_size=self.config.vocab_size,
                num_items_in_batch=num_items_in_batch,
            )
        use_cache = self.config.use_cache if use_cache is None else use_cache
        out = CausalLMOutputWithPast(loss=loss, logits=logits[:, -logits_to_keep:])
        if use_cache:
            out[CACHE_NAME] = running
        if output_hidden_states:
            out["hidden_states"] = (features,)
        return_dict = self.config.return_dict if return_dict is None else return_dict
        return out if return_dict else out.to_tuple()

    def generate(  # type: ignore[override]
        self,
        inputs: Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        logits_processor: list[LogitsProcessor] | None = None,
        *,
        dry_multiplier: float = 0.0,
        dry_base: float = 1.75,
        dry_allowed_length: int = 2,
        dry_sequence_breakers: Sequence[str] = SEQUENCE_BREAKERS,
        dry_prompt: bool = True,
        frequency_penalty: float = 0.0,
        presence_penalty: float = 0.0,
        penalty_alpha: float | None = None,
        **kwargs: Any,
    ) -> Any:
        """transformers' generate, with what it no longer carries or never had.

        Where it samples, hormones change the temperature as the configuration says (`Brain.warmth`), row by row.

        Args:
            inputs, generation_config, logits_processor, kwargs: as transformers documents them.
            dry_multiplier: 0 is no penalty; it and the other ``dry_`` arguments: see `DryLogitsProcessor`.
            dry_base: growth of the penalty per token.
            dry_allowed_length: repeats shorter than this are free.
            dry_sequence_breakers: texts; no repeat reaches over a token that contains one.
            dry_prompt: whether repeating the prompt is penalised too.
            frequency_penalty: nats per time that a token was generated.
            presence_penalty: nats for a token that was generated at all.
            penalty_alpha: run `contrastive_search` among the ``top_k`` (default 4) likeliest tokens.

        Raises:
            UsageError: a number out of its range, or contrastive search together with sampling or beams.
        """
        ids = inputs if inputs is not None else kwargs.get("input_ids")
        width = 1 if ids is None else ids.shape[1]
        added: list[LogitsProcessor] = []
        if dry_multiplier:
            mask = kwargs.get("attention_mask")
            added.append(
                DryLogitsProcessor(
                    dry_multiplier,
                    dry_base,
                    dry_allowed_length,
                    breaker_ids(self.brain.tokenizer, dry_sequence_breakers) if dry_sequence_breakers else (),
                    None if mask is None else mask[:, -width:],
                    0 if dry_prompt else width,
                )
            )
        if frequency_penalty:
            added.append(FrequencyPenaltyLogitsProcessor(frequency_penalty, width))
        if presence_penalty:
            added.append(PresencePenaltyLogitsProcessor(presence_penalty, width))
        if self.brain.config.endocrine.temperature_octaves and self._samples(generation_config, kwargs):
            added.append(WarmthLogitsProcessor())  # last: penalties are nats of the prediction as it was made
            kwargs["warmth"] = added[-1]
        if penalty_alpha is not None:
            kwargs["custom_generate"] = functools.partial(
                contrastive_search,
                penalty_alpha=penalty_alpha,
                top_k=kwargs.pop("top_k", 4),
                streamer=kwargs.get("streamer"),  # which transformers hands to no custom method
            )
        processors = LogitsProcessorList([*(logits_processor or []), *added])
        return super().generate(inputs, generation_config, processors, **kwargs)  # type: ignore[misc]

    def _samples(self, given: GenerationConfig | None, options: dict[str, Any]) -> bool:
        """Whether generate() would sample: what the call says goes before its configuration, and that before the model's."""
        configs = (options.get("generation_config", given), self.generation_config)
        said = [options.get("do_sample"), *(getattr(config, "do_sample", None) for config in configs)]
        return bool(next((x for x in said if x is not None), False))

    def prepare_inputs_for_generation(  # type: ignore[override]
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        prosody: Tensor | None = None,
        output_hidden_states: bool | None = None,
        warmth: WarmthLogitsProcessor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """As of every streaming model; prosody is the prompt's, and written tokens are silent."""
        inputs = super().prepare_inputs_for_generation(input_ids, attention_mask, **kwargs)
        inputs |= {"output_hidden_states": output_hidden_states, "warmth": warmth}
        if prosody is not None:
            silence = prosody.new_zeros(
                prosody.shape[0], max(0, input_ids.shape[1] - prosody.shape[1]), prosody.shape[2]
            )
            inputs["prosody"] = torch.cat([prosody, silence], 1)[:, -inputs["input_ids"].shape[1] :]
        return inputs

    def get_input_embeddings(self) -> Any:
        """Refused: the vocabulary matrix is a parameter of the brain and not a module.

        Raises:
            NotImplementedError: always, which is how transformers asks whether there is one.
        """
        raise NotImplementedError("the vocabulary matrix is model.brain.embedding, a parameter")

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> Any:
        """Refused: a brain has the vocabulary it was made with.

        Raises:
            UsageError: always.
        """
        raise UsageError("resize_token_embeddings: a brain's vocabulary is fixed.", "Train a model with the other one.")

    def _init_weights(self, module: torch.nn.Module) -> None:
        """Nothing: the brain's regions have initialised themselves."""


def _generation_config(tokenizer: Tokenizer | None) -> GenerationConfig:
    """Start from `<bos>`, never end, and never write `<unk>` or, like `neuro run`, another `<bos>`."""
    if tokenizer is None:
        return GenerationConfig(bos_token_id=0)
    return GenerationConfig(bos_token_id=tokenizer.bos_id, suppress_tokens=list(tokenizer.never_written) or None)


__all__ = ["CACHE_NAME", "NeuroForCausalLM"]
