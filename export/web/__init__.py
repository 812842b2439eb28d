"""The browser's and Node's side of a folder of profile ``web``: a page that chats and shows spikes, and a runner."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

from export.runtime import Runtime

FILES = ("neuro.mjs", "run.mjs", "index.html", "package.json", "golden.json")
STEPS = 48  # that `run.mjs --check` and the page compare


def write(folder: Path, runtime: Runtime, tokens: np.ndarray) -> None:
    """Copy the sources into ``folder``, and write what the graphs find likeliest there after each of the first tokens."""
    for name in FILES[:-1]:
        shutil.copyfile(Path(__file__).with_name(name), folder / name)
    runtime.reset(1)
    never = runtime.manifest["never_written"]
    likeliest = []
    for token in tokens[:STEPS]:
        logits = runtime.step([token])[0]
        logits[never] = -np.inf
        likeliest.append(int(logits.argmax()))
    golden = {"tokens": tokens[:STEPS].tolist(), "likeliest": likeliest}
    (folder / "golden.json").write_text(json.dumps(golden) + "\n", encoding="utf-8")
