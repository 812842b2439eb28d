"""Contrastive search: of the likeliest tokens, the one whose hidden state is least like those before it.

    model.generate(**batch, penalty_alpha=0.6, top_k=4)

    token_t = argmax over v in the top k of   (1 - alpha) p(v) - alpha max_{j<t} cos(hidden_v, hidden_j)

Source: Su et al. 2022, "A Contrastive Framework for Neural Text Generation" (arXiv:2202.06417). Each candidate is run on
a fork of the state, memory and all, and the chosen one's fork goes on; alpha 0 is greedy search. differs: the hidden
states of tokens that a given cache ran before this call are not known, so only this call's are compared with.

Axes: B batch, k candidates, T columns so far, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import GenerationConfig
from transformers.generation import GenerateDecoderOnlyOutput

from neuro.errors import UsageError
from neuro.hf.cache import CACHE_NAME, NeuroCache

if TYPE_CHECKING:
    from neuro.hf.modeling import NeuroForCausalLM


def contrastive_search(
    model: NeuroForCausalLM,
    input_ids: Tensor,
    logits_processor: Callable[[Tensor, Tensor], Tensor],
    stopping_criteria: Callable[[Tensor, Any], Tensor],
    generation_config: GenerationConfig,
    penalty_alpha: float = 0.6,
    top_k: int = 4,
    streamer: Any = None,
    **model_kwargs: Any,
) -> Tensor | GenerateDecoderOnlyOutput:
    """The decoding method that ``generate(penalty_alpha=..., top_k=...)`` runs, which prepares the other arguments.

    Args:
        model, input_ids, logits_processor, stopping_criteria, generation_config, model_kwargs: from ``generate``.
        penalty_alpha: weight of the likeness, 0 to 1.
        top_k: candidates. The search runs this many forks, and copies the state for each: time and memory grow with it.
        streamer: gets every token.

    Returns:
        ids [B, T], or with ``return_dict_in_generate`` also the cache and the scores, logits and hidden states asked for.

    Raises:
        UsageError: alpha outside 0..1, no candidates, or together with sampling or beams.
    """
    sampled, beams = generation_config.do_sample, generation_config.num_beams
    if not 0 <= penalty_alpha <= 1 or top_k < 1 or sampled or (beams or 1) > 1:
        raise UsageError(
            f"contrastive search: got penalty_alpha {penalty_alpha}, top_k {top_k}, do_sample {sampled}, "
            f"num_beams {beams}, expected 0..1, at least 1, False, 1.",
            "Start from penalty_alpha=0.6, top_k=4, and leave the others out.",
        )
    cache = model.chosen(model_kwargs.pop("cache", None), model_kwargs.pop("past_key_values", None))
    cache = NeuroCache() if cache is None else cache
    options = {CACHE_NAME: cache, "use_cache": True, "output_hidden_states": True}
    inputs = model.prepare_inputs_for_generation(input_ids, is_first_iteration=True, **model_kwargs | options)
    out = model(**inputs)
    logits, hidden = out.logits[:, -1].float(), out.hidden_states[-1]
    seen, mask = _unit(hidden), inputs.get("attention_mask")
    real = torch.ones(seen.shape[:2], device=seen.device) if mask is None else mask.to(seen.device)
    kept: dict[str, list[Any]] = {name: [] for name in ("scores", "logits", "hidden_states")}
    batch, k = len(input_ids), min(top_k, logits.shape[-1])
    unfinished = torch.ones(batch, dtype=torch.int64, device=input_ids.device)
    pad, ahead = generation_config._pad_token_tensor, cache
    while bool(unfinished.any()):
        cache.become(ahead)
        scores = logits_processor(input_ids, logits)
        for name, made in (("scores", scores), ("logits", logits), ("hidden_states", (hidden,))):
            if getattr(generation_config, f"output_{name}"):
                kept[name].append(made)
        # Sorted stably, so that among equal scores the first id comes first, as greedy search takes it.
        best, candidates = scores.sort(dim=1, descending=True, stable=True)
        best, candidates = best[:, :k], candidates[:, :k]
        ahead = cache.fork()
        ahead.batch_repeat_interleave(k)
        out = model(candidates.reshape(-1, 1), **options | {CACHE_NAME: ahead})
        new = _unit(out.hidden_states[-1]).reshape(batch, k, -1)
        likeness = (new @ seen.mT).masked_fill(real.eq(0).unsqueeze(1), -1.0).amax(2)
        value = (1 - penalty_alpha) * torch.softmax(scores, 1).gather(1, candidates) - penalty_alpha * likeness
        choice = value.masked_fill(best.isneginf(), -torch.inf).argmax(1)
        rows = torch.arange(batch, device=choice.device) * k + choice
        ahead.batch_select_indices(rows)
        logits, hidden = out.logits[rows, -1].float(), out.hidden_states[-1][rows]
        seen, real = torch.cat([seen, _unit(hidden)], 1), F.pad(real, (0, 1), value=1)
        token = candidates.gather(1, choice.unsqueeze(1)).squeeze(1)
        if pad is not None:
            token = torch.where(unfinished.bool(), token, pad.to(token.device))
        input_ids = torch.cat([input_ids, token.to(input_ids.device).unsqueeze(1)], 1)
        if streamer is not None:
            streamer.put(token.cpu())
        unfinished = unfinished & ~stopping_criteria(input_ids, tuple(kept["scores"]))
    if streamer is not None:
        streamer.end()
    if not generation_config.return_dict_in_generate:
        return input_ids
    found: dict[str, Any] = {name: tuple(made) or None for name, made in kept.items()}
    return GenerateDecoderOnlyOutput(**found | {"sequences": input_ids, CACHE_NAME: cache})


def _unit(hidden: Tensor) -> Tensor:
    """[..., D] scaled to length one, in float32 at least."""
    return F.normalize(hidden.to(torch.promote_types(hidden.dtype, torch.float32)), dim=-1)
