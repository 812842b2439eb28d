"""The network under every head: word vectors from a table, from pieces and from a lexicon, one and three words at a time.

    w_i = [E[word_i] + mean of S[pieces_i], lexicon_i]
    a_i = relu(A w_i),  b_i = relu(C [w_{i-1}, w_i, w_{i+1}])
    z   = [mean w, mean of P[phrases], max a, mean a, max b, mean b]
    y   = H_head z

A phrase is two or three words in a row, hashed. The heads are linear, so that one that was not trained with the others can be
fitted to the same z in closed form.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuro.affect.words import Batch
from neuro.errors import UsageError


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """Sizes of the tables and layers."""

    words: int
    piece_rows: int = 16384
    phrase_rows: int = 16384
    width: int = 96  # of a word
    phrase_width: int = 48
    single: int = 64  # channels that see one word
    triple: int = 96  # channels that see three
    dropout: float = 0.4
    word_dropout: float = 0.1

    def __post_init__(self) -> None:
        sizes = dataclasses.asdict(self)
        for name, value in sizes.items():
            low = 0.0 if "dropout" in name else 1
            if not low <= value or ("dropout" in name and value >= 1.0):
                raise UsageError(
                    f"encoder: got {name} = {value}, expected {'0 to below 1' if low == 0.0 else 'at least 1'}.",
                    f"Correct {name}.",
                )

    @property
    def features(self) -> int:
        return self.width + 3 + self.phrase_width + 2 * (self.single + self.triple)


class AffectNet(nn.Module):
    """The encoder and a linear head for each task.

    Args:
        config: sizes.
        heads: outputs of each head.
        vectors: [words, width] to start the word table from; None starts small and random.
    """

    def __init__(self, config: EncoderConfig, heads: dict[str, int], vectors: Tensor | None = None) -> None:
        super().__init__()
        self.config = config
        seen = config.width + 3
        self.word = nn.Embedding(config.words + 1, config.width, sparse=True)
        self.piece = nn.EmbeddingBag(config.piece_rows, config.width, mode="mean", sparse=True)
        self.phrase = nn.EmbeddingBag(config.phrase_rows, config.phrase_width, mode="mean", sparse=True)
        for table in (self.word, self.piece, self.phrase):
            nn.init.normal_(table.weight, std=0.1)
        if vectors is not None:
            with torch.no_grad():
                self.word.weight[1:] = vectors
                self.word.weight[0] = 0.0
        self.single = nn.Linear(seen, config.single)
        self.triple = nn.Linear(3 * seen, config.triple)
        self.heads = nn.ModuleDict({name: nn.Linear(config.features, size) for name, size in heads.items()})
        self.drop = nn.Dropout(config.dropout)

    def tables(self) -> list[Tensor]:
        """The sparse ones: a batch touches few of their rows."""
        return [self.word.weight, self.piece.weight, self.phrase.weight]

    def features(self, batch: Batch) -> Tensor:
        """z [N, features]."""
        texts, longest = len(batch.length), int(batch.length.max())
        different = torch.cat([self.word(batch.word) + self.piece(batch.piece, batch.piece_start), batch.lexicon], 1)
        w = different[batch.which]
        if self.training:
            w = w * (torch.rand(len(w), 1) >= self.config.word_dropout)

        def laid(x: Tensor) -> Tensor:
            return x.new_zeros(texts * longest, x.shape[1]).index_copy(0, batch.place, x).view(texts, longest, -1)

        grid, length = laid(w), batch.length.unsqueeze(1)
        framed = F.pad(grid, (0, 0, 1, 1))
        around = torch.cat([framed[:, :-2], grid, framed[:, 2:]], 2).flatten(0, 1)[batch.place]
        found = [grid.sum(1) / length, self.phrase(batch.phrase, batch.phrase_start)]
        for channel in (F.relu(self.single(w)), F.relu(self.triple(around))):
            over = laid(channel)
            found += [over.amax(1), over.sum(1) / length]
        return torch.cat(found, 1)

    def forward(self, batch: Batch, head: str) -> Tensor:
        """[N, outputs of the head]."""
        return self.heads[head](self.drop(self.features(batch)))
