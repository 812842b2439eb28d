"""What the C99 runner computes, in numpy and to the bit: one stream, one token at a time, and the commit.

Products are int8 by int8 into int32, everything else float32 (`export.c.numbers`). The mathematics are those of
`neuro.regions`, `neuro.layers` and `neuro.memory`. differs from torch:

- activations are quantized per vector before each product, to 255 levels; probabilities of a mean to 65,535;
- the window cache holds keys and values in int8 with one scale a token, the episodic slots keys in int16 (1/16384) and values
  in int8 with one scale a slot; membranes, fast weights, errors and traces are float32;
- of a span only what its commit reads is kept: sums where it reads means. A slot's origin is not kept;
- no prosody (silence), no padding.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from export.c import numbers
from export.c.numbers import KEY_LEVELS, F, exp, log, normed, quantize, rescale, sigmoid, tanh, total, unit
from export.c.quantized import Layer, Matrix, Quantized, hormones
from neuro.layers.norm import RMSNorm

EPS = F(RMSNorm.eps)
TRACE_FLOOR = F(1e-3)  # of an eligibility (`neuro.layers.fast_linear`)
EQUAL = int(1e-6 * KEY_LEVELS**2)  # cosines closer than this count as equal (`neuro.memory.episodic`)
SURPRISE_FLOOR = F(1e-3)  # of a pair's priority (`neuro.regions.hippocampus`)


class Reference:
    """One stream. ``state`` holds named arrays; `step` and `commit` change them in place."""

    def __init__(self, model: Quantized) -> None:
        self.model, self.config = model, model.config
        self.c = {name: F(value) for name, value in model.constants.items()}
        self.reset()

    def reset(self) -> None:
        """The state of a stream that has seen nothing."""
        c, width, span = self.config.cortex, self.config.d_model, self.config.plasticity_span
        state: dict[str, Any] = {
            "affect": np.zeros(2, F),
            "modulators": np.full(hormones(), 0.5, F),
            "logits": np.zeros(self.config.vocab_size, F),
            "sums": np.zeros(5, F),  # of affect (2), surprise, novelty, spike rate
        }
        for index, layer in enumerate(self.model.layers):
            if layer.mixer == "recurrence":
                state[f"h{index}"] = np.zeros(width, F)
            else:
                state[f"window{index}"] = np.zeros((c.window + 1, 2, width), np.int8)
                state[f"window_scales{index}"] = np.zeros((c.window + 1, 2), F)
            if layer.feedforward == "spiking":
                state[f"v{index}"] = np.zeros(c.feedforward_width, F)
        if self.model.memory:
            h, traces = self.config.hippocampus, 2 * len(self.model.layers) * self.config.fast_rank
            state |= {
                "fast": np.zeros((traces, width), F),
                "last_trace": np.zeros(traces, F),
                "keys": np.zeros((h.slots, h.key_width), np.int16),
                "values": np.zeros((h.slots, width), np.int8),
                "value_scales": np.zeros(h.slots, F),
                "strengths": np.zeros(h.slots, F),
                "last_key": np.zeros(h.key_width, np.int16),
                "last_content": np.zeros(width, F),
                "last_input": np.zeros(width, F),
                "span_keys": np.zeros((span, h.key_width), np.int16),
                "span_values": np.zeros((span, width), np.int8),
                "span_scales": np.zeros(span, F),
                "span_salience": np.zeros(span, F),
                "span_priority": np.zeros(span, F),
                "span_error": np.zeros((span, width), F),
                "span_trace": np.zeros((span, traces), F),
            }
        self.state = state
        self.seen = self.clock = 0  # tokens of the stream, capped where nothing reads it; tokens of the span
        self.trust: Any = F(0.0)
        self.spikes = [0] * len(self.model.layers)
        self.macs = self.adds = 0  # int8 multiply-accumulates, and additions that spikes caused, of the last step

    @property
    def fired(self) -> list[int]:
        """Spikes of each spiking layer at the last token."""
        pairs = zip(self.spikes, self.model.layers, strict=True)
        return [count for count, layer in pairs if layer.feedforward == "spiking"]

    def step(self, token: int) -> np.ndarray:
        """One token -> logits [V] for the next."""
        s, c, v, m = self.state, self.c, self.model.vectors, self.model.matrices
        self.macs = self.adds = 0
        mood = s["modulators"] - F(0.5)
        gain = exp(F(0.5) * tanh(total(v["readout_mood"] * mood)))
        said = m["embedding"].values[token].astype(F) * m["embedding"].scales[token]
        surprise = self._surprise(token, said, gain)

        x = said * c["embedding_gain"]
        near = normed(x, v["thalamus_norm"], EPS)
        gate = self._product(m["gate"], *quantize(near), v["gate_bias"]) + _thin(v["gate_mood"], mood)
        relay = x * (F(2.0) * sigmoid(gate))
        routed = sigmoid(_thin(v["route_weight"], near) + v["route_bias"] + _thin(v["route_mood"], mood))
        salience = self._amygdala(relay)

        x, shift, traces, rate = relay, np.zeros_like(relay), [], F(0.0)
        for index, layer in enumerate(self.model.layers):
            near = normed(x, layer.vectors["mixer_norm"], EPS) * (F(1.0) + _thin(layer.vectors["mixer_mood"], mood))
            mixed = (
                self._recurrence(index, layer, near)
                if layer.mixer == "recurrence"
                else self._window(layer, index, near)
            )
            given, scale = quantize(mixed)
            y = self._product(layer.matrices["out"], given, scale)
            trace = self._trace(layer, "out_sense", given, scale)
            x, shift = self._add(x, shift, y, trace, 2 * index)
            near = normed(x, layer.vectors["forward_norm"], EPS)
            runs = bool(routed[index] > F(0.5))
            if layer.feedforward == "spiking":
                y, trace, fired = self._spiking(index, layer, near, runs)
                rate = rate + fired
            else:
                y, trace = self._dense(layer, near, runs)
            x, shift = self._add(x, shift, y, trace, 2 * index + 1)
            traces += [trace] if self.model.memory else []
        spiking = sum(layer.feedforward == "spiking" for layer in self.model.layers)
        rate = rate * (F(1.0) / F(max(1, spiking)))

        novelty = F(0.0)
        if self.model.memory:
            recall, novelty = self._hippocampus(x, x - shift, relay, mood)
            x = x + recall
            at, flat = self.clock, self._flat
            s["span_salience"][at] = salience
            s["span_priority"][at] = surprise + SURPRISE_FLOOR if self.seen else F(0.0)
            s["span_trace"][at] = s["last_trace"]
            s["last_trace"][:] = flat
            s["last_input"][:] = x
        features = normed(x, v["readout_norm"], EPS) * gain
        s["logits"][:] = self._product(m["embedding"], *quantize(features))
        s["sums"] += np.array([*s["affect"], surprise, novelty, rate], F)
        self.seen, self.clock = 1, self.clock + 1
        return s["logits"].copy()

    def commit(self) -> None:
        """End the span; a span of no tokens changes nothing."""
        if not self.clock:
            return
        s, v, n = self.state, self.model.vectors, F(self.clock)
        valence, arousal, surprise, novelty, rate = s["sums"] / n
        scalars = np.array([valence, arousal, tanh(surprise / F(5.0)), novelty, rate], F)
        level = sigmoid(_thin(v["level_weight"], scalars) + v["level_bias"])
        kept = exp(v["level_pace"] * n)
        s["modulators"][:] = level + (s["modulators"] - level) * kept
        if self.model.memory:
            self._write_fast(n)
            self._write_slots(n)
        s["sums"][:] = 0
        self.clock = 0

    def _surprise(self, token: int, said: np.ndarray, gain: np.float32) -> np.float32:
        """Nats of the token; with a memory also the error of its prediction into the span."""
        s, m = self.state, self.model.matrices["embedding"]
        if self.model.memory:
            s["span_error"][self.clock] = 0
        if not self.seen:
            return F(0.0)
        most = s["logits"].max()
        chances = exp(s["logits"] - most)
        all_of = total(chances)
        surprise = most + log(all_of) - s["logits"][token]
        if self.model.memory:
            x, weight = s["last_input"], self.model.vectors["readout_norm"]
            expected = self._mix(m.values, chances * (F(1.0) / all_of) * m.scales)
            towards = (said - expected) * gain * weight
            n = F(1.0) / F(len(x))
            rms = rescale(total(x * x) * n + EPS)
            near = x * rms
            s["span_error"][self.clock] = rms * (towards - near * (total(near * towards) * n))
        return surprise

    def _amygdala(self, relay: np.ndarray) -> np.float32:
        s, v, c = self.state, self.model.vectors, self.c
        near = normed(relay, v["amygdala_norm"], EPS)
        z = numbers.gelu(self._product(self.model.matrices["evidence"], *quantize(near), v["evidence_bias"]))
        e = tanh(_thin(v["affect_weight"], z) + v["affect_bias"])
        s["affect"][:] = c["affect_decay"] * s["affect"] + (F(1.0) - c["affect_decay"]) * e
        return sigmoid(total(v["salience_weight"] * np.concatenate([z, s["affect"]])) + c["salience_bias"])

    def _recurrence(self, index: int, layer: Layer, near: np.ndarray) -> np.ndarray:
        h = self.state[f"h{index}"]
        decay, drive, gate = np.split(self._product(layer.matrices["project"], *quantize(near)), 3)
        a = sigmoid(decay + layer.vectors["decay_bias"])
        h[:] = a * h + (F(1.0) - a) * drive
        return normed(h, layer.vectors["inner_norm"], EPS) * gate * sigmoid(gate)

    def _window(self, layer: Layer, index: int, near: np.ndarray) -> np.ndarray:
        """The oldest token lies first; the newest, which is this one, last."""
        cache, scales = self.state[f"window{index}"], self.state[f"window_scales{index}"]
        q, k, value = np.split(self._product(layer.matrices["project"], *quantize(near)), 3)
        cache[:-1], scales[:-1] = cache[1:].copy(), scales[1:].copy()
        for row, x in enumerate((k, value)):
            whole, scales[-1, row] = quantize(x)
            cache[-1, row] = whole
        filled = min(self.state.setdefault(f"filled{index}", 0) + 1, len(cache))
        self.state[f"filled{index}"] = filled
        keys, values = cache[-filled:, 0].astype(np.int32), cache[-filled:, 1]
        asked, scale = quantize(q)
        heads = self.config.cortex.heads
        each = len(q) // heads
        factor = F(each**-0.5)
        distance = np.arange(filled - 1, -1, -1).astype(F)
        out = np.zeros_like(q)
        for head in range(heads):
            part = slice(head * each, (head + 1) * each)
            slope = F(2.0 ** (-8.0 * (head + 1) / heads))
            dots = (keys[:, part] @ asked[part]).astype(F)
            scores = dots * (scale * scales[-filled:, 0] * factor) - slope * distance
            shares = exp(scores - scores.max())
            shares = shares * (F(1.0) / total(shares))
            out[part] = self._mix(values[:, part], shares * scales[-filled:, 1])
            self.macs += filled * each
        return out

    def _spiking(
        self, index: int, layer: Layer, near: np.ndarray, runs: bool
    ) -> tuple[np.ndarray, np.ndarray, np.float32]:
        v = self.state[f"v{index}"]
        current = np.zeros_like(v)
        if runs:
            current = self._product(layer.matrices["up"], *quantize(near), layer.vectors["inject_bias"])
        u = self.c["membrane_decay"] * v + current
        fired = u >= self.c["threshold"]
        v[:] = np.where(fired, u - self.c["threshold"], u)
        count = int(fired.sum())
        self.spikes[index] = count
        y = self._selected(layer.matrices["down"], fired, count)
        trace = np.zeros(0, F)
        if self.model.memory:
            trace = _eligible(self._selected(layer.matrices["down_sense"], fired, count))
        return y, trace, F(count) * (F(1.0) / F(len(v)))

    def _dense(self, layer: Layer, near: np.ndarray, runs: bool) -> tuple[np.ndarray, np.ndarray]:
        rank = self.config.fast_rank if self.model.memory else 0
        if not runs:
            return np.zeros_like(near), np.zeros(rank, F)
        gate, value = np.split(self._product(layer.matrices["up"], *quantize(near)), 2)
        given, scale = quantize(gate * sigmoid(gate) * value)
        return self._product(layer.matrices["down"], given, scale), self._trace(layer, "down_sense", given, scale)

    def _trace(self, layer: Layer, name: str, given: np.ndarray, scale: np.float32) -> np.ndarray:
        if not self.model.memory:
            return np.zeros(0, F)
        return _eligible(self._product(layer.matrices[name], given, scale))

    def _add(
        self, x: np.ndarray, shift: np.ndarray, y: np.ndarray, trace: np.ndarray, projection: int
    ) -> tuple[np.ndarray, np.ndarray]:
        x = x + y
        if not self.model.memory:
            return x, shift
        rank = self.config.fast_rank
        if projection == 0:
            self._flat = np.zeros(2 * len(self.model.layers) * rank, F)
        part = slice(projection * rank, (projection + 1) * rank)
        self._flat[part] = trace
        habit = total((trace[:, None] * self.state["fast"][part]).T)
        return x + habit, shift + habit

    def _hippocampus(
        self, hidden: np.ndarray, context: np.ndarray, relay: np.ndarray, mood: np.ndarray
    ) -> tuple[np.ndarray, np.float32]:
        """-> recall [D], novelty; the pair of this token into the span."""
        s, v, c, m, at = self.state, self.model.vectors, self.c, self.model.matrices, self.clock
        z = self._product(m["place"], *quantize(normed(context, v["hippocampus_norm"], EPS)), v["place_bias"])
        among = z >= np.sort(z)[-self.model.active]
        cells = np.where(among, sigmoid(z), F(0.0))
        key = numbers.whole(unit(self._product(m["key"], *quantize(cells))) * F(KEY_LEVELS))
        value = self._product(m["value"], *quantize(relay))
        s["span_keys"][at], s["last_key"][:] = s["last_key"], key
        whole, s["span_scales"][at] = quantize(value)
        s["span_values"][at] = whole

        filled = np.flatnonzero(s["strengths"] > 0)
        content, evidence, novelty = np.zeros_like(value), F(-1e4), F(1.0)
        self.macs += len(filled) * len(key)
        if len(filled):
            cosine = s["keys"][filled].astype(np.int32) @ key
            top_k = self.config.hippocampus.top_k
            least = np.sort(cosine)[-top_k] - EQUAL if len(filled) >= top_k else np.int32(-(2**31))
            chosen = filled[cosine >= least]
            near = cosine[cosine >= least].astype(F) * F(1.0 / KEY_LEVELS**2)
            age = c["score_age"] * log(np.maximum(s["strengths"][chosen], F(1e-6)))
            score = c["score_scale"] * near + age
            most = score.max()
            shares = exp(score - most)
            all_of = total(shares)
            evidence = most + log(all_of)
            weights = shares * (F(1.0) / all_of) * s["value_scales"][chosen]
            content = total((weights[:, None] * s["values"][chosen].astype(F)).T)
            novelty = F(1.0) - np.minimum(np.maximum(near.max(), F(0.0)), F(1.0))
        right = total(s["last_content"] * unit(value))
        self.trust = c["trust_decay"] * self.trust + (F(1.0) - c["trust_decay"]) * right
        s["last_content"][:] = unit(content)
        near = normed(hidden, v["hippocampus_norm"], EPS) * (F(1.0) + _thin(v["null_mood"], mood))
        null = total(v["null_weight"] * near) + c["null_bias"]
        gate = sigmoid(evidence + c["trust_gain"] * self.trust - null)
        return self._product(m["recall"], *quantize(content * gate)), novelty

    def _write_fast(self, n: np.float32) -> None:
        s, v, c, rank = self.state, self.model.vectors, self.c, self.config.fast_rank
        third = F(2.0) * sigmoid(total(v["fast_mood"] * (s["modulators"] - F(0.5))))
        kept = exp(c["fast_pace"] * n)
        error = s["span_error"][: self.clock]
        for projection, rate in enumerate(v["fast_rate"]):
            part = slice(projection * rank, (projection + 1) * rank)
            traces = s["span_trace"][: self.clock, part]
            gradient = total((traces[:, :, None] * error[:, None, :]).transpose(1, 2, 0))
            step = _shorten(gradient * (rate * third), c["fast_step"])
            s["fast"][part] = _shorten(s["fast"][part] * kept + step, c["fast_norm"])

    def _write_slots(self, n: np.float32) -> None:
        s, c, h = self.state, self.c, self.config.hippocampus
        s["strengths"] *= exp(c["slot_pace"] * n)
        priority = s["span_priority"][: self.clock]
        best = np.argsort(-priority, kind="stable")[: h.writes_per_span]
        best = best[priority[best] > 0]
        slots = np.argsort(s["strengths"], kind="stable")[: len(best)]
        dopamine = F(0.5) + s["modulators"][0]
        s["keys"][slots], s["values"][slots] = s["span_keys"][best], s["span_values"][best]
        s["value_scales"][slots] = s["span_scales"][best]
        s["strengths"][slots] = s["span_salience"][best] * dopamine

    def _product(
        self, matrix: Matrix, given: np.ndarray, scale: np.float32, bias: np.ndarray | None = None
    ) -> np.ndarray:
        self.macs += matrix.values.size
        y = (matrix.values.astype(np.int32) @ given).astype(F) * (matrix.scales * scale)
        return y if bias is None else y + bias

    def _selected(self, matrix: Matrix, fired: np.ndarray, count: int) -> np.ndarray:
        self.adds += count * matrix.values.shape[1]
        return matrix.values[fired].sum(0, dtype=np.int32).astype(F) * matrix.scales

    def _mix(self, rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """sum_n weights_n rows_n."""
        self.macs += rows.size
        whole, scale = quantize(weights, self.model.mix_levels)
        return (whole @ rows.astype(np.int32)).astype(F) * scale


def _thin(weight: np.ndarray, x: np.ndarray) -> np.ndarray:
    """weight [O,I] float32 by x [I], each sum from left to right."""
    return total(weight * x)


def _eligible(z: np.ndarray) -> np.ndarray:
    return z * rescale(total(z * z) * (F(1.0) / F(len(z))) + TRACE_FLOOR)


def _shorten(weights: np.ndarray, most: np.float32) -> np.ndarray:
    square = total((weights * weights).ravel())
    return weights * np.minimum(most * rescale(np.maximum(square, F(1e-24))), F(1.0))
