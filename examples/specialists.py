"""One model, two memories: each makes it a specialist of what it has read.

    python examples/specialists.py

Prints what unseen questions about each topic cost, in nats per token, with each memory and with none.
"""

from __future__ import annotations

import torch

import neuro
from neuro import remember
from neuro.items import Item
from neuro.session import Session

TOPICS = {
    "harbour": [
        "The harbour master is called Ingrid Solberg. Ingrid Solberg opens the gate at six.",
        "Boats longer than twelve metres moor at the east pier. The east pier has no water and no light.",
        "The ferry to Tarn Island leaves at nine and at four. The ferry does not sail when the red flag is up.",
        "The lifeboat of the harbour is the Margaret Hale. The Margaret Hale was built at Oban.",
    ],
    "bakery": [
        "The head baker is called Matteo Ricci. Matteo Ricci lights the oven at two.",
        "Rye bread rests for eighteen hours in the cellar. The cellar is kept at twelve degrees.",
        "The walnut loaf is sold on Fridays and the plum cake on Sundays. The plum cake is never sold warm.",
        "The oven of the bakery is the Old Vesta. The Old Vesta was built of stones from the mill.",
    ],
}
QUESTIONS = {
    "harbour": [
        "They asked Ingrid Solberg to open the gate.",
        "The lifeboat Margaret Hale went out past the east pier.",
    ],
    "bakery": ["They asked Matteo Ricci to light the oven.", "The rye bread in the cellar lay beside the Old Vesta."],
}


def nats(memory: remember.Memory, texts: list[str]) -> float:
    """What the texts cost per token, each on its own; the memory is left as it is."""
    total = count = 0.0
    for text in texts:
        ids = torch.tensor([[memory.brain.tokenizer.bos_id, *memory.brain.tokenizer.encode(text)]])
        logits = Session(memory.brain, memory.state).feed(ids, keep_logits=True)
        total += float(torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:], reduction="sum"))
        count += ids.shape[1] - 1
    return total / count


brain = neuro.load("small")
memories = {"nothing": remember.Memory(brain)}
for topic, texts in TOPICS.items():
    memories[topic] = remember.Memory(brain)
    for _ in remember.read(memories[topic], [Item(text, topic) for text in texts]):
        pass

print(f"{'asked about':<12}" + "".join(f"{'has read ' + name:>20}" for name in memories))
for topic, questions in QUESTIONS.items():
    costs = {name: nats(memory, questions) for name, memory in memories.items()}
    print(f"{topic:<12}" + "".join(f"{cost:>20.2f}" for cost in costs.values()))
    assert min(costs, key=costs.__getitem__) == topic, "the specialist should know its topic best"
