"""The training loss of one window of spans: how surprised the brain was, and three budgets."""

from __future__ import annotations

import contextlib
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from neuro.brain import Brain, ScanOutput
from neuro.config import TrainConfig
from neuro.layers.norm import wide
from neuro.memory import contents
from neuro.regions.cortex import Cortex
from neuro.state import BrainState, detach, tree_map
from neuro.train import sampled
from neuro.train.shard import Shard
from neuro.train.spelling import Spelling


class WindowLoss(NamedTuple):
    total: Tensor  # [] what is minimised
    nats: Tensor  # [] mean surprise per predicted token
    spike_rate: Tensor  # [] mean spikes per neuron and token over the spiking layers
    route: Tensor  # [] mean share of feed-forwards, or of layers, that ran
    state: BrainState  # after the window, still attached


def sampled_loss(
    brain: Brain,
    candidates: sampled.Candidates,
    state: BrainState,
    config: TrainConfig,
    generator: torch.Generator | None = None,
) -> WindowLoss:
    """`window_loss` of a window over a part of the vocabulary (`neuro.train.sampled`).

    Args:
        generator: of the tokens that are dropped, every one of a kind at once.
    """
    rows = brain.embedding.index_select(0, candidates.ids)
    if isinstance(spelling := getattr(brain, "spelling", None), Spelling):
        rows = rows + spelling.rows(candidates.ids)
    read = rows
    if config.embedding_dropout:
        drawn = torch.rand(len(rows), 1, generator=generator, device=rows.device)
        read = rows * ((drawn >= config.embedding_dropout).to(rows.dtype) / (1.0 - config.embedding_dropout))
    entering = sampled.entering(state, brain, candidates)
    among = (candidates, rows)
    loss = sampled.within(
        brain, rows, read, lambda: window_loss(brain, candidates.tokens, entering, config, among=among)
    )
    return loss._replace(state=sampled.leaving(loss.state, state))


def window_loss(
    brain: Brain,
    tokens: Tensor,
    state: BrainState,
    config: TrainConfig,
    scored: Tensor | None = None,
    shard: Shard | None = None,
    among: tuple[sampled.Candidates, Tensor] | None = None,
) -> WindowLoss:
    """Scan and commit every span of ``tokens`` [B, T]; the last may be shorter.

    The loss is the mean surprise of each token under the prediction made before it: nothing is shifted by index.

    Args:
        scored: [B, T] bool, the tokens whose surprise counts, as many in every row and never a row's first; None
            counts all.
        shard: which rows of a larger batch these are; then the budgets are held by the whole batch, and the gradients of
            all shards have the gradient of the batch as their mean.
        among: the part of the vocabulary that the brain runs on, and its rows [S,D] (`sampled_loss`).
    """
    device = brain.backend.device
    autocast: contextlib.AbstractContextManager = contextlib.nullcontext()
    if config.mixed_precision and brain.backend.autocast is not None:
        autocast = torch.autocast(device.type, brain.backend.autocast)
    surprises, predicted, rates, routes, shares, features = [], [], [], [], [], []
    with autocast:
        for span in tokens.split(brain.config.plasticity_span, 1):
            if config.checkpoint_activations:
                out, after = checkpoint(_read, brain, span, state, use_reentrant=False)
            else:
                out, after = _read(brain, span, state)
            surprises.append(out.aux.surprise)
            predicted.append(out.aux.predicted.sum())
            features.append(out.aux.features)
            rates.append(out.aux.layer_rates.mean((0, 1)))
            if out.aux.route.numel():
                routes.append(out.aux.route.mean())
            if out.aux.place_share.numel():
                shares.append(out.aux.place_share.mean())
            state = _forget(after, config.memory_dropout, shard)
        count = torch.stack(predicted).sum()
        layer_rates = torch.stack(rates).mean(0)
        route = torch.stack(routes).mean() if routes else torch.ones_like(count)  # nothing to route: all of it ran
        share = torch.stack(shares).mean() if shares else torch.zeros_like(count)
        if shard is not None:
            count, layer_rates, route, share = shard.means(count, layer_rates, route, share)
        if among is not None:
            mean_nats = sampled.mean_nats(torch.cat(features, 1), among[1], among[0])
        elif scored is None:
            mean_nats = torch.stack([nats.sum() for nats in surprises]).sum() / count.clamp_min(1.0)
        elif brain.config.points or brain.config.fast_bias:  # the features are not all that predicts
            mean_nats = torch.cat(surprises, 1).masked_select(scored).mean()
        else:
            mean_nats = _surprise_at(brain, torch.cat(features, 1), tokens, scored)
    total = mean_nats + config.rate_weight * _overspent(brain, layer_rates)
    if _holds_route(brain):
        total = total + config.route_weight * (route - brain.config.thalamus.route_budget) ** 2
    if _holds_places(brain):
        total = total + config.place_weight * (share / brain.config.hippocampus.sparsity - 1.0) ** 2
    rate = layer_rates.detach().mean() if layer_rates.numel() else torch.zeros_like(mean_nats)
    return WindowLoss(total, mean_nats.detach(), rate, route.detach(), state)


