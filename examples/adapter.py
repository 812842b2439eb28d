"""Put a memory around a language model: train a tiny base, freeze it, train an adapter, let it read a page, and ask for it.

    python examples/adapter.py

About two minutes on two cores; needs no network (pip install 'neuro-hybrid[adapter]'). The base learns from the pages of
docs/ and sees 64 tokens back. A page it was not trained on is read once; 1,000 tokens of other text later it is read
again, with the memory and without, and a line of it is begun.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from neuro.hf import HippocampalAdapter
from neuro.hf.streaming import CACHE_NAME
from neuro.tokenizer import Tokenizer

WINDOW, PASSAGE = 64, 48
PAGES = Path(__file__).resolve().parents[1] / "docs"
HELD_OUT = "memory.md"


def fit(model: torch.nn.Module, ids: torch.Tensor, steps: int, rate: float, again: bool) -> float:
    """Adam over random windows, or over passages that come again after twice as much other text -> loss of the last."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=rate)
    model.train()
    length = 3 * PASSAGE if again else WINDOW
    for _ in range(steps):
        places = torch.randint(len(ids) - length, (8,)).tolist()
        rows = torch.stack([ids[place : place + length] for place in places])
        if again:
            rows = torch.cat([rows, rows[:, :PASSAGE]], 1)
        loss = model(input_ids=rows, labels=rows, use_cache=False).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    model.eval()
    return loss.item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-steps", type=int, default=400)
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    torch.manual_seed(0)
    pages = {path.name: path.read_text(encoding="utf-8") for path in sorted(PAGES.glob("*.md"))}
    page = pages.pop(HELD_OUT)
    text = "\n".join(pages.values())
    tokenizer = Tokenizer.train(text.split("\n"), 512)
    ids = torch.tensor(tokenizer.encode(text))

    base = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=tokenizer.vocab_size,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=WINDOW,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=None,
        )
    )
    print(f"base: loss {fit(base, ids, options.base_steps, 3e-3, again=False):.2f}", flush=True)

    model = HippocampalAdapter.from_pretrained(base, window=WINDOW, span=16, slots=2048, place_cells=256, lora_rank=4)
    print(f"with a memory: loss {fit(model, ids, options.steps, 3e-3, again=True):.2f}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        model = HippocampalAdapter.from_pretrained(folder)

    told = torch.tensor([tokenizer.encode(page)[:512]])
    cache = model.remember(told)
    cache = model.remember(ids[None, :1000], cache)
    with torch.no_grad():
        for label, state in (("a page, never read", None), ("the page, read 1,000 tokens ago", copy.deepcopy(cache))):
            print(f"{label}: {model(told, labels=told, **{CACHE_NAME: state}).loss.item():.2f} nats a token")
    cue = told[:, 150:170]
    print("begun:    ", repr(tokenizer.decode(cue[0].tolist())))
    for label, state in (("without: ", None), ("with it: ", cache)):
        seen = 0 if state is None else state.get_seq_length()
        mask = torch.ones(1, seen + cue.shape[1], dtype=torch.int64)
        written = model.generate(
            cue, attention_mask=mask, max_new_tokens=24, do_sample=False, pad_token_id=0, **{CACHE_NAME: state}
        )
        print(label, repr(tokenizer.decode(written[0, cue.shape[1] :].tolist())))
    print("the page: ", repr(tokenizer.decode(told[0, 170:194].tolist())))


if __name__ == "__main__":
    main()
