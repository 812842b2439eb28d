"""A trained affect head as one file, and what it says of a text.

The file is safetensors (`neuro.tensor_file`, schema ``neuro.affect/1``): tables as int8 with one float16 scale a row, the rest
float16, words as UTF-8 bytes; thresholds and names in the header. Valence, arousal and dominance come from a second file
(schema ``neuro.affect.vad/1``), because the data they are fitted to is share-alike.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuro import config as configs
from neuro import tensor_file
from neuro.affect import ngrams
from neuro.affect.corpora import OUT_OF_SCOPE
from neuro.affect.encoder import AffectNet, EncoderConfig
from neuro.affect.fit import features
from neuro.affect.words import Vocabulary, cut
from neuro.errors import FormatError, MissingError, UsageError

SCHEMA, VAD_SCHEMA = "neuro.affect/1", "neuro.affect.vad/1"
SHIPPED = Path(__file__).parents[1] / "models" / "affect" / "affect.safetensors"
HEADS = ("emotion", "intent", "positive", "subjective")


@dataclasses.dataclass(frozen=True)
class Affect:
    """What one text expresses.

    Emotions whose score is above their threshold, strongest first (none: nothing was clear), with a probability each; whether
    it is positive and subjective (probabilities); the intent, None where it looks out of scope or no word is known; how much it
    looks out of scope, above 0 where rejected for that; valence, arousal and dominance on EmoBank's 1 to 5, None without their
    head; the share of words it knew: next to none of a text in another script or language, none of one that is only signs, and
    then the rest means little.
    """

    emotions: dict[str, float]
    positive: float
    subjective: float
    intent: str | None
    out_of_scope: float
    vad: tuple[float, float, float] | None
    known: float


@dataclasses.dataclass(frozen=True)
class Cuts:
    """Where decisions fall, chosen on held-out text: an emotion's logit, and the out-of-scope score."""

    emotion: tuple[float, ...]
    out_of_scope: float = 0.0


@dataclasses.dataclass(frozen=True)
class Wide:
    """The n-gram half of a head: frequencies [R] as `ngrams.frequencies` has them, table [R, C], bias [C], and its weight."""

    inverse: Tensor
    table: Tensor
    bias: Tensor
    weight: float

    def logits(self, texts: list[str]) -> Tensor:
        """[S, C]."""
        found = ngrams.listed(texts, len(self.inverse))
        return ngrams.bags(found, self.inverse).times(self.table) + self.bias


@dataclasses.dataclass(frozen=True)
class Vad:
    """Valence, arousal and dominance: (1 - w) of a linear head [3, K], [3] on the features and the other heads' logits, and w
    of what n-grams say; w is the weight of `wide`."""

    weight: Tensor
    bias: Tensor
    wide: Wide

    def read(self, found: dict[str, Tensor], texts: list[str]) -> Tensor:
        """[S, 3] from what `Reader.logits` found."""
        deep = self.inputs(found) @ self.weight.T + self.bias
        return (1.0 - self.wide.weight) * deep + self.wide.weight * self.wide.logits(texts)

    @staticmethod
    def inputs(found: dict[str, Tensor]) -> Tensor:
        """[S, K]."""
        logits = torch.cat([found[head] for head in HEADS if head != "intent"], 1)
        return torch.cat([found["features"], logits, logits.sigmoid()], 1)


