"""The small base of the adapter's benchmark: a Llama-type model trained on WikiText-2 train, saved as transformers saves it.

    python benchmarks/adapter_base.py --out FOLDER

About 1.1 M parameters (width 128, 4 layers, byte-BPE of 2048, tied head), windows of 256 tokens, 2 M tokens. Three folders
are written: ``base``, and ``soon`` and ``later``, the same model after 25 and 200 steps more at a constant rate: bases that
have drifted as bases do. Goes on from its last checkpoint when it was stopped. Prints one JSON object with the loss on
WikiText-2 valid.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from pathlib import Path

import _machine
import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM  # noqa: TID251 - the base is theirs

from neuro import atomic, text
from neuro.tokenizer import Tokenizer

WINDOW = 256
VOCABULARY = 2048
BATCH = 8
LATER_STEPS = {"soon": 25, "later": 200}
LATER_RATE = 2e-3


def lines_of(split: str) -> list[str]:
    """WikiText-2's lines as natural English."""
    folder = Path(os.environ["NEURO_DATA"]) / "wikitext-2"
    return [text.detokenize(line) for line in text.read_text(folder / f"{split}.txt.gz").split("\n")]


def tokenizer_of(out: Path) -> Tokenizer:
    """The vocabulary of the training text, made once."""
    path = out / "tokenizer.json"
    if not path.is_file():
        Tokenizer.train((line + "\n" for line in lines_of("train")), VOCABULARY).save(path)
    return Tokenizer.load(path)


def ids_of(out: Path, split: str) -> np.ndarray:
    """Token ids of a split, kept beside the model."""
    path = out / f"{split}.npz"
    if not path.is_file():
        ids = np.array(tokenizer_of(out).encode("\n".join(lines_of(split))), dtype=np.int32)
        with atomic.replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, ids=ids)
    with np.load(path, allow_pickle=False) as stored:
        return stored["ids"]


def built(seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=WINDOW,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=None,
            pad_token_id=None,
            attn_implementation="sdpa",
        )
    )


@torch.no_grad()
def loss_on(model: LlamaForCausalLM, ids: np.ndarray, windows: int = 200) -> float:
    """Mean nats of windows side by side."""
    rows = torch.from_numpy(ids[: windows * WINDOW].astype(np.int64)).reshape(-1, WINDOW)
    model.eval()
    found = [nats_of(model, part).item() for part in rows.split(20)]
    model.train()
    return float(np.mean(found))


def nats_of(model: LlamaForCausalLM, rows: Tensor) -> Tensor:
    logits = model(input_ids=rows, use_cache=False).logits
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), rows[:, 1:].flatten())


def train(
    model: LlamaForCausalLM, ids: np.ndarray, steps: int, rate: float, out: Path, constant: bool, seed: int
) -> float:
    """AdamW over random windows, warm-up and cosine unless ``constant`` -> CPU seconds spent by this process."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.05)
    random = np.random.default_rng(seed)
    kept, start = out / "training.safetensors", 0
    if kept.is_file():
        tensors = load_file(kept)
        start = int(tensors.pop("step"))
        model.load_state_dict({name: tensors[f"w.{name}"] for name in model.state_dict()})
        for index, parameter in enumerate(model.parameters()):
            moments = {name: tensors[f"{name}.{index}"] for name in ("exp_avg", "exp_avg_sq")}
            optimizer.state[parameter] = {"step": torch.tensor(float(start)), **moments}
    began = time.process_time()
    model.train()
    for step in range(steps):
        places = random.integers(0, len(ids) - WINDOW, BATCH)
        if step < start:
            continue
        share = 1.0 if constant else 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 50) * share
        rows = torch.from_numpy(np.stack([ids[place : place + WINDOW] for place in places]).astype(np.int64))
        loss = nats_of(model, rows)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 100 == 0:
            tensors = {f"w.{name}": tensor.clone() for name, tensor in model.state_dict().items()}
            for index, parameter in enumerate(model.parameters()):
                state = optimizer.state[parameter]
                tensors |= {f"{name}.{index}": state[name].clone() for name in ("exp_avg", "exp_avg_sq")}
            with atomic.replacing(kept) as temporary:
                save_file(tensors | {"step": torch.tensor(step + 1)}, temporary)
            print(
                f"step {step + 1} of {steps}: {loss.item():.4f}, {time.process_time() - began:.0f} s", file=sys.stderr
            )
    return time.process_time() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=4e-3)
    options = parser.parse_args()
    out: Path = options.out
    ids, valid = ids_of(out, "train"), ids_of(out, "valid")
    record: dict[str, object] = {"machine": _machine.describe(), "steps": options.steps, "train_tokens": len(ids)}
    model = built()
    record["parameters"] = sum(parameter.numel() for parameter in model.parameters())
    for name, steps in ({"base": options.steps} | LATER_STEPS).items():
        folder, rate = out / name, options.rate if name == "base" else LATER_RATE
        if (folder / "model.safetensors").is_file():
            continue
        if name != "base":
            model = LlamaForCausalLM.from_pretrained(out / "base")
        folder.mkdir(parents=True, exist_ok=True)
        spent = train(model, ids, steps, rate, folder, name != "base", seed=0 if name == "base" else 1)
        model.save_pretrained(folder)
        (folder / "training.safetensors").unlink(missing_ok=True)
        record[name] = {"cpu_seconds": round(spent), "valid_nats": loss_on(model, valid)}
    print(json.dumps(record, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
