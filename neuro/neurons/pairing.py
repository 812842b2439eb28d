"""The pairing experiments that STDP rules are held against: trains of spike pairs, measured changes, misfits.

Data: Sjostrom, Turrigiano and Nelson 2001, doi:10.1016/S0896-6273(01)00542-6, as Pfister and Gerstner 2006,
doi:10.1523/JNEUROSCI.1425-06.2006, give them in table 1 and bring them to a model: 60 pairs at one frequency and one lag.
differs: the recordings had bursts of five pairs at 10 Hz and above.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from backends import Ops, native
from neuro.errors import UsageError
from neuro.neurons.stdp import Stdp


class PairingData(NamedTuple):
    """Relative change of a synapse and its standard error, by pairing frequency and lag (post - pre)."""

    frequencies_hz: tuple[float, ...]
    lags_ms: tuple[float, ...]
    changes: tuple[tuple[float, ...], ...]  # [lag][frequency]
    errors: tuple[tuple[float, ...], ...]


SJOSTROM = PairingData(
    (0.1, 10.0, 20.0, 40.0, 50.0),
    (10.0, -10.0),
    ((-0.04, 0.14, 0.29, 0.53, 0.56), (-0.29, -0.41, -0.34, 0.56, 0.75)),
    ((0.05, 0.10, 0.14, 0.11, 0.26), (0.08, 0.11, 0.10, 0.32, 0.19)),
)
"""Layer 5 of visual cortex."""


def pairing(
    frequency_hz: float, lags_ms: tuple[float, ...], pairs: int = 60, dt_ms: float = 1.0, longest_ms: float = 2000.0
) -> tuple[Tensor, Tensor]:
    """The pairing experiment, one stream a lag -> pre [T,B,1], post [T,B,1] in float64.

    Args:
        longest_ms: pairs further apart than this are brought as near; no trace reaches so far.

    Raises:
        UsageError: a frequency that is not positive, or pairs so close that two would share a step.
    """
    steps = [round(lag / dt_ms) for lag in lags_ms]
    if not 0.0 < frequency_hz * dt_ms <= 500.0:
        raise UsageError(
            f"pairing: got {frequency_hz:g} Hz in steps of {dt_ms:g} ms, expected pairs at least two steps apart.",
            "Give a positive frequency, or shorten the step.",
        )
    reach, period = max(map(abs, steps)), round(min(1000.0 / frequency_hz, longest_ms) / dt_ms)
    pre = torch.zeros(2 * reach + 1 + (pairs - 1) * period, len(steps), 1, dtype=torch.float64)
    post, at = torch.zeros_like(pre), reach + period * torch.arange(pairs)
    pre[at] = 1.0
    for stream, lag in enumerate(steps):
        post[at + lag, stream] = 1.0
    return pre, post


def pairing_changes(rule: Stdp, data: PairingData, ops: Ops = native.OPS) -> Tensor:
    """[lag, frequency]: what the rule makes of each experiment."""
    changes = []
    for frequency in data.frequencies_hz:
        pre, post = pairing(frequency, data.lags_ms, dt_ms=rule.dt_ms)
        state = rule.init_state(len(data.lags_ms), 1, 1, dtype=torch.float64)
        changes.append(rule.scan(pre, post, state, per_stream=True, ops=ops)[0].reshape(-1))
    return torch.stack(changes, 1)


def pairing_misfit(rule: Stdp, data: PairingData, ops: Ops = native.OPS) -> float:
    """Mean squared difference in standard errors: E of Pfister and Gerstner 2006."""
    off = pairing_changes(rule, data, ops) - torch.tensor(data.changes, dtype=torch.float64)
    return float((off / torch.tensor(data.errors, dtype=torch.float64)).square().mean())


def best_pair_rule(
    data: PairingData,
    taus_plus_ms: Sequence[float],
    taus_minus_ms: Sequence[float],
    nearest: bool = False,
    ops: Ops = native.OPS,
) -> tuple[Stdp, float]:
    """The pair rule that misfits the data least, and by how much: any of these time constants, amplitudes free."""
    errors = torch.tensor(data.errors, dtype=torch.float64)
    goal = (torch.tensor(data.changes, dtype=torch.float64) / errors).reshape(-1)

    def alone(a_plus: float, a_minus: float, tau_ms: float) -> Tensor:
        rule = Stdp(a_plus=a_plus, a_minus=a_minus, tau_plus_ms=tau_ms, tau_minus_ms=tau_ms, nearest=nearest)
        return (pairing_changes(rule, data, ops) / errors).reshape(-1)

    ups, downs = [alone(1.0, 0.0, tau) for tau in taus_plus_ms], [alone(0.0, 1.0, tau) for tau in taus_minus_ms]
    fits: list[tuple[float, Stdp]] = []
    for tau_plus, up in zip(taus_plus_ms, ups, strict=True):
        for tau_minus, down in zip(taus_minus_ms, downs, strict=True):
            both = torch.stack([up, down], 1)
            # Least squares with amplitudes >= 0: both free, or one of them zero.
            for free in ([0, 1], [0], [1]):
                found = torch.zeros(2, dtype=torch.float64)
                found[free] = torch.linalg.lstsq(both[:, free], goal.unsqueeze(1)).solution.squeeze(1)
                a_plus, a_minus = found.clamp_min(0.0).tolist()
                rule = Stdp(
                    a_plus=a_plus, a_minus=a_minus, tau_plus_ms=tau_plus, tau_minus_ms=tau_minus, nearest=nearest
                )
                fits.append((float((both @ found.clamp_min(0.0) - goal).square().mean()), rule))
    misfit, best = min(fits, key=lambda fit: fit[0])
    return best, misfit
