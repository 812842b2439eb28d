"""The whole carried state of a brain as nested NamedTuples of tensors: what a graph takes in and gives back.

Axes: B batch, P tokens of a plasticity span, D width, N neurons, H heads (or hormones), K key width, W window, M slots,
R eligibility traces, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from torch import Tensor


class RecurrenceState(NamedTuple):
    h: Tensor  # [B, D] float32


class WindowState(NamedTuple):
    keys: Tensor  # [B, H, W, K]
    values: Tensor  # [B, H, W, K]
    seen: Tensor  # [B, W] 1 where a token lies


class LifState(NamedTuple):
    v: Tensor  # [B, N] membrane potential after reset


class LayerState(NamedTuple):
    mixer: RecurrenceState | WindowState
    feedforward: LifState | tuple[()]


class ProceduralState(NamedTuple):
    """R eligibility traces: ``rank`` of each output projection of the cortex, one projection after the other."""

    fast: Tensor  # [B, R, D] fast weights
    last_step: Tensor | tuple[()]  # [B, R, D] what the last commit wrote, for the momentum of the delta rule
    last_eligibility: Tensor  # [B, R] of the previous token, waiting for how wrong its prediction was


class CortexState(NamedTuple):
    layers: tuple[LayerState, ...]
    procedural: ProceduralState | tuple[()]


class AmygdalaState(NamedTuple):
    affect: Tensor  # [B, 2] valence, arousal


class EndocrineState(NamedTuple):
    modulators: Tensor  # [B, H] in the order of config.HORMONES


class ClockState(NamedTuple):
    """Of an event clock (`neuro.memory.event_clock`): sums that decay, and the time since the last event."""

    fast: Tensor  # [B, 2] of change, of weight
    slow: Tensor  # [B, 3] of its mean, of that squared, of weight
    above: Tensor  # [B] 1 where change was above what is usual
    elapsed: Tensor  # [B] tokens since the last boundary
    last: Tensor  # [B, K] the previous token's key before the clock was added


class SegmentState(NamedTuple):
    """Of event boundaries (`neuro.memory.segments`): sums that decay, and whether the last token was above."""

    fast: Tensor  # [B, 2] of surprise, of weight
    slow: Tensor  # [B, 3] of its mean, of that squared, of weight
    above: Tensor  # [B]


class HippocampusState(NamedTuple):
    keys: Tensor  # [B, M, K] unit vectors
    values: Tensor  # [B, M, D]
    strengths: Tensor  # [B, M] 0 = unfilled
    origins: Tensor  # [B, M] which token of the stream, counted from 0, the stored value was; exact below 2^24
    position: Tensor  # [B] tokens of the stream before this span; exact below 2^24
    last_key: Tensor  # [B, K] key of the previous token (with key_trace, before it is made a unit), waiting for what follows it
    has_key: Tensor  # [B] 1 when last_key is one
    last_content: Tensor  # [B, D] unit vector: what the memory said would come after the previous token; 0 if nothing
    trust: Tensor  # [B] running mean of how right it has been, -1 to 1
    ids: Tensor | tuple[()] = ()  # [B, M] with a pointer: which token of the vocabulary the value was; exact below 2^24
    clock: ClockState | tuple[()] = ()  # with time cells
    phrases: Tensor | tuple[()] = ()  # [B, M, W] with phrases: the words that led to the moment of each slot
    last_codes: Tensor | tuple[()] = ()  # [B, LENGTH, W] with phrases: of the last tokens
    begins: Tensor | tuple[()] = ()  # [B, M] with segments: 1 where the token of the value began an event
    segment: SegmentState | tuple[()] = ()  # with segments


class FastBiasState(NamedTuple):
    bias: Tensor  # [B, V] what is added to the logits
    said: Tensor  # [B, V] how often each token came since the last commit
    expected: Tensor  # [B, V] the chances it was given, summed


class ReadoutState(NamedTuple):
    last_input: Tensor  # [B, D] what the prediction of the next token was read from
    bias: FastBiasState | tuple[()] = ()


class RegionStates(NamedTuple):
    amygdala: AmygdalaState | tuple[()]
    endocrine: EndocrineState | tuple[()]
    cortex: CortexState
    hippocampus: HippocampusState | tuple[()]
    readout: ReadoutState | tuple[()]


class SpanBuffer(NamedTuple):
    """What the memories need from the tokens since the last commit; rows beyond the clock are zero."""

    keys: Tensor  # [B, P, K]
    values: Tensor  # [B, P, D]
    candidate: Tensor  # [B, P] 1 where keys and values make a pair
    salience: Tensor  # [B, P]
    novelty: Tensor  # [B, P]
    affect: Tensor  # [B, P, 2]
    surprise: Tensor  # [B, P] nats
    spike_rate: Tensor  # [B, P]
    valid: Tensor  # [B, P] 1 where a real token lies
    error: Tensor  # [B, P, D] minus the gradient of each token's surprise at what its prediction was read from
    eligibility: Tensor  # [B, P, R] traces of the prediction of each token, then what the dense feed-forwards read
    ids: Tensor | tuple[()] = ()  # [B, P] with a pointer: which token of the vocabulary each was
    phrases: Tensor | tuple[()] = ()  # [B, P, W] with phrases: of the token before each


class Held(NamedTuple):
    """Feedback channels: means over the last committed span."""

    affect: Tensor  # [B, 2]
    surprise: Tensor  # [B] nats
    novelty: Tensor  # [B]
    spike_rate: Tensor  # [B]


class BrainState(NamedTuple):
    regions: RegionStates
    buffer: SpanBuffer
    held: Held
    logits: Tensor  # [B, V] prediction for the next token: what the next token's surprise is measured against
    started: Tensor  # [B] 1 once a row has seen a real token
    clock: Tensor  # [] int64, tokens since the last commit


Tree = TypeVar("Tree")


def tree_map(function: Callable[..., Any], tree: Tree, *rest: Any) -> Tree:
    """Apply ``function`` to every tensor of nested (named) tuples of the same shape."""
    if isinstance(tree, tuple):
        parts = [tree_map(function, *items) for items in zip(tree, *rest, strict=True)]
        return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)  # type: ignore[return-value]
    return function(tree, *rest)


def leaves(tree: Any, path: str = "") -> list[tuple[str, Tensor]]:
    """(path, tensor) of every tensor in field order; the paths are the port names of an export."""
    if not isinstance(tree, tuple):
        return [(path, tree)]
    names = getattr(tree, "_fields", None) or [str(i) for i in range(len(tree))]
    found: list[tuple[str, Tensor]] = []
    for name, item in zip(names, tree, strict=True):
        found += leaves(item, f"{path}.{name}" if path else name)
    return found


def replace_leaves(tree: Tree, tensors: list[Tensor]) -> Tree:
    """The same tree with its tensors, in the order of `leaves`, taken from a list."""
    source = iter(tensors)
    return tree_map(lambda _: next(source), tree)


def detach(tree: Tree) -> Tree:
    """The same values, cut from the graph that made them."""
    return tree_map(lambda leaf: leaf.detach(), tree)


def clone(tree: Tree) -> Tree:
    """An independent copy: a snapshot to restore from."""
    return tree_map(lambda leaf: leaf.detach().clone(), tree)


def select_rows(tree: BrainState, rows: Tensor) -> BrainState:
    """The batch rows ``rows`` [B'] of every tensor (beam search, shuffled memories); the clock is shared."""
    return tree_map(lambda leaf: leaf if leaf.dim() == 0 else leaf.index_select(0, rows), tree)
