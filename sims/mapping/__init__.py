"""Networks onto chips: a legal place for every neuron, few packets and hops, and an independent check of it."""

from __future__ import annotations

from sims.mapping.network import Conv2d, Dense, Group, Network, Sparse, from_populations
from sims.mapping.place import Part, Placement, Traffic, place, split, traffic

__all__ = [
    "Conv2d",
    "Dense",
    "Group",
    "Network",
    "Part",
    "Placement",
    "Sparse",
    "Traffic",
    "from_populations",
    "place",
    "split",
    "traffic",
]
