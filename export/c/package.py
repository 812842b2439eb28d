"""The exported C folder: written whole or not at all, checked against the reference and against torch.

neuro.h neuro.c neuro_math.h        step, commit and reset
neuro_model.h neuro_model.c         sizes and weights
main.c port*.[ch] board.ld Makefile a program for this computer and for three QEMU boards: make check, make BOARD=... check
golden/input.bin expected.bin       orders, and what the reference answered
manifest.json README.md             what it takes, what was measured; a card
tokenizer.json                      text to tokens and back, on the computer beside the board
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import neuro
from export.c import board, card, emit
from export.c import parity as parities
from export.c.board import TARGETS, Target
from export.c.quantized import Quantized, check, quantize
from export.manifest import describe_file
from export.placing import placed
from neuro import config, folder
from neuro.brain import Brain
from neuro.config import BrainConfig
from neuro.errors import CheckError, MissingError, UsageError, nearest

SCHEMA = "neuro.export.c/1"
SOURCES = Path(__file__).with_name("sources")
DIVERGENCE_LIMIT = 0.1  # nats per token between torch and the reference, as of every int8 export
CODE_BYTES = 16 * 1024  # of neuro.c and main.c, where no compiler says
STACK_BYTES = 2048  # what board.ld reserves
GOLDEN_TOKENS = 96
GOLDEN_TEXT = """Who walks there on the wall? Speak low, the night has ears. I bring the king a letter and a ring; the \
letter must be read before the bell. Then come within, and say it to his face. The rain fell on the stones, and no one spoke.
"""
_MEMORIES = ("hippocampus.enabled=false", "procedural.enabled=false")


def export_c(model: str | Path, out: str | Path, target: str, sets: Sequence[str] = ()) -> dict[str, Any]:
    """Write a model as C99 for a Cortex-M core -> the manifest.

    Args:
        model: a shipped model's name or a model folder.
        out: a folder that does not exist, is empty, or holds an earlier C export, which is replaced.
        target: one of `TARGETS`.
        sets: overrides of the brain's configuration that leave its tensors as they are; together,
            ``hippocampus.enabled=false`` and ``procedural.enabled=false`` leave out both memories.

    Raises:
        UsageError: an unknown target, a part that the runner does not have, or ``out`` holds something else.
        CheckError: the model does not fit the target, or the code does not say what the reference or torch says.
        NeuroError: writing or compiling failed. Nothing is left behind by any of these.
    """
    if target not in TARGETS:
        raise UsageError(
            f"--target: got '{target}', expected one of {', '.join(TARGETS)}.", nearest(target, [*TARGETS])
        )
    out = Path(out).resolve()
    _refuse_foreign(out)
    source, plain = folder.locate(model), [item.removeprefix("brain.") for item in sets]
    memory = not set(_MEMORIES) <= set(plain)
    record = config.from_dict(BrainConfig, folder.read_record(source)["brain"], "config.json brain")
    check(config.apply_sets(record, [item for item in plain if memory or item not in _MEMORIES]))
    brain = folder.load(source, "cpu", sets=[item for item in plain if memory or item not in _MEMORIES])
    quantized = quantize(brain, memory)
    _fits(quantized, target, CODE_BYTES)
    with placed(out) as new:
        manifest = _fill(new, new.parent, brain, quantized, target)
        for name in ("tokenizer.json", "LICENSE"):
            if (source / name).is_file():
                shutil.copyfile(source / name, new / name)
        files = sorted(file for file in new.rglob("*") if file.is_file())
        manifest["files"] = {file.relative_to(new).as_posix(): describe_file(file) for file in files}
        (new / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8", newline="\n")
    return manifest


def verify(path: str | Path) -> dict[str, Any]:
    """Check every file of an exported folder, and where a compiler is here that its program still says the golden answers.

    Raises:
        MissingError: no such folder.
        CheckError: a file is missing or altered, the manifest is of another version, or the answers differ.
    """
    path = Path(path)
    if not path.is_dir():
        raise MissingError(f"{path}: no such folder.", "Give a folder that 'neuro export' wrote.")
    manifest = _read_manifest(path)
    for name, expected in manifest["files"].items():
        found = describe_file(path / name) if (path / name).is_file() else None
        if found != expected:
            got = f"{found['bytes']} bytes, sha256 {found['sha256'][:12]}" if found else "nothing"
            raise CheckError(
                f"{path / name}: is not as exported: got {got}, expected {expected['bytes']} bytes, "
                f"sha256 {expected['sha256'][:12]}.",
                "Copy or export the folder again.",
            )
    return {"files": len(manifest["files"]), "target": manifest["target"], "equal": _equal(path)}


def carries(path: str | Path) -> bool:
    """Whether a folder holds a C export, of any version."""
    try:
        manifest = json.loads((Path(path) / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and str(manifest.get("schema")).startswith("neuro.export.c/")


def _fill(new: Path, work: Path, brain: Brain, quantized: Quantized, target: str) -> dict[str, Any]:
    """Write everything but the manifest into ``new``."""
    shutil.copytree(SOURCES, new, dirs_exist_ok=True)
    (new / "neuro_model.h").write_text(emit.header(quantized), encoding="ascii", newline="\n")
    (new / "neuro_model.c").write_text(emit.source(quantized), encoding="ascii", newline="\n")
    ids = [brain.tokenizer.bos_id, *brain.tokenizer.encode(GOLDEN_TEXT)]
    tokens = np.resize(np.array(ids), GOLDEN_TOKENS).tolist()
    parity, orders, expected = parities.measure(
        brain if quantized.memory else parities.without_memory(brain), quantized, tokens
    )
    if not parity["divergence"] <= DIVERGENCE_LIMIT:
        raise CheckError(
            f"export --to c: parity with torch is broken: got a divergence of {parity['divergence']:.4f} nats per token, "
            f"expected at most {DIVERGENCE_LIMIT}.",
            "Export to ONNX without --quantize.",
        )
    (new / "golden").mkdir()
    (new / "golden" / "input.bin").write_bytes(orders.astype("<i2").tobytes())
    (new / "golden" / "expected.bin").write_bytes(expected.astype("<f4").tobytes())
    parity["host"] = _equal(new, work)
    size, parity["board"], instructions = _on_board(new, work, target, orders, expected, parity)
    code = None if size is None else size.text + size.data - sum(emit.weight_bytes(quantized).values())
    flash, ram = _fits(quantized, target, CODE_BYTES if code is None else code, size)
    manifest = {
        "schema": SCHEMA,
        "neuro": neuro.__version__,
        "fingerprint": folder.fingerprint(brain),
        "target": target,
        "machine": TARGETS[target].machine,
        "memory": quantized.memory,
        "parameters": quantized.parameters,
        "layers": [[layer.mixer, layer.feedforward] for layer in quantized.layers],
        "ports": {
            "neuro_step": {"token": "uint16", "logits": ["float32", quantized.config.vocab_size]},
            "neuro_commit": {"every": quantized.config.plasticity_span},
            "neuro_state": {"bytes": sum(emit.state_bytes(quantized).values())},
        },
        "brain": config.to_dict(quantized.config),
        "flash": flash,
        "ram": ram,
        "parity": parity,
        "instructions": instructions,
        "energy": {
            "platform": target,
            "joules": None,
            "unpriced": "no published energy per instruction of this core was found; only instructions are counted",
        },
    }
    (new / "README.md").write_text(card.text(manifest), encoding="utf-8", newline="\n")
    return manifest


def _fits(
    quantized: Quantized, target: str, code: int, size: board.Size | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Flash and RAM, term by term.

    Raises:
        CheckError: more than the target has, with the largest terms.
    """
    limits: Target = TARGETS[target]
    flash = emit.weight_bytes(quantized) | {"code" if size else "code (assumed)": code}
    ram = emit.state_bytes(quantized) | {"activations": activation_bytes(quantized), "stack (reserved)": STACK_BYTES}
    if size:
        ram["the program around it"] = size.bss - sum(ram.values())
    found: list[dict[str, Any]] = []
    for name, terms, most in (("flash", flash, limits.flash), ("RAM", ram, limits.ram)):
        total = sum(terms.values())
        if total > most:
            largest = sorted(terms, key=lambda term: -terms[term])[:2]
            told = ", ".join(f"{term} {terms[term]:,}" for term in largest)
            raise CheckError(
                f"export --to c: {target}: got {total:,} bytes of {name} ({told} ...), expected at most {most:,} "
                f"({limits.like}).",
                "Choose a larger target, fewer slots with --set hippocampus.slots=N, or a smaller model such as micro.",
            )
        found.append({"terms": terms, "total": total, "limit": most})
    flash_found, ram_found = found
    flash_found["bytes_per_parameter"] = round(flash_found["total"] / quantized.parameters, 4)
    return flash_found, ram_found