class Reader:
    """Reads affect off texts.

    Args:
        net: with the heads of `HEADS`.
        vocabulary: that it was trained with.
        emotions: names of the emotion head's outputs.
        intents: of the intent head's, the last one out of scope.
        cuts: where decisions fall.
        wide: the other half of each head, by name.
        vad: the head of valence, arousal and dominance, or None.
    """

    def __init__(
        self,
        net: AffectNet,
        vocabulary: Vocabulary,
        emotions: tuple[str, ...],
        intents: tuple[str, ...],
        cuts: Cuts,
        wide: dict[str, Wide],
        vad: Vad | None = None,
    ) -> None:
        self.net, self.vocabulary, self.cuts, self.wide, self.vad = net.eval(), vocabulary, cuts, wide, vad
        self.emotions, self.intents = emotions, intents

    @torch.no_grad()
    def logits(self, texts: list[str]) -> dict[str, Tensor]:
        """[S, outputs] of each head and z [S, features] as "features"; intents as log-probabilities of both halves, added.

        Raises:
            UsageError: no text, one that is in no list, or one without a word or a sign.
        """
        if isinstance(texts, str):
            raise UsageError("affect: got one text, expected a list of them.", "Put it in a list: [text].")
        if not texts:
            raise UsageError("affect: got no text, expected at least one.", "Give a text.")
        for number, text in enumerate(texts, 1):
            if not cut(text):
                raise UsageError(
                    f"affect: text {number} of {len(texts)} is empty, expected at least one word.", "Leave it out."
                )
        z = features(self.net, self.vocabulary.encode(texts))
        found = {"features": z}
        for head in HEADS:
            found[head] = combined(head, self.net.heads[head](z), self.wide.get(head), texts)
        return found

    def read(self, texts: list[str]) -> list[Affect]:
        """What each text expresses.

        Raises:
            UsageError: no text, or an empty one.
        """
        found = self.logits(texts)
        emotion, intent = found["emotion"], found["intent"]
        positive, subjective = (torch.sigmoid(found[head])[:, 0].tolist() for head in HEADS[2:])
        outside = (out_of_scope(intent) - self.cuts.out_of_scope).tolist()
        best = intent[:, :-1].argmax(1).tolist()
        vad = None if self.vad is None else self.vad.read(found, texts).clamp(1.0, 5.0).tolist()
        read = []
        for number, text in enumerate(texts):
            known = self._known(text)
            above = [(self.emotions[i], float(emotion[number, i])) for i in self._clear(emotion[number])]
            read.append(
                Affect(
                    {name: 1.0 / (1.0 + float(np.exp(-value))) for name, value in sorted(above, key=lambda x: -x[1])},
                    positive[number],
                    subjective[number],
                    None if outside[number] > 0.0 or not known else self.intents[best[number]],
                    outside[number],
                    None if vad is None else tuple(vad[number]),
                    known,
                )
            )
        return read

    def _clear(self, logits: Tensor) -> list[int]:
        return torch.nonzero(logits > torch.tensor(self.cuts.emotion)).flatten().tolist()

    def _known(self, text: str) -> float:
        words = [word for word in cut(text) if word[0].isalnum()]
        known = sum(word in self.vocabulary.row or word.isdecimal() for word in words)
        return known / len(words) if words else 0.0


def combined(head: str, deep: Tensor, wide: Wide | None, texts: list[str]) -> Tensor:
    """Both halves of a head."""
    return deep if wide is None else joined(head, deep, wide.logits(texts), wide.weight)


def joined(head: str, deep: Tensor, other: Tensor, weight: float) -> Tensor:
    """Logits of the network and of the n-grams; intents as log-probabilities."""
    if head == "intent":
        return deep.log_softmax(1) + weight * other.log_softmax(1)
    return (deep + weight * other) / (1.0 + weight)


def out_of_scope(intent: Tensor) -> Tensor:
    """[S] from logits [S, intents + 1]: that of the last class less the log-sum-exp of the others."""
    return intent[:, -1] - intent[:, :-1].logsumexp(1)


