"""Recordings: signals of a run streamed to a folder in constant memory, read back by steps or by milliseconds.

    with Recorder(folder, {"spikes": "spikes", "membrane": "values"}, dt_ms=1.0) as recorder:
        recorder.add({"spikes": spikes, "membrane": u})  # time first: [T, ...], of any length, again and again
    Recording(folder).read("spikes", 1000, 2000)

The folder holds ``index.json``, of constant size, and a chunk for every ``chunk_steps`` steps, the last one shorter:
``chunk-000000.npz`` and so on, each with the step it starts at and an array per signal. Chunk, then index, each whole or
not at all (`neuro.atomic`): whatever kills a run, the steps that the index counts are there. As an observer of a brain, a
recorder gets copies of the events: it cannot change what it records.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from neuro import atomic
from neuro.errors import FormatError, MissingError, UsageError, nearest

if TYPE_CHECKING:
    from neuro.brain import Brain
    from neuro.events import CommitEvents, Events

SCHEMA = "neuro.recording/1"
INDEX = "index.json"
CHUNK_STEPS = 1024
# What a signal may hold -> how it lies on disk: spikes 0 or 1, eight to a byte; counts 0 to 255; values as float32.
KINDS: dict[str, type[np.generic]] = {"spikes": np.uint8, "counts": np.uint8, "values": np.float32}
# The per-token events of a brain, and the last token before each commit.
EVENTS = {
    "raster": "spikes",
    "membrane": "values",
    "spikes": "values",
    "route": "values",
    "affect": "values",
    "salience": "values",
    "novelty": "values",
    "recall_gate": "values",
    "surprise": "values",
    "valid": "spikes",
    "commit": "spikes",
}


@dataclasses.dataclass(frozen=True)
class Signal:
    """What is recorded at each step: an array of ``shape`` of one of `KINDS`."""

    kind: str
    shape: tuple[int, ...]

    @property
    def row(self) -> tuple[int, ...]:
        """Shape of a step on disk."""
        return (-(-math.prod(self.shape) // 8),) if self.kind == "spikes" else self.shape

    def empty(self, steps: int) -> np.ndarray:
        """Room for ``steps`` steps as they lie on disk."""
        return np.empty((steps, *self.row), KINDS[self.kind])

    def encode(self, name: str, block: np.ndarray) -> np.ndarray:
        """[T, *shape] -> as it lies on disk.

        Raises:
            UsageError: a value that the kind cannot hold.
        """
        if self.kind == "values":
            return block.astype(np.float32, copy=False)  # copied into the chunk
        most = 1 if self.kind == "spikes" else 255
        with np.errstate(invalid="ignore"):
            whole = block.astype(np.uint8, copy=False)
        # What a byte cannot hold comes back as another number.
        if whole.max(initial=0) > most or (whole is not block and not np.array_equal(whole, block)):
            wrong = block[(whole != block) | (whole > most)].flat[0]
            raise UsageError(
                f"recorder: got {name} with {wrong:g}, expected {'0 or 1' if most == 1 else 'whole numbers 0 to 255'}.",
                "Declare it as 'values', which holds any number, or as 'counts', which holds several spikes a step.",
            )
        return np.packbits(whole.reshape(len(whole), math.prod(self.shape)), axis=1) if most == 1 else whole

    def decode(self, rows: np.ndarray) -> np.ndarray:
        """Back to [T, *shape]: uint8 of spikes and counts, float32 of values."""
        if self.kind != "spikes":
            return rows
        return np.unpackbits(rows, axis=1, count=math.prod(self.shape)).reshape(len(rows), *self.shape)


class Recorder:
    """Writes signals to a folder as they come; holds one chunk of ``chunk_steps`` steps in memory, whatever the length.

    Usable as a context manager, which flushes at its end, and as an observer of a brain (`for_brain`).

    Args:
        folder: new or empty; with ``resume``, also one that a recorder with the same arguments wrote to.
        signals: name -> kind, one of `KINDS`; the shape is that of the first block added.
        dt_ms: milliseconds of a step; None where a step is no time, such as a token.
        chunk_steps: steps of a chunk: what a kill may lose, and what is held in memory.
        resume: go on after the last step on disk (``saved``): add what follows it.
        about: anything JSON can hold, kept in the index, such as the names of populations.

    Raises:
        UsageError: an unknown kind, a bad name or number, a folder that is not empty, or another recording in it.
        FormatError: with ``resume``, a chunk that is missing or damaged.
        NeuroError: a folder that cannot be written to.
    """

    def __init__(
        self,
        folder: str | Path,
        signals: Mapping[str, str],
        dt_ms: float | None = None,
        chunk_steps: int = CHUNK_STEPS,
        resume: bool = False,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        _check_declaration(signals, dt_ms, chunk_steps)
        self.folder, self.kinds, self.dt_ms, self.chunk_steps = Path(folder), dict(signals), dt_ms, chunk_steps
        self.about = dict(about or {})
        self.saved = 0
        """Steps on disk: what a resumed run goes on from."""
        self._signals: dict[str, Signal] = {}
        self._buffers: dict[str, np.ndarray] = {}
        self._held = 0  # steps of the unfinished chunk; some of them may be on disk already
        if resume and (self.folder / INDEX).is_file():
            self._resume()
        elif self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise UsageError(
                f"recorder: got {self.folder}, which is not empty, expected an empty or a new folder.",
                "Give another folder; from Python, Recorder(..., resume=True) goes on with a recording of the same signals.",
            )
        atomic.refuse_unwritable(self.folder, as_folder=True)

    @property
    def steps(self) -> int:
        """Steps added, whether on disk or not."""
        return self.saved // self.chunk_steps * self.chunk_steps + self._held

    def add(self, block: Mapping[str, Any]) -> None:
        """Append T steps of every signal: tensors or arrays [T, ...], time first; copied, never kept.

        Raises:
            UsageError: a signal missing or unknown, another number of steps or another shape, or a value its kind cannot hold;
                nothing of the block is then recorded.
        """
        arrays = {name: _array(value) for name, value in block.items()}
        signals = self._fitting(arrays)
        rows = {name: signal.encode(name, arrays[name]) for name, signal in signals.items()}
        if not self._signals:
            self._begin(signals)
        start, length = 0, len(next(iter(rows.values())))
        while start < length:
            stop = min(length, start + self.chunk_steps - self._held)
            for name, source in rows.items():
                self._buffers[name][self._held : self._held + stop - start] = source[start:stop]
            self._held += stop - start
            start = stop
            if self._held == self.chunk_steps:
                self.flush()

    def flush(self) -> None:
        """Put everything added on disk; the last chunk stays open and is written again when it has grown."""
        steps = self.steps
        if steps == self.saved:
            return
        start = steps - self._held
        chunk = {name: buffer[: self._held] for name, buffer in self._buffers.items()}
        with atomic.replacing(_chunk_path(self.folder, start // self.chunk_steps)) as temporary:
            _write_chunk(temporary, {"start": np.array(start), **chunk})
        index = {
            "schema": SCHEMA,
            "steps": steps,
            "chunk_steps": self.chunk_steps,
            "dt_ms": self.dt_ms,
            "signals": {name: dataclasses.asdict(signal) for name, signal in self._signals.items()},
            "about": self.about,
        }
        atomic.write_text(self.folder / INDEX, json.dumps(index, indent=1) + "\n")
        self.saved, self._held = steps, self._held % self.chunk_steps

    def span(self, events: Sequence[Events], commit: CommitEvents) -> None:
        """Record one span of a brain's events: the declared of `EVENTS`, token first."""
        for number, event in enumerate(events):
            block: dict[str, Any] = {}
            for name in self.kinds:
                if name == "commit":
                    block[name] = np.zeros(event.valid.shape[1], np.uint8)
                    block[name][-1] = number == len(events) - 1
                else:
                    value = getattr(event, name, None)
                    if value is None:
                        raise UsageError(
                            f"recorder: got events without '{name}'.", "Make the recorder of a brain with for_brain."
                        )
                    block[name] = value.transpose(0, 1)
            self.add(block)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()

    def _fitting(self, arrays: dict[str, np.ndarray]) -> dict[str, Signal]:
        if set(arrays) != set(self.kinds):
            raise UsageError(
                f"recorder: got the signals {sorted(arrays)}, expected {sorted(self.kinds)}.",
                "Give every declared signal in every block, and no other.",
            )
        lengths = {name: len(array) if array.ndim else None for name, array in arrays.items()}
        if len(set(lengths.values())) > 1 or None in lengths.values():
            raise UsageError(
                f"recorder: got blocks of {lengths} steps, expected one number.",
                "Put time first, [T, ...], and give the same steps of every signal.",
            )
        found = {name: Signal(self.kinds[name], array.shape[1:]) for name, array in arrays.items()}
        for name, signal in self._signals.items():
            if found[name].shape != signal.shape:
                raise UsageError(
                    f"recorder: got {name} of shape {list(found[name].shape)} a step, expected {list(signal.shape)} as before.",
                    "Put time first, [T, ...]; record another network or batch in a folder of its own.",
                )
        return found

    def _begin(self, signals: dict[str, Signal]) -> None:
        self._signals = signals
        self._buffers = {name: signal.empty(self.chunk_steps) for name, signal in signals.items()}

    def _resume(self) -> None:
        before = Recording(self.folder)
        kinds = {name: signal.kind for name, signal in before.signals.items()}
        for what, got, expected in (
            ("signals", self.kinds, kinds),
            ("dt_ms", self.dt_ms, before.dt_ms),
            ("chunk_steps", self.chunk_steps, before.chunk_steps),
        ):
            if got != expected:
                raise UsageError(
                    f"recorder: got {what} {got}, expected {expected} as in {self.folder}.",
                    "Resume with what the recording began with, or record in another folder.",
                )
        before.check_present()
        self._begin(before.signals)
        self.saved, self.about = before.steps, self.about or before.about
        self._held = self.saved % self.chunk_steps
        if self._held:
            for name in self.kinds:
                self._buffers[name][: self._held] = before.rows(self.saved // self.chunk_steps, name)


class Recording:
    """A folder that a `Recorder` wrote, as far as its index goes; nothing is read before it is asked for.

    Raises:
        MissingError: no index in the folder.
        FormatError: an index that is damaged, foreign or of another version.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        index = _read_index(self.folder / INDEX)
        self.steps: int = index["steps"]
        self.chunk_steps: int = index["chunk_steps"]
        self.dt_ms: float | None = index["dt_ms"]
        self.about: dict[str, Any] = index["about"]
        self.signals = {
            name: Signal(signal["kind"], tuple(signal["shape"])) for name, signal in index["signals"].items()
        }

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Steps [start, stop) of a signal, [T, ...]: uint8 of spikes and counts, float32 of values.

        Raises:
            UsageError: no such signal, or steps outside the recording.
            FormatError: a chunk of that range is missing or damaged; it is named.
        """
        pieces = [piece for _, piece in self.pieces(name, start, stop)]
        signal = self.signals[name]
        return np.concatenate(pieces) if pieces else signal.decode(signal.empty(0))

    def read_ms(self, name: str, start_ms: float, stop_ms: float) -> np.ndarray:
        """What `read` gives of the steps that begin in [start_ms, stop_ms); step t begins at t * dt_ms.

        Raises:
            UsageError: as `read`, or a recording whose steps are no time.
        """
        if self.dt_ms is None:
            raise UsageError(
                f"read_ms: {self.folder} has steps without a length, expected a dt_ms.", "Read it by steps, with read."
            )
        first, last = (math.ceil(ms / self.dt_ms - 1e-9) for ms in (start_ms, stop_ms))
        return self.read(name, first, last)

    def pieces(self, name: str, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """(first step, steps) of a range in order, at most a chunk at a time: for recordings larger than memory."""
        stop = self.steps if stop is None else stop
        if name not in self.signals:
            raise UsageError(f"recording: got signal '{name}'.", nearest(name, list(self.signals)))
        if not 0 <= start <= stop <= self.steps:
            raise UsageError(
                f"recording: got steps {start} to {stop}, expected a range within 0 to {self.steps}.",
                "Give a start that is not after its stop, and a stop that is not after the end.",
            )
        while start < stop:
            number = start // self.chunk_steps
            origin = number * self.chunk_steps
            end = min(stop, origin + self.chunk_steps)
            yield start, self.signals[name].decode(self.rows(number, name)[start - origin : end - origin])
            start = end

    def rows(self, number: int, name: str) -> np.ndarray:
        """A signal of one chunk as it lies on disk, as far as the index counts it.

        Raises:
            FormatError: the chunk is missing or damaged.
        """
        path, start = _chunk_path(self.folder, number), number * self.chunk_steps
        length = min(self.chunk_steps, self.steps - start)
        signal = self.signals[name]
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as chunk:
                found, begins = chunk[name], int(chunk["start"])
        except FileNotFoundError:
            raise self._lost(path, "missing", start, length) from None
        except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise self._lost(path, f"not a whole chunk ({error})", start, length) from error
        fits = begins == start and found.shape[1:] == signal.row and found.dtype == KINDS[signal.kind]
        if not fits or len(found) < length:
            what = f"got {name} {list(found.shape)} from step {begins}, expected {[length, *signal.row]} from {start}"
            raise self._lost(path, what, start, length)
        return found[:length]

    def check_present(self) -> None:
        """Raises FormatError for the first chunk that the index counts and the folder lacks."""
        for start in range(0, self.steps, self.chunk_steps):
            path = _chunk_path(self.folder, start // self.chunk_steps)
            if not path.is_file():
                raise self._lost(path, "missing", start, min(self.chunk_steps, self.steps - start))

    def _lost(self, path: Path, what: str, start: int, length: int) -> FormatError:
        return FormatError(
            f"{path}: {what}.",
            f"Steps {start} to {start + length} are lost: put the file back, or read other ranges; they are whole.",
        )


def for_brain(
    folder: str | Path,
    brain: Brain,
    signals: Sequence[str] | None = None,
    resume: bool = False,
    about: Mapping[str, Any] | None = None,
) -> Recorder:
    """A recorder to be given to a session as an observer; a step is a token, axes are ``[T, B, ...]``.

    Args:
        folder, resume: as of `Recorder`.
        brain: built with ``record_raster`` or ``record_membrane`` for those two signals.
        signals: of `EVENTS`; None takes all that this brain gives.
        about: added to the names, threshold and decay of the spiking layers.

    Raises:
        UsageError: an unknown signal, or one that this brain does not give.
    """
    from neuro import accounting

    cortex = brain.config.cortex
    lacking = {"raster", "membrane"} - set(brain.region("cortex").writes)
    chosen = [name for name in EVENTS if name not in lacking] if signals is None else list(signals)
    for name in chosen:
        if name not in EVENTS:
            raise UsageError(f"recorder: got signal '{name}'.", nearest(name, list(EVENTS)))
        if name in lacking:
            raise UsageError(
                f"recorder: got signal '{name}', which this brain's events lack.",
                f"Load the brain with record_{name}=True.",
            )
    kinds = {name: EVENTS[name] for name in chosen}
    if "raster" in kinds and max((emitter.steps for emitter in accounting.emitters(brain)), default=1) > 1:
        kinds["raster"] = "counts"
    known = {
        "step": "token",
        "populations": accounting.spiking_names(brain),
        "channels": [emitter.channels for emitter in accounting.emitters(brain)],  # the rest of an axis N is padding
        "threshold": cortex.v_threshold,
        "decay": cortex.decay,
    }
    return Recorder(folder, kinds, resume=resume, about={**known, **(about or {})})


def is_recording(folder: str | Path) -> bool:
    """Whether a folder claims to be a recording."""
    return (Path(folder) / INDEX).is_file()


def _check_declaration(signals: Mapping[str, str], dt_ms: float | None, chunk_steps: int) -> None:
    if not signals:
        raise UsageError("recorder: got no signal, expected at least one.", "Declare name -> kind.")
    for name, kind in signals.items():
        if not re.fullmatch(r"[A-Za-z]\w*", name) or name in ("start", "file"):
            raise UsageError(
                f"recorder: got a signal named '{name}', expected letters, digits and '_'.",
                "Rename it; 'start' and 'file' are taken.",
            )
        if kind not in KINDS:
            raise UsageError(f"recorder: got kind '{kind}' of {name}.", nearest(kind, list(KINDS)))
    if dt_ms is not None and not 0 < dt_ms < math.inf:
        raise UsageError(f"recorder: got dt_ms {dt_ms}, expected a time above 0.", "Give the milliseconds of a step.")
    if chunk_steps < 1:
        raise UsageError(
            f"recorder: got chunk_steps {chunk_steps}, expected at least 1.", f"Leave it at {CHUNK_STEPS}."
        )


def _read_index(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise MissingError(f"{path}: no such file.", "Give the folder of a recording; an empty run leaves no index.")
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        schema = index.get("schema") if isinstance(index, dict) else index
    except (OSError, ValueError) as error:
        raise FormatError(f"{path}: not an index ({error}).", "Use another copy of the recording.") from error
    if schema != SCHEMA:
        raise FormatError(f"{path}: got schema {schema!r}, expected '{SCHEMA}'.", "Give a recording of this version.")
    try:
        whole = index["steps"] >= 0 and index["chunk_steps"] > 0 and isinstance(index["about"], dict)
        whole = whole and all(s["kind"] in KINDS and min(s["shape"], default=0) >= 0 for s in index["signals"].values())
        whole = whole and (index["dt_ms"] is None or index["dt_ms"] > 0)
    except (KeyError, TypeError, AttributeError) as error:
        raise FormatError(f"{path}: lacks or garbles {error}.", "Use another copy of the recording.") from error
    if not whole:
        raise FormatError(f"{path}: holds a number or kind that cannot be.", "Use another copy of the recording.")
    return index


def _write_chunk(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """An npz, the same bytes for the same arrays; only spikes and counts shrink enough to be worth compressing."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, array, allow_pickle=False)
            method = zipfile.ZIP_DEFLATED if array.dtype == np.uint8 else zipfile.ZIP_STORED
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), member.getbuffer(), method, compresslevel=1)


def _chunk_path(folder: Path, number: int) -> Path:
    return folder / f"chunk-{number:06}.npz"


def _array(value: Any) -> np.ndarray:
    """A tensor on any device, with or without a graph, or anything numpy takes."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float().numpy() if value.is_floating_point() else value.numpy()
    return np.asarray(value)