def _read(brain: Brain, span: Tensor, state: BrainState) -> tuple[ScanOutput, BrainState]:
    """What a span says, and the state after its commit."""
    out = brain.scan(span, state)
    return out, brain.commit(out.state)[0]


def has_budgets(brain: Brain, config: TrainConfig) -> bool:
    """Whether the loss depends on how much the batch fired, was routed or was coded by."""
    fires = brain.config.cortex.encoding == "spikes" or "spiking" in brain.config.cortex.feedforwards
    spends = bool(config.rate_weight) and fires and bool(brain.config.cortex.layers)
    places = bool(config.place_weight) and _holds_places(brain)
    return spends or places or (bool(config.route_weight) and _holds_route(brain))


def _holds_places(brain: Brain) -> bool:
    h = brain.config.hippocampus
    return h.enabled and h.learned_sparsity


def _holds_route(brain: Brain) -> bool:
    c = brain.config
    return c.thalamus.enabled and bool(c.cortex.layers) and not c.skips_layers


def _overspent(brain: Brain, rates: Tensor) -> Tensor:
    """How far the firing rates [S] are from the target, squared.

    Of every layer by itself; where all that the cortex multiplies are spikes, of the mean over its synapses: one budget, which
    the populations share out among them.
    """
    c = brain.config.cortex
    if c.encoding == "spikes" and c.layers:
        synapses = rates.new_tensor([e.channels * e.fan_out for e in cast(Cortex, brain.regions["cortex"]).emitters])
        rates = (rates * synapses).sum(0, keepdim=True) / synapses.sum()
    return ((rates - c.rate_target) ** 2).sum()


def _surprise_at(brain: Brain, features: Tensor, tokens: Tensor, scored: Tensor) -> Tensor:
    """Mean surprise at the scored tokens, from the features before them.

    The numbers of ``aux.surprise``, without a gradient through V logits of every token that does not count.
    """
    # Found on the host, where the mask comes from: a shape that depends on data would stop the device.
    found = scored.cpu().numpy().nonzero()[1].reshape(tokens.shape[0], -1)
    place = torch.from_numpy(found).to(tokens.device)
    logits = wide(brain.ops.take_rows(features, place - 1) @ brain.embedding.T)
    return F.cross_entropy(logits.flatten(0, 1), tokens.gather(1, place).flatten())


def _forget(state: BrainState, share: float, shard: Shard | None = None) -> BrainState:
    """``share`` of the rows without episodic and as many without procedural memory; at least half of them have neither.

    Always the same rows, so that what a row learns to do without stays away for a whole document.
    """
    here = state.started.shape[0]
    begin, rows = (0, here) if shard is None else (shard.first, shard.rows)
    count = round(share * rows)
    if not count:
        return state
    row = torch.arange(begin, begin + here, device=state.started.device)
    first = min(count // 2, rows - count)
    state = contents.emptied(state, "episodic", row < count)
    return contents.emptied(state, "procedural", (row >= first) & (row < first + count))


def fresh_rows(state: BrainState, initial: BrainState, fresh: Tensor) -> BrainState:
    """``state`` cut from its graph, with the rows where ``fresh`` [B] is true put back to ``initial``."""

    def pick(now: Tensor, start: Tensor) -> Tensor:
        if now.dim() == 0:
            return now
        return torch.where(fresh.reshape(-1, *[1] * (now.dim() - 1)), start, now)

    return tree_map(pick, detach(state), initial)
