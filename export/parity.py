"""Does the export say what torch says? Both run side by side with carried state, through commits.

Axes: B batch, T tokens, V vocabulary, S spiking layers.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import torch

from export.ports import INTO
from export.runtime import Runtime
from neuro import accounting
from neuro.brain import Brain
from neuro.state import BrainState, leaves

TOKENS = 128


@dataclasses.dataclass(frozen=True)
class Parity:
    """Differences over ``tokens`` tokens of ``batch`` streams, commits included.

    The two maxima leave out tokens after which `measure` realigned.
    """

    batch: int
    tokens: int
    commits: int
    logits_max_abs: float
    state_max_abs: float
    top1_agreement: float  # share of tokens with the same likeliest next token
    divergence: (
        float  # mean over tokens of KL(torch || export) of the next token, nats; says more than the loss of few tokens
    )
    spike_rate: float  # spikes per neuron and token, in torch
    spike_mismatch: float  # summed difference of the spike counts per layer and token, per neuron and token
    spike_flips: int  # the same sum, not divided
    realigned: int  # tokens after which torch's state replaced the export's

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@torch.no_grad()
def measure(brain: Brain, runtime: Runtime, tokens: np.ndarray, realign: bool = False) -> Parity:
    """Feed the same tokens [B,T] to both, commit at span ends and once more at the end.

    Args:
        realign: after a token whose spike counts differ, put torch's state into the export. A membrane potential within
            rounding of the threshold may fall on either side; so it counts as one flip and not as everything after it.
    """
    batch, length = tokens.shape
    brain.eval()
    state = brain.init_state(batch)
    runtime.reset(batch)
    logits_gap = state_gap = divergence = 0.0
    agreed = commits = flips = spikes = realigned = 0
    for t in range(length):
        out = brain.step(torch.from_numpy(tokens[:, t]).to(brain.embedding.device), state)
        expected, got = out.logits.cpu().numpy(), runtime.step(tokens[:, t])
        state = out.state
        if brain.remaining(state) == 0:
            state, commits = brain.commit(state)[0], commits + 1
        counts = out.events.spikes[:, 0].cpu().numpy()
        flipped = int(np.abs(counts - runtime.spikes).sum())
        flips, spikes = flips + flipped, spikes + int(counts.sum())
        agreed += int((got.argmax(1) == expected.argmax(1)).sum())
        divergence += _divergence(expected, got)
        if flipped and realign:
            runtime.state = {f"{INTO}{path}": leaf.cpu().numpy() for path, leaf in leaves(state)}
            realigned += 1
        else:
            logits_gap = max(logits_gap, _gap(got, expected))
            state_gap = max(state_gap, _state_gap(state, runtime))
    state = brain.commit(state)[0]
    runtime.commit()
    neurons = sum(emitter.channels * emitter.neurons for emitter in accounting.emitters(brain))
    updates = max(1, neurons * batch * length)
    return Parity(
        batch=batch,
        tokens=length,
        commits=commits + 1,
        logits_max_abs=logits_gap,
        state_max_abs=max(state_gap, _state_gap(state, runtime)),
        top1_agreement=agreed / (batch * length),
        divergence=divergence / (batch * length),
        spike_rate=spikes / updates,
        spike_mismatch=flips / updates,
        spike_flips=flips,
        realigned=realigned,
    )


def stream_nats(runtime: Runtime, ids: list[int]) -> float:
    """Total nats of ids[1:] in one fresh stream, with commits at span ends: exp(nats / words) is the word perplexity."""
    runtime.reset(1)
    return sum(nats_of(runtime.step([now]), np.array([after])) for now, after in itertools.pairwise(ids))


def nats_of(logits: np.ndarray, following: np.ndarray) -> float:
    """Negative log-likelihood of the ids ``following`` [B] under logits [B,V], summed over the batch."""
    return -float(np.take_along_axis(_log_softmax(logits), following[:, None], 1).sum())


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    wide = logits.astype(np.float64)
    wide -= wide.max(1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(1, keepdims=True))


def _divergence(expected: np.ndarray, got: np.ndarray) -> float:
    """KL(expected || got) in nats, summed over the batch; infinite where a logit is not a number."""
    p, q = _log_softmax(expected), _log_softmax(got)
    total = float((np.exp(p) * (p - q)).sum())
    return total if np.isfinite(total) else float("inf")


def _state_gap(state: BrainState, runtime: Runtime) -> float:
    return max(_gap(runtime.state[INTO + path], leaf.cpu().numpy()) for path, leaf in leaves(state))


def _gap(a: np.ndarray, b: np.ndarray) -> float:
    """The largest absolute difference; infinite where shapes differ or a value is not a number."""
    if a.shape != b.shape:
        return float("inf")
    gaps = np.nan_to_num(np.abs(a.astype(np.float64) - b), nan=np.inf)
    return float(gaps.max()) if gaps.size else 0.0
