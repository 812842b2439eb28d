"""The command line, ``neuro VERB [MODEL] [ARG] [--options]``: a verb's module is imported when the verb is typed."""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib
import os
import re
import sys
import traceback
from collections.abc import Iterable
from typing import NoReturn

from neuro.errors import UsageError, nearest

VERBS = {
    "run": "continue a prompt, and say what happened inside",
    "chat": "talk with a model that learns at the end of every turn",
    "train": "learn from a text, a folder or a dataset",
    "remember": "read texts or pairs into a memory file, each once",
    "recall": "what is in a memory file, where it came from and why it is recalled",
    "memory": "list, search and forget what a memory file holds; keep a copy or bring one back",
    "sleep": "replay what a memory file holds until it is habit, with no input, and merge what it holds twice",
    "eval": "measure a model on a text",
    "energy": "price what a run did, in joules with intervals",
    "map": "place a network's neurons on the cores of a chip, or say why it does not fit",
    "export": "write a model for other runtimes: ONNX (quantized, GenAI, browser), C99 for microcontrollers, NIR",
    "verify": "check an exported folder against the model it came from",
    "show": "the wiring of a model, or its spikes over a text",
    "simulate": "run a network of spiking neurons (brunel, vogels-abbott, coba) or a circuit of the brain in Brian2",
    "config": "show or check a configuration",
    "doctor": "what is installed here, and what each missing part costs",
    "version": "print the version",
}
BACKENDS = ("auto", "cpu", "cuda", "xpu", "mps", "directml")
# Every verb knows these; those in its COMMON have an effect there, the others are refused. (--json, -q, -v always have.)
COMMON = ("backend", "seed", "set", "out")


# Errors of writing. Files are written by neuro/atomic.py, which names them: without a name it was standard output, whose
# buffer may be dropped with the error, so that a second flush says nothing.
_NO_SPACE = tuple(getattr(errno, name) for name in ("ENOSPC", "EFBIG", "EDQUOT") if hasattr(errno, name))
# What these say about the siblings is the point of them, so a hidden sibling must not stop them.
UNCHECKED = ("doctor",)


class _Parser(argparse.ArgumentParser):
    """Turns argparse's own errors into the project's: two lines, exit code 2, the nearest option named."""

    def error(self, message: str) -> NoReturn:
        hint = f"'{self.prog} --help' lists what it takes."
        if message.startswith("unrecognized arguments:"):
            unknown = [word for word in message.partition(":")[2].split() if word.startswith("-")]
            known = [option for action in self._actions for option in action.option_strings]
            if unknown:
                hint = nearest(unknown[0].partition("=")[0], known)
        raise UsageError(f"{self.prog}: {message}.", hint)


