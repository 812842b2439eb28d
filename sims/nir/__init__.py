"""NIR graphs run step by step and counted, without torch."""

from sims.nir.counting import count
from sims.nir.simulate import run, steps

__all__ = ["count", "run", "steps"]
