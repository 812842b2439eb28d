"""The base model of an adapter: any causal language model of transformers whose head is a module.

Nothing of the base is rewritten. For the length of one call its head is exchanged for a module that passes what it is given
through the fusion first, so that whatever a base does with its logits afterwards (scaling, soft caps) is done to the fused
state too. No hooks: what runs is modules calling modules.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from neuro.errors import MissingError, UsageError
from neuro.extras import require
from neuro.hf import hub
from neuro.hf.adapter_config import AdapterConfig
from neuro.hf.streaming import CACHE_NAME

LORA = "default"  # peft's name of the one set of updates


def load_base(name: str | os.PathLike[str], **kwargs: Any) -> PreTrainedModel:
    """A causal language model by folder or Hugging Face id.

    Raises:
        MissingError: no such model.
        UsageError: transformers does not know its architecture, or not as a causal language model.
    """
    try:
        with hub.quiet():
            AutoConfig.from_pretrained(name, **_located(kwargs))
    except ValueError as error:
        raise UsageError(
            f"adapter: {name} is of an architecture that transformers does not know ({_first(error)}).",
            "Give a causal language model of transformers, as a name, a folder or an object.",
        ) from error
    except OSError as error:
        raise MissingError(f"adapter: no base model {name} ({_first(error)}).", "Check the name or path.") from error
    try:
        return AutoModelForCausalLM.from_pretrained(name, **kwargs)
    except ValueError as error:
        raise UsageError(
            f"adapter: {name} cannot be loaded as a causal language model ({_first(error)}).",
            "Give a model that generates text from left to right.",
        ) from error


def tables(base: PreTrainedModel) -> tuple[Tensor, Tensor]:
    """The rows of the embeddings and of the head, each [V, D].

    Raises:
        AttributeError, NotImplementedError: the base has them not, or not as modules.
    """
    embeddings: Any = base.get_input_embeddings()
    head: Any = base.get_output_embeddings()
    return embeddings.weight, head.weight


def check(base: PreTrainedModel) -> dict[str, Any]:
    """What an adapter keeps of its base: name, model_type, width of what the head reads, vocab_size.

    Raises:
        UsageError: not a causal language model with a head, or embeddings of another width than the head reads.
    """
    kind = getattr(getattr(base, "config", None), "model_type", type(base).__name__)
    try:
        table, head = tables(base)
    except (AttributeError, NotImplementedError) as error:
        raise _unknown(kind, "has no embeddings and head as modules") from error
    if getattr(base.config, "is_encoder_decoder", False):
        raise _unknown(kind, "is an encoder and a decoder")
    if table.shape[1] != head.shape[1]:
        raise _unknown(kind, f"has embeddings of width {table.shape[1]} and a head that reads {head.shape[1]}")
    name = str(getattr(base.config, "name_or_path", "") or "")
    return {"name": name, "model_type": kind, "width": head.shape[1], "vocab_size": head.shape[0]}


@torch.no_grad()
def refuse_acausal(base: PreTrainedModel) -> None:
    """Read two rows that differ in their last token: what comes before it must not move.

    No field of a configuration says so: an encoder such as BERT has embeddings, a head and logits as well.

    Raises:
        UsageError: it does move.
    """
    rows = len(tables(base)[0])
    ids = torch.tensor([[rows // 2, rows // 3, last] for last in (rows - 1, rows - 2)], device=tables(base)[0].device)
    training = base.training
    base.eval()
    try:
        logits = base(input_ids=ids, use_cache=False).logits[:, :2]
    finally:
        base.train(training)
    moved, rounding = (logits[0] - logits[1]).abs().max(), 8 * torch.finfo(logits.dtype).eps
    if float(moved) > rounding * float(logits.abs().max()):
        raise _unknown(base.config.model_type, "lets a token change what comes before it")


def add_lora(base: PreTrainedModel, config: AdapterConfig) -> None:
    """Freeze the base, and put low-rank updates beside its linear layers where the configuration has a rank.

    The updates begin at zero: until they are trained the base answers as before. Hu et al. 2021, arXiv:2106.09685.

    Raises:
        MissingError: peft is not installed.
        UsageError: peft does not find the layers.
    """
    base.requires_grad_(False)
    if not config.lora_rank:
        return
    peft = require("peft", "adapter")
    try:
        peft.inject_adapter_in_model(lora_config(config, base), base, LORA)
    except ValueError as error:
        raise UsageError(
            f"adapter lora_targets: {config.lora_targets!r} do not fit this base ({_first(error)}).",
            "Name linear layers of it, or do without the updates: lora_rank=0.",
        ) from error


def lora_config(config: AdapterConfig, base: PreTrainedModel) -> Any:
    """The low-rank updates as peft describes them."""
    peft = require("peft", "adapter")
    return peft.LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        target_modules=config.lora_targets,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in base.modules()),  # GPT-2's transposed layers
        task_type="CAUSAL_LM",
        base_model_name_or_path=config.base["name"],
    )


def decoder_layers(base: PreTrainedModel, index: int) -> nn.ModuleList:
    """The list of the base's decoder layers, in which there is one ``index``.

    Raises:
        UsageError: there is no list of that many layers in it, or no such layer.
    """
    count = base.config.get_text_config().num_hidden_layers
    if not 0 <= index < count:
        raise UsageError(f"adapter key_layer: got {index}, expected 0 to {count - 1}.", "Correct key_layer.")
    for module in base.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise _unknown(base.config.model_type, f"has no list of its {count} layers, which key_layer needs")


class _Head(nn.Module):
    """A head that reads what ``fuse`` makes of its input."""

    def __init__(self, head: nn.Module, fuse: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.head, self.fuse, self.called = head, fuse, False

    @property
    def weight(self) -> Any:
        return self.head.weight

    def forward(self, hidden: Tensor) -> Tensor:
        self.called = True
        return self.head(self.fuse(hidden))


class _Layer(nn.Module):
    """A layer whose output is also handed to ``keep``; whatever else is asked of it, the layer answers."""

    def __init__(self, layer: nn.Module, keep: Callable[[Tensor], None]) -> None:
        super().__init__()
        self.layer, self.keep = layer, keep

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("layer"), name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = self.layer(*args, **kwargs)
        self.keep(output[0] if isinstance(output, tuple) else output)
        return output


@contextlib.contextmanager
def before_head(
    base: PreTrainedModel, fuse: Callable[[Tensor, Tensor], Tensor], key_layer: int | None
) -> Iterator[None]:
    """Within the block the head of ``base`` reads ``fuse(hidden [B,T,D], context [B,T,D])``.

    Two calls of one base at the same time, from two threads, would use each other's head.

    Raises:
        UsageError: the base did not run its head as a module.
    """
    head: Any = base.get_output_embeddings()
    context: list[Tensor] = []
    through = _Head(head, lambda hidden: fuse(hidden, context[-1] if context else hidden))
    layers = None if key_layer is None else decoder_layers(base, key_layer)
    tapped = None if layers is None or key_layer is None else layers[key_layer]
    try:
        base.set_output_embeddings(through)
        if layers is not None and key_layer is not None and tapped is not None:
            layers[key_layer] = _Layer(tapped, context.append)
        yield
    finally:
        base.set_output_embeddings(head)
        if layers is not None and key_layer is not None and tapped is not None:
            layers[key_layer] = tapped
    if not through.called:
        raise _unknown(base.config.model_type, "does not run its head as a module")


@torch.no_grad()
def directions(base: PreTrainedModel, rows: int = 4096) -> Tensor:
    """[D, D]: the linear map that turns embeddings of length sqrt(D) into the head's rows of the same tokens, best fit."""
    table, head = tables(base)
    step = max(1, len(table) // rows)
    x, y = table[::step].double(), head[: len(table)][::step].double()
    x = x * torch.rsqrt((x * x).mean(1, keepdim=True).clamp_min(1e-12))
    ridge = 1e-3 * len(x) * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    return torch.linalg.solve(x.T @ x + ridge, x.T @ y).T


def run(base: PreTrainedModel, tokens: Tensor, cache: Any) -> Any:
    """The base's output for tokens [B,T] that follow on ``cache``; None is a fresh context.

    Raises:
        UsageError: the context is longer than the base's table of positions.
    """
    try:
        return base(input_ids=tokens, use_cache=True, **{CACHE_NAME: cache})
    except IndexError as error:  # ids were checked: what is missing is the position's row
        most = getattr(base.config, "max_position_embeddings", None)
        if most is None or (before := 0 if cache is None else cache.get_seq_length()) + tokens.shape[1] <= most:
            raise
        raise UsageError(
            f"adapter: got a context of {before + tokens.shape[1]} tokens, expected at most the {most} positions of the base.",
            f"Put the adapter around it with window={most} or less: the memory goes on.",
        ) from error


def cache_of(output: Any, kind: str) -> Any:
    """The cache in a base's output.

    Raises:
        UsageError: there is none.
    """
    found = output.get(CACHE_NAME)
    if found is None:
        raise UsageError(
            f"adapter: a base of type '{kind}' returned no cache, expected '{CACHE_NAME}' in its output.",
            "Choose a base whose forward takes use_cache=True.",
        )
    return found


def save_without_lora(base: PreTrainedModel, where: Path) -> None:
    """The base as it was before the updates were put into it, by its own save_pretrained."""
    tensors = {
        name.replace(".base_layer.", "."): tensor for name, tensor in base.state_dict().items() if ".lora_" not in name
    }
    base.save_pretrained(where, state_dict=tensors)


def _located(kwargs: dict[str, Any]) -> dict[str, Any]:
    names = ("cache_dir", "force_download", "local_files_only", "revision", "token", "trust_remote_code")
    return {name: kwargs[name] for name in names if name in kwargs}


def _first(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")


def _unknown(kind: str, why: str) -> UsageError:
    return UsageError(
        f"adapter: a base of type '{kind}' {why}, expected a causal language model with one head over one width.",
        "Choose another base, for example one of type llama, gpt2 or gemma.",
    )
