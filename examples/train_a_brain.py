"""Train a small brain on a text of your own, and let it write.

    python examples/train_a_brain.py [FILE] [STEPS]

The same from the command line: neuro train tiny --set data.train=FILE --out FOLDER.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch

import neuro
from neuro import config
from neuro.sampling import Sampler
from neuro.session import Session
from neuro.train import loop

RHYME = """One boat came in and one boat stayed, and one lay in the harbour.
Two boats came in and two boats stayed, and two lay in the harbour.
Three boats came in and three boats stayed, and three lay in the harbour.
"""

source = sys.argv[1] if len(sys.argv) > 1 else ""
steps = int(sys.argv[2]) if len(sys.argv) > 2 else 300
with tempfile.TemporaryDirectory() as folder:
    if not source:
        source = str(Path(folder) / "rhyme.txt")
        Path(source).write_text(RHYME * 60, encoding="utf-8")
    run = config.load("tiny", [f"data.train={source}", f"train.steps={steps}", "train.eval_every=100"])
    out = Path(folder) / "run"
    loop.train(run, out)
    brain = neuro.load(out / "model")

session = Session(brain)
ids = [brain.tokenizer.bos_id, *brain.tokenizer.encode("One boat")]
session.feed(torch.tensor([ids]))
written = list(session.generate(Sampler(temperature=0.0), 40))
print("One boat" + brain.tokenizer.decode(written))
