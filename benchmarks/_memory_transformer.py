"""The peers of `transformer_peers.py`: Transformer-XL and the Compressive Transformer.

Transformer-XL (Dai et al. 2019, arXiv:1901.02860): a segment of T tokens attends to itself and to the hidden states that the
last M tokens had at the input of the same layer, through which no gradient flows. Of a query i and a key j

    score = ((q_i + u) k_j + (q_i + v) W_r R(i - j)) / sqrt(K),      R sinusoids of the distance

Compressive Transformer (Rae et al. 2019, arXiv:1911.05507): what leaves those M is not dropped. A convolution of kernel and
stride ``rate`` makes one compressed state of ``rate`` old ones, and the last C of these stand before the M. It learns from
the attention-reconstruction loss alone: what the segment reads from the old states by content, it shall read from the
compressed ones; nothing else learns from that. A compressed state counts as one step of distance.

differs: RMS norms before attention and feed-forward instead of after them, the memory holds what stands before the norm, u and
v are each layer's own, one embedding serves input and output in the place of an adaptive softmax, no dropout.

Axes: L layers, B rows, T tokens of a segment, M recent and C compressed slots, S = C + M + T keys, D width, H heads.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuro.errors import UsageError
from neuro.layers.norm import wide


@dataclasses.dataclass(frozen=True)
class Size:
    """Of a peer. Weights depend on neither ``memory`` nor, but for being 0, ``compressed``: both may grow afterwards.

    Raises:
        UsageError: heads that do not divide the width, or a memory that is not whole groups of ``rate``.
    """

    vocab: int
    width: int
    layers: int
    heads: int
    hidden: int  # of the feed-forward
    memory: int  # M
    compressed: int = 0  # C; 0: a Transformer-XL
    rate: int = 4

    def __post_init__(self) -> None:
        if self.width % self.heads or self.width % 2:
            raise UsageError(
                f"peer: got width {self.width} with {self.heads} heads, expected an even multiple of heads.",
                "Set width or heads.",
            )
        if self.memory < 1 or (self.compressed and self.memory % self.rate):
            raise UsageError(
                f"peer: got a memory of {self.memory} at rate {self.rate}, expected at least 1 and whole groups.",
                "Set memory to a multiple of rate.",
            )


class Memory(NamedTuple):
    """What a stream carries from segment to segment; slots fill from the right."""

    recent: Tensor  # [L, B, M, D] newest last
    compressed: Tensor  # [L, B, C, D]
    held: Tensor  # [B] int64 how many of M are filled
    held_compressed: Tensor  # [B] int64 of C


class Reading(NamedTuple):
    features: Tensor  # [B, T, D] what the vocabulary matrix turns into logits
    inputs: Tensor  # [L, B, T, D] of each layer


class Layer(nn.Module):
    """Attention over memory and segment, and a feed-forward, each added to what came in."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        width, per_head = size.width, (size.heads, 1, size.width // size.heads)
        self.heads = size.heads
        self.norm, self.norm_hidden = nn.RMSNorm(width, eps=1e-6), nn.RMSNorm(width, eps=1e-6)
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.distance = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.content_bias, self.distance_bias = (nn.Parameter(torch.zeros(per_head)) for _ in range(2))
        self.up, self.down = nn.Linear(width, size.hidden), nn.Linear(size.hidden, width)
        if size.compressed:
            self.compress = nn.Conv1d(width, width, size.rate, stride=size.rate)
        with torch.no_grad():
            for last in (self.out, self.down):
                last.weight.div_(math.sqrt(2 * size.layers))

    def forward(self, x: Tensor, past: Tensor, distances: Tensor, hidden_from: Tensor) -> Tensor:
        """x [B,T,D], past [B,C+M,D], sinusoids [S,D] from the farthest to 0, [B,1,T,S] what hides keys."""
        q = self._split(self.query(self.norm(x)))
        k, v = (self._split(part) for part in self.key_value(self.norm(torch.cat([past, x], 1))).chunk(2, -1))
        r = self._split(self.distance(distances).unsqueeze(0))
        scale = 1.0 / math.sqrt(q.shape[-1])
        by_content = ((q + self.content_bias) * scale) @ k.transpose(-1, -2)
        by_distance = shifted(((q + self.distance_bias) * scale) @ r.transpose(-1, -2))
        y = self._read(by_content + by_distance, v, hidden_from)
        x = x + self.out(y)
        return x + self.down(torch.relu(self.up(self.norm_hidden(x))))

    def reconstruction(self, x: Tensor, old: Tensor, new: Tensor, valid: Tensor) -> Tensor:
        """Mean squared difference of what x [B,T,D] reads by content from old [B,N,D] and from new [B,N/rate,D].

        Over the rows of which ``valid`` [B,N] says that they have old states; the gradient reaches ``new`` alone.
        """
        x, old = x.detach(), old.detach()
        scale, rate = self.norm.weight.detach(), old.shape[1] // new.shape[1]
        key_value, query = self.key_value.weight.detach(), self.query.weight.detach()

        def read(states: Tensor, seen: Tensor) -> Tensor:
            k, v = (
                self._split(part)
                for part in F.linear(F.rms_norm(states, (states.shape[-1],), scale, 1e-6), key_value).chunk(2, -1)
            )
            return self._read(q @ k.transpose(-1, -2), v, hiding(~seen)[:, None, None])

        q = self._split(F.linear(F.rms_norm(x, (x.shape[-1],), scale, 1e-6), query))
        q = q / math.sqrt(q.shape[-1])
        apart = wide(read(old, valid) - read(new, valid[:, ::rate])).square().mean((1, 2))
        rows = valid.any(1).to(apart.dtype)
        return (apart * rows).sum() / rows.sum().clamp_min(1.0)

    def _read(self, scores: Tensor, v: Tensor, hidden_from: Tensor) -> Tensor:
        scores = scores + hidden_from.to(scores.dtype)
        y = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(v.dtype) @ v
        return y.transpose(1, 2).flatten(2)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class MemoryTransformer(nn.Module):
    """Either peer. State is explicit: `forward` reads a segment, `remember` moves the memory on."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size = size
        self.embedding = nn.Parameter(torch.randn(size.vocab, size.width) * 0.03)
        self.layers = nn.ModuleList(Layer(size) for _ in range(size.layers))
        self.norm = nn.RMSNorm(size.width, eps=1e-6)

    def empty(self, batch: int) -> Memory:
        """The memory of streams that have seen nothing."""
        s = self.size
        slots = [torch.zeros(s.layers, batch, count, s.width) for count in (s.memory, s.compressed)]
        return Memory(*slots, *(torch.zeros(batch, dtype=torch.int64) for _ in range(2)))

    def forward(self, tokens: Tensor, memory: Memory) -> Reading:
        """tokens [B,T] after what the memory holds."""
        x = F.embedding(tokens, self.embedding) * math.sqrt(self.size.width)
        past = torch.cat([memory.compressed, memory.recent], 2)
        keys = past.shape[2] + tokens.shape[1]
        hidden_from = hiding(unseen(memory, tokens.shape[1]))
        distances = sinusoids(torch.arange(keys - 1, -1, -1), self.size.width).to(x.dtype)
        inputs = []
        for layer, states in zip(self.layers, past, strict=True):
            inputs.append(x)
            x = layer(x, states, distances, hidden_from)
        return Reading(self.norm(x), torch.stack(inputs))

    def logits(self, features: Tensor) -> Tensor:
        """[..., V] in float32 at least."""
        return wide(features @ self.embedding.T)

    def remember(self, memory: Memory, inputs: Tensor) -> tuple[Memory, Tensor]:
        """The memory after a segment with these layer inputs, cut from its graph, and the loss of its compression [].

        Raises:
            UsageError: a segment to be compressed that is not whole groups.
        """
        s, tokens = self.size, inputs.shape[2]
        if s.compressed and tokens % s.rate:
            raise UsageError(
                f"peer: got a segment of {tokens} tokens to compress at rate {s.rate}, expected whole groups.",
                "Only a stream's last segment, which nothing follows, may have another length.",
            )
        inputs = inputs.detach()
        leaving, recent = torch.cat([memory.recent, inputs], 2).split([tokens, s.memory], 2)
        held = (memory.held + tokens).clamp_max(s.memory)
        if not s.compressed:
            return memory._replace(recent=recent, held=held), inputs.new_zeros(())
        valid = torch.arange(tokens) >= (s.memory - memory.held)[:, None]
        fresh, losses = [], []
        for layer, x, old in zip(self.layers, inputs, leaving, strict=True):
            new = layer.compress(old.transpose(1, 2)).transpose(1, 2).to(old.dtype)
            losses.append(layer.reconstruction(x, old, new, valid))
            fresh.append(new.detach())
        compressed = torch.cat([memory.compressed, torch.stack(fresh)], 2)[:, :, -s.compressed :]
        held_compressed = (memory.held_compressed + valid.sum(1) // s.rate).clamp_max(s.compressed)
        return Memory(recent, compressed, held, held_compressed), torch.stack(losses).mean()


def emptied(memory: Memory, rows: Tensor) -> Memory:
    """The same, with nothing held where ``rows`` [B] is true."""
    held, held_compressed = (torch.where(rows, 0, count) for count in memory[2:])
    return memory._replace(held=held, held_compressed=held_compressed)


def unseen(memory: Memory, tokens: int) -> Tensor:
    """[B,1,T,S] true where a key is empty or lies in the future."""
    slots = [
        torch.arange(states.shape[2]) < (states.shape[2] - held)[:, None]
        for states, held in ((memory.compressed, memory.held_compressed), (memory.recent, memory.held))
    ]
    empty = torch.cat(slots, 1)[:, None].expand(-1, tokens, -1)
    future = torch.ones(tokens, tokens, dtype=torch.bool).triu(1).expand(empty.shape[0], -1, -1)
    return torch.cat([empty, future], 2).unsqueeze(1)


def hiding(keys: Tensor) -> Tensor:
    """What is added to the scores of keys that must not be seen: finite, so that a row that sees none gives no NaN."""
    return torch.where(keys, -1e9, 0.0)


def sinusoids(distance: Tensor, width: int) -> Tensor:
    """[S] -> [S, D]: sines, then cosines, of wavelengths from 2 pi to 20,000 pi."""
    angle = distance[:, None] * 10_000.0 ** (-torch.arange(0, width, 2) / width)
    return torch.cat([angle.sin(), angle.cos()], 1)


def shifted(x: Tensor) -> Tensor:
    """[..., T, S] scores of distances S-1 ... 0 -> of keys 0 ... S-1, for queries that are the last T of them.

    Row t moves left by T - 1 - t; what enters from the next row belongs to the future.
    """
    *rest, tokens, keys = x.shape
    return F.pad(x, (1, 0)).reshape(*rest, keys + 1, tokens)[..., 1:, :].reshape(*rest, tokens, keys)
