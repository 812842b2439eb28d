"""What the counts of a small network cost: spikes on a chip, or multiply-accumulates on the reference CPU.

A lower bound of the spiking side: without a placement every spike is one message, however many cores its targets lie on.
"""

from __future__ import annotations

from sims.energy.price import Interval, Term, price
from sims.energy.technologies import technologies

CHIP, CPU = "loihi1", "cpu:e5-2630"


def spiking(synaptic_ops: int, updates: int, spikes: int, inputs: int, seed: int = 0) -> Interval:
    """Joules on `CHIP`. ``spikes`` of its neurons and ``inputs`` from outside each take a message."""
    counts = {"synaptic_op": synaptic_ops, "neuron_update": updates, "spike": spikes, "message": spikes + inputs}
    terms = [Term("network", "all", kind, count) for kind, count in counts.items()]
    return price(terms, technologies()[CHIP], seed).total


def dense(macs: int, seed: int = 0) -> Interval:
    """Joules on `CPU`."""
    return price([Term("network", "all", "mac", macs)], technologies()[CPU], seed).total
