"""Streams of text to train a memory's parameters on: facts, real text, questions about the facts, passages that come again.

    <bos> facts, 256 tokens of text, some facts again (changed or contradicted), then in turns:
    text | a question with its answer | a dialogue that states a fact or asks for one | a passage of before

What each token is: 0 text, 1 the answer to a question (its value), 2 a passage of before (all but its first tokens). Forms
of facts are those of `neuro.train.forms`; nothing here is of the sets that are measured by.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from neuro.errors import UsageError
from neuro.evaluate import templates
from neuro.evaluate.templates import Fact
from neuro.tokenizer import Tokenizer
from neuro.train import forms

TEXT, ANSWER, AGAIN = 0, 1, 2
FACTS = (8, 28)  # of one stream
PAUSE = 256  # tokens of text before facts are said again
PIECE = (24, 300)  # tokens of text in one go
PASSAGE, BRIEF = (16, 160), (8, 40)  # tokens of a passage that comes again
RECOGNISED = {PASSAGE: 4, BRIEF: 3}  # tokens of it that nothing could have told
TURNS = {  # what comes between pieces of text
    PASSAGE: {"same": 0.5, "reworded": 0.1, "dialogue": 0.2, "again": 0.2},
    BRIEF: {"same": 0.25, "reworded": 0.05, "dialogue": 0.1, "again": 0.6},
}


class Episode(NamedTuple):
    """One stream of T tokens."""

    tokens: np.ndarray  # [T] int64
    kinds: np.ndarray  # [T] int8


class Episodes:
    """Episodes without end, from one generator.

    Args:
        text: [N] ids that facts are lost in.
        tokenizer: of the model that is trained.
        length: T.
        seed: of every draw.
        brief: more passages come again, and shorter ones: what is found by few tokens, whatever the form.

    Raises:
        UsageError: a text that is no longer than a stream.
    """

    def __init__(self, text: np.ndarray, tokenizer: Tokenizer, length: int, seed: int, brief: bool = False) -> None:
        if len(text) <= length:
            raise UsageError(
                f"episodes: got a text of {len(text)} tokens, expected more than a stream's {length}.",
                "Give a longer text, or a smaller length.",
            )
        self.passage = BRIEF if brief else PASSAGE
        self.text, self.tokenizer, self.length = text, tokenizer, length
        self.random = np.random.default_rng(seed)
        self.words = _words(tokenizer)

    def draw(self) -> Episode:
        """The next one."""
        random, tokens, kinds = self.random, [self.tokenizer.bos_id], [TEXT]
        start = int(random.integers(len(self.text) - self.length))
        place = start

        def add(ids: Sequence[int], kind: int = TEXT) -> None:
            tokens.extend(ids)
            kinds.extend([kind] * len(ids))

        def text(low: int, high: int) -> None:
            nonlocal place
            count = int(low * (high / low) ** random.random())
            add(self.text[place : place + count].tolist())
            place += count

        def encode(said: str) -> list[int]:
            return self.tokenizer.encode(said)

        def ask(cue: str, value: str) -> None:
            add(encode(f"\n{cue}"))
            add(encode(f" {value}"), ANSWER)
            add(encode(".\n"))

        facts = forms.drawn(random, int(random.integers(*FACTS)), self.words)
        if random.random() < 0.3:
            text(*PIECE)
            add(encode("\n"))
        values = [[str(v) for v in random.permutation(fact.values)[:2]] for fact in facts]
        add(encode("\n".join(f"{fact.said} {own}." for fact, (own, _) in zip(facts, values, strict=True)) + "\n"))
        text(64, PAUSE)
        answers = [own for own, _ in values]
        for number in random.permutation(len(facts))[: len(facts) // 3]:
            fact, (own, other) = facts[number], values[number]
            changes = random.random() < 0.5
            before = str(random.choice(forms.TRAINING.changed if changes else forms.TRAINING.wrongly))
            add(encode(f"\n{before}\n{fact.said} {other}."))
            answers[number] = other if changes else own
        add(encode("\n"))
        shared, (short, long) = TURNS[self.passage], self.passage
        turns, shares = list(shared), list(shared.values())
        pending: list[tuple[Fact, str]] = []
        while len(tokens) < self.length:
            text(*PIECE)
            for _ in range(int(random.integers(2, 7))):
                number = int(random.integers(len(facts)))
                match turns[int(random.choice(len(turns), p=shares))]:
                    case "same":
                        ask(facts[number].said, answers[number])
                    case "reworded":
                        ask(facts[number].reworded, answers[number])
                    case "dialogue":
                        self._dialogue(facts[number], answers[number], pending, add, encode)
                    case _:
                        count = int(short * (long / short) ** random.random())
                        first = int(random.integers(max(1, len(tokens) - count - 64)))
                        passage = tokens[first : first + count]
                        add(passage[: RECOGNISED[self.passage]])
                        add(passage[RECOGNISED[self.passage] :], AGAIN)
        cut = slice(self.length)
        return Episode(np.array(tokens[cut], np.int64), np.array(kinds[cut], np.int8))

    def _dialogue(
        self,
        fact: Fact,
        value: str,
        pending: list[tuple[Fact, str]],
        add: Callable[..., None],
        encode: Callable[[str], list[int]],
    ) -> None:
        """A turn or two: one that states a fact of its own, or one in whose answer the assistant says one of before."""
        random, made = self.random, forms.TRAINING

        def ask(said: str, fact: Fact, value: str) -> None:
            add(encode(f"\nUser: {said}\nAssistant: {fact.told}"))
            add(encode(f" {value}"), ANSWER)
            add(encode(".\n"))

        for _ in range(int(random.integers(1, 3))):
            said = templates.chatter(made, random)
            if pending and random.random() < 0.5:
                ask(said, *pending[random.integers(len(pending))])
                continue
            (own,) = forms.drawn(random, 1, self.words)
            if own.said not in [known.said for known, _ in pending]:
                pending.append((own, str(random.choice(own.values))))
                said += f"\n{own.said} {pending[-1][1]}."
            add(encode(f"\nUser: {said}\nAssistant: {random.choice(made.replies)}"))
        if random.random() < 0.3:
            ask(templates.chatter(made, random), fact, value)


def _words(tokenizer: Tokenizer) -> tuple[str, ...]:
    """Words of one token that no set to measure by has as a value."""
    known = {value for chosen in templates.SETS.values() for fact in chosen.facts for value in fact.values}
    found = []
    for token in range(tokenizer.vocab_size):
        word = tokenizer.decode([token])
        if word.startswith(" ") and len(word) > 4 and word[1:].isalpha() and word[1:] not in known:
            found.append(word[1:])
    return tuple(found)
