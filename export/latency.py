"""What a token costs in each graph on the machine that exports: a few seconds of one stream, one thread."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from backends import devices
from export.runtime import Runtime

_ROUNDS = 5


class Decoder:
    """The decoder graph as ONNX Runtime GenAI runs it: zeros at first, state in and out bound to the same memory."""

    def __init__(self, folder: Path, manifest: dict[str, Any], batch: int = 1) -> None:
        entry = manifest["graphs"]["decoder"]
        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 3, 1
        self._session = onnxruntime.InferenceSession(
            str(folder / entry["file"]), options, providers=["CPUExecutionProvider"]
        )
        self._binding = self._session.io_binding()
        self._state = {
            port.name: onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros([batch, *port.shape[1:]], np.float32))
            for port in self._session.get_inputs()
            if port.name != "input_ids"
        }
        for name, value in self._state.items():
            self._binding.bind_ortvalue_input(name, value)
            self._binding.bind_ortvalue_output(entry["state"][name], value)
        self._binding.bind_output("logits")

    def step(self, token: Any) -> np.ndarray:
        """token [B] ids -> logits [B,V] for the next one; commits by itself."""
        self._binding.bind_cpu_input("input_ids", np.asarray(token, np.int64).reshape(-1, 1))
        self._session.run_with_iobinding(self._binding)
        logits: np.ndarray = self._binding.get_outputs()[-1].numpy()
        return logits[:, 0].copy()  # the next run writes where these lie


def measure(folder: Path, manifest: dict[str, Any], tokens: np.ndarray) -> dict[str, Any]:
    """Processor ms per token over spans of ``tokens`` [T], rounds of the graphs in turn; commits are in all but "step"."""
    span = manifest["plasticity_span"]
    tokens = np.resize(tokens, span)
    runtime = Runtime(folder)
    decoder = Decoder(folder, manifest) if "decoder" in manifest["graphs"] else None
    times: dict[str, list[float]] = {"step": [], "step_and_commit": []}
    for _ in range(_ROUNDS):
        started = time.process_time()
        for token in tokens[:-1]:
            runtime.step([token])
        times["step"].append((time.process_time() - started) / (span - 1))
        runtime.step(tokens[-1:])
        times["step_and_commit"].append((time.process_time() - started) / span)
        if "prefill" in manifest["graphs"]:
            started = time.process_time()
            runtime.feed(tokens[None])
            times.setdefault("prefill_and_commit", []).append((time.process_time() - started) / span)
        if decoder is not None:
            started = time.process_time()
            for token in tokens:
                decoder.step([token])
            times.setdefault("decoder", []).append((time.process_time() - started) / span)
    found = {
        name: {"median": round(1e3 * statistics.median(taken), 4), "min": round(1e3 * min(taken), 4)}
        for name, taken in times.items()
    }
    record = {
        "clock": "processor",
        "processor": devices.cpu_name(),
        "cores": os.cpu_count(),
        "threads": 1,
        "batch": 1,
        "rounds": _ROUNDS,
        "tokens_a_round": span,
        "ms_per_token": found,
    }
    if decoder is not None:
        ratios = [a / b for a, b in zip(times["decoder"], times["step"], strict=True)]
        record["decoder_over_step"] = round(statistics.median(ratios), 3)
    return record
