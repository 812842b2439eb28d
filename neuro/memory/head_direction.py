"""Head-direction cells, grid cells that fire in one direction, and a path that is integrated with errors. All constructed.

    h_j = exp(c (cos(heading - direction_j) - 1)),  c = log 2 / (1 - cos(half_width)): half of the maximum ``half_width`` away
    conjunctive_j = grid_j h_j
    believed_t = believed_{t-1} + movement_t + error sqrt(|movement_t|) normal

Near a wall the coordinate across it is the true one again.

Head direction: Taube, Muller and Ranck 1990, doi:10.1523/JNEUROSCI.10-02-00420.1990; grid by direction: Sargolini et al. 2006,
doi:10.1126/science.1125572; errors that grow until a wall corrects them: Hardcastle, Ganguli and Giocomo 2015,
doi:10.1016/j.neuron.2015.03.039. differs: a wall corrects at once and wholly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from neuro.errors import UsageError
from neuro.memory.grid_cells import GridCells


class HeadDirectionCells(nn.Module):
    """Headings [...,2] of any length -> rates [...,cells] in [0, 1]; a heading of length 0 drives none.

    Preferred directions lie evenly around the circle.

    Args:
        cells: how many.
        half_width: radians from the preferred direction to half of the maximum.
        environment: a seed; all cells turn together from one to the next (Taube, Muller and Ranck 1990,
            doi:10.1523/JNEUROSCI.10-02-00436.1990).

    Raises:
        UsageError: no cell, or a half-width that is not in (0, pi).
    """

    def __init__(self, cells: int, half_width: float = math.pi / 4.0, environment: int = 0) -> None:
        super().__init__()
        if cells < 1 or not 0.0 < half_width < math.pi:
            raise UsageError(
                f"head direction: got {cells} cells of half-width {half_width:g}, expected one or more in (0, pi).",
                "Give a number of cells, and radians.",
            )
        self.cells, self.sharpness = cells, math.log(2.0) / (1.0 - math.cos(half_width))
        turned = torch.rand((), generator=torch.Generator().manual_seed(environment), dtype=torch.float64)
        angle = 2.0 * math.pi * (turned + torch.arange(cells, dtype=torch.float64) / cells)
        self.register_buffer(
            "direction", torch.stack([torch.cos(angle), torch.sin(angle)], -1).float(), persistent=False
        )
        self.direction: Tensor  # [cells,2]

    def forward(self, heading: Tensor) -> Tensor:
        length = heading.norm(dim=-1, keepdim=True)
        towards = heading @ self.direction.T / length.clamp_min(1e-12)
        return torch.exp(self.sharpness * (towards - 1.0)) * (length > 0).to(heading.dtype)


class ConjunctiveCells(nn.Module):
    """Positions [...,2], headings [...,2] -> rates [...,cells]: each cell of a grid fires in one direction alone.

    Which cell prefers which of ``directions`` is drawn once and goes with it into every environment.
    """

    def __init__(self, grid: GridCells, directions: HeadDirectionCells, seed: int = 0) -> None:
        super().__init__()
        self.grid, self.directions, self.cells = grid, directions, grid.cells
        generator = torch.Generator().manual_seed(seed)
        preferred = torch.randint(directions.cells, (grid.cells,), generator=generator)
        self.register_buffer("preferred", preferred, persistent=False)  # [cells]
        self.preferred: Tensor

    def forward(self, position: Tensor, heading: Tensor) -> Tensor:
        return self.grid(position) * self.directions(heading)[..., self.preferred]


class PathIntegrator:
    """Where an animal believes to be in a box that it knows by its walls.

    Args:
        low, high: corners of the box.
        error: sd on each axis after a path of length 1, in the units of positions; it grows with the root of the path.
        reach: share of the box from a wall within which the coordinate across it is corrected.

    Raises:
        UsageError: an error below 0, or a reach that is not in (0, 1/2).
    """

    def __init__(self, low: Sequence[float], high: Sequence[float], error: float, reach: float = 0.05) -> None:
        if error < 0.0 or not 0.0 < reach < 0.5:
            raise UsageError(
                f"path integration: got an error of {error:g} and a reach of {reach:g}, expected at least 0 and in (0, 0.5).",
                "Give the error after a path of length 1, and a share of the box.",
            )
        self.low, self.size = torch.tensor(list(low)), torch.tensor(list(high)) - torch.tensor(list(low))
        self.error, self.reach = error, reach

    def follow(self, path: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The true path [T,2] -> the believed one [T,2], right at the first position."""
        moved = torch.diff(path, dim=0, prepend=path[:1])
        noise = torch.randn(path.shape, generator=generator, dtype=path.dtype)
        wrong = torch.cumsum(self.error * moved.norm(dim=-1, keepdim=True).sqrt() * noise, 0)
        share = (path - self.low) / self.size
        corrected = (share < self.reach) | (share > 1.0 - self.reach)
        corrected[0] = True
        # What has been wrong since the last correction: the last one's number, per axis.
        at = torch.arange(len(path)).unsqueeze(1)
        last = torch.where(corrected, at, torch.zeros_like(at)).cummax(0).values
        return path + wrong - wrong.gather(0, last)
