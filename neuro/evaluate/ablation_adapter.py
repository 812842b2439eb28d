"""Is a memory around a base worth its parameters? The arms of a hippocampal adapter over one text in one stream.

    base            the base alone
    lora            low-rank updates alone                         (another folder)
    block           updates and an equal block without a memory    (another folder)
    memory empty    the adapter, its memory emptied before every span
    memory shuffled the adapter with what a stream over another text holds at the same place, put in before every span
    memory full     the adapter

Every arm starts from a fresh state, reads the whole text in one stream, cut into the same spans (the base's context starts
again as its window says, the memory goes on), and never changes a weight. The memory of SHUFFLED was written by the same
adapter, is as old as the stream's own and has as many slots filled, and holds nothing of this text: what is left of the gain is
not owed to having read it. The other text is at least as long. The comparison of documents, seeds and ties is
`neuro/evaluate/ablation.py`'s.

Tokens are also told apart by what a memory could know of them (`repetition`): three tokens in a row that the base still has
in its context, that were read before it, or that are new to the stream.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open

from neuro import plots, text
from neuro.errors import MissingError, UsageError
from neuro.evaluate import ablation, perplexity
from neuro.evaluate.parts import Parts
from neuro.hf import adapter_host as host
from neuro.hf.adapter import BASE, LORA_WEIGHTS, WEIGHTS, HippocampalAdapter
from neuro.hf.adapter_cache import AdapterCache
from neuro.hf.adapter_config import AdapterConfig
from neuro.hf.adapter_fusion import MemoryState
from neuro.hf.adapter_host import load_base
from neuro.hf.streaming import CACHE_NAME
from neuro.memory.contents import EPISODIC
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
KINDS = ("new", "in the context", "read before")  # of tokens
WINDOWS = 8  # of the base that are read at once
GRAM = 3  # tokens in a row that are looked for
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
    other: str | None = None,
    out: Path | None = None,
    wikitext: bool = False,
    articles: int | None = None,
) -> dict[str, Any]:
    """Score every arm over the text -> the record of the suite.

    Args:
        adapter: a folder with a memory.
        raw: the text.
        against: "lora=FOLDER", "block=FOLDER" of other arms; "full=FOLDER" and a name again are further seeds.
        tokenizer: of the base; None looks into the adapter's folder and its base's.
        other: the text whose memory SHUFFLED has, in the same form and at least as long; None leaves that arm out.
        out: where finished arms are kept (`neuro.evaluate.parts`).
        wikitext: the text is in WikiText's word-token form; then a document is an article, else a block of lines.
        articles: only the first so many documents.

    Raises:
        UsageError: too few documents, another text that is too short, folders that are not what they are named, or arms of
            unequal size or base.
        MissingError: a folder or a tokenizer that is not there.
    """
    folders = _folders(adapter, against)
    configs = {name: [_config(name, where) for where in found] for name, found in folders.items()}
    bare = configs["full"][0]
    _same_base(configs, folders)
    vocabulary = _tokenizer(adapter, bare, tokenizer)
    found = documents(raw, vocabulary, wikitext, articles)
    ids = [token for document in found for token in document.ids]
    others = None if other is None else _others(other, vocabulary, wikitext, len(ids))
    sizes = {name: [_trained(where) for where in found] for name, found in folders.items()}
    for name, counts in sizes.items():
        if any(abs(count - sizes["full"][0]) > TOLERANCE * sizes["full"][0] for count in counts):
            raise UsageError(
                f"--against {name}: got {counts[0]} trained parameters, expected {sizes['full'][0]} within "
                f"{100 * TOLERANCE:g} %.",
                "Train an arm of equal size: a larger one may win by its size.",
            )
    kinds = repetition(ids, bare.window, bare.overlap)
    settings = {"wikitext": wikitext, "articles": articles, "gram": GRAM}
    texts = {"other": hashlib.sha256(other.encode("utf-8")).hexdigest()} if other is not None else {}

    def sums(model: HippocampalAdapter, label: str) -> dict[str, np.ndarray]:
        """Nats [N, kinds] of each document by kinds of tokens, for every arm of a folder."""
        memory = model.config.fusion == "memory"
        known = {"model": _fingerprint(model), "tokenizer": vocabulary.fingerprint}

        def compute() -> dict[str, list[list[float]]]:
            read = scored(model, ids, others)
            return {arm: _sums(nats, found, kinds).tolist() for arm, nats in read.items()}

        parts = Parts(out, "ablation", known, raw, settings | (texts if memory else {}), say)
        return {arm: np.array(rows) for arm, rows in parts.get("arms", label, compute).items()}

    alone = AdapterConfig(fusion="none", lora_rank=0, span=bare.span, window=bare.window, overlap=bare.overlap)
    model = HippocampalAdapter(alone, load_base(_base_of(adapter, bare))).eval()
    costs: dict[str, list[np.ndarray]] = {"base": [sums(model, LABELS["base"])["alone"]]}
    for name, listed in folders.items():
        for number, where in enumerate(listed):
            model = HippocampalAdapter.from_pretrained(where, base=load_base(_base_of(where, configs[name][number])))
            what = "the arms of the memory" if name == "full" else LABELS[name]
            for arm, nats in sums(model, f"{what}, {number + 1} of {len(listed)}").items():
                costs.setdefault(name if arm == "alone" else arm, []).append(nats)
    ordered = {LABELS[name]: np.stack(costs[name]) for name in LABELS if name in costs}  # [S, N, kinds] each
    words = np.array([document.words for document in found], dtype=float)
    size = np.array([document.size_bytes for document in found], dtype=float)
    flags = np.array([document.flag_nats for document in found])
    whole = {name: rows.sum(2) + flags for name, rows in ordered.items()}
    tokens = _sums(np.ones(len(ids)), found, kinds)
    return {
        "wikitext": wikitext,
        "tokens": len(ids),
        "trained_parameters": sizes,
        "whole": ablation.compare(whole, words, size, LABELS["full"]),
        "by_kind": {
            kind: _of_kind({name: rows[:, :, index] for name, rows in ordered.items()}, tokens[:, index])
            for index, kind in enumerate(KINDS)
            if tokens[:, index].any()
        },
        "shuffled_left_out": None if others is not None else "needs another text (--other)",
    }


def table(record: dict[str, Any]) -> list[str]:
    """The record in words."""
    sizes = ", ".join(f"{LABELS[name]} {counts[0]}" for name, counts in record["trained_parameters"].items())
    lines = [f"trained parameters: {sizes}; {record['tokens']} tokens in one stream", *ablation.table(record["whole"])]
    if record["shuffled_left_out"] is not None:
        lines.append(f"{LABELS['shuffled']}: left out, {record['shuffled_left_out']}")
    for kind, found in record["by_kind"].items():
        lines.append(
            f"{GRAM} tokens in a row {kind}: {100 * found['tokens'] / record['tokens']:.1f} % of the tokens, nats a token"
        )
        for name, nats in found["nats_per_token"].items():
            line = f"  {name:<24}{nats:>8.4f}"
            if name in found["saved"]:
                saved = found["saved"][name]
                low, high = saved["interval"]
                line += f"  {LABELS['full']} saves {saved['nats_per_token']:.4f} [{low:.4f}, {high:.4f}], "
                line += f"p {saved['p_holm']:.4f} (Holm)"
            lines.append(line)
    return lines


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
def scored(model: HippocampalAdapter, ids: Sequence[int], others: Sequence[int] | None = None) -> dict[str, np.ndarray]:
    """Nats of each token [T], in fresh streams; the first is not predicted and costs nothing.

    Args:
        others: at least as many tokens, whose memory SHUFFLED has; None leaves that arm out.

    Returns:
        of the arms "full" and "empty", and "shuffled" with ``others``; of "alone" for an adapter without a memory.
    """
    config = model.config
    if config.fusion != "memory":
        arms, others = ["alone"], None
    else:
        arms = ["full", "empty"] if others is None else ["full", "shuffled", "empty"]
    if config.window is not None and not config.overlap and config.window % config.span == 0:
        logits = _by_windows(model, ids, others, config.window, len(arms))
    else:
        logits = _by_spans(model, ids, others, len(arms))
    following, at = torch.tensor([*ids[1:], 0]), 0
    nats = np.zeros((len(arms), len(ids) + 1))
    for piece in logits:  # [arms, n, V] for the token after each
        for row, own in enumerate(piece):
            cost = F.cross_entropy(own.float(), following[at : at + len(own)], reduction="none")
            nats[row, at + 1 : at + 1 + len(own)] = cost.numpy()
        at += piece.shape[1]
    return dict(zip(arms, nats[:, :-1], strict=True))


def _by_windows(
    model: HippocampalAdapter, ids: Sequence[int], others: Sequence[int] | None, window: int, arms: int
) -> Iterator[torch.Tensor]:
    """Logits [arms, n, V], piece by piece: contexts that share no token are rows of one pass of the base, memories go on."""
    memory = model.init_memory(1 if others is None else 3)  # of full; of full, shuffled and the other text's stream
    whole, at_once = len(ids) // window * window, WINDOWS * window
    cuts = [slice(at, min(whole, at + at_once)) for at in range(0, whole, at_once)]
    cuts += [slice(whole, len(ids))] * (whole < len(ids))
    for cut in cuts:
        theirs = None if others is None else _rows(others[cut], window)
        logits, memory = _pass(model, _rows(ids[cut], window), theirs, memory)
        yield logits.reshape(arms, cut.stop - cut.start, -1)


def _pass(
    model: HippocampalAdapter, rows: torch.Tensor, theirs: torch.Tensor | None, memory: MemoryState | None
) -> tuple[torch.Tensor, MemoryState | None]:
    """Contexts ``rows`` [n, T], in one order a stream, and those of the other stream -> (logits [arms * n, T, V], memory)."""
    span, embed, other = model.config.span, model.get_input_embeddings(), None
    if theirs is not None:
        trace = model.trace(theirs)
        other = (trace.hidden, trace.context, embed(theirs).flatten(0, 1))

    def fuse(hidden: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        nonlocal memory
        if memory is None:
            return model.fusion(hidden)
        read = [part.flatten(0, 1)[None] for part in (hidden, context, embed(rows))]
        if other is not None:
            read = [torch.cat([own, own, more[None]]) for own, more in zip(read, other, strict=True)]
        fused = []
        for start in range(0, rows.numel(), span):
            if other is not None:
                memory = _exchanged(memory)
            piece, memory = model.fusion.scan(*(part[:, start : start + span] for part in read), memory)
            fused.append(piece.hidden[:2])
        # An empty memory recalls nothing.
        return torch.cat([torch.cat(fused, 1).reshape(-1, *hidden.shape[1:]), hidden])

    with host.before_head(model.base, fuse, model.config.key_layer):
        logits = model.base(input_ids=rows, use_cache=False).logits
    return logits, memory


def _exchanged(memory: MemoryState) -> MemoryState:
    """The second row's slots become those of the third."""
    own = memory.hippocampus
    slots: dict[str, Any] = {name: getattr(own, name)[[0, 2, 2]] for name in EPISODIC}
    return memory._replace(hippocampus=own._replace(**slots), lists=())


