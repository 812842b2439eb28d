"""The HDF5 under a NIR file: groups as dictionaries, in this process only where the bytes are known to be whole.

The HDF5 library trusts what it reads: a few changed bytes can end the process that opens the file. So what is written here
ends with a seal, SHA-256 of all bytes before it behind a mark (HDF5 reads nothing after its own end, and drops the seal when
it changes the file). A file whose seal holds is opened here, one whose seal is broken not at all, and one without by a child
process, which hands the data over, or ends alone. The seal tells of damage, not of intent: whoever means harm can seal too.

    python -m neuro.nir_hdf5 FILE      is that child: npz on its standard output, or a complaint as JSON and exit code 3
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from neuro.errors import FormatError, NeuroError
from neuro.extras import require

AGAIN = "Give a file that nir.write wrote."
DEPTH = 16  # of nested graphs
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_MARK = b"neuroNIR"
_SEAL = len(_MARK) + hashlib.sha256().digest_size
_END = {0: 40, 1: 44, 2: 28, 3: 28}  # where each version of the superblock says how long the file is
SECONDS = 30.0
_SAID_NO = 3
_CHILD = ("-P", "-m", "neuro.nir_hdf5")


def seal(path: Path) -> None:
    """Append the seal to a finished file."""
    digest = hashlib.sha256(path.read_bytes()).digest()
    with open(path, "ab") as file:
        file.write(_MARK + digest)


def is_hdf5(path: str | Path) -> bool:
    """Whether the file begins as HDF5 does."""
    with open(path, "rb") as file:
        return file.read(len(_SIGNATURE)) == _SIGNATURE


def load(path: str | Path) -> dict[str, Any]:
    """The group ``node`` of a file: dictionaries of dictionaries, arrays, numbers and texts.

    Raises:
        FormatError: not HDF5, truncated, damaged, or without that group.
        NeuroError: the process that reads it cannot.
    """
    data = Path(path).read_bytes() if Path(path).is_file() else b""
    if not data.startswith(_SIGNATURE):
        raise FormatError(f"{path}: not a NIR file: it is no HDF5.", AGAIN)
    at = _END.get(data[len(_SIGNATURE)] if len(data) > len(_SIGNATURE) else 0)
    if at is None or len(data) < at + 8 or int.from_bytes(data[at : at + 8], "little") > len(data):
        raise FormatError(f"{path}: truncated or damaged (shorter than it says).", AGAIN)
    body, end = data[:-_SEAL], data[-_SEAL:]
    if not end.startswith(_MARK):
        return _read_apart(str(path))
    if end != _MARK + hashlib.sha256(body).digest():
        raise FormatError(f"{path}: truncated or damaged (it is not what was written).", AGAIN)
    return _read(str(path))


def _read_apart(path: str) -> dict[str, Any]:
    """`_read` in a child process."""
    homes = {str(Path(str(file)).parents[1]) for file in (require("h5py", "nir").__file__, np.__file__, __file__)}
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sorted(homes))}
    command = [sys.executable, *_CHILD, path]
    try:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise FormatError(f"{path}: truncated or damaged (no end after {SECONDS:g} s).", AGAIN) from error
    if done.returncode == _SAID_NO:
        raise FormatError(*json.loads(done.stdout))
    if done.returncode == 1:  # Python's own, of a traceback: nothing is said about the file
        why = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise NeuroError(f"{path}: the process that reads it failed ({why}).", "Repair the installation: neuro doctor")
    if done.returncode:
        raise FormatError(f"{path}: truncated or damaged (the HDF5 library failed on it).", AGAIN)
    with np.load(io.BytesIO(done.stdout), allow_pickle=False) as packed:
        return _unpack(json.loads(str(packed["tree"])), packed)


def _read(path: str) -> dict[str, Any]:
    h5py: Any = require("h5py", "nir")
    try:
        with h5py.File(path, "r") as file:
            if not isinstance(file.get("node", getlink=True), h5py.HardLink) or "type" not in file["node"]:
                raise FormatError(f"{path}: not a NIR file: an HDF5 without a NIR node.", AGAIN)
            return _plain(h5py, file["node"], path, set(), 2 * DEPTH)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError) as error:
        raise FormatError(f"{path}: truncated or damaged ({error}).", AGAIN) from error


def _plain(h5py: Any, group: Any, where: str, seen: set[Any], depth: int) -> dict[str, Any]:
    """A group as plain data; nothing outside the file is followed, no group twice."""
    if depth == 0 or group in seen:
        got = "groups nested too deep" if depth == 0 else f"the group '{group.name}' in two places"
        raise FormatError(f"{where}: got {got}.", "Flatten the graph, and copy what is shared.")
    seen.add(group)
    found: dict[str, Any] = {}
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise FormatError(
                f"{where}: got a link '{name}' out of its place, expected data.", "Copy what it points to."
            )
        item = group[name]
        if isinstance(item, h5py.Group):
            found[name] = _plain(h5py, item, where, seen, depth - 1)
        elif not isinstance(item, h5py.Dataset) or item.external or item.is_virtual:
            raise FormatError(f"{where}: got '{name}', whose data are not in this file.", "Copy them into it.")
        else:
            found[name] = _texts(item[()])
    return found


def _texts(value: Any) -> Any:
    """Texts as such, and not as bytes or objects."""
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, np.ndarray) and value.dtype.kind in "OS":
        flat = [item.decode("utf-8") if isinstance(item, bytes) else str(item) for item in value.ravel()]
        return np.array(flat, dtype=np.str_).reshape(value.shape)
    return value


def _pack(record: dict[str, Any]) -> bytes:
    """npz of the arrays, and "tree": JSON with their numbers in their places."""
    arrays: list[np.ndarray] = []

    def tree(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: tree(value) for key, value in item.items()}
        if isinstance(item, str):
            return item
        arrays.append(np.asarray(item))
        return len(arrays) - 1

    shape = json.dumps(tree(record))
    out = io.BytesIO()
    np.savez(out, allow_pickle=False, tree=np.array(shape), **{str(i): array for i, array in enumerate(arrays)})
    return out.getvalue()


def _unpack(item: Any, arrays: Any) -> Any:
    if isinstance(item, dict):
        return {key: _unpack(value, arrays) for key, value in item.items()}
    return item if isinstance(item, str) else arrays[str(item)][()]


def _main(path: str) -> int:
    try:
        sys.stdout.buffer.write(_pack(_read(path)))
        return 0
    except FormatError as error:
        sys.stdout.buffer.write(json.dumps([error.what, error.do]).encode())
        return _SAID_NO


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1]))
