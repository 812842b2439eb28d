"""The three sibling packages have generic names; this checks that the ones Python would import lie beside this one."""

from __future__ import annotations

import importlib.util
from importlib import metadata
from pathlib import Path

from neuro.errors import MissingError

SIBLINGS = ("backends", "export", "sims")
DISTRIBUTION = "neuro-hybrid"


def origins() -> dict[str, str]:
    """Where each of the four packages would be imported from; '' when it is not found. Imports none of them."""
    found = {"neuro": str(Path(__file__).parent)}
    for name in SIBLINGS:
        try:
            spec = importlib.util.find_spec(name)
        except ValueError:  # a module put into sys.modules by hand has no spec
            spec = None
        places = list(spec.submodule_search_locations or []) if spec else []
        found[name] = str(places[0]) if places else (spec.origin or "" if spec else "")
    return found


def check(*names: str) -> None:
    """Refuse to go on with somebody else's package of the same name.

    Args:
        names: the siblings to look at; none means all.

    Raises:
        MissingError: a sibling is absent or hidden; names what hides it.
    """
    home = Path(__file__).resolve().parent.parent
    for name, origin in origins().items():
        if names and name not in names:
            continue
        if not origin:
            raise MissingError(f"neuro: its package '{name}' is not installed.", "Install neuro-hybrid again, whole.")
        # The whole path is compared, not the parent: a file export.py in the right folder is not our package either.
        if Path(origin).resolve() != (home / name).resolve():
            raise MissingError(
                f"neuro: '{name}' would come from {origin}, expected it beside {home / 'neuro'}.",
                f"Remove or rename what hides it; another distribution also calls itself '{name}'.",
            )


def rivals() -> dict[str, list[str]]:
    """Other installed distributions that bring a package of a sibling's name, and so overwrite files of ours unseen.

    `check` cannot see this: the files lie in the right folder. Reads every installed distribution's metadata, so it
    is for `neuro doctor` only.
    """
    owners = metadata.packages_distributions()
    found = {name: sorted(set(owners.get(name, [])) - {DISTRIBUTION}) for name in ("neuro", *SIBLINGS)}
    return {name: others for name, others in found.items() if others}
