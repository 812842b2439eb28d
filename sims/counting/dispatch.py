"""Where operators are seen: between torch and its kernels, each run and then told to its rule.

What is asked of an operator at every call is found once for it: its rule, how it is run, whether it writes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sims.counting import movement, rules
from sims.counting.movement import Rule

if TYPE_CHECKING:
    from sims.counting.counter import Counting

_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd
_PLAIN, _ASKS, _APART, _UNKNOWN = range(4)  # ways to run an operator

Plan = tuple[Rule | None, Callable[..., Any], int, bool]


class Mode(TorchDispatchMode):
    """Every operator, while the counting is open.

    Args:
        include, exclude: dispatch keys as they are outside of the counting.
    """

    def __init__(self, counting: Counting, include: Any, exclude: Any) -> None:
        super().__init__()
        self.counting, self.include, self.exclude = counting, include, exclude

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # it would wrap every call; nothing is compiled while counting

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        plan = _PLANS.get(id(func))  # an operator lives as long as torch does; its own hash takes longer
        if plan is None:
            plan = _PLANS[id(func)] = _planned(func)
        rule, run, way, writes = plan
        counting = self.counting
        if way == _PLAIN:
            out = run(*args, **kwargs)
        elif way == _ASKS:  # as if nobody counted: torch looks at autograd to choose among its kernels
            with torch._C._ForceDispatchKeyGuard(self.include, self.exclude):
                out = run(*args, **kwargs)
        elif way == _APART:
            with self:
                return func._op_dk(_COMPOSITE, *args, **kwargs)
        else:
            counting.uncounted(func.name().partition(".")[0])
            return run(*args, **kwargs)
        if rule is not None:
            counting.func = func
            if writes:
                counting.tags.ahead = True
                try:
                    rule(counting, args, kwargs, out)
                finally:
                    counting.tags.ahead = False
            else:
                rule(counting, args, kwargs, out)
        return out


def _planned(func: Any) -> Plan:
    rule, writes = rules.find(func), rules.writes(func)
    run = getattr(func, "_op", func)  # past the Python of `OpOverload.__call__`
    if rule is None:
        return None, run, _APART if _taken_apart(func) else _UNKNOWN, writes
    if rule is movement.free and not writes and not rules.aliases(func):
        rule = None  # new values without a tag: nothing to tell
    return rule, run, _ASKS if rules.asks(func) else _PLAIN, writes


def _taken_apart(func: Any) -> bool:
    """Whether torch makes an operator of others, everywhere in the same way."""
    return hasattr(func, "_op_dk") and torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), _COMPOSITE)


_PLANS: dict[int, Plan] = {}
