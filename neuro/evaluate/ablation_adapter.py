"""Is a memory around a base worth its parameters? The arms of a hippocampal adapter over one text in one stream.

    base            the base alone
    lora            low-rank updates alone                         (another folder)
    block           updates and an equal block without a memory    (another folder)
    memory empty    the adapter, its memory emptied before every span
    memory shuffled the adapter with what another part of the text left in it
    memory full     the adapter

Every arm starts from a fresh state, reads the whole text in one stream (the base's context starts again as its window says)
and never changes a weight. SHUFFLED is that of `neuro/evaluate/perplexity.py`: a second stream reads the second half of the
text while the first reads the first, and each document of the first half begins with what the second has stored; the first
document is left out. The comparison of documents, seeds and ties is `neuro/evaluate/ablation.py`'s.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open

from neuro import plots, text
from neuro.errors import MissingError, UsageError
from neuro.evaluate import ablation, perplexity
from neuro.hf.adapter import BASE, LORA_WEIGHTS, WEIGHTS, HippocampalAdapter
from neuro.hf.adapter_cache import AdapterCache
from neuro.hf.adapter_config import AdapterConfig
from neuro.hf.adapter_host import load_base
from neuro.hf.streaming import CACHE_NAME
from neuro.tokenizer import Tokenizer

FUSIONS = {"lora": "none", "block": "feedforward", "full": "memory"}  # of the arms that are folders
LABELS = {
    "base": "base",
    "lora": "low-rank updates alone",
    "block": "updates and block",
    "empty": "memory empty",
    "shuffled": "memory shuffled",
    "full": "memory full",
}
TOLERANCE = 0.05  # of the trained parameters of the full adapter; a block's width is a whole number of units


@dataclasses.dataclass(frozen=True)
class Document:
    """One unit of the text."""

    ids: list[int]
    words: int
    size_bytes: int
    flag_nats: float


@dataclasses.dataclass(frozen=True)
class _Vocabulary:
    tokenizer: Tokenizer


def run(
    adapter: Path,
    raw: str,
    say: Callable[[str], None] = lambda line: None,
    *,
    against: Sequence[str] = (),
    tokenizer: Path | None = None,
    wikitext: bool = False,
    articles: int | None = None,
) -> dict[str, Any]:
    """Score every arm over the text -> the record of the suite.

    Args:
        adapter: a folder with a memory.
        raw: the text.
        against: "lora=FOLDER", "block=FOLDER" of other arms; "full=FOLDER" and a name again are further seeds.
        tokenizer: of the base; None looks into the adapter's folder and its base's.
        wikitext: the text is in WikiText's word-token form; then a document is an article, else a block of lines.
        articles: only the first so many documents.

    Raises:
        UsageError: too few documents, folders that are not what they are named, or arms of unequal size or base.
        MissingError: a folder or a tokenizer that is not there.
    """
    folders = _folders(adapter, against)
    configs = {name: [_config(name, where) for where in found] for name, found in folders.items()}
    bare = configs["full"][0]
    _same_base(configs, folders)
    words = documents(raw, _tokenizer(adapter, bare, tokenizer), wikitext, articles)
    sizes = {name: [_trained(where) for where in found] for name, found in folders.items()}
    for name, counts in sizes.items():
        if any(abs(count - sizes["full"][0]) > TOLERANCE * sizes["full"][0] for count in counts):
            raise UsageError(
                f"--against {name}: got {counts[0]} trained parameters, expected {sizes['full'][0]} within "
                f"{100 * TOLERANCE:g} %.",
                "Train an arm of equal size: a larger one may win by its size.",
            )
    base = load_base(_base_of(adapter, bare))
    alone = AdapterConfig(fusion="none", lora_rank=0, span=bare.span, window=bare.window, overlap=bare.overlap)
    say("base ...")
    costs: dict[str, list[np.ndarray]] = {"base": [scored(HippocampalAdapter(alone, base).eval(), words)]}
    half = _first_half(words)
    swapped: dict[str, list[np.ndarray]] = {"full": [], "shuffled": [], "empty": []}
    for name, found in folders.items():
        for number, where in enumerate(found):
            model = HippocampalAdapter.from_pretrained(where, base=load_base(_base_of(where, configs[name][number])))
            say(f"{LABELS[name]}, {number + 1} of {len(found)} ...")
            costs.setdefault(name, []).append(scored(model, words))
            if name != "full":
                continue
            say(f"{LABELS['empty']}, {number + 1} of {len(found)} ...")
            costs.setdefault("empty", []).append(scored(model, words, empty=True))
            if half > ablation.FEWEST:
                say(f"{LABELS['shuffled']}, {number + 1} of {len(found)} ...")
                swapped["shuffled"].append(shuffled(model, words, half))
    for name in ("full", "empty"):
        swapped[name] = [row[1:half] for row in costs[name]]
    order = [name for name in LABELS if name in costs]
    record: dict[str, Any] = {
        "wikitext": wikitext,
        "trained_parameters": sizes,
        "whole": _compared({name: costs[name] for name in order}, words),
        "half": None,
        "shuffled_left_out": None,
    }
    if swapped["shuffled"]:
        record["half"] = _compared(swapped, words[1:half])
    else:
        need = ablation.FEWEST + 1
        record["shuffled_left_out"] = f"needs {need} documents in the first half of the text, has {half}"
    return record


def table(record: dict[str, Any]) -> list[str]:
    """The record in words."""
    sizes = ", ".join(f"{LABELS[name]} {counts[0]}" for name, counts in record["trained_parameters"].items())
    lines = [f"trained parameters: {sizes}", *ablation.table(record["whole"])]
    if record["half"] is None:
        return [*lines, f"{LABELS['shuffled']}: left out, {record['shuffled_left_out']}"]
    return [*lines, "documents of the first half, without the first:", *ablation.table(record["half"])]


def picture(record: dict[str, Any], out: Path) -> Path | None:
    """Word perplexity of each arm with its interval; None without matplotlib."""
    bars = {
        name: [(arm["word_perplexity"], tuple(arm["word_perplexity_interval"]))]
        for name, arm in record["whole"]["arms"].items()
    }
    return plots.grouped(["the whole text in one stream"], bars, "word perplexity", out)


def documents(raw: str, tokenizer: Tokenizer, wikitext: bool = False, articles: int | None = None) -> list[Document]:
    """The text as documents.

    Raises:
        UsageError: fewer than `ablation.FEWEST`.
    """
    coded = perplexity.code(raw, _Vocabulary(tokenizer), wikitext)
    lines = raw.removesuffix("\n").split("\n")
    size = perplexity.BLOCK_LINES
    units = list(text.articles(lines)) if wikitext else [lines[i : i + size] for i in range(0, len(lines), size)]
    found = [
        Document(ids, words, sum(len(line.encode("utf-8")) + 1 for line in unit), flag)
        for ids, words, flag, unit in zip(coded.ids, coded.words, coded.flag_nats, units, strict=True)
    ][:articles]
    if len(found) < ablation.FEWEST:
        raise UsageError(
            f"ablation: got {len(found)} documents, expected at least {ablation.FEWEST}.",
            "Give more documents: so few say nothing.",
        )
    return found


@torch.no_grad()
def scored(model: HippocampalAdapter, found: Sequence[Document], empty: bool = False) -> np.ndarray:
    """Nats of each document [N] in one fresh stream; the stream's first token is not predicted and costs nothing.

    Args:
        empty: empty the memory before every span.
    """
    stream = _Stream(model, empty)
    return np.array([stream.read(document.ids) + document.flag_nats for document in found])


@torch.no_grad()
def shuffled(model: HippocampalAdapter, found: Sequence[Document], half: int) -> np.ndarray:
    """Nats of documents 1 to ``half`` [half - 1], each begun with the slots of a stream in the second half."""
    own, other = _Stream(model), _Stream(model)
    others = [token for document in found[half:] for token in document.ids]
    nats, at, read = [], 0, 0
    for number, document in enumerate(found[:half]):
        if number:
            other.read(others[read:at])
            read = at
            other.cache.commit(model)
            own.cache.commit(model)
            own.cache.put_memories([other.cache.memory_of(0)])
        nats.append(own.read(document.ids) + document.flag_nats)
        at += len(document.ids)
    return np.array(nats[1:])


class _Stream:
    """One stream through an adapter, cut where its spans end."""

    def __init__(self, model: HippocampalAdapter, empty: bool = False) -> None:
        self.model, self.empty, self.cache = model, empty, AdapterCache()
        self.last: torch.Tensor | None = None  # [1, 1, V] logits for the token that comes next
        self.fed = 0

    def read(self, ids: Sequence[int]) -> float:
        """Nats of these tokens."""
        total, start, span = 0.0, 0, self.model.config.span
        while start < len(ids):
            stop = min(len(ids), start + span - self.fed % span)  # the same pieces in every arm
            if self.empty and self.fed % span == 0:
                self.cache.forget()
            tokens = torch.tensor([ids[start:stop]])
            logits = self.model(tokens, **{CACHE_NAME: self.cache}).logits.double()
            before = logits[:, :-1] if self.last is None else torch.cat([self.last, logits[:, :-1]], 1)
            target = tokens[:, 1:] if self.last is None else tokens
            total += float(F.cross_entropy(before.flatten(0, 1), target.flatten(), reduction="sum"))
            self.last = logits[:, -1:]
            self.fed += stop - start
            start = stop
        return total


def _folders(adapter: Path, against: Sequence[str]) -> dict[str, list[Path]]:
    folders: dict[str, list[Path]] = {"lora": [], "block": [], "full": [adapter]}
    for item in against:
        name, equals, where = item.partition("=")
        if not equals or name not in FUSIONS:
            raise UsageError(
                f"--against: got '{item}', expected NAME=FOLDER with a name of {', '.join(FUSIONS)}.",
                "Write for example --against lora=FOLDER.",
            )
        folders[name].append(Path(where))
    seeds = len(folders["full"])
    for name, found in folders.items():
        if found and len(found) not in (1, seeds):
            raise UsageError(
                f"--against {name}: got {len(found)} folders, expected 1 or {seeds}, as many as of the full adapter.",
                "Give one of every seed.",
            )
    return {name: found for name, found in folders.items() if found}


def _config(name: str, where: Path) -> AdapterConfig:
    if not ablation.is_adapter(where):
        raise MissingError(
            f"{where}: got no adapter, expected a folder that save_pretrained wrote.", "Correct the path."
        )
    config = AdapterConfig(**json.loads((where / "config.json").read_text(encoding="utf-8")))
    if config.fusion != FUSIONS[name]:
        raise UsageError(
            f"{where}: got an adapter of fusion '{config.fusion}', expected '{FUSIONS[name]}' for the arm '{name}'.",
            "Give the folder of that arm.",
        )
    return config


def _same_base(configs: Mapping[str, Sequence[AdapterConfig]], folders: Mapping[str, Sequence[Path]]) -> None:
    first = configs["full"][0]
    for name, found in configs.items():
        for config, where in zip(found, folders[name], strict=True):
            for key in ("model_type", "width", "vocab_size"):
                if config.base[key] != first.base[key]:
                    raise UsageError(
                        f"{where}: got a base of {key} {config.base[key]}, expected {first.base[key]} as of the full adapter.",
                        "Compare arms around one base.",
                    )
            if (config.window, config.overlap) != (first.window, first.overlap):
                raise UsageError(
                    f"{where}: got a window of {config.window} with {config.overlap} read again, expected {first.window} with "
                    f"{first.overlap} as of the full adapter.",
                    "Compare arms that see as much of the text.",
                )


def _base_of(where: Path, config: AdapterConfig) -> str:
    return str(where / BASE) if (where / BASE).is_dir() else config.base["name"]


def _tokenizer(adapter: Path, config: AdapterConfig, given: Path | None) -> Tokenizer:
    places = [given] if given else [adapter / "tokenizer.json", Path(_base_of(adapter, config)) / "tokenizer.json"]
    for path in places:
        if given or path.is_file():
            found = Tokenizer.load(path)
            if found.vocab_size > config.vocab_size:
                raise UsageError(
                    f"{path}: got {found.vocab_size} tokens, expected at most {config.vocab_size} as of the base.",
                    "Give the tokenizer that the base was trained with.",
                )
            return found
    raise MissingError(
        f"{adapter}: got no tokenizer.json in it or beside its base, expected the base's.", "Give --tokenizer FILE."
    )


def _trained(where: Path) -> int:
    """Parameters that are no part of the base."""
    count = 0
    for name in (WEIGHTS, LORA_WEIGHTS):
        if (where / name).is_file():
            with safe_open(where / name, "pt") as file:
                count += sum(int(np.prod(file.get_slice(key).get_shape())) for key in file.keys())
    return count


def _first_half(found: Sequence[Document]) -> int:
    """How many documents lie in the first half of the text: the second is at least as long."""
    ends = np.cumsum([len(document.ids) for document in found])
    return int(np.searchsorted(2 * ends, ends[-1], side="right"))


def _compared(costs: Mapping[str, Sequence[np.ndarray]], found: Sequence[Document]) -> dict[str, Any]:
    words = np.array([document.words for document in found], dtype=float)
    size = np.array([document.size_bytes for document in found], dtype=float)
    return ablation.compare({LABELS[name]: np.stack(rows) for name, rows in costs.items()}, words, size, LABELS["full"])
