"""Reading again: slots that another base wrote, encoded afresh from the text that they came of.

    slot of origin t:   key <- key of token t - 1,   value <- value of token t,   by the base of today

A key is a sparse code of the base's state, and a base that was trained on gives other states by no linear rule
(`neuro.hf.adapter_drift`); where the text was kept, nothing needs to be guessed. Which slots are filled, how strong they are
and when they were written stays: what was evicted or forgotten does not come back. One pass of the base, no read of the memory.

Slots hold what they came of in a way that no drift touches: a value is a function of its token alone, so slots of one token
hold one value. Another text than the one that was stored puts different values under one token, and is refused. And where
every token was stored the text can be told from the slots: nothing needs to be kept beside them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from neuro.errors import UsageError
from neuro.hf import adapter_host as host
from neuro.hf.adapter_fusion import MemoryState

if TYPE_CHECKING:
    from neuro.hf.adapter import HippocampalAdapter

_ALIKE = 0.9  # share of the values' square that the means by token must hold: 1 for the right text
_OWN = 0.8  # mean cosine of values to their tokens' values of today: 1 without a drift of the embeddings


@torch.no_grad()
def reread(adapter: HippocampalAdapter, memory: MemoryState, texts: Sequence[Tensor] | None = None) -> MemoryState:
    """The memory of one row with its keys and values as the base of today would have written them.

    Args:
        memory: of one row, committed.
        texts: what the row read, in order, ids [n] each; one text for each time that the base's context began afresh by
            `AdapterCache.end_context`. Early ones may be left out when no slot holds them any more. None takes them from the
            slots themselves (`held_texts`).

    Raises:
        UsageError: pairs that wait, more rows, texts without the token of a slot, another text than was stored, or none
            where the slots do not say it.
    """
    own = memory.hippocampus
    if memory.candidate.shape != (1, 0):
        rows, waiting = memory.candidate.shape
        raise UsageError(
            f"reread: got {rows} rows of which {waiting} tokens wait, expected one row that is committed.",
            "Call cache.commit(model) first, and give one row at a time.",
        )
    filled = (own.strengths[0] > 0).nonzero().squeeze(1)
    origins = own.origins[0, filled].long()
    if texts is None:
        starts, texts = held_texts(adapter, memory)
    else:
        lengths = [len(text) for text in texts]
        position = int(own.position)
        starts = [position - sum(lengths[n:]) for n in range(len(lengths))]
        if sum(lengths) > position or (len(filled) and int(origins.min()) < position - sum(lengths)):
            raise UsageError(
                f"reread: got texts of {sum(lengths)} tokens, expected the {position} that were read, or the last of them "
                f"from token {int(origins.min()) if len(filled) else position} on.",
                "Give every text that the memory holds, in the order they were read.",
            )
    if not len(filled):
        return memory
    lengths = [len(text) for text in texts]
    tokens = torch.cat([text.reshape(-1) for text in texts]).to(own.keys.device)
    before = torch.tensor([0, *lengths[:-1]], device=tokens.device).cumsum(0)  # where each text begins in ``tokens``
    begun = torch.tensor(starts, device=tokens.device)
    which = torch.searchsorted(begun, origins, right=True) - 1
    at = before[which] + origins - begun[which]
    _same_text(tokens[at], own.values[0, filled])
    if bool(torch.isin(at, before).any()):
        raise UsageError(
            "reread: got a text that begins with a token which followed another when it was stored.",
            "Cut the texts where the base's context ended (cache.end_context, model.remember), and nowhere else.",
        )
    keys, values = zip(*(_encoded(adapter, text.reshape(1, -1).to(tokens.device)) for text in texts), strict=True)
    keys_now, values_now = own.keys.clone(), own.values.clone()
    keys_now[0, filled] = torch.cat(keys, 1)[0, at - 1].to(own.keys)
    values_now[0, filled] = torch.cat(values, 1)[0, at].to(own.values)
    return memory._replace(hippocampus=own._replace(keys=keys_now, values=values_now))


@torch.no_grad()
def held_texts(adapter: HippocampalAdapter, memory: MemoryState) -> tuple[list[int], list[Tensor]]:
    """Where in the stream the texts begin that the slots of one row hold, and their ids [n] each.

    A value is a function of its token alone: the token is that of the vocabulary's values which is closest, and origins say
    the order. Slots of tokens in a row are one text. Its first token followed nothing and is in no slot, but its key is
    in the next one's: it is guessed by that, for which each token of the vocabulary is read once, alone. The text behind a
    hole that was evicted or forgotten is read without what came before it.

    Raises:
        UsageError: an adapter that writes a part of its tokens only, or slots of another vocabulary.
    """
    config, own = adapter.config, memory.hippocampus
    if config.rebind or (config.writes_per_span or config.span) < config.span:
        raise UsageError(
            f"reread: got no text and an adapter that stores a part of it (writes_per_span {config.writes_per_span}, "
            f"rebind {config.rebind}), expected one that stores every token.",
            "Give the texts that were read.",
        )
    filled = (own.strengths[0] > 0).nonzero().squeeze(1)
    if not len(filled):
        return [], []
    order = own.origins[0, filled].argsort()
    origins, values = own.origins[0, filled][order].long(), own.values[0, filled][order]
    table = host.tables(adapter.base)[0].unsqueeze(0)
    _, known = adapter.fusion.encode(torch.zeros_like(table), table)
    known = F.normalize(known[0], dim=-1)
    cosine, tokens = (
        torch.cat(parts) for parts in zip(*(_closest(part, known) for part in values.split(256)), strict=True)
    )
    if float(cosine.mean()) < _OWN:
        raise UsageError(
            f"reread: got no text, and slots whose values are {float(cosine.mean()):.2f} like the closest token's, expected "
            f"{_OWN} or more.",
            "Give the texts that were read; the vocabulary is not the one that was stored.",
        )
    ends = [0, *((origins.diff() > 1).nonzero().squeeze(1) + 1).tolist(), len(tokens)]
    starts = (origins[ends[:-1]] - 1).tolist()
    firsts = _firsts(adapter, own.keys[0, filled][order][ends[:-1]])
    texts = [torch.cat([firsts[n : n + 1], tokens[a:b]]) for n, (a, b) in enumerate(itertools.pairwise(ends))]
    return starts, texts


def _firsts(adapter: HippocampalAdapter, keys: Tensor) -> Tensor:
    """Of the whole vocabulary the tokens whose keys, each read alone, are most like ``keys`` [n,K]."""
    every = torch.arange(adapter.config.vocab_size, device=keys.device).unsqueeze(1)
    alone = torch.cat([_encoded(adapter, part)[0].squeeze(1) for part in every.split(256)])
    return _closest(keys, alone)[1]


def _closest(values: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """values [n,D], unit rows of a vocabulary [V,D] -> cosine and number of the closest row, [n] each."""
    found = (F.normalize(values, dim=-1) @ known.T).max(-1)
    return found.values, found.indices


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
    """Ids [b,n] from a fresh context -> key of each token [b,n,K] and value [b,n,D]; windows as when they are read."""
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
    return adapter.fusion.encode(torch.cat(contexts, 1), adapter.base.get_input_embeddings()(tokens))
