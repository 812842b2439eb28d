"""From a brain to what the C99 runner holds: int8 matrices with one scale a row, float32 vectors, sizes.

A weight row w becomes round(w / s) with s = max |w| / 127. Vectors, biases and the hormones' thin matrices stay float32.
The weights that spikes select are stored by neuron, so that a silent one costs nothing.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np
import torch

from export.c.numbers import MIX_LEVELS, F
from neuro.brain import Brain
from neuro.config import HORMONES, BrainConfig
from neuro.errors import UsageError

GROUP = 4  # inputs of a product are read four at a time; rows are filled with zeros


class Matrix(NamedTuple):
    """[O,I]: ``values`` times ``scales`` of each row."""

    values: np.ndarray  # [O,I] int8
    scales: np.ndarray  # [O] float32


@dataclasses.dataclass(frozen=True)
class Layer:
    """One mixer and one feed-forward; vectors and matrices by the names they have in C."""

    mixer: str
    feedforward: str
    vectors: dict[str, np.ndarray]
    matrices: dict[str, Matrix]


@dataclasses.dataclass(frozen=True)
class Quantized:
    """A brain without torch."""

    config: BrainConfig
    memory: bool
    vectors: dict[str, np.ndarray]  # float32, by the names they have in C
    matrices: dict[str, Matrix]
    layers: tuple[Layer, ...]
    constants: dict[str, float]  # float32 numbers of the C header
    parameters: int  # of the parts that are in

    @property
    def active(self) -> int:
        """Place cells of a token."""
        h = self.config.hippocampus
        return max(1, round(h.place_cells * h.sparsity))

    def hidden(self, layer: Layer) -> int:
        """Width between the two products of a layer's feed-forward."""
        width = self.config.cortex.feedforward_width
        return width if layer.feedforward == "spiking" else width * 2 // 3

    @property
    def mix_levels(self) -> int:
        """Levels of the weights of a mean over the vocabulary or the window, so that int32 holds any sum."""
        return min(MIX_LEVELS, (2**31 - 1) // (127 * max(self.config.vocab_size, self.config.cortex.window + 1)))


def check(config: BrainConfig) -> None:
    """Refuse what the runner does not have.

    Raises:
        UsageError: naming the setting.
    """
    c, h = config.cortex, config.hippocampus

    def need(ok: bool, key: str, got: Any, expected: str) -> None:
        if not ok:
            raise UsageError(
                f"export --to c: got brain.{key} {got}, expected {expected}.",
                "Export another model, or use --to onnx.",
            )

    for part in ("thalamus", "amygdala", "endocrine", "cortex", "hippocampus", "procedural"):
        need(getattr(config, part).enabled, f"{part}.enabled", "false", "true")
    need(c.encoding == "dense", "cortex.encoding", f"'{c.encoding}'", "'dense'")
    branched = "branched" in c.feedforwards
    need(not branched, "cortex.feedforwards", "'branched'", "'spiking' or 'dense'")
    need(config.procedural.rule == "three-factor", "procedural.rule", f"'{config.procedural.rule}'", "'three-factor'")
    need(not h.contiguity, "hippocampus.contiguity", str(h.contiguity), "0")
    need(not config.procedural.through_dense, "procedural.through_dense", "true", "false")
    outward = config.procedural.outward_half_life_tokens
    need(not outward, "procedural.outward_half_life_tokens", outward, "0")
    need(not config.procedural.natural, "procedural.natural", "true", "false")
    need(not config.procedural.bias_rate, "procedural.bias_rate", config.procedural.bias_rate, "0")
    need(not h.rebind, "hippocampus.rebind", "true", "false")
    need(not h.key_trace, "hippocampus.key_trace", h.key_trace, "0")
    need(not h.key_direct, "hippocampus.key_direct", "true", "false")
    need(not h.learned_sparsity, "hippocampus.learned_sparsity", "true", "false")
    need(not h.time_cells, "hippocampus.time_cells", h.time_cells, "0")
    need(not h.pointer, "hippocampus.pointer", "true", "false")
    need(not h.phrase, "hippocampus.phrase", str(h.phrase), "0")
    need(h.controller == "surprise", "hippocampus.controller", f"'{h.controller}'", "'surprise'")
    need(config.vocab_size < 2**15, "vocab_size", config.vocab_size, "below 32768")
    widths = {"d_model": config.d_model, "hippocampus.key_width": h.key_width}
    widths["d_model / cortex.heads"] = config.d_model // c.heads
    for key, width in widths.items():
        need(width % GROUP == 0, key, width, f"a multiple of {GROUP}")


def quantize(brain: Brain, memory: bool = True) -> Quantized:
    """The weights of a brain; ``memory`` False leaves out the episodic and the procedural memory.

    Raises:
        UsageError: a part that the C runner does not have.
    """
    config = brain.config
    check(config)
    state = {name: tensor.detach().to(torch.float32).cpu().numpy() for name, tensor in brain.state_dict().items()}

    def vector(name: str) -> np.ndarray:
        return np.ascontiguousarray(state[name], F)

    def matrix(name: str, by_input: bool = False) -> Matrix:
        found = _rows(state[name])
        return Matrix(np.ascontiguousarray(found.values.T), found.scales) if by_input else found

    at, rule = "regions.", config.procedural
    moves = np.array(
        [name not in config.endocrine.off for name in HORMONES], F
    )  # sigmoid(0): the level of one that is off
    vectors = {
        "thalamus_norm": vector(at + "thalamus.norm.weight"),
        "gate_bias": vector(at + "thalamus.gate.bias"),
        "gate_mood": vector(at + "thalamus.gate_modulation.weight"),
        "route_weight": vector(at + "thalamus.route.weight"),
        "route_bias": vector(at + "thalamus.route.bias"),
        "route_mood": vector(at + "thalamus.route_modulation.weight"),
        "amygdala_norm": vector(at + "amygdala.norm.weight"),
        "evidence_bias": vector(at + "amygdala.evidence.bias"),
        "affect_weight": vector(at + "amygdala.affect.weight"),
        "affect_bias": vector(at + "amygdala.affect.bias"),
        "salience_weight": vector(at + "amygdala.salience.weight")[0],
        "level_weight": vector(at + "endocrine.level.weight") * moves[:, None],
        "level_bias": vector(at + "endocrine.level.bias") * moves,
        "level_pace": F(-math.log(2.0)) / np.array(config.endocrine.half_lives_tokens, F),
        "readout_norm": vector(at + "readout.norm.weight"),
        "readout_mood": vector(at + "readout.gain.weight")[0],
    }
    matrices = {
        "embedding": matrix("embedding"),
        "gate": matrix(at + "thalamus.gate.weight"),
        "evidence": matrix(at + "amygdala.evidence.weight"),
    }
    constants = {
        "embedding_gain": config.d_model**0.5,
        "affect_decay": 2.0 ** (-1.0 / config.amygdala.half_life_tokens),
        "salience_bias": float(state[at + "amygdala.salience.bias"][0]),
        "membrane_decay": config.cortex.decay,
        "threshold": config.cortex.v_threshold,
    }
    if memory:
        h = at + "hippocampus."
        vectors |= {
            "hippocampus_norm": vector(h + "norm.weight"),
            "place_bias": vector(h + "place_cells.project.bias"),
            "null_mood": vector(h + "null_modulation.weight"),
            "null_weight": vector(h + "memory.null.weight")[0],
            "fast_rate": F(rule.rate) * np.exp(vector(at + "cortex.procedural.log_rate")),
            "fast_mood": vector(at + "cortex.procedural.modulation.weight")[0],
        }
        matrices |= {
            "place": matrix(h + "place_cells.project.weight"),
            "key": matrix(h + "key.weight"),
            "value": matrix(h + "value.weight"),
            "recall": matrix(h + "out.weight"),
        }
        life = rule.half_life_tokens * math.exp(float(state[at + "cortex.procedural.log_life"]))
        constants |= {
            "score_scale": math.exp(float(state[h + "memory.log_scale"])),
            "score_age": math.exp(float(state[h + "memory.log_age"])),
            "trust_gain": math.exp(float(state[h + "memory.log_trust"])),
            "trust_decay": 2.0 ** (-1.0 / 3.0),
            "null_bias": float(state[h + "memory.null.bias"][0]),
            "slot_pace": -math.log(2.0) / config.hippocampus.half_life_tokens,
            "fast_pace": -math.log(2.0) / life,
            "fast_step": rule.max_step,
            "fast_norm": rule.max_norm,
        }
    layers = []
    for index, (mixer, feedforward) in enumerate(config.cortex.layers):
        path = f"{at}cortex.layers.{index}."
        spiking = feedforward == "spiking"
        v = {
            "mixer_norm": vector(path + "mixer_norm.weight"),
            "mixer_mood": vector(path + "modulation.weight"),
            "forward_norm": vector(path + "feedforward_norm.weight"),
        }
        m = {"project": matrix(path + "mixer.project.weight"), "out": matrix(path + "mixer.out.weight")}
        if mixer == "recurrence":
            v |= {"decay_bias": vector(path + "mixer.decay_bias"), "inner_norm": vector(path + "mixer.norm.weight")}
        if spiking:
            v["inject_bias"] = vector(path + "feedforward.inject.bias")
        into, back = ("inject", "project") if spiking else ("up", "down")
        m |= {
            "up": matrix(f"{path}feedforward.{into}.weight"),
            "down": matrix(f"{path}feedforward.{back}.weight", spiking),
        }
        if memory:
            m["out_sense"] = matrix(path + "mixer.out.sense")
            m["down_sense"] = matrix(f"{path}feedforward.{back}.sense", spiking)
        layers.append(Layer(mixer, feedforward, v, m))
    left_out = () if memory else ("hippocampus.", "cortex.procedural.", ".sense")
    count = sum(p.numel() for name, p in brain.named_parameters() if not any(part in name for part in left_out))
    return Quantized(config, memory, vectors, matrices, tuple(layers), constants, count)


def hormones() -> int:
    """Of the endocrine system."""
    return len(HORMONES)


def _rows(weight: np.ndarray) -> Matrix:
    most = np.abs(weight).max(1)
    scales = (np.where(most > 0, most, 1.0) / 127.0).astype(F)
    return Matrix(np.rint(weight / scales[:, None]).clip(-127, 127).astype(np.int8), scales)
