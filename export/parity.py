"""Does the export say what torch says? Both run side by side with carried state, through commits.

Axes: B batch, T tokens, V vocabulary, S spiking layers.
"""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import torch

from export.latency import Decoder
from export.ports import INTO
from export.runtime import Runtime
from neuro import accounting
from neuro.brain import Brain
from neuro.state import BrainState, leaves

TOKENS = 128


@dataclasses.dataclass(frozen=True)
class Parity:
    """Differences over ``tokens`` tokens of ``batch`` streams, commits included.

    The four maxima leave out tokens after which `measure` realigned.
    """

    batch: int
    tokens: int
    commits: int
    logits_max_abs: float
    state_max_abs: float
    logits_relative: float  # the same over the largest logit of the token, where that is above 1
    state_relative: float  # the same over the leaf's largest value, where that is above 1: positions count to thousands
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
    logits_gap, state_gap, divergence = Gap(), Gap(), 0.0
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
        divergence += divergence_of(expected, got)
        if flipped and realign:
            runtime.state = {f"{INTO}{path}": leaf.cpu().numpy() for path, leaf in leaves(state)}
            realigned += 1
        else:
            logits_gap.add(got, expected)
            _add_state(state_gap, state, runtime)
    state = brain.commit(state)[0]
    runtime.commit()
    _add_state(state_gap, state, runtime)
    neurons = sum(emitter.channels * emitter.neurons for emitter in accounting.emitters(brain))
    updates = max(1, neurons * batch * length)
    return Parity(
        batch=batch,
        tokens=length,
        commits=commits + 1,
        logits_max_abs=logits_gap.absolute,
        state_max_abs=state_gap.absolute,
        logits_relative=logits_gap.relative,
        state_relative=state_gap.relative,
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


def divergence_of(expected: np.ndarray, got: np.ndarray) -> float:
    """KL(expected || got) in nats of logits [B,V], summed over the batch; infinite where a logit is not a number."""
    p, q = _log_softmax(expected), _log_softmax(got)
    total = float((np.exp(p) * (p - q)).sum())
    return total if np.isfinite(total) else float("inf")


@dataclasses.dataclass
class Gap:
    """The largest difference so far; infinite where shapes differ or a value is not a number."""

    absolute: float = 0.0
    relative: float = 0.0  # over the largest expected value, where that is above 1

    def add(self, got: np.ndarray, expected: np.ndarray) -> None:
        if got.shape != expected.shape:
            self.absolute = self.relative = float("inf")
        elif got.size:
            gap = float(np.nan_to_num(np.abs(got.astype(np.float64) - expected), nan=np.inf).max())
            self.absolute = max(self.absolute, gap)
            self.relative = max(self.relative, gap / max(1.0, float(np.abs(expected).max())))


def _add_state(gap: Gap, state: BrainState, runtime: Runtime) -> None:
    for path, leaf in leaves(state):
        gap.add(runtime.state[INTO + path], leaf.cpu().numpy())


def others(folder: Path, manifest: dict[str, Any], tokens: np.ndarray) -> dict[str, dict[str, float]]:
    """How far the prefill and the decoder, where there are, are from the step and the commit over tokens [T] -> by graph."""
    runtime, found = Runtime(folder), {}
    expected = np.concatenate([runtime.step([token]) for token in tokens])
    if "prefill" in manifest["graphs"]:
        gap = found["prefill"] = Gap()
        gap.add(Runtime(folder).feed(tokens[None])[0], expected)
    if "decoder" in manifest["graphs"]:
        decoder, gap = Decoder(folder, manifest), Gap()
        found["decoder"] = gap
        got = np.concatenate([decoder.step([token]) for token in tokens])
        got[:, manifest["never_written"]] = expected[:, manifest["never_written"]]
        gap.add(got, expected)
    return {name: dataclasses.asdict(gap) for name, gap in found.items()}
