"""Examples of recall tasks for training: every row of a window is one example, a stream that starts afresh.

Drawn without end and never twice; a window holds one part of the mixture, chosen by weight.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from neuro import tasks
from neuro.brain import Brain
from neuro.errors import FormatError
from neuro.evaluate import recall
from neuro.train.streams import Window

HELD_OUT = 1  # beside the seed: examples that training never draws


class Examples:
    """``batch`` examples a window, resumable to the example.

    Args:
        source: as `neuro.tasks.parse` reads it.
        vocab: size of the vocabulary.
        batch: rows of a window.
        seed: of every draw.

    Raises:
        UsageError: a source that does not parse.
    """

    def __init__(self, source: str, vocab: int, batch: int, seed: int) -> None:
        self.source, self.vocab, self.batch = source, vocab, batch
        self.tasks = tasks.parse(source, vocab)
        weights = np.array([task.weight for task in self.tasks], dtype=float)
        self.chances = weights / weights.sum()
        self.random = np.random.default_rng(seed)

    def window(self, spans: int) -> Window:
        """The next examples; their length is the task's, whatever ``spans`` asks for."""
        task = self.tasks[self.random.choice(len(self.tasks), p=self.chances)]
        rows = task.rows(self.random, self.batch, self.vocab)
        return Window(rows.tokens, np.ones(self.batch, bool), rows.scored)

    def state(self) -> dict[str, Any]:
        """JSON-able position; `restore` continues from it exactly."""
        return {"task": self.source, "random": self.random.bit_generator.state}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a position.

        Raises:
            FormatError: it is a position in another task.
        """
        if state.get("task") != self.source:
            raise FormatError("examples: the task is not the one this run began with.", "Set data.train back.")
        self.random.bit_generator.state = state["random"]


def held_out_answers(brain: Brain, source: str, most: int, seed: int) -> dict[str, float]:
    """Mean surprise and accuracy at the answers of about ``most`` tokens of held-out examples, memory on; pure.

    Every part of a mixture counts alike, whatever its weight.
    """
    parts = tasks.parse(source, brain.config.vocab_size)
    nats, accuracy = 0.0, 0.0
    for index, task in enumerate(parts):
        rows = max(1, most // len(parts) // task.length)
        found = recall.answer(
            brain, task.rows(np.random.default_rng([HELD_OUT, seed, index]), rows, brain.config.vocab_size)
        )
        nats += float(found.nats.mean()) / len(parts)
        accuracy += float(found.right.float().mean()) / len(parts)
    return {"valid_nats": nats, "valid_accuracy": accuracy}
