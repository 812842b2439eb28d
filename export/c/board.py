"""Builds an exported C folder and runs it: on this computer, or on a bare Cortex-M board in QEMU.

Needs make and a C compiler; for a board also ``arm-none-eabi-gcc`` and ``qemu-system-arm``. Nothing is written into the
folder: programs and files lie in a place that the caller names.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np

from neuro.errors import MissingError, NeuroError

HOST = "host"
COMMIT, RESET, LOGITS, MEMORIES = -1, -2, -3, -4  # orders of main.c; from 0 on they are tokens
_LONGEST_S = 900


@dataclasses.dataclass(frozen=True)
class Target:
    """A core, the board that QEMU has of it, and what a model may take there."""

    machine: str
    flash: int  # bytes
    ram: int
    like: str  # what has so much


# The limits are those of one common part each; a larger part of the same core takes larger models.
TARGETS = {
    "cortex-m4": Target("mps2-an386", 256 * 1024, 64 * 1024, "an STM32F401xC"),
    "cortex-m7": Target("mps2-an500", 512 * 1024, 320 * 1024, "an STM32F746xE"),
    "cortex-m55": Target("mps3-an547", 512 * 1024, 512 * 1024, "the tightly coupled memories of Arm's AN547"),
}


@dataclasses.dataclass(frozen=True)
class Size:
    """Bytes of a program's sections."""

    text: int  # code and constants
    data: int
    bss: int


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a run said and wrote."""

    output: np.ndarray  # float32
    report: dict[str, int]  # main.c's last lines


def missing(board: str, running: bool = True) -> str | None:
    """The first tool that is not here for building (and ``running``) on a board; None when all are."""
    tools = ["make", "cc"] if board == HOST else ["make", "arm-none-eabi-gcc"]
    if running and board != HOST:
        tools.append("qemu-system-arm")
    return next((tool for tool in tools if shutil.which(tool) is None), None)


def build(folder: Path, board: str, work: Path) -> Size:
    """Compile the folder's program for a board into ``work``.

    Raises:
        MissingError: a tool that is not here.
        NeuroError: the compiler says no.
    """
    _need(board, running=False)
    _make(folder, board, work, "program")
    size = "size" if board == HOST else "arm-none-eabi-size"
    said = subprocess.run([size, str(work / "program")], capture_output=True, text=True, check=True).stdout
    text, data, bss = map(int, said.splitlines()[1].split()[:3])
    return Size(text, data, bss)


def run(folder: Path, board: str, work: Path, orders: np.ndarray) -> Outcome:
    """Build, then carry out ``orders`` [n] int16 -> what they asked for.

    Raises:
        MissingError: a tool that is not here.
        NeuroError: the program does not build or end well.
    """
    _need(board, running=True)
    work.mkdir(parents=True, exist_ok=True)
    (work / "input.bin").write_bytes(np.asarray(orders, "<i2").tobytes())
    (work / "output.bin").unlink(missing_ok=True)
    said = _make(folder, board, work, "run")
    report = {name: int(value) for name, value in re.findall(r"^(\w+) (\d+)$", said, re.MULTILINE)}
    if "steps" not in report:
        raise NeuroError(
            f"{folder}: the program for {board} did not end well ({said.strip()[-200:]}).", "Export again."
        )
    return Outcome(np.frombuffer((work / "output.bin").read_bytes(), "<f4"), report)


def _need(board: str, running: bool) -> None:
    tool = missing(board, running)
    if tool:
        package = {"arm-none-eabi-gcc": "gcc-arm-none-eabi", "qemu-system-arm": "qemu-system-arm"}.get(
            tool, "gcc, make"
        )
        raise MissingError(
            f"{board}: got no {tool}, expected one on the path.", f"Install it (Debian: apt install {package})."
        )


def _make(folder: Path, board: str, work: Path, goal: str) -> str:
    work.mkdir(parents=True, exist_ok=True)
    command = ["make", "-s", "-C", str(folder), f"BOARD={board}", f"OUT={work.resolve()}", goal]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,  # where QEMU puts what a board says
            text=True,
            timeout=_LONGEST_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise NeuroError(f"{folder}: {board} took more than {_LONGEST_S} s.", "Give it fewer tokens.") from error
    if done.returncode:
        what = done.stdout.strip().splitlines()
        raise NeuroError(
            f"{folder}: make {goal} for {board} failed ({what[0] if what else 'no word of why'}).", "Export again."
        )
    return done.stdout