def save(reader: Reader, path: str | Path, about: dict[str, Any]) -> None:
    """Write the file, without the valence head; ``about`` is the record of its making.

    Raises:
        NeuroError: it cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    for name, value in reader.net.state_dict().items():
        if name in ("word.weight", "piece.weight", "phrase.weight"):
            tensors[name], tensors[f"{name}.scale"] = quantized(value)
        else:
            tensors[name] = value.half()
    for head, wide in reader.wide.items():
        tensors[f"wide.{head}.table"], tensors[f"wide.{head}.table.scale"] = quantized(wide.table)
        tensors[f"wide.{head}.inverse"], tensors[f"wide.{head}.bias"] = wide.inverse.half(), wide.bias
    vocabulary = reader.vocabulary
    tensors["words"] = packed(vocabulary.known)
    tensors["lexicon.words"] = packed(list(vocabulary.lexicon))
    tensors["lexicon"] = torch.tensor(list(vocabulary.lexicon.values()), dtype=torch.float16)
    header = {
        "schema": SCHEMA,
        "encoder": configs.to_dict(reader.net.config),
        "emotions": reader.emotions,
        "intents": reader.intents,
        "cuts": dataclasses.asdict(reader.cuts),
        "wide": {head: wide.weight for head, wide in reader.wide.items()},
        "about": about,
    }
    tensor_file.write(path, tensors, header)


def load(path: str | Path | None = None, vad: str | Path | None = None) -> Reader:
    """The reader in a file (None: the one that is shipped), with the valence head of a second file where one is given.

    Raises:
        MissingError: no such file.
        FormatError: truncated, foreign, or files that do not belong together.
    """
    path = Path(SHIPPED if path is None else path)
    if not path.is_file() and path == SHIPPED:
        raise MissingError(
            f"{path}: no affect model is shipped with this installation.", "Train one: benchmarks/affect.py train."
        )
    tensors, header = tensor_file.read(path, SCHEMA)
    try:
        config = configs.from_dict(EncoderConfig, header["encoder"], f"{path} encoder")
        emotions, intents = tuple(header["emotions"]), tuple(header["intents"])
        cuts = Cuts(tuple(map(float, header["cuts"]["emotion"])), float(header["cuts"]["out_of_scope"]))
        known, lexicon_words = (unpacked(tensors.pop(name)) for name in ("words", "lexicon.words"))
        lexicon = dict(zip(lexicon_words, tensors.pop("lexicon").float().tolist(), strict=True))
        wide = {head: _wide(tensors, f"wide.{head}", float(weight)) for head, weight in header["wide"].items()}
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{path}: its header or words are not whole ({error}).", "Use another copy.") from error
    if len(known) != config.words or intents[-1:] != (OUT_OF_SCOPE,) or len(cuts.emotion) != len(emotions):
        raise FormatError(f"{path}: words, names and cuts do not agree with its sizes.", "Use another copy.")
    sizes = dict(zip(HEADS, (len(emotions), len(intents), 1, 1), strict=True))
    net = AffectNet(config, sizes)
    weights = {name: whole(tensors, name) for name in list(tensors) if not name.endswith(".scale")}
    tensor_file.check_shapes(weights, dict(net.state_dict()), str(path))
    net.load_state_dict(weights)
    vocabulary = Vocabulary(known, lexicon, config.piece_rows, config.phrase_rows)
    return Reader(net, vocabulary, emotions, intents, cuts, wide, None if vad is None else load_vad(vad))


def save_vad(vad: Vad, path: str | Path, about: dict[str, Any]) -> None:
    """Write the head of valence, arousal and dominance."""
    tensors = {"weight": vad.weight, "bias": vad.bias}
    tensors["table"], tensors["table.scale"] = quantized(vad.wide.table)
    tensors |= {"table.bias": vad.wide.bias, "inverse": vad.wide.inverse.half()}
    tensor_file.write(path, tensors, {"schema": VAD_SCHEMA, "wide": vad.wide.weight, "about": about})


def load_vad(path: str | Path) -> Vad:
    """The head of valence, arousal and dominance.

    Raises:
        MissingError, FormatError: not there, or foreign.
    """
    tensors, header = tensor_file.read(path, VAD_SCHEMA)
    try:
        wide = Wide(tensors["inverse"].float(), whole(tensors, "table"), tensors["table.bias"], float(header["wide"]))
        return Vad(tensors["weight"], tensors["bias"], wide)
    except KeyError as error:
        raise FormatError(f"{path}: tensor {error} is missing.", "Use another copy.") from error


def _wide(tensors: dict[str, Tensor], prefix: str, weight: float) -> Wide:
    """Takes a head's wide half out of ``tensors``."""
    table = whole(tensors, f"{prefix}.table")
    parts = [tensors.pop(f"{prefix}.{name}") for name in ("inverse", "bias", "table", "table.scale")]
    return Wide(parts[0].float(), table, parts[1], weight)


def whole(tensors: dict[str, Tensor], name: str) -> Tensor:
    """A tensor as float32, with its scale where it has one."""
    scale = tensors.get(f"{name}.scale")
    return tensors[name].float() if scale is None else tensors[name].float() * scale.float().unsqueeze(1)


def quantized(table: Tensor) -> tuple[Tensor, Tensor]:
    """int8 [R, C] and float16 [R] with table = int8 * scale, to half a 127th of a row's largest value."""
    scale = (table.abs().amax(1) / 127.0).clamp(min=1e-7).half()
    return (table / scale.float().unsqueeze(1)).round().clamp(-127, 127).to(torch.int8), scale


def packed(words: list[str]) -> Tensor:
    """Words as bytes, a line each."""
    return torch.from_numpy(np.frombuffer("\n".join(words).encode("utf-8"), np.uint8).copy())


def unpacked(lines: Tensor) -> list[str]:
    """What `packed` packed."""
    return bytes(lines.numpy()).decode("utf-8").split("\n") if len(lines) else []
