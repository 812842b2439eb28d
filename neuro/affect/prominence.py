"""Which words of a sentence would be stressed, and after which the voice would pause: prosody from text.

    x_i = relu(U [E[word_i], mean of S[ends of word_i], f_i])
    h_i = relu(C [x_{i-2} .. x_{i+2}])
    y_i = H [x_i, h_i]: prominence 0, 1, 2; boundary 0, 1, 2; prominence as a value

f: capital, syllables and first and last stress (from a dictionary where it has the word, else vowel groups), frequency, length,
whether it is a sign. Labels: Helsinki prosody (arXiv:1908.02262), from wavelets of pitch, energy and duration of real readings.
A *causal* reading sees x_{i-2} .. x_i alone; the network learns both by losing the words to come in half of its batches.
Differs from the published BiLSTM: no recurrence, five words.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuro import config as configs
from neuro import tensor_file
from neuro.affect.corpora import SpokenWord
from neuro.affect.reader import packed, quantized, unpacked, whole
from neuro.affect.words import hashed
from neuro.errors import FormatError, MissingError, UsageError

SCHEMA = "neuro.prominence/1"
SHIPPED = Path(__file__).parents[1] / "models" / "affect" / "prominence.safetensors"
_VOWELS = re.compile(r"[aeiouy]+")
_FACTS, _ENDS, _LEFT, _RIGHT = 8, 7, 2, 2
_TABLES = ("word.weight", "ends.weight")
NONE = -1  # the class of what has none


@dataclasses.dataclass(frozen=True)
class ProminenceConfig:
    """Sizes."""

    words: int
    width: int = 64
    end_rows: int = 8192
    end_width: int = 32
    hidden: int = 128
    dropout: float = 0.3


@dataclasses.dataclass(frozen=True)
class Lexicon:
    """What is known of words: their row (by frequency), how often they were seen, and the stress of their syllables."""

    known: list[str]
    counts: list[int]
    stress: dict[str, str]  # "102": primary, none, secondary

    def facts(self, word: str) -> list[float]:
        """f of a word as it is written."""
        lower = word.lower()
        stress = self.stress.get(lower.strip("'"))
        syllables = len(stress) if stress else max(1, len(_VOWELS.findall(lower)))
        first, last = (float(stress[i] == "1") if stress else 0.5 for i in (0, -1))
        seen = math.log1p(self._seen.get(lower, 0)) / 6.0
        sign = float(not any(letter.isalnum() for letter in word))
        missing = float(stress is None)
        return [float(word[:1].isupper()), min(syllables, 5) / 2.0, first, last, seen, len(word) / 8.0, sign, missing]

    def __post_init__(self) -> None:
        object.__setattr__(self, "_seen", dict(zip(self.known, self.counts, strict=True)))
        object.__setattr__(self, "row", {word: number for number, word in enumerate(self.known, 1)})

    _seen: dict[str, int] = dataclasses.field(init=False, repr=False, default_factory=dict)
    row: dict[str, int] = dataclasses.field(init=False, repr=False, default_factory=dict)


class Sentences(NamedTuple):
    """N sentences of at most W words: ``word`` [N,W], ``ends`` [N,W,7], ``facts`` [N,W,8], ``valid`` [N,W]."""

    word: Tensor
    ends: Tensor
    facts: Tensor
    valid: Tensor


class ProminenceNet(nn.Module):
    """See the module.

    Args:
        config: sizes.
        vectors: [words, width] to start from, or None.
    """

    def __init__(self, config: ProminenceConfig, vectors: Tensor | None = None) -> None:
        super().__init__()
        self.config = config
        self.word = nn.Embedding(config.words + 1, config.width, sparse=True)
        self.ends = nn.Embedding(config.end_rows, config.end_width, sparse=True)
        nn.init.normal_(self.word.weight, std=0.1)
        nn.init.normal_(self.ends.weight, std=0.1)
        if vectors is not None:
            with torch.no_grad():
                self.word.weight[1:] = vectors
                self.word.weight[0] = 0.0
        hidden = config.hidden
        self.inward = nn.Linear(config.width + config.end_width + _FACTS, hidden)
        self.around = nn.Linear((_LEFT + 1 + _RIGHT) * hidden, hidden)
        self.out = nn.Linear(2 * hidden, 7)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, s: Sentences, causal: bool) -> Tensor:
        """y [N, W, 7]."""
        valid = s.valid.unsqueeze(-1)
        seen = torch.cat([self.word(s.word), self.ends(s.ends).mean(2), s.facts], -1)
        x = F.relu(self.inward(self.drop(seen))) * valid
        length = x.shape[1]
        framed = F.pad(x, (0, 0, _LEFT, _RIGHT))
        views = [framed[:, i : i + length] for i in range(_LEFT + 1 + _RIGHT)]
        if causal:
            views[_LEFT + 1 :] = [torch.zeros_like(x)] * _RIGHT
        h = F.relu(self.around(self.drop(torch.cat(views, -1))))
        return self.out(self.drop(torch.cat([x, h], -1)))


def sentences(lexicon: Lexicon, texts: Sequence[Sequence[str]], end_rows: int) -> Sentences:
    """Words as numbers, padded."""
    longest = max(len(words) for words in texts)
    word = torch.zeros(len(texts), longest, dtype=torch.long)
    ends = torch.zeros(len(texts), longest, _ENDS, dtype=torch.long)
    facts, valid = torch.zeros(len(texts), longest, _FACTS), torch.zeros(len(texts), longest)
    for n, words in enumerate(texts):
        count = len(words)
        lower = [w.lower() for w in words]
        word[n, :count] = torch.tensor([lexicon.row.get(w, 0) for w in lower])
        ends[n, :count] = torch.tensor([_ends(w, end_rows) for w in lower])
        facts[n, :count] = torch.tensor([lexicon.facts(w) for w in words])
        valid[n, :count] = 1.0
    return Sentences(word, ends, facts, valid)


def _ends(word: str, rows: int) -> list[int]:
    """The whole word, and its first and last 2, 3 and 4 characters."""
    framed = f"<{word}>"
    cuts = [part for n in (2, 3, 4) for part in (framed[:n], framed[-n:])]
    return [hashed(part, rows) for part in [f"#{word}", *cuts]]


def targets(texts: Sequence[Sequence[SpokenWord]]) -> tuple[Tensor, Tensor, Tensor]:
    """Prominence and boundary [N, W] (`NONE` where there is none), and the value of prominence."""
    longest = max(len(words) for words in texts)
    classes = torch.full((2, len(texts), longest), NONE)
    value = torch.zeros(len(texts), longest)
    for n, words in enumerate(texts):
        for i, word in enumerate(words):
            classes[0, n, i] = NONE if word.prominence is None else word.prominence
            classes[1, n, i] = NONE if word.boundary is None else word.boundary
            value[n, i] = word.prominence_value or 0.0
    return classes[0], classes[1], value


def fit(
    config: ProminenceConfig,
    lexicon: Lexicon,
    spoken: Sequence[Sequence[SpokenWord]],
    vectors: Tensor | None,
    epochs: int = 5,
    batch: int = 32,
    rate: float = 2e-3,
    seed: int = 0,
    report: Callable[[dict[str, Any]], None] = lambda record: None,
) -> ProminenceNet:
    """A network trained on sentences as they were spoken; the same for the same seed.

    Raises:
        UsageError: no sentence, or no word with a prominence in them.
    """
    spoken = [words for words in spoken if words]
    if not any(word.prominence is not None for words in spoken for word in words):
        raise UsageError("prominence: got no word with a prominence, expected some.", "Give labelled sentences.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        random = np.random.default_rng(seed)
        net = ProminenceNet(config, vectors)
        tables = [net.word.weight, net.ends.weight]
        rest = [p for p in net.parameters() if all(p is not table for table in tables)]
        solvers = (torch.optim.SparseAdam(tables, lr=rate), torch.optim.AdamW(rest, lr=rate))
        parts = max(1, len(spoken) // batch)
        step = 0
        net.train()
        for epoch in range(epochs):
            losses = []
            for rows in np.array_split(random.permutation(len(spoken)), parts):
                some = [spoken[i] for i in rows]
                given = sentences(lexicon, [[w.text for w in words] for words in some], config.end_rows)
                prominence, boundary, value = targets(some)
                y = net(given, causal=bool(random.random() < 0.5))
                has = prominence != NONE
                loss = F.cross_entropy(y[..., :3][has], prominence[has]) + 0.5 * F.mse_loss(y[..., 6][has], value[has])
                if bool((boundary != NONE).any()):
                    loss = loss + 0.5 * F.cross_entropy(
                        y[..., 3:6].flatten(0, 1), boundary.flatten(), ignore_index=NONE
                    )
                net.zero_grad(set_to_none=True)
                loss.backward()
                step += 1
                for solver in solvers:
                    solver.param_groups[0]["lr"] = rate * max(0.02, 1.0 - step / (epochs * parts))
                    solver.step()
                losses.append(loss.item())
            report({"epoch": epoch + 1, "loss": float(np.mean(losses))})
    return net.eval()


class Prominence(NamedTuple):
    """Of each word [W]: chance of being prominent, expected prominence (0 to about 2.5), chance of a boundary after it."""

    prominent: np.ndarray
    value: np.ndarray
    boundary: np.ndarray


class Speaker:
    """Says which words of a sentence would be stressed.

    Args:
        net: a trained network.
        lexicon: that it was trained with.
    """

    def __init__(self, net: ProminenceNet, lexicon: Lexicon) -> None:
        self.net, self.lexicon = net.eval(), lexicon

    @torch.no_grad()
    def read(self, texts: Sequence[Sequence[str]], causal: bool = False, batch: int = 64) -> list[Prominence]:
        """Prosody of each sentence of words and signs; ``causal`` sees no word to come.

        Raises:
            UsageError: no sentence, or one without words.
        """
        if not texts or not all(len(words) for words in texts):
            raise UsageError("prominence: got an empty sentence, expected words.", "Leave it out.")
        found = []
        for start in range(0, len(texts), batch):
            some = texts[start : start + batch]
            y = self.net(sentences(self.lexicon, some, self.net.config.end_rows), causal)
            prominent = 1.0 - y[..., :3].softmax(-1)[..., 0]
            boundary = 1.0 - y[..., 3:6].softmax(-1)[..., 0]
            for n, words in enumerate(some):
                rows = (x[n, : len(words)].numpy() for x in (prominent, y[..., 6].clamp(min=0.0), boundary))
                found.append(Prominence(*rows))
        return found


def save(speaker: Speaker, path: str | Path, about: dict[str, Any]) -> None:
    """Write one file (`neuro.tensor_file`, schema ``neuro.prominence/1``)."""
    tensors: dict[str, Tensor] = {}
    for name, value in speaker.net.state_dict().items():
        if name in _TABLES:
            tensors[name], tensors[f"{name}.scale"] = quantized(value)
        else:
            tensors[name] = value.half()
    lexicon = speaker.lexicon
    tensors["words"], tensors["counts"] = packed(lexicon.known), torch.tensor(lexicon.counts, dtype=torch.int32)
    tensors["stress.words"], tensors["stress"] = packed(list(lexicon.stress)), packed(list(lexicon.stress.values()))
    header = {"schema": SCHEMA, "network": configs.to_dict(speaker.net.config), "about": about}
    tensor_file.write(path, tensors, header)


def load(path: str | Path | None = None) -> Speaker:
    """The speaker in a file; None is the one that is shipped.

    Raises:
        MissingError: no such file.
        FormatError: truncated, foreign, or not whole.
    """
    path = Path(SHIPPED if path is None else path)
    if not path.is_file() and path == SHIPPED:
        raise MissingError(
            f"{path}: no prosody model is shipped with this installation.", "Train one: benchmarks/prosody.py train."
        )
    tensors, header = tensor_file.read(path, SCHEMA)
    try:
        config = configs.from_dict(ProminenceConfig, header["network"], f"{path} network")
        known, spelled, stress = (unpacked(tensors.pop(name)) for name in ("words", "stress.words", "stress"))
        lexicon = Lexicon(known, tensors.pop("counts").tolist(), dict(zip(spelled, stress, strict=True)))
        if len(known) != config.words:
            raise ValueError(f"{len(known)} words, expected {config.words}")
    except (KeyError, ValueError) as error:
        raise FormatError(f"{path}: its header or words are not whole ({error}).", "Use another copy.") from error
    net = ProminenceNet(config)
    weights = {name: whole(tensors, name) for name in tensors if not name.endswith(".scale")}
    tensor_file.check_shapes(weights, dict(net.state_dict()), str(path))
    net.load_state_dict(weights)
    return Speaker(net, lexicon)
