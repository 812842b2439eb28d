"""A part of a batch that is worked on by itself: a process's rows, or the rows of one of several backward passes.

The loss of a batch is not the mean of its shards' losses: surprise is a mean over predicted tokens, firing and routing are
held to budgets by the square of a mean. Every such mean is linear in the rows, so a shard that knows the means of the whole
batch has a loss whose gradient, averaged over equal shards, is the batch's. `Shard.pool` is how it gets to know them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from neuro.state import tree_map

Tree = TypeVar("Tree")


class Shard(NamedTuple):
    """Rows ``first`` to ``first + n`` of a batch of ``rows``."""

    first: int
    rows: int
    pool: Callable[[Tensor], Tensor]  # [n] this shard's means -> [n] their mean over all shards; cut from the graph

    def means(self, *own: Tensor) -> list[Tensor]:
        """The values of the whole batch [...] with the gradients of this shard's own."""
        flat = torch.cat([x.reshape(-1) for x in own])
        whole = flat + (self.pool(flat.detach()) - flat.detach())
        return [part.view_as(x) for part, x in zip(whole.split([x.numel() for x in own]), own, strict=True)]


def cut(tree: Tree, rows: slice) -> Tree:
    """These rows of every tensor that has rows."""
    return tree_map(lambda leaf: leaf[rows] if leaf.dim() else leaf, tree)


def join(trees: list[Tree]) -> Tree:
    """The rows of all, in their order; what has no rows is the first's."""
    return tree_map(lambda *leaves: torch.cat(leaves) if leaves[0].dim() else leaves[0], trees[0], *trees[1:])
