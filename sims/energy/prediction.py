"""Joules and seconds of one inference from bare counts, with intervals: a platform's published runs, or its constants.

The form follows the platform (`sims.energy.calibrate` has the first four; D is the dynamic part, t the time):

    calls     D = steps y(layers, macs, batch) / batch, t likewise; total = D + P_idle t
    steps     t = steps t_step, D = t P(macs); with ``synops`` the part of P that follows the network is theirs instead
    synops    D = y(synops), t = steps t_step; total = D + P_static t
    spikes    D = y(spikes) within ``seconds`` (the published window unless given); total = D + P_rest t
    decode    t = t0 + max(layers tau, W / bandwidth) + KV / bandwidth, or FLOP / peak where longer; D = W e_w + KV e_kv + F e_f
    events    D = sum of counts times constants; t = ``seconds``, or steps of real time where the chip has them
"""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from neuro.errors import UsageError, nearest
from sims.energy import calibrate, leftover
from sims.energy.calibrate import Inputs
from sims.energy.price import Term, check, drawn, unpriced
from sims.energy.streams import DRAWS, interval, normal
from sims.energy.technologies import Technology, technology, weakest

SCHEMA = "neuro.prediction/1"
SETUPS = ("same", "other")
ACTIVITY_SIGMA = 0.7  # of the share of synapses that a spike uses, where it must be taken from another network
_BYTES_PER_WEIGHT = 2


