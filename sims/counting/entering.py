"""How submodules say when they run: methods of the instance in front of those of its class.

Hooks would send torch's own modules down another path. The methods go when the counted module is put back as it was
(`sims.counting.untouched`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from neuro.errors import UsageError
from sims.counting import owned
from sims.counting.tags import BINARY, GRADED

if TYPE_CHECKING:
    from sims.counting.counter import Counting

Method = Callable[..., Any]


def shadow(c: Counting) -> None:
    """Have every submodule tell.

    Raises:
        UsageError: one is compiled.
    """
    for path, part in c.paths.items():
        held = vars(part)
        if hasattr(part, "_orig_mod"):
            raise UsageError(
                f"count: got '{path or type(part).__name__}' compiled, expected plain modules.",
                "Count the module before torch.compile; a compiled graph hides its operators.",
            )
        if isinstance(part, torch.jit.ScriptModule):
            continue  # it does not take a method; its operators are seen
        whole = owned.whole(part)
        for name in owned.methods(part):
            method = getattr(part, name)
            held[name] = _step(c, path, part, method) if whole is None else _whole(c, path, part, method, whole)
        if owned.has_operators(part):
            held["ops"] = owned.counted(held["ops"], c)


def _step(c: Counting, path: str, part: nn.Module, method: Method) -> Method:
    """A submodule whose operators are counted one by one."""
    declared, tell = c.signals.get(path), owned.after(part)
    spiking = owned.spikes(part) or declared in (BINARY, GRADED)
    updates = spiking and not any(True for child in part.children() for _ in child.parameters())
    covers = updates and all(weight.dim() < 2 for weight in part.parameters())
    places, ran = c.places, c.ran

    def told(args: Any, out: Any) -> None:
        if tell is not None:
            tell(c, part, args, out)
        if declared is not None:
            owned.declared(c, path, part, declared, args, out)

    def run(*args: Any, **kwargs: Any) -> Any:
        if c.quiet or (path and places[-1] == path):
            return method(*args, **kwargs)
        ran.add(path)
        places.append(path)
        c.updating += updates
        c.covering += covers
        try:
            out = method(*args, **kwargs)
            if tell is not None or declared is not None:
                c.unseen(told, args, out)
            return out
        finally:
            places.pop()
            c.updating -= updates
            c.covering -= covers

    return run


def _whole(c: Counting, path: str, part: nn.Module, method: Method, tell: owned.Whole) -> Method:
    """A submodule that runs unseen and is counted by what it was given and gave."""
    declared = c.signals.get(path)
    places, ran, blind = c.places, c.ran, torch._C._DisableTorchDispatch

    def run(*args: Any, **kwargs: Any) -> Any:
        if c.quiet or (path and places[-1] == path):
            return method(*args, **kwargs)
        ran.add(path)
        places.append(path)
        c.quiet += 1
        try:
            with blind():
                out = method(*args, **kwargs)
                given = args or tuple(kwargs.values())
                tell(c, part, given, out)
                if declared is not None:
                    owned.declared(c, path, part, declared, given, out)
            return out
        finally:
            places.pop()
            c.quiet -= 1

    return run
