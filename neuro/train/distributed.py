"""Data-parallel training: processes started by torchrun share the rows of every batch and take the same steps.

    torchrun --nproc-per-node 2 -m neuro train CONFIG --set train.parallel=ddp

Every process draws the whole batch's streams and reads its own rows, so that N processes see what one would; a checkpoint
holds the rows of all and does not know how many wrote it. ``ddp``: weights and optimizer are everywhere, gradients are
averaged in one all-reduce (differs from torch's DistributedDataParallel: no buckets that overlap the backward pass, and no
``forward`` to wrap). ``fsdp``: between steps a process holds its share of each weight, gradient and moment (FSDP2,
arXiv:2304.11277, ``fully_shard`` with one group: gathered once a step); scalars are everywhere. CPUs speak through gloo, CUDA
devices, one for each process, through nccl.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

import backends
from backends import Backend
from neuro.brain import Brain
from neuro.config import TrainConfig
from neuro.errors import MissingError, UsageError
from neuro.state import BrainState, leaves, replace_leaves, tree_map

Found = TypeVar("Found")
Tree = TypeVar("Tree")


def is_first() -> bool:
    """Whether this process is the one that writes and reports."""
    return int(os.environ.get("RANK", "0")) == 0


def sum_of_squares(tensors: list[Tensor]) -> Tensor:
    """[] Over all of them, in float32."""
    return torch.stack([(x.float() * x.float()).sum() for x in tensors]).sum()


class Team:
    """One process by itself, which is also what several do when there is nothing to share."""

    rank, size = 0, 1
    signals: tuple[signal.Signals, ...] = (signal.SIGINT,)  # what interrupts

    def own(self, batch: Tree) -> Tree:
        """This process's rows of every tensor that has rows; the others are not kept in memory."""
        return batch

    def divide(self, brain: Brain, optimizer: Any) -> None:
        """Begin: equal weights everywhere; of what is shared out, keep this process's share."""

    def undivided(self, brain: Brain) -> Brain:
        """The brain with all of its weights."""
        return brain

    def forward(self, function: Callable[[], Found]) -> Found:
        """Run what uses the weights and will be differentiated."""
        return function()

    def first_alone(self, function: Callable[[], Found]) -> Found | None:
        """Run what uses the weights in the first process; None in the others."""
        return function()

    def mean(self, own: Tensor) -> Tensor:
        """The mean over processes."""
        return own

    def average(self, brain: Brain) -> None:
        """Replace every gradient by its mean over processes."""

    def squares(self, gradients: list[Tensor]) -> Tensor:
        """[] The sum of the squares of all gradients."""
        return sum_of_squares(gradients)

    def any(self, flag: bool) -> bool:
        """Whether it is so in any process."""
        return flag

    def whole(self, tensor: Tensor) -> Tensor:
        """All of a weight or moment."""
        return tensor

    def gather(self, state: BrainState) -> BrainState:
        """The state of all rows, in the first process; the others get their own back."""
        return state

    def wait(self) -> None:
        """Until every process is here."""


class Replicas(Team):
    """Processes that each hold all of the weights."""

    signals = (
        signal.SIGINT,
        signal.SIGTERM,
    )  # torchrun passes on the one, and ends with the other when a process failed

    def __init__(self, device: torch.device) -> None:
        from torch import distributed

        self.dist, self.device = distributed, device
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()

    def own(self, batch: Tree) -> Tree:
        def mine(leaf: Tensor) -> Tensor:
            return leaf.chunk(self.size)[self.rank].clone() if leaf.dim() else leaf

        return tree_map(mine, batch)

    def divide(self, brain: Brain, optimizer: Any) -> None:
        for tensor in (*brain.parameters(), *brain.buffers()):
            self.dist.broadcast(tensor.detach(), 0)

    def first_alone(self, function: Callable[[], Found]) -> Found | None:
        return function() if self.rank == 0 else None

    def mean(self, own: Tensor) -> Tensor:
        whole = own.detach().clone()
        self.dist.all_reduce(whole)
        return whole / self.size

    def average(self, brain: Brain) -> None:
        grads = [p.grad for p in brain.parameters() if p.grad is not None and not self._is_share(p)]
        flat = self.mean(torch.cat([grad.reshape(-1) for grad in grads]))
        for grad, mean in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
            grad.copy_(mean.view_as(grad))

    def any(self, flag: bool) -> bool:
        said = torch.tensor([float(flag)], device=self.device)
        self.dist.all_reduce(said)
        return bool(said > 0)

    def gather(self, state: BrainState) -> BrainState:
        found = []
        for _, leaf in leaves(state):
            if leaf.dim() == 0:
                found.append(leaf)
                continue
            parts = [torch.empty_like(leaf) for _ in range(self.size)] if self.rank == 0 else None
            self.dist.gather(leaf.contiguous(), parts)
            found.append(leaf if parts is None else torch.cat([part.cpu() for part in parts]))
        return replace_leaves(state, found)

    def wait(self) -> None:
        self.any(False)

    def _is_share(self, tensor: Tensor) -> bool:
        return False