def _rows(ids: Sequence[int], window: int) -> torch.Tensor:
    return torch.tensor(ids).reshape(-1, min(window, len(ids)))


def _by_spans(
    model: HippocampalAdapter, ids: Sequence[int], others: Sequence[int] | None, arms: int
) -> Iterator[torch.Tensor]:
    """The same for contexts that go on or overlap: one pass of the base a span, every arm a row of it."""
    fresh, span = model.init_memory(1), model.config.span
    tokens = torch.tensor([ids] * arms + ([] if others is None else [others[: len(ids)]]))
    cache = AdapterCache()
    for start in range(0, len(ids), span):
        if fresh is not None and start:
            held = [cache.memory_of(row) for row in range(len(tokens))]
            cache.put_memories([held[0], fresh] if others is None else [held[0], held[3], fresh, held[3]])
        yield model(tokens[:, start : start + span], **{CACHE_NAME: cache}).logits[:arms]


def repetition(ids: Sequence[int], window: int | None, overlap: int = 0) -> np.ndarray:
    """The kind [T] of each token, an index into `KINDS`: where it and the two before it were last read in a row.

    Args:
        ids: of a stream.
        window, overlap: when the base's context starts again, as `AdapterConfig` says.
    """
    kinds, last = np.zeros(len(ids), dtype=np.int64), dict[tuple[int, ...], int]()
    for end in range(GRAM, len(ids) + 1):
        gram, context = tuple(ids[end - GRAM : end]), 0
        if window is not None and end > window:
            fresh = window - overlap
            context = (end - 1 - window) // fresh * fresh + window - overlap
        if gram in last:
            kinds[end - 1] = 1 if last[gram] >= context else 2
        last[gram] = end - GRAM
    return kinds


