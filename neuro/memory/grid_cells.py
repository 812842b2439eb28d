"""Grid cells and boundary cells: what is known of a position before any place is. Both are constructed, not learned.

A module of spacing l and orientation o tiles the plane with a hexagonal lattice; its phase is the position in lattice
coordinates, so that whole numbers are the same phase:

    position = l R(o) (p_1 e_1 + p_2 e_2),  e_1 = (1, 0), e_2 = (1/2, sqrt(3)/2)
    rate_j = (cos u_1 + cos u_2 + cos(u_1 + u_2) + 3/2) / (9/2),  u = 2 pi (p - offset_j),  in [0, 1]

Spacings grow by a constant factor (Stensola et al. 2012, doi:10.1038/nature11649). Three waves: Solstad et al. 2006,
doi:10.1002/hipo.20244. differs: scaled to a maximum of exactly 1 (a rectified sum of three cosines over 3 plus 1/2 has 3/2).

Path integration adds a movement to every module's phase. Modules may each err on their own: ``couple`` makes them agree again
on the position near the last one that fits them all best, as recurrent and place feedback are taken to do (Sreenivasan and
Fiete 2011, doi:10.1038/nn.2901).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from backends import Ops
from neuro.errors import UsageError
from neuro.layers.linear import Linear
from neuro.layers.norm import wide

_HALF_SQRT_3 = math.sqrt(3.0) / 2.0


class GridCells(nn.Module):
    """M modules of side x side cells. Nothing in it is trained; an environment is a rotation and a shift of each module.

    Args:
        spacings: of the modules, in the units of positions.
        side: cells of a module on each axis of its lattice, phases evenly spread.
        environment: a seed. Modules turn and shift independently of each other from one to the next
            (Fyhn et al. 2007, doi:10.1038/nature05601 see them shift; that they do so apart is what remapping here rests on).

    Raises:
        UsageError: no spacing, or one that is not positive.
    """

    def __init__(self, spacings: Sequence[float], side: int = 6, environment: int = 0) -> None:
        super().__init__()
        if not spacings or min(spacings) <= 0:
            raise UsageError(
                f"spacings: got {list(spacings)}, expected one or more above 0.", "Give the spacing of each module."
            )
        generator = torch.Generator().manual_seed(environment)
        angle = torch.rand(len(spacings), generator=generator, dtype=torch.float64) * (math.pi / 3.0)
        shift = torch.rand(len(spacings), 2, generator=generator, dtype=torch.float64)
        spacing = torch.tensor(list(spacings), dtype=torch.float64)
        c, s = torch.cos(angle), torch.sin(angle)
        turn = torch.stack([torch.stack([c, -s], 1), torch.stack([s, c], 1)], 1)
        lattice = torch.tensor([[1.0, 0.5], [0.0, _HALF_SQRT_3]], dtype=torch.float64)
        to_position = spacing[:, None, None] * turn @ lattice
        axis = torch.arange(side, dtype=torch.float64) / side
        self.side, self.modules_count = side, len(spacings)
        self.register_buffer("to_position", to_position.float(), persistent=False)  # [M,2,2]
        self.register_buffer("to_phase", torch.linalg.inv(to_position).float(), persistent=False)
        self.register_buffer("shift", shift.float(), persistent=False)  # [M,2]
        self.register_buffer("offsets", torch.cartesian_prod(axis, axis).float(), persistent=False)  # [side^2,2]
        self.to_position: Tensor
        self.to_phase: Tensor
        self.shift: Tensor
        self.offsets: Tensor

    @property
    def cells(self) -> int:
        return self.modules_count * self.side**2

    def forward(self, position: Tensor) -> Tensor:
        """Positions [...,2] -> rates [...,cells] in [0, 1], module after module."""
        return self.rates(self.phases(position))

    def phases(self, position: Tensor) -> Tensor:
        """Positions [...,2] -> phases [...,M,2], not wrapped."""
        return self.moved(position) + self.shift

    def moved(self, movement: Tensor) -> Tensor:
        """Movements [...,2] -> what they add to the phases, [...,M,2]."""
        return (self.to_phase @ movement[..., None, :, None]).squeeze(-1)

    def rates(self, phases: Tensor) -> Tensor:
        """Phases [...,M,2] -> rates [...,cells]."""
        u = (phases.unsqueeze(-2) - self.offsets) * (2.0 * math.pi)
        first, second = u[..., 0], u[..., 1]
        waves = torch.cos(first) + torch.cos(second) + torch.cos(first + second)
        return ((waves + 1.5) / 4.5).flatten(-2)

    def integrate(self, phases: Tensor, movements: Tensor) -> Tensor:
        """Phases [...,M,2] before, movements [T,...,2] or, one for each module, [T,...,M,2] -> phases [T,...,M,2] after each.

        Wrapped to [0, 1): a module never holds more than where it is in its own period.
        """
        if movements.dim() == phases.dim():
            steps = self.moved(movements)
        else:
            steps = (self.to_phase @ movements.unsqueeze(-1)).squeeze(-1)
        return torch.remainder(phases + torch.cumsum(steps, 0), 1.0)

    def couple(self, phases: Tensor, near: Tensor, rounds: int = 3) -> Tensor:
        """The position [...,2] that fits the phases [...,M,2] of all modules best, close to ``near`` [...,2].

        Each module names the position of its phase that is nearest to where it is sought; the mean of all is sought next.
        Right as long as ``near`` is within about half of the finest spacing.
        """
        for _ in range(rounds):
            ahead = phases - self.phases(near)
            ahead = ahead - torch.round(ahead)
            near = near + (self.to_position @ ahead.unsqueeze(-1)).squeeze(-1).mean(-2)
        return near


class BoundaryCells(nn.Module):
    """Positions [...,2] in a box -> rates [...,cells]: each fires at one distance from one wall.

    rate = exp(-(d - d_j)^2 / (2 s_j^2)), s_j = (d_j + 1/5) / 4, d in shares of the box (Hartley et al. 2000,
    doi:10.1002/1098-1063(2000)10:4<369::AID-HIPO3>3.0.CO;2-0: wider tuning further away). differs: walls along the axes only.

    Args:
        low, high: corners of the box.
        distances: preferred ones, in shares of the box, for each of the four walls.
    """

    def __init__(
        self, low: Sequence[float], high: Sequence[float], distances: Sequence[float] = (0.0, 0.1, 0.2, 0.4)
    ) -> None:
        super().__init__()
        self.register_buffer("low", torch.tensor(list(low)), persistent=False)
        self.register_buffer("size", torch.tensor(list(high)) - torch.tensor(list(low)), persistent=False)
        self.register_buffer("distances", torch.tensor(list(distances)), persistent=False)
        self.low: Tensor
        self.size: Tensor
        self.distances: Tensor
        self.cells = 4 * len(distances)

    def forward(self, position: Tensor) -> Tensor:
        share = (position - self.low) / self.size
        walls = torch.cat([share, 1.0 - share], -1).unsqueeze(-1)
        away = (walls - self.distances) * 4.0 / (self.distances + 0.2)
        return torch.exp(-0.5 * away * away).flatten(-2)


class ContentGrid(nn.Module):
    """Grid cells over a plane that is learned: [...,D] -> rates [...,cells] of ``GridCells`` at W x.

    The plane is learned, the grid on it constructed. With unit-rms inputs positions start with a standard deviation of 1.
    """

    def __init__(self, width: int, grid: GridCells, ops: Ops) -> None:
        super().__init__()
        self.plane = Linear(width, 2, ops)
        nn.init.normal_(self.plane.weight, std=width**-0.5)
        self.grid = grid

    def forward(self, x: Tensor) -> Tensor:
        return self.grid(wide(self.plane(x)))
