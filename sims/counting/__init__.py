"""Counting what a torch module does: operators as they run, exact integers, declared signals.

The only part of sims that needs torch.
"""

from sims.counting.counter import Counting
from sims.counting.run import count

__all__ = ["Counting", "count"]