def activation_bytes(quantized: Quantized, input_bytes: int = 2) -> int:
    """Bytes of the static activations of neuro.c; an input of a product takes two on a Cortex-M4 and M7, else one."""
    n, width = emit.sizes(quantized), quantized.config.d_model
    widest = max(3 * width, n["NEURO_UP"], n["NEURO_CELLS"], n["NEURO_EVIDENCE"] + 2)
    seen = n["NEURO_WINDOW"] + 1
    weights = max(n["NEURO_VOCAB"], seen)
    fields = [4 * 4 * width, 20, 4 * widest, max(input_bytes * (-(-widest // 4) * 4), 2 * weights, 4 * width)]
    fields.append(n["NEURO_LAYERS"])
    if n["NEURO_WINDOWS"]:
        fields += [4 * seen, 2 * seen]
    if quantized.memory:
        traces = 2 * n["NEURO_LAYERS"] * n["NEURO_RANK"]
        fields += [4 * (2 * width + traces), 2 * n["NEURO_KEY"], 4 * n["NEURO_SLOTS"], 4 * n["NEURO_RANK"] * width]
        fields.append(-(-n["NEURO_SLOTS"] // 8) + -(-n["NEURO_SPAN"] // 8))
    return sum(-(-field // 4) * 4 for field in fields)


def _equal(path: Path, work: Path | None = None) -> str:
    """Whether the program of this computer says the golden answers: "equal", or why that was not tried.

    Raises:
        CheckError: it says something else.
    """
    tool = board.missing(board.HOST)
    if tool:
        return f"not run: no {tool} here"
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        orders = np.frombuffer((path / "golden" / "input.bin").read_bytes(), "<i2")
        outcome = board.run(path, board.HOST, Path(scratch), orders)
    _same(path, board.HOST, outcome.output)
    return "equal"


def _on_board(
    new: Path, work: Path, target: str, orders: np.ndarray, expected: np.ndarray, parity: dict[str, Any]
) -> tuple[board.Size | None, str, dict[str, Any] | None]:
    """-> (sizes, "equal" or why it was not run, instructions)."""
    tool = board.missing(target, running=False)
    if tool:
        return None, f"not run: no {tool} here", None
    size = board.build(new, target, work / "board")
    tool = board.missing(target)
    if tool:
        return size, f"not run: no {tool} here", None
    outcome = board.run(new, target, work / "board", orders)
    _same(new, target, outcome.output)
    said = outcome.report
    per_token = said["step_instructions"] / said["steps"]
    whole = (said["step_instructions"] + said["commit_instructions"]) / said["steps"]
    return size, "equal", {
        "per_token": round(per_token),
        "most_of_a_token": said["most_instructions_of_a_step"],
        "per_commit": round(said["commit_instructions"] / max(1, said["commits"])),
        "per_token_with_commits": round(whole),
        "per_mac": round(whole / parity["macs_per_token"], 3),
        "stack_bytes": said["stack_bytes"],
        "counted_by": f"SysTick of QEMU's {TARGETS[target].machine} under -icount shift=0",
    }  # fmt: skip


def _same(path: Path, where: str, output: np.ndarray) -> None:
    expected = np.frombuffer((path / "golden" / "expected.bin").read_bytes(), "<f4")
    if output.shape != expected.shape or not np.array_equal(output, expected):
        wrong = int((output != expected).sum()) if output.shape == expected.shape else expected.size
        raise CheckError(
            f"{path}: the program on {where} does not say what the reference says: got {wrong} of {expected.size} other "
            "numbers, expected all equal.",
            "Use a compiler that keeps IEEE 754 float32, with the flags of the Makefile.",
        )


def _refuse_foreign(out: Path) -> None:
    if out == Path.cwd():
        raise UsageError(f"{out}: is the folder you are in, and would be replaced.", "Name a new folder with --out.")
    if not out.exists() or (out.is_dir() and not any(out.iterdir())) or carries(out):
        return
    raise UsageError(f"{out}: holds something that is no C export.", "Name an empty or new folder.")


def _read_manifest(path: Path) -> dict[str, Any]:
    do = "Give a folder that 'neuro export --to c' wrote, whole."
    try:
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckError(f"{path / 'manifest.json'}: cannot be read ({str(error).splitlines()[0]}).", do) from error
    schema = manifest.get("schema") if isinstance(manifest, dict) else None
    if schema != SCHEMA:
        raise CheckError(f"{path / 'manifest.json'}: got schema {schema!r}, expected '{SCHEMA}'.", do)
    if not isinstance(manifest.get("files"), dict) or not {"neuro.c", "neuro_model.c"} <= manifest["files"].keys():
        raise CheckError(f"{path / 'manifest.json'}: does not list the files of an export.", do)
    return manifest
