"""The three sibling packages have generic names; this checks that the ones Python would import lie beside this one."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from neuro.errors import MissingError

SIBLINGS = ("backends", "export", "sims")


def origins() -> dict[str, str]:
    """Where each of the four packages would be imported from; '' when it is not found. Imports none of them."""
    found = {"neuro": str(Path(__file__).parent)}
    for name in SIBLINGS:
        spec = importlib.util.find_spec(name)
        places = list(spec.submodule_search_locations or []) if spec else []
        found[name] = str(places[0]) if places else (spec.origin or "" if spec else "")
    return found


def check() -> None:
    """Refuse to go on with somebody else's package of the same name.

    Raises:
        MissingError: a sibling is absent or hidden; names what hides it.
    """
    home = Path(__file__).resolve().parent.parent
    for name, origin in origins().items():
        if not origin:
            raise MissingError(f"neuro: its package '{name}' is not installed.", "Install neuro-hybrid again, whole.")
        if Path(origin).resolve().parent != home:
            raise MissingError(
                f"neuro: '{name}' would come from {origin}, expected it beside {home / 'neuro'}.",
                f"Remove or rename what hides it; another distribution also calls itself '{name}'.",
            )
