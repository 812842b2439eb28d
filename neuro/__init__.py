"""neuro: a hybrid ANN-SNN brain model for language that learns while it runs.

    brain = neuro.load("small")
    state = brain.init_state(batch=1)
    out = brain.scan(tokens, state)
    state, events = brain.commit(out.state)

Importing this package does not import torch; the first `load` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from neuro.brain import Brain

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(model: str | Path = "small", backend: str = "auto", **options: Any) -> Brain:
    """Load a shipped model or a model folder; see `neuro.folder.load`."""
    from neuro import folder

    return folder.load(model, backend, **options)
