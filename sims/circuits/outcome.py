"""What a run of a circuit is, and Brian2 as the circuits use it."""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple

import numpy as np

from neuro.extras import require


class Outcome(NamedTuple):
    """One run of one circuit.

    Args:
        statistics: value of each statistic that `reference.toml` lists; nan where it is undefined.
        curves: what its picture draws (`neuro.plots.circuits`).
    """

    statistics: dict[str, float]
    curves: dict[str, np.ndarray]


def brian(seed: int) -> ModuleType:
    """Brian2 with its numpy code (no compiler) and its random numbers seeded.

    It draws for its groups in the order of their names, and the names it gives depend on what else lives: name the groups
    of a circuit where two of them are noisy.

    Raises:
        MissingError: brian2 is not installed.
    """
    brian2 = require("brian2", "sims")
    brian2.prefs.codegen.target = "numpy"
    brian2.seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
    return brian2