@dataclasses.dataclass(frozen=True, eq=False)
class Prediction:
    """One inference on one platform, drawn `DRAWS` times. The terms add up to the total."""

    platform: str
    total: np.ndarray  # joules
    dynamic: np.ndarray  # joules above idle; not a number where a constant holds both
    time_s: np.ndarray
    terms: dict[str, np.ndarray]
    calibrated_on: tuple[str, ...]
    assumed: tuple[str, ...]
    unpriced: tuple[str, ...]
    unused: tuple[str, ...]  # what was given and moves nothing: it is inside the price, or no work
    weakest_evidence: str  # of the runs and constants that were used
    scope: str
    setup: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data: medians with 5 and 95 % points, joules and seconds per inference."""

        def row(draws: np.ndarray) -> dict[str, float] | None:
            return None if np.isnan(draws).any() else dataclasses.asdict(interval(draws))

        return {
            "schema": SCHEMA,
            "platform": self.platform,
            "scope": self.scope,
            "setup": self.setup,
            "energy_j": {"total": row(self.total), "dynamic": row(self.dynamic)},
            "time_s": row(self.time_s),
            "terms_j": {name: row(draws) for name, draws in self.terms.items()},
            "calibrated_on": list(self.calibrated_on),
            "assumed": list(self.assumed),
            "unpriced": list(self.unpriced),
            "lower_bound": bool(self.unpriced),
            "unused": list(self.unused),
            "evidence": self.weakest_evidence,
        }


def predict(platform: str, **counts: Any) -> dict[str, Any]:
    """`predict_draws`, as plain data."""
    return predict_draws(platform, **counts).to_dict()


def predict_draws(
    platform: str,
    *,
    macs: float | None = None,
    layers: float | None = None,
    synops: float | None = None,
    spikes: float | None = None,
    batch: int = 1,
    steps: int | None = None,
    seconds: float | None = None,
    weight_bytes: float | None = None,
    kv_bytes: float | None = None,
    flops: float | None = None,
    counts: Mapping[str, float] | None = None,
    setup: str = "same",
    seed: int = 0,
    leave_out: Collection[str] = (),
) -> Prediction:
    """Predict one inference.

    Counts above 0 that the platform has no price for are listed as unpriced, and those that its price holds already as
    unused (`sims.energy.leftover`).

    Args:
        platform: a table's name, e.g. "gpu:k4000".
        macs: multiply-accumulates of one pass through the network; connections, on a spiking chip.
        layers: layers of one pass.
        synops: synaptic operations of the whole inference.
        spikes: spikes of the whole inference.
        batch: inferences in one call; energy and time are shared evenly.
        steps: passes of one inference, one after another, or tokens decoded. Default: those of the platform's runs, else 1.
        seconds: how long one inference occupies the chip, where that is not modelled.
        weight_bytes, kv_bytes, flops: per call, of a decoding step (default: 2 bytes and 2 FLOP a multiply-accumulate).
        counts: further events by the kinds of the platform's table, where it has no runs.
        setup: "same": the board, host and software of the published runs. "other": one more factor on dynamic energy and
            one on static power, with the spread of published repeats in other setups (Loihi 2: 0.35 and 0.28 of a logarithm;
            Loihi 1: 0.58 between two hosts).
            Platforms that are priced from constants alone always have them.
        seed: of the draws.
        leave_out: runs, or platforms with all of their runs, that the calibration must not see.

    Raises:
        UsageError: an unknown platform, a count that is missing for it, negative or not finite, a batch or steps below 1.
    """
    table = technology(platform)
    given = {
        "macs": macs,
        "layers": layers,
        "synops": synops,
        "spikes": spikes,
        "seconds": seconds,
        "weight_bytes": weight_bytes,
        "kv_bytes": kv_bytes,
        "flops": flops,
        **(counts or {}),
    }
    for name, value in given.items():
        if value is not None and not (isinstance(value, numbers.Real) and 0 <= float(value) < math.inf):
            raise UsageError(f"predict: got {name}={value}, expected a finite number of at least 0.", "Count again.")
    for name, whole in (("batch", batch), ("steps", 1 if steps is None else steps)):
        if not isinstance(whole, numbers.Real) or not 1 <= whole < math.inf or whole != int(whole):
            raise UsageError(f"predict: got {name}={whole}, expected a whole number of at least 1.", "Give 1 or more.")
    countable = {"events": table.kinds, "steps": (*_EVENTS, _LEARNT)}.get(table.model, ())
    for kind in counts or {}:
        if kind not in countable:
            raise UsageError(
                f"predict: got counts of '{kind}' for '{platform}', expected {', '.join(countable) or 'none: it has runs'}.",
                nearest(kind, countable) if countable else "Leave counts out.",
            )
    if setup not in SETUPS:
        raise UsageError(f"predict: got setup='{setup}', expected one of {', '.join(SETUPS)}.", "Name one of them.")
    if seed < 0:
        raise UsageError(f"predict: got seed={seed}, expected at least 0.", "Give 0 or more.")
    found = {name: float(value) for name, value in given.items() if value is not None}
    usual = max((run.steps for run in table.runs), default=1)
    question = _Question(table, found, int(batch), int(steps or usual), setup == "other", seed, frozenset(leave_out))
    question.asked |= ({"batch"} if batch > 1 else set()) | ({"steps"} if steps and steps > 1 else set())
    if steps is None and usual > 1:
        question.assumed.append(f"{usual} steps an inference, as in the published runs")
    return _FORMS[table.model](question)


@dataclasses.dataclass
class _Question:
    table: Technology
    given: dict[str, float]
    batch: int
    steps: int
    other_setup: bool
    seed: int
    leave_out: frozenset[str]
    assumed: list[str] = dataclasses.field(default_factory=list)
    missing: list[str] = dataclasses.field(default_factory=list)
    used: set[str] = dataclasses.field(default_factory=set)
    asked: set[str] = dataclasses.field(default_factory=set)  # "batch" and "steps" where they are not 1
    grades: list[str] = dataclasses.field(default_factory=list)  # of the constants used; runs are measured

    def take(self, name: str, otherwise: float = 0.0) -> float:
        """A count, which is then used."""
        self.used.add(name)
        return self.given.get(name, otherwise)

    def need(self, *names: str) -> list[float]:
        for name in names:
            if self.given.get(name, 0.0) <= 0:
                option = f"--{name.replace('_', '-')} NUMBER"
                again = f"Give {name}=NUMBER, or {option}."
                if name in self.table.kinds and name not in _PARAMETERS:
                    again = f"Give counts={{'{name}': NUMBER}}, or --count {name}=NUMBER."
                raise UsageError(
                    f"predict: '{self.table.platform}' got no {name}, expected {' and '.join(names)} above 0.", again
                )
        return [self.take(name) for name in names]

    def fitted(self, series: str, inputs: Inputs) -> np.ndarray:
        name = self.table.platform
        stream = f"{name}.{series}" if self.table.model == "steps" else name
        draws = calibrate.fits(self.leave_out)[name, series].draws(stream, inputs, self.seed)
        if series == "dynamic" and self.other_setup:
            draws = draws * np.exp(calibrate.setup_sigma(self.table) * normal(f"{name}.setup", self.seed))
        return draws

    def constant(self, kind: str) -> np.ndarray:
        always = self.table.model == "events"
        self.grades.append(self.table.constant(kind).evidence)
        return drawn(self.table.constant(kind), self.table, self.seed, self.other_setup or always)

    def answer(self, terms: dict[str, np.ndarray], time_s: np.ndarray, dynamic: np.ndarray | None = None) -> Prediction:
        total = sum(terms.values(), np.zeros(DRAWS))
        runs = calibrate.usable(self.table, "dynamic", self.leave_out) if self.table.model in calibrate.FORMS else []
        counted = set(self.given) | ({"static"} if "static" in terms else set()) | ({"run"} if runs else set())
        lacking = [row.id for row in self.table.unpriced if not set(row.until) & counted]
        left = [name for name, value in self.given.items() if value > 0 and name not in self.used]
        without, unused = leftover.sort(self.table, left, [kind for kind in terms if kind in self.table.kinds])
        return Prediction(
            self.table.platform,
            total,
            sum((v for k, v in terms.items() if k != "static"), np.zeros(DRAWS)) if dynamic is None else dynamic,
            time_s,
            terms,
            tuple(run.id for run in runs),
            tuple(self.assumed),
            tuple(dict.fromkeys([*lacking, *self.missing, *without])),
            tuple([*unused, *sorted(self.asked - self.used)]),
            weakest(self.grades),
            self.table.scope,
            "other" if self.other_setup or self.table.model == "events" else "same",
        )


def _calls(q: _Question) -> Prediction:
    macs, layers = q.need("macs", "layers")
    q.used |= {"batch", "steps"}
    inputs = Inputs(macs, layers, batch=q.batch)
    dynamic = q.fitted("dynamic", inputs) * q.steps / q.batch
    # Batches were published without their times, and watts above idle hardly move with the work.
    time_s = dynamic / q.fitted("pace", Inputs(macs, layers))
    return q.answer({"dynamic": dynamic, "static": q.constant("static") * time_s}, time_s)


_EVENTS = ("neuron_update", "message", "hop_ew", "hop_ns")
_LEARNT = "plasticity_update"  # in none of the published runs


def _steps(q: _Question) -> Prediction:
    if "synops" not in q.given:
        q.need("macs")
    runs = calibrate.usable(q.table, "dynamic", q.leave_out)
    q.used.add("steps")
    macs = q.take("macs") or min((run.macs or 1.0 for run in runs), default=1e6)
    inputs = Inputs(macs, steps=q.steps)
    time_s = q.fitted("pace", inputs) * q.steps
    dynamic = q.fitted("dynamic", inputs) * time_s
    terms = {"dynamic": dynamic}
    if "synops" in q.given:
        a, b = np.exp(calibrate.fits(q.leave_out)[q.table.platform, "dynamic"].theta)
        terms = {"host": dynamic * a / (a + b * macs)}
        counted = {"synaptic_op": q.take("synops")} | {kind: q.take(kind) for kind in _EVENTS if kind in q.given}
        if "spikes" in q.given:
            counted["spike"] = q.take("spikes")
            if "message" not in counted:
                counted["message"] = counted["spike"]
                q.assumed.append("one message a spike")
        terms |= {kind: n * q.constant(kind) for kind, n in counted.items()}
        q.missing += [kind for kind in ("spike", "message", "neuron_update") if kind not in counted]
    else:
        q.assumed.append("the firing rates of the published networks")
    if learnt := q.take(_LEARNT):
        terms[_LEARNT] = learnt * q.constant(_LEARNT)
    return q.answer(terms | {"static": q.constant("static") * time_s}, time_s)


def _synops(q: _Question) -> Prediction:
    runs = [run for run in q.table.runs if run.synops and run.macs]
    q.used.add("steps")
    synops, factor = q.take("synops"), np.ones(DRAWS)
    if not synops and "macs" in q.given and runs:
        share = np.mean([run.synops / (run.macs * run.steps) for run in runs if run.synops and run.macs])
        synops = q.need("macs")[0] * q.steps * float(share)
        factor = np.exp(ACTIVITY_SIGMA * normal(f"{q.table.platform}.activity", q.seed))
        q.assumed.append(
            f"{100 * share:.1f} % of the connections carry a spike at each step, as in the published network"
        )
    elif not synops:
        q.need("synops")
    time_s = q.fitted("pace", Inputs(synops=synops, steps=q.steps)) * q.steps
    dynamic = q.fitted("dynamic", Inputs(synops=synops, steps=q.steps)) * factor
    return q.answer({"dynamic": dynamic, "static": q.constant("static") * time_s}, time_s)


def _spikes(q: _Question) -> Prediction:
    (spikes,) = q.need("spikes")
    window = next((run.window_s for run in q.table.runs if run.window_s), 1.0)
    if "seconds" not in q.given:
        q.assumed.append(f"a window of {1e3 * window:g} ms, as published")
    time_s = np.full(DRAWS, q.take("seconds", window))
    dynamic = q.fitted("dynamic", Inputs(spikes=spikes))
    return q.answer({"dynamic": dynamic, "static": q.constant("static") * time_s}, time_s)


def _decode(q: _Question) -> Prediction:
    (layers,) = q.need("layers")
    q.used |= {"batch", "steps"}
    macs = q.given.get("macs", 0.0)
    if not macs:
        q.need("weight_bytes", "flops")
    if "weight_bytes" not in q.given:
        q.assumed.append(f"{_BYTES_PER_WEIGHT} bytes of weights a multiply-accumulate, read once a call")
    if not {"weight_bytes", "flops"} <= set(q.given):
        q.used.add("macs")
    if "flops" not in q.given:
        q.assumed.append("2 floating-point operations a multiply-accumulate")
    if "kv_bytes" not in q.given:
        q.missing.append("kv_bytes")
    weights = q.take("weight_bytes", _BYTES_PER_WEIGHT * macs)
    kv = q.take("kv_bytes") * q.batch
    flops = q.take("flops", 2 * macs) * q.batch
    reach = q.constant("bandwidth") * q.constant("bandwidth_share")
    launched = q.constant("time_call") + np.maximum(layers * q.constant("time_layer"), weights / reach) + kv / reach
    call = np.maximum(launched, flops / q.constant("peak"))
    share = q.steps / q.batch
    terms = {
        "weights": weights * q.constant("weight_byte") * share,
        "kv": kv * q.constant("kv_byte") * share,
        "flops": flops * q.constant("flop") * share,
        "static": q.constant("static") * call * share,
    }
    return q.answer(terms, call * share)


_PARAMETERS = {"macs": "mac", "synops": "synaptic_op", "spikes": "spike", "weight_bytes": "weight_byte"}


def _events(q: _Question) -> Prediction:
    have = q.table.kinds
    mine = [name for name in q.given if _PARAMETERS.get(name, name) in have]
    counted = {_PARAMETERS.get(name, name): q.take(name) for name in mine}
    if "step" in have:
        q.used.add("steps")
        counted["step"] = float(q.steps)
    wanted = [kind for kind in have if q.table.constant(kind).basis != "Static"]
    if not counted and wanted:
        names = {kind: name for name, kind in _PARAMETERS.items()}
        q.need(names.get(wanted[0], wanted[0]))
    times = {c.kind: c for c in q.table.constants if not c.priced}
    time_s = np.full(DRAWS, math.nan)
    if "seconds" in q.given:
        time_s = np.full(DRAWS, q.take("seconds"))
    elif "time_step" in times:
        q.used.add("steps")
        time_s = q.constant("time_step") * q.steps
    elif "time_clock" in times and "clock" in counted:
        time_s = q.constant("time_clock") * counted["clock"]
    every = [Term("", "", kind, count) for kind, count in counted.items()]
    check(every, q.table)
    terms = {kind: count * q.constant(kind) for kind, count in counted.items()}
    whole = any("static" in q.table.constant(kind).includes for kind in counted)
    if "static" in have and "static" not in terms and not whole and not np.isnan(time_s).any():
        terms["static"] = q.constant("static") * time_s
    q.missing += [name for name in unpriced(list(terms), q.table) if name not in ("static",) or "static" not in terms]
    return q.answer(terms, time_s, np.full(DRAWS, math.nan) if whole else None)


_FORMS = {"calls": _calls, "steps": _steps, "synops": _synops, "spikes": _spikes, "decode": _decode, "events": _events}
