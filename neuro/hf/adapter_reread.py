"""Reading again: slots that another base wrote, encoded afresh from the text that they came of.

    slot of origin t:   key <- key of token t - 1,   value <- value of token t,   by the base of today

A key is a sparse code of the base's state, and a base that was trained on gives other states by no linear rule
(`neuro.hf.adapter_drift`); where the text was kept, nothing needs to be guessed. Which slots are filled, how strong they are
and when they were written stays: what was evicted or forgotten does not come back. One pass of the base, no read of the memory.

Slots hold what they came of in a way that no drift touches: a value is a function of its token alone, so slots of one token
hold one value. Another text than the one that was stored puts different values under one token, and is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuro.errors import UsageError
from neuro.hf import adapter_host as host
from neuro.hf.adapter_fusion import MemoryState

if TYPE_CHECKING:
    from neuro.hf.adapter import HippocampalAdapter

_ALIKE = 0.9  # share of the values' square that the means by token must hold: 1 for the right text


@torch.no_grad()
def reread(adapter: HippocampalAdapter, memory: MemoryState, texts: Sequence[Tensor]) -> MemoryState:
    """The memory of one row with its keys and values as the base of today would have written them.

    Args:
        memory: of one row, committed.
        texts: what the row read, in order, ids [n] each; one text for each time that the base's context began afresh by
            `AdapterCache.end_context`. Early ones may be left out when no slot holds them any more.

    Raises:
        UsageError: pairs that wait, more rows, texts without the token of a slot, or another text than was stored.
    """
    own = memory.hippocampus
    if memory.candidate.shape != (1, 0):
        rows, waiting = memory.candidate.shape
        raise UsageError(
            f"reread: got {rows} rows of which {waiting} tokens wait, expected one row that is committed.",
            "Call cache.commit(model) first, and give one row at a time.",
        )
    lengths = [len(text) for text in texts]
    position, filled = int(own.position), (own.strengths[0] > 0).nonzero().squeeze(1)
    at = own.origins[0, filled].long() - (position - sum(lengths))
    if sum(lengths) > position or bool((at < 0).any()):
        raise UsageError(
            f"reread: got texts of {sum(lengths)} tokens, expected the {position} that were read, or the last of them "
            f"from token {int(own.origins[0, filled].min()) if len(filled) else position} on.",
            "Give every text that the memory holds, in the order they were read.",
        )
    if not len(filled):
        return memory
    tokens = torch.cat([text.reshape(-1) for text in texts]).to(own.keys.device)
    _same_text(tokens[at], own.values[0, filled])
    first = torch.tensor([0, *lengths[:-1]], device=at.device).cumsum(0)
    if bool(torch.isin(at, first).any()):
        raise UsageError(
            "reread: got a text that begins with a token which followed another when it was stored.",
            "Cut the texts where the base's context ended (cache.end_context, model.remember), and nowhere else.",
        )
    keys, values = zip(*(_encoded(adapter, text.reshape(1, -1).to(tokens.device)) for text in texts), strict=True)
    keys_now, values_now = own.keys.clone(), own.values.clone()
    keys_now[0, filled] = torch.cat(keys)[at - 1].to(own.keys)
    values_now[0, filled] = torch.cat(values)[at].to(own.values)
    return memory._replace(hippocampus=own._replace(keys=keys_now, values=values_now))


def _same_text(tokens: Tensor, values: Tensor) -> None:
    """Whether slots [F,D] of one of ``tokens`` [F] hold one value."""
    kinds, which, counts = tokens.unique(return_inverse=True, return_counts=True)
    several = counts[which] > 1
    means = values.new_zeros(len(kinds), values.shape[1]).index_add_(0, which, values) / counts.unsqueeze(1)
    left = (values - means[which])[several].square().sum()
    spread = (values - values.mean(0))[several].square().sum()
    if bool(left > (1.0 - _ALIKE) * spread + 1e-12):
        raise UsageError(
            f"reread: got another text than was stored: slots of one token agree to {float(1 - left / spread):.2f} of "
            f"their variance, expected {_ALIKE} or more.",
            "Give the text that this memory was written from, from the same tokenizer.",
        )


def _encoded(adapter: HippocampalAdapter, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Ids [1,n] from a fresh context -> key of each token [n,K] and value [n,D]; windows as when they are read."""
    window, overlap, start = adapter.config.window, adapter.config.overlap, 0
    contexts: list[Tensor] = []

    def keep(hidden: Tensor, context: Tensor) -> Tensor:
        contexts.append(context)
        return hidden[:, -1:]

    with adapter.evaluating(), host.before_head(adapter.base, keep, adapter.config.key_layer):
        while start < tokens.shape[1]:
            again = min(start, overlap)
            stop = tokens.shape[1] if window is None else min(tokens.shape[1], start + window - again)
            adapter.base(input_ids=tokens[:, start - again : stop], use_cache=False)
            contexts[-1] = contexts[-1][:, again:]
            start = stop
    key, value = adapter.fusion.encode(torch.cat(contexts, 1), adapter.base.get_input_embeddings()(tokens))
    return key[0], value[0]
