"""Values into spikes: rate, latency, delta, population, and integers as that many spikes. Time is the first axis, T steps.

    rate         s_t = 1 with probability x
    latency      one spike at step round((1 - x) (T - 1)): the larger, the earlier; none where x <= 0
    delta        a reference follows the signal in steps of ``threshold``; a spike up or down for every step it takes
    population   unit m answers exp(-(x - c_m)^2 / (2 width^2)), to be given to rate or latency
    counts       n spikes spread evenly over T steps: one where floor((t + 1) n / T) exceeds floor(t n / T)

Sources: latency, Thorpe et al. 2001, doi:10.1016/S0893-6080(01)00083-1; delta, Corradi and Indiveri 2015,
doi:10.1109/TBCAS.2015.2479256; population, Bohte et al. 2002, doi:10.1016/S0925-2312(01)00658-0. None has a gradient.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from neuro.errors import UsageError


def rate(x: Tensor, steps: int, generator: torch.Generator) -> Tensor:
    """Probabilities [...] -> Bernoulli spikes [T,...] of the same type, drawn with ``generator``.

    Raises:
        UsageError: a value outside 0 to 1, no step, or no generator.
    """
    _check("rate", x, steps)
    if not isinstance(generator, torch.Generator):
        raise UsageError(
            f"rate generator: got {type(generator).__name__}, expected a torch.Generator.",
            "Give torch.Generator().manual_seed(0).",
        )
    drawn = torch.rand(steps, *x.shape, generator=generator, dtype=x.dtype, device=x.device)
    return (drawn < x).to(x.dtype)


def latency(x: Tensor, steps: int) -> Tensor:
    """Intensities [...] from 0 to 1 -> [T,...] with one spike each, none where 0.

    Raises:
        UsageError: a value outside 0 to 1, or no step.
    """
    _check("latency", x, steps)
    when = ((1.0 - x) * (steps - 1)).round()
    times = torch.arange(steps, device=x.device, dtype=x.dtype).reshape(-1, *[1] * x.dim())
    return ((times == when) & (x > 0)).to(x.dtype)


def delta(signal: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """A signal [T,...] -> (up [T,...], down [T,...]), counts of steps of ``threshold``; the reference starts at signal[0].

    `neuro.neurons.decoders.delta` gives the signal back to within ``threshold``.

    Raises:
        UsageError: a threshold that is not above 0, a signal with NaN or infinity, or one without a step.
    """
    if not 0.0 < threshold < math.inf:
        raise UsageError(f"delta threshold: got {threshold}, expected more than 0.", "Give the step of the reference.")
    if not len(signal):
        raise UsageError("delta: got no step of the signal, expected [T,...] with T >= 1.", "Give at least one step.")
    if not bool(signal.isfinite().all()):
        raise UsageError("delta: got NaN or infinity in the signal, expected numbers.", "Clean the signal first.")
    # Rounded towards where the reference stands, so that it never overshoots the signal.
    level, moves = torch.zeros_like(signal[0]), []
    for value in ((signal - signal[0]) / threshold).unbind(0):
        move = (value - level).trunc()
        level = level + move
        moves.append(move)
    moved = torch.stack(moves)
    return moved.clamp(min=0), (-moved).clamp(min=0)


def population(x: Tensor, centres: Tensor, width: float) -> Tensor:
    """Values [...] -> the answers [...,M] of Gaussian units at ``centres`` [M], 0 to 1.

    Raises:
        UsageError: a width that is not above 0.
    """
    if not 0.0 < width < math.inf:
        raise UsageError(f"population width: got {width}, expected more than 0.", "Give it in the unit of the values.")
    return torch.exp(-((x.unsqueeze(-1) - centres) ** 2) / (2.0 * width * width))


def counts(n: Tensor, steps: int) -> Tensor:
    """Whole numbers [...] from 0 to T -> [T,...] of 0 and 1 in the default type; the spikes of each add up to it.

    Raises:
        UsageError: not whole, negative, or more than there are steps.
    """
    _check_steps("counts", steps)
    if n.is_floating_point() and not bool((n == n.round()).all()):
        raise UsageError("counts: got fractions, expected whole numbers.", "Round them first.")
    if n.numel() and not 0 <= int(n.min()) <= int(n.max()) <= steps:
        got = f"{int(n.min())} to {int(n.max())}"
        raise UsageError(f"counts: got {got}, expected 0 to {steps}.", "A step holds one spike: take more steps.")
    t = torch.arange(steps + 1, device=n.device).reshape(-1, *[1] * n.dim())
    passed = torch.div(t * n.long(), steps, rounding_mode="floor")
    return passed.diff(dim=0).to(torch.get_default_dtype())


def _check(where: str, x: Tensor, steps: int) -> None:
    _check_steps(where, steps)
    if not x.is_floating_point():
        raise UsageError(f"{where}: got values of {x.dtype}, expected floating point.", "Scale them to 0..1.")
    if x.numel() and not bool(((x >= 0) & (x <= 1)).all()):
        raise UsageError(
            f"{where}: got values from {float(x.min()):g} to {float(x.max()):g}, expected 0 to 1.",
            "Scale them to 0..1.",
        )


def _check_steps(where: str, steps: int) -> None:
    if steps < 1:
        raise UsageError(f"{where} steps: got {steps}, expected at least 1.", "Give the number of time steps.")
