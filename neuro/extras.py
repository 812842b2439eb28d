"""Optional packages: what each extra is for, and the error that says how to get one."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from neuro.errors import MissingError

_SERVICE = "nothing yet: reserved for an HTTP service"
# extra -> package to look for -> what is missing without it
EXTRAS = {
    "hf": {"transformers": "no from_pretrained/generate()", "datasets": "no training on Hugging Face datasets"},
    "adapter": {"peft": "no low-rank updates in a HippocampalAdapter"},
    "plots": {"matplotlib": "no loss curve and no spike pictures"},
    "snn": {"snntorch": "no from_snntorch/to_snntorch"},
    "norse": {"norse": "no from_norse/to_norse"},
    "numba": {"numba": "spiking layers run as torch operators where the C++ library was not built"},
    "nir": {"nir": "no NIR graphs written", "h5py": "no NIR graphs read"},
    "sims": {"brian2": "no comparison of simulated networks with Brian2"},
    "audio": {"librosa": "no pitch from recorded speech"},
    "directml": {"torch_directml": "no DirectML backend (Windows, WSL)"},
    "harness": {"lm_eval": "no run under the evaluation harness (examples/harness.py)"},
    "serve": {"fastapi": _SERVICE, "uvicorn": _SERVICE},
    "dev": {
        "pytest": "no tests",
        "ruff": "no lint",
        "mypy": "no type check",
        "importlinter": "no check of the imports",
    },
}


def installed(package: str) -> bool:
    """Whether a package could be imported, without importing it (torch_directml, for one, may crash the process)."""
    try:
        spec = importlib.util.find_spec(package)
    except ValueError:  # a module put into sys.modules by hand has no spec
        return False
    # Any folder on the path, such as one called datasets/, passes for a package without an origin.
    return spec is not None and spec.origin is not None


def require(module: str, extra: str) -> ModuleType:
    """Import an optional package.

    Raises:
        MissingError: it is not installed; names the extra that brings it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingError(
            f"this needs the package {module} ({error}).", f"pip install 'neuro-hybrid[{extra}]'"
        ) from error
