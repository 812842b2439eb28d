"""A stream that gets better while it runs: the same page costs less each time, and its own weights never change.

    python examples/keep_learning.py [FILE]

Reads a text three times in one stream, and prints what each reading costs with memories and without.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

import neuro
from neuro.memory import contents
from neuro.session import Session

PAGE = """The last bus to Hallow Bridge left at ten, and Mr Osei, who drove it, knew every passenger by name. There was the \
nurse with the green umbrella, the two brothers from the quarry, and an old man called Pettigrew who carried a clock. He \
never said why. One night in November the clock began to strike as the bus crossed the bridge, eleven times, though it was \
ten past ten. Mr Osei stopped. The nurse with the green umbrella looked out of the window and saw that the river had risen \
over the road on the far side. They turned round, and in the morning the far end of Hallow Bridge was gone. Pettigrew \
wound the clock, thanked Mr Osei, and walked home."""


def cost(session: Session, ids: torch.Tensor, learning: bool) -> float:
    """Nats per token of one reading in a stream that goes on."""
    total = 0.0
    span = session.brain.config.plasticity_span
    for start in range(0, ids.shape[1] - 1, span):
        part = ids[:, start : start + span + 1]
        logits = session.feed(part[:, :-1], keep_logits=True)
        total += float(torch.nn.functional.cross_entropy(logits[0], part[0, 1:], reduction="sum"))
        session.commit()
        if not learning:
            for memory in ("episodic", "procedural"):
                session.state = contents.emptied(session.state, memory)
    return total / (ids.shape[1] - 1)


brain = neuro.load("small")
text = Path(sys.argv[1]).read_text(encoding="utf-8") if len(sys.argv) > 1 else PAGE
ids = torch.tensor([[brain.tokenizer.bos_id, *brain.tokenizer.encode(text)]])
learns, does_not = Session(brain), Session(brain)
print(f"{ids.shape[1]} tokens; nats per token")
print("reading    with memories    without")
for reading in range(1, 4):
    print(f"{reading:>7}    {cost(learns, ids, True):>13.2f}    {cost(does_not, ids, False):>7.2f}")
