"""What ONNX Runtime GenAI reads beside the decoder graph: its configuration and that of the tokenizer.

It runs ``og.Model(folder)`` in Python, C++, C#, Java; sources: onnxruntime-genai 0.18, src/config.h (fields),
src/models/recurrent_state.cpp (how it finds and binds the carried state).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CONTEXT = 1 << 20  # tokens a stream may have: the state does not grow, but the runtime wants a number


def write(folder: Path, manifest: dict[str, Any]) -> None:
    """Write genai_config.json and tokenizer_config.json for the graph "decoder" of the manifest."""
    graph = manifest["graphs"]["decoder"]
    names = {"past_key_names": "past_key_values.%d.key", "past_value_names": "past_key_values.%d.value"}
    given = {"present_key_names": "present.%d.key", "present_value_names": "present.%d.value"}
    decoder = {
        "filename": graph["file"],
        "head_size": 1,
        "hidden_size": 1,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "num_hidden_layers": graph["packed"]["layers"],
        "session_options": {"log_id": "neuro", "provider_options": [], "intra_op_num_threads": 1},
        "inputs": {"input_ids": "input_ids", **names},
        "outputs": {"logits": "logits", **given},
    }
    model = {
        "type": "decoder",
        "vocab_size": manifest["vocab_size"],
        "context_length": CONTEXT,
        "bos_token_id": manifest["bos"],
        # Never written, so that generation ends at the length asked for.
        "eos_token_id": manifest["bos"],
        "pad_token_id": manifest["bos"],
        "decoder": decoder,
    }
    # The graph takes one token a run.
    search = {"chunk_size": 1, "do_sample": False, "max_length": CONTEXT, "past_present_share_buffer": False}
    _dump(folder / "genai_config.json", {"model": model, "search": search})
    tokenizer: dict[str, Any] = {
        "tokenizer_class": "GPT2Tokenizer",
        "bos_token": "<bos>",
        "eos_token": "<bos>",
        "unk_token": "<unk>",
    }
    tokenizer |= {"add_bos_token": True, "add_prefix_space": False, "clean_up_tokenization_spaces": False}
    tokenizer |= {"model_max_length": CONTEXT}
    _dump(folder / "tokenizer_config.json", tokenizer)


def _dump(path: Path, record: dict[str, Any]) -> None:
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8", newline="\n")
