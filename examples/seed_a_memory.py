"""Seed a memory with facts, ask for them, and forget one for good.

    python examples/seed_a_memory.py

The weights never change: what was told lies in a memory of the stream, and in the file that it is saved to.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

import neuro
from neuro import memory_file, remember
from neuro.items import Item, pair
from neuro.session import Session

FACTS = {
    "The password of the vault is": "crimson.",
    "The name of the captain's cat is": "Wilma.",
    "The key of the boathouse hangs behind the": "mirror.",
}


def answer(memory: remember.Memory, question: str) -> tuple[str, float]:
    """The likeliest first token after a question, and its probability."""
    brain = memory.brain
    ids = torch.tensor([[brain.tokenizer.bos_id, *brain.tokenizer.encode(question)]])
    chances = Session(brain, memory.state).feed(ids)[0].softmax(-1)
    best = int(chances.argmax())
    return brain.tokenizer.decode([best]), float(chances[best])


def show(title: str, memory: remember.Memory) -> None:
    print(title)
    for question in FACTS:
        word, chance = answer(memory, question)
        print(f"  {question}{word}    ({chance:.2f})")


brain = neuro.load("small")
memory = remember.Memory(brain)
show("Knowing nothing:", memory)

for _ in remember.read(memory, [Item(pair(question, said), "me") for question, said in FACTS.items()]):
    pass
show("After one reading:", memory)

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "facts.memory"
    memory_file.save(path, brain, memory.state, memory.transcript)
    again = remember.Memory(brain, *memory_file.load(path, brain, brain.init_state(1)))
show("From the file:", again)

without = remember.forget(again, {0})  # the first item; `neuro memory ls` numbers them
show("Without the first, as if it had never been read:", without)
