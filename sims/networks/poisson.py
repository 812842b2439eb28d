"""External spikes: a Poisson count for every neuron and step, the same in numpy and in C++, whatever the order of asking.

Random words are Philox4x32-10 of (neuron, step) under a key (Salmon et al. 2011, doi:10.1145/2063384.2063405). A count is
how many of the cumulative probabilities, in units of 2^-32, the word reaches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sims.networks.synapses import Array

STRIP = 64  # neurons that share a block of counters: kStrip of network.cpp
_LANES = STRIP // 4
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)


@dataclass(frozen=True)
class Drive:
    """Independent Poisson spikes into every neuron.

    Args:
        mean: spikes per neuron and step.
        key: of the random numbers, 64 bits.
        base: the least count that a random word can give.
        cumulative: uint32, ascending: each that the word reaches adds one to the count.
    """

    mean: float
    key: int
    base: int
    cumulative: Array

    def counts(self, neurons: int, step: int) -> Array:
        """int64 [neurons] of one step."""
        strips = -(-neurons // STRIP)
        lane = np.arange(strips * _LANES, dtype=np.uint64)
        counter = [lane, np.full_like(lane, step & 0xFFFFFFFF), np.full_like(lane, step >> 32), np.zeros_like(lane)]
        words = np.stack(philox(counter, self.key))  # [4, strips * lanes]: word w of lane c is neuron w * lanes + c
        words = words.reshape(4, strips, _LANES).transpose(1, 0, 2).reshape(-1)[:neurons]
        return self.base + np.searchsorted(self.cumulative, words.astype(np.uint32), side="right")


def drive(mean: float, seed: int) -> Drive:
    """The drive of that many spikes per neuron and step; every seed has its own key."""
    top = int(mean + 12 * math.sqrt(mean) + 24)
    logs = [k * math.log(mean) - mean - math.lgamma(k + 1) for k in range(top)] if mean > 0 else [0.0]
    reached = np.minimum(np.cumsum(np.exp(logs)), 1.0) * 2.0**32
    words = np.rint(reached).astype(np.uint64)
    words = words[words <= _LOW]
    key = int(np.random.SeedSequence([seed, 2]).generate_state(1, np.uint64)[0])
    return Drive(mean, key, int((words == 0).sum()), words[words > 0].astype(np.uint32))


def philox(counter: list[Array], key: int) -> list[Array]:
    """Four words (uint64 holding 32 bits) of counters of four such words."""
    x0, x1, x2, x3 = counter
    k0, k1 = np.uint64(key & 0xFFFFFFFF), np.uint64(key >> 32)
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * x0, np.uint64(0xCD9E8D57) * x2
        x0, x1, x2, x3 = (p1 >> _SHIFT) ^ x1 ^ k0, p1 & _LOW, (p0 >> _SHIFT) ^ x3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & _LOW, (k1 + np.uint64(0xBB67AE85)) & _LOW
    return [x0, x1, x2, x3]
