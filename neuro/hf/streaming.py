"""What generate() needs from a model whose state is no attention cache: `NeuroForCausalLM` and `HippocampalAdapter` share it.

Axes: B batch, T tokens of this call, S columns run before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, GenerationConfig, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from neuro.errors import UsageError

# transformers 5.24 renamed the argument and the output; its generate() knows only its own version's name.
CACHE_NAME = "cache" if "cache" in CausalLMOutputWithPast.__dataclass_fields__ else "past_key_values"


class RowCache(Cache):
    """A state of rows in groups that share a clock: what transformers passes around, reorders and returns.

    A group has ``rows``, those of the batch in it, ascending; `_taken` says what some of its rows are on their own.
    """

    is_compileable = False  # type: ignore[assignment]  # the rows' grouping depends on the data
    is_croppable = False  # type: ignore[assignment]  # a commit cannot be taken back

    def __init__(self, groups: Sequence[Any] = ()) -> None:
        super().__init__(layers=[])
        self._groups = list(groups)
        self._length = 0
        # Columns that the attention mask of the running generate() covers: transformers drops a mask of ones.
        self.mask_length: int | None = None

    def _taken(self, group: Any, local: list[int], rows: list[int]) -> Any:
        """The ``local`` rows of a group as a group of their own, which are ``rows`` of the batch from now on."""
        raise NotImplementedError

    @property
    def batch_size(self) -> int:
        """Rows, or -1 before the first token."""
        return sum(len(group.rows) for group in self._groups) or -1

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Columns of the token matrix that have been run, padding included; there are no layers to tell apart."""
        return self._length

    def get_max_length(self, layer_idx: int | None = None) -> int:
        """-1: the state has one size for any length."""
        return -1

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Row i continues from what was row ``beam_idx[i]``: what beam search does after every token."""
        wanted = beam_idx.tolist()
        groups = []
        for group in self._groups:
            local = {row: i for i, row in enumerate(group.rows)}
            rows = [new for new, old in enumerate(wanted) if old in local]
            if rows:
                groups.append(self._taken(group, [local[wanted[new]] for new in rows], rows))
        self._groups = groups

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows, in this order."""
        self.reorder_cache(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Every row ``repeats`` times, copies side by side."""
        self.reorder_cache(torch.arange(max(0, self.batch_size)).repeat_interleave(repeats))

    def reset(self) -> None:
        """Forget everything, memories too."""
        self._groups, self._length = [], 0

    def crop(self, tokens_to_remove: int) -> None:
        """Refused: what a commit has written cannot be unwritten.

        Raises:
            UsageError: always.
        """
        raise UsageError(
            "cache: cannot be shortened, because commits are final.", "Keep a copy.deepcopy of it and go back to that."
        )

    def _check_rows(self, batch: int) -> None:
        """Raises UsageError for another batch than before."""
        if batch != self.batch_size:
            raise UsageError(
                f"cache: got {batch} rows of tokens, expected {self.batch_size} as before.",
                "Give one row of tokens for each row of the cache, or start without a cache.",
            )


def padded_late() -> UsageError:
    """What is said of padding that comes after a row's first token."""
    return UsageError(
        "attention_mask: got padding after a row's first token, expected it only before.",
        "Pad on the left: tokenizer.padding_side = 'left'.",
    )


class StreamingCausalLM(PreTrainedModel, GenerationMixin):
    """A causal language model with one state per row that forward advances in place, held by a ``cache_class``."""

    main_input_name = "input_ids"
    accepts_loss_kwargs = True  # forward takes num_items_in_batch
    _is_stateful = True  # transformers refuses assisted decoding then
    cache_class: type[Cache]

    def prepare_inputs_for_generation(  # type: ignore[override]
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        use_cache: bool | None = None,
        is_first_iteration: bool | None = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """What ``forward`` gets in each round of generate(): the tokens that the cache has not seen.

        Raises:
            UsageError: a given cache has seen more than the prompt.
        """
        inputs: dict[str, Any] = {"use_cache": use_cache, "logits_to_keep": 1}
        running = self.chosen(kwargs.get("cache"), kwargs.get("past_key_values"))
        new = input_ids.shape[1]
        if running is not None:
            inputs[CACHE_NAME] = running
            new = unseen(running, new) if is_first_iteration else 1
        if attention_mask is not None:
            inputs["attention_mask"] = attention_mask[:, -new:]
        return inputs | {"input_ids": input_ids[:, -new:]}

    def generate_batch(self, *args: Any, **kwargs: Any) -> Any:
        """Refused: continuous batching pages attention caches.

        Raises:
            UsageError: always.
        """
        raise UsageError("generate_batch: there is no attention cache to page.", "Use generate with a batch.")

    @classmethod
    def chosen(cls, cache: Any, past_key_values: Any) -> Any:
        """The one cache that was given under either name, or None.

        Raises:
            UsageError: both were given, or another kind of cache.
        """
        if cache is not None and past_key_values is not None:
            raise UsageError("cache: got both cache and past_key_values.", "They are two names of one thing: give one.")
        given = cache if cache is not None else past_key_values
        if given is not None and not isinstance(given, cls.cache_class):
            raise UsageError(
                f"cache: got a {type(given).__name__}, expected a {cls.cache_class.__name__}.",
                "Give what forward or generate returned.",
            )
        return given

    def _expand_inputs_for_generation(  # type: ignore[override]
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: Any = None,
        **model_kwargs: Any,
    ) -> tuple[Any, dict[str, Any]]:
        running = self.chosen(model_kwargs.get("cache"), model_kwargs.get("past_key_values"))
        if running is not None and input_ids is not None and running.batch_size > 0:
            if running.batch_size != input_ids.shape[0]:
                raise UsageError(
                    f"generate: got a cache of {running.batch_size} rows, expected {input_ids.shape[0]} as in the prompt.",
                    "A beam search leaves one row per beam; choose with cache.batch_select_indices.",
                )
            running.batch_repeat_interleave(expand_size)
        return super()._expand_inputs_for_generation(  # type: ignore[misc]
            expand_size=expand_size, is_encoder_decoder=is_encoder_decoder, input_ids=input_ids, **model_kwargs
        )

    def _prepare_cache_for_generation(  # type: ignore[override]
        self, generation_config: GenerationConfig, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> None:
        if generation_config.output_attentions:
            raise UsageError(
                "generate: got output_attentions, which this model does not have.",
                "Use neuro.session.Session with an observer to see what happens inside.",
            )
        if generation_config.cache_implementation is not None:
            raise UsageError(
                f"generate: got cache_implementation '{generation_config.cache_implementation}', expected none.",
                "Leave it out: the state has one size for any length.",
            )
        generation_config.prefill_chunk_size = None  # forward cuts the prompt at span ends, in constant memory
        running: Any = self.chosen(model_kwargs.pop("cache", None), model_kwargs.pop("past_key_values", None))
        if running is None and generation_config.use_cache is False:
            return  # the whole sequence is run again for every token
        running = self.cache_class() if running is None else running
        mask = model_kwargs.get("attention_mask")
        running.mask_length = getattr(generation_config, "_mask_length", None) if mask is None else mask.shape[1]
        model_kwargs[CACHE_NAME] = running


def left_padding(mask: Tensor | None, tokens: Tensor, seen: int) -> list[int]:
    """Columns of padding at the left of each row of ``tokens`` [B, T].

    Raises:
        UsageError: a mask of another shape, or padding after a row's first token.
    """
    batch, length = tokens.shape
    if mask is None:
        return [0] * batch
    if mask.dim() != 2 or mask.shape[0] != batch or mask.shape[1] not in (length, seen + length):
        raise UsageError(
            f"attention_mask: got shape {list(mask.shape)}, expected {[batch, length]} or {[batch, seen + length]}.",
            "Give one number per token: 1 for a token, 0 for padding.",
        )
    real = mask[:, -length:].ne(0)
    padding = length - real.sum(1)
    if not torch.equal(real, torch.arange(length, device=real.device) >= padding.unsqueeze(1)):
        raise UsageError(
            "attention_mask: got padding after a row's first token, expected it only before.",
            "Pad on the left: tokenizer.padding_side = 'left'.",
        )
    return padding.tolist()


def unseen(running: RowCache, width: int) -> int:
    """How many of the prompt's ``width`` columns the cache has not run.

    The prompt is the whole sequence, or only its new tokens under a mask over the whole sequence.

    Raises:
        UsageError: it can be neither.
    """
    seen = running.get_seq_length()
    covered = width if running.mask_length is None else running.mask_length
    if covered == width + seen:
        return width
    if covered == width > seen:
        return width - seen
    raise UsageError(
        f"generate: the cache has seen {seen} tokens; got {width} under an attention mask of {covered}.",
        "Give the whole sequence with at least one new token, or the new tokens with a mask over the whole sequence.",
    )