def _sums(nats: np.ndarray, found: Sequence[Document], kinds: np.ndarray) -> np.ndarray:
    """Per token [T] -> of each document, by kind [N, kinds]."""
    ends = np.cumsum([len(document.ids) for document in found])
    apart = nats[:, None] * (kinds[:, None] == np.arange(len(KINDS)))
    return np.stack([part.sum(0) for part in np.split(apart, ends[:-1])])


def _of_kind(nats: Mapping[str, np.ndarray], tokens: np.ndarray) -> dict[str, Any]:
    """Nats a token [S, N] of one kind of tokens, of which each document has so many [N], and what the full adapter saves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ablation.TiedArmsWarning)  # told of the whole text
        found = ablation.compare(nats, tokens, tokens, LABELS["full"])
    return {
        "tokens": int(tokens.sum()),
        "nats_per_token": {name: math.log(arm["word_perplexity"]) for name, arm in found["arms"].items()},
        "saved": {
            name: {"nats_per_token": row["nats_per_word"], "interval": row["interval"], "p_holm": row["p_holm"]}
            for name, row in found["differences"].items()
        },
    }


def _others(other: str, vocabulary: Tokenizer, wikitext: bool, need: int) -> list[int]:
    """The first so many tokens of the text that SHUFFLED remembers."""
    coded = perplexity.code(other, _Vocabulary(vocabulary), wikitext)
    ids = [token for unit in coded.ids for token in unit]
    if len(ids) < need:
        raise UsageError(
            f"--other: got a text of {len(ids)} tokens, expected at least {need}, as many as the text has.",
            "Give a longer one: its memory is to be as old as the text's own.",
        )
    return ids[:need]


def _fingerprint(model: HippocampalAdapter) -> str:
    """sha256 over the settings and every weight, the base's too."""
    settings = {name: value for name, value in model.config.to_dict().items() if name != "base"}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()


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
