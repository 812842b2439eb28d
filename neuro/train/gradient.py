"""The gradient of one training step: of a whole window, of one that is cut into parts, or of one process's rows.

Where a budget of firing or routing is part of the loss, parts are run once more, first and without a graph: the gradient of
the first part depends on how much the whole batch fired and was routed.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from neuro.brain import Brain
from neuro.config import TrainConfig
from neuro.state import BrainState, detach
from neuro.train import objective
from neuro.train.distributed import Team
from neuro.train.objective import WindowLoss
from neuro.train.shard import Shard, cut, join


def of_window(
    brain: Brain, tokens: Tensor, state: BrainState, config: TrainConfig, scored: Tensor | None, team: Team
) -> WindowLoss:
    """Leave the gradient of the batch's loss in ``.grad`` -> the loss of the batch and the state of these rows.

    Args:
        tokens: [B, T] this process's rows; ``train.accumulate`` parts of them have a backward pass each.
        state: of these rows.
        scored: as of `objective.window_loss`.
    """
    rows = tokens.shape[0]
    if config.accumulate == 1 and team.size == 1:
        loss = objective.window_loss(brain, tokens, state, config, scored)
        loss.total.backward()
        return loss
    own = rows // config.accumulate
    parts = [slice(start, start + own) for start in range(0, rows, own)]

    def run(part: slice, pool: Callable[[Tensor], Tensor]) -> WindowLoss:
        shard = Shard(team.rank * rows + part.start, team.size * rows, pool)
        its = None if scored is None else scored[part]
        return team.forward(lambda: objective.window_loss(brain, tokens[part], cut(state, part), config, its, shard))

    pool = team.mean
    if len(parts) > 1:
        whole = team.mean(_known(brain, tokens, state, config, parts, run))
        pool = lambda own: torch.cat([whole, own[whole.numel() :]])  # noqa: E731
    losses = []
    for part in parts:
        loss = run(part, pool)
        (loss.total / len(parts)).backward()
        losses.append(loss._replace(total=loss.total.detach(), state=detach(loss.state)))
    team.average(brain)
    said = torch.stack([torch.stack([loss.nats, loss.spike_rate, loss.route]) for loss in losses]).mean(0)
    nats, spike_rate, route = team.mean(said).unbind()
    return WindowLoss(losses[0].total, nats, spike_rate, route, join([loss.state for loss in losses]))


def _known(
    brain: Brain,
    tokens: Tensor,
    state: BrainState,
    config: TrainConfig,
    parts: list[slice],
    run: Callable[[slice, Callable[[Tensor], Tensor]], WindowLoss],
) -> Tensor:
    """The means over the parts that a part's gradient depends on: the predicted tokens and, with budgets, all of them."""
    if not objective.has_budgets(brain, config):
        every_token_but_first = float(tokens.shape[0] * (tokens.shape[1] - 1))
        return (state.started.sum() + every_token_but_first).reshape(1) / len(parts)
    seen: list[Tensor] = []

    def note(own: Tensor) -> Tensor:
        seen.append(own)
        return own

    with torch.no_grad():
        for part in parts:
            run(part, note)
    return torch.stack(seen).mean(0)