def main(argv: list[str] | None = None) -> int:
    """Run one command -> its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")
    if sys.stdout is None:  # closed by whoever started this: what nobody reads goes nowhere
        with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
            return _run(argv)
    return _run(argv)


def _run(argv: list[str]) -> int:
    verbose = not {"-v", "-qv", "-vq"}.isdisjoint(argv)
    try:
        code = _dispatch(argv)
        if sys.stdout is not None:
            sys.stdout.flush()  # here, and not when the interpreter ends: a full disk is an error with an exit code
        return code
    except KeyboardInterrupt:
        _complain("interrupted.", "What was saved before stays saved; run the same command again.")
        return 130
    except BrokenPipeError:
        _abandon_stdout()
        return 0
    except Exception as error:  # noqa: BLE001 - the outermost door: a user never meets a bare traceback
        if verbose:
            traceback.print_exc()
        what, do = getattr(error, "what", None), getattr(error, "do", None)
        if what and do:
            _complain(what, do)
            return int(getattr(error, "exit_code", 1))
        if isinstance(error, OSError) and error.strerror:
            full = _abandon_stdout() or error.errno in _NO_SPACE
            where = error.filename or ("standard output" if full else "a file")
            _complain(f"{where}: {error.strerror}.", "Check the path, its permissions and the free space.")
            return 1
        if _out_of_memory(error):
            asked = re.search(r"(\d+) bytes", str(error))
            _complain(
                f"neuro {argv[0]}: not enough memory" + (f" for {int(asked[1]):,} bytes more." if asked else "."),
                "Make it smaller: the batch, the model, or what --set and the options ask for.",
            )
            return 1
        _complain(f"internal error: {type(error).__name__}: {error}", "Run it again with -v and report what it prints.")
        return 1


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if argv[0] in ("-V", "--version"):
        argv = ["version"]
    verb = argv[0]
    if verb.startswith("-"):
        raise UsageError(f"neuro: got '{verb}', expected a verb.", "The verb comes first: neuro VERB [--options].")
    if verb not in VERBS:
        raise UsageError(f"neuro: unknown verb '{verb}'.", nearest(verb, list(VERBS)))
    module = importlib.import_module(f"neuro.cli.{verb}")
    parser = _Parser(prog=f"neuro {verb}", description=VERBS[verb], allow_abbrev=False)
    module.add_arguments(parser)
    _add_common(parser, module.COMMON)
    args = parser.parse_intermixed_args(argv[1:])  # options may stand between MODEL and ARG
    args.given = {name for name in COMMON if getattr(args, name) is not None}
    args.backend, args.seed, args.set = args.backend or "auto", args.seed or 0, args.set or []
    if args.backend.partition(":")[0] not in BACKENDS:
        raise UsageError(f"--backend: got '{args.backend}'.", nearest(args.backend, BACKENDS))
    if not 0 <= args.seed < 2**63:
        raise UsageError(f"--seed: got {args.seed}, expected 0 to 2^63 - 1.", "Give a number in that range.")
    refuse(args, verb, [name for name in COMMON if name not in module.COMMON])
    if args.out:
        from neuro import atomic

        atomic.refuse_unwritable(args.out, getattr(module, "OUT_IS_FOLDER", False))
    if verb not in UNCHECKED:
        from neuro import _siblings

        _siblings.check()
    return module.run(args)


def refuse(args: argparse.Namespace, where: str, names: Iterable[str]) -> None:
    """Raises UsageError for a common option that was given and would be ignored."""
    for name in names:
        if name in args.given:
            raise UsageError(f"neuro {where}: --{name} has no effect here.", f"Leave out --{name}.")


def _add_common(parser: argparse.ArgumentParser, effective: Iterable[str]) -> None:
    group = parser.add_argument_group("common options")

    def says(name: str, text: str) -> str:
        return text if name in effective else "no effect here: refused"

    where = f"where to run: {', '.join(BACKENDS)}; or a device by its number, such as cuda:1"
    group.add_argument("--backend", metavar="NAME", help=says("backend", where))
    group.add_argument("--seed", type=int, help=says("seed", "of everything random (default: 0)"))
    group.add_argument("--set", action="append", metavar="KEY=VALUE", help=says("set", "override a configuration key"))
    group.add_argument("--out", metavar="PATH", help=says("out", "where to write"))
    group.add_argument("--json", action="store_true", help="print JSON with a schema instead of words")
    group.add_argument("-q", dest="quiet", action="store_true", help="results only")
    group.add_argument("-v", dest="verbose", action="store_true", help="tracebacks and details")


def _help() -> str:
    lines = ["neuro VERB [MODEL] [ARG] [--options]", "", "A hybrid ANN-SNN brain model for language.", ""]
    lines += [f"  {verb:<9} {text}" for verb, text in VERBS.items()]
    lines += ["", "'neuro VERB --help' explains a verb."]
    lines += ["Exit codes: 0 done, 1 failed, 2 wrong usage, 3 something missing, 4 a check said no, 130 interrupted."]
    return "\n".join(lines)


def _complain(what: str, do: str) -> None:
    """Two lines, whatever the texts hold."""
    with contextlib.suppress(OSError):  # nobody reads standard error any more
        print(*(" ".join(text.splitlines()) for text in (what, do)), sep="\n", file=sys.stderr)


def _out_of_memory(error: Exception) -> bool:
    """Whether an allocation failed: torch has a type of its own for that on accelerators, and none on the CPU."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and ("can't allocate" in str(error) or "not enough memory" in str(error))


def _abandon_stdout() -> bool:
    """Whether standard output takes no more; then let the interpreter's last flush of it go nowhere."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)
        return True
    return False