class Shares(Replicas):
    """Processes that hold a share of every weight, and all of it while a window is learned from."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard
        from torch.distributed.tensor import DTensor, distribute_tensor

        self.mesh = init_device_mesh(device.type, (self.size,))
        self.fully_shard, self.distribute, self.kind = fully_shard, distribute_tensor, DTensor
        self.window: Any = None

    def divide(self, brain: Brain, optimizer: Any) -> None:
        super().divide(brain, optimizer)
        before = dict(brain.named_parameters())
        scalars = {p for p in before.values() if p.dim() == 0}
        self.window = self.fully_shard(_Window(brain), mesh=self.mesh, ignored_params=scalars)
        after: dict[Any, Any] = {before[name]: p for name, p in brain.named_parameters()}
        for group in optimizer.param_groups:
            group["params"] = [after[p] for p in group["params"]]
            group["foreach"] = False  # scalars are no shares: not in one list with those that are
        for p, moments in list(optimizer.state.items()):
            del optimizer.state[p]
            optimizer.state[after[p]] = {name: self._like(moment, after[p]) for name, moment in moments.items()}

    def undivided(self, brain: Brain) -> Brain:
        whole = Brain(brain.config, brain.backend)
        whole.load_state_dict({name: self.whole(tensor) for name, tensor in brain.state_dict().items()})
        whole.tokenizer = brain.tokenizer
        return whole

    def forward(self, function: Callable[[], Found]) -> Found:
        return self.window(function)

    def first_alone(self, function: Callable[[], Found]) -> Found | None:
        self.window.unshard()
        try:
            return super().first_alone(function)
        finally:
            self.window.reshard()

    def squares(self, gradients: list[Tensor]) -> Tensor:
        total = sum_of_squares([cast(Any, grad).to_local() for grad in gradients if self._is_share(grad)])
        self.dist.all_reduce(total)
        everywhere = [grad for grad in gradients if not self._is_share(grad)]
        return total + sum_of_squares(everywhere) if everywhere else total

    def whole(self, tensor: Tensor) -> Tensor:
        return cast(Any, tensor).full_tensor() if self._is_share(tensor) else tensor

    def _like(self, moment: Tensor, p: Any) -> Tensor:
        """The share of a moment that belongs to that of its weight."""
        if not self._is_share(p) or moment.shape != p.shape:
            return moment
        return self.distribute(moment, p.device_mesh, p.placements)

    def _is_share(self, tensor: Tensor) -> bool:
        return isinstance(tensor, self.kind)


class _Window(nn.Module):
    """What FSDP sees: weights are whole from the start of a forward pass to the end of its backward pass."""

    def __init__(self, brain: Brain) -> None:
        super().__init__()
        self.brain = brain

    def forward(self, function: Callable[[], Found]) -> Found:
        return function()


@contextlib.contextmanager
def team(config: TrainConfig, backend: str) -> Iterator[tuple[Team, Backend]]:
    """The processes of this run, and where this one computes.

    Raises:
        UsageError: ``train.parallel`` without torchrun or torchrun without it, a batch that does not divide, or a device
            whose processes cannot speak with each other.
        MissingError: a torch without what it takes.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    mode = config.parallel
    if mode == "none":
        if size > 1:
            raise UsageError(
                f"train.parallel: got none in one of {size} processes, expected ddp or fsdp.",
                "Set train.parallel=ddp, or start it without torchrun.",
            )
        yield Team(), backends.select(backend)
        return
    if not {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"} <= os.environ.keys():
        raise UsageError(
            f"train.parallel: got {mode} in a process by itself, expected one that torchrun started.",
            f"Start it as: torchrun --nproc-per-node 2 -m neuro train CONFIG --set train.parallel={mode}",
        )
    if config.batch % (size * config.accumulate):
        each = f"{size} processes" + (f" of {config.accumulate} parts" if config.accumulate > 1 else "")
        raise UsageError(
            f"train.batch: got {config.batch}, expected a multiple of {size * config.accumulate} ({each}).",
            "Change train.batch, or the number of processes.",
        )
    _check_torch(mode)
    chosen = _own_device(backend)
    torch.distributed.init_process_group("nccl" if chosen.name == "cuda" else "gloo")
    try:
        yield Replicas(chosen.device) if mode == "ddp" else Shares(chosen.device), chosen
    finally:
        torch.distributed.destroy_process_group()


def _check_torch(mode: str) -> None:
    if not torch.distributed.is_available():
        raise MissingError(
            "train.parallel: got a torch without torch.distributed, expected one with it.",
            "Install another build of torch.",
        )
    if mode == "fsdp":
        try:
            from torch.distributed.fsdp import fully_shard

            ready = "ignored_params" in inspect.signature(fully_shard).parameters
        except ImportError:
            ready = False
        if not ready:
            raise MissingError(
                f"train.parallel: got fsdp with torch {torch.__version__}, expected 2.7 or newer.",
                "Set train.parallel=ddp, or install a newer torch.",
            )


def _own_device(backend: str) -> Backend:
    """The backend, with CUDA on the device of this process's number."""
    kind, index = backends.parse(backend)
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "cuda":
        number = int(os.environ["LOCAL_RANK"]) if index is None else index
        chosen = backends.select(f"cuda:{number}")
        torch.cuda.set_device(chosen.device)
        return chosen
    if kind != "cpu":
        raise UsageError(
            f"train.parallel: got backend {kind}, expected cpu or cuda.", "Give --backend cpu, or train in one process."
        )
    return backends.select(kind)
