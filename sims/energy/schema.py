"""JSON Schemas (draft 2020-12) of what energy reads and writes, made from the dataclasses, so that others can check a file.

A run file that fits is one that `neuro.workload.read` takes, but for sums across its fields, which a schema cannot hold: a
population's synaptic operations are at most its spikes times its fan-out, and of an operation on no binary signal those
without a zero are at most its count.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from typing import Any

from neuro import workload
from neuro.errors import UsageError, nearest
from neuro.workload import Operation, Phase, Population, Traffic, Workload
from sims.energy import prediction, report
from sims.energy.activity import COLUMNS, Activity
from sims.energy.price import Term
from sims.energy.streams import Interval
from sims.energy.technologies import EVIDENCE, SCOPES

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
TEXTS: Schema = {"type": "array", "items": TEXT}
NUMBER: Schema = {"type": "number"}
JOULES: Schema = {"type": "number", "minimum": 0}
COUNT: Schema = {"type": "integer", "minimum": 0}
YES_OR_NO: Schema = {"type": "boolean"}
_PLAIN: dict[Any, Schema] = {str: TEXT, int: COUNT, float: JOULES, bool: YES_OR_NO}
_KNOWN: dict[tuple[type, str], tuple[str, ...]] = {
    (Workload, "schema"): (workload.SCHEMA,),
    (Workload, "unit"): workload.UNITS,
    (Phase, "name"): workload.PHASES,
    (Population, "input_signal"): workload.SIGNALS,
    (Operation, "kind"): workload.OPERATIONS,
    (Operation, "signal"): workload.SIGNALS,
    (Traffic, "store"): workload.STORES,
    (Activity, "phase"): workload.PHASES,
}


def of(name: str) -> Schema:
    """The schema of the energy report ("report"), of a run file ("run") or of a prediction ("predict").

    Raises:
        UsageError: another name.
    """
    makers = {"report": _report, "run": _run, "predict": _prediction}
    if name not in makers:
        got = f"energy schema: got '{name}', expected one of {', '.join(makers)}."
        raise UsageError(got, nearest(name, list(makers)))
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | makers[name]()


def of_class(cls: type) -> Schema:
    """An object of a dataclass's fields and of nothing else; those with a default may be missing."""
    hints, fields = typing.get_type_hints(cls), dataclasses.fields(cls)
    properties = {field.name: _of_type(hints[field.name]) for field in fields}
    for (owner, name), known in _KNOWN.items():
        if owner is cls:
            properties[name] = {"enum": list(known)}
    needed = [field.name for field in fields if field.default is dataclasses.MISSING]
    return {"description": inspect.getdoc(cls)} | _object(properties, needed)


def _of_type(hint: Any) -> Schema:
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is types.UnionType:
        return _or_null(_of_type(arguments[0]))
    if typing.get_origin(hint) is tuple:
        return {"type": "array", "items": _of_type(arguments[0])}
    return of_class(hint) if isinstance(hint, type) and dataclasses.is_dataclass(hint) else dict(_PLAIN[hint])


def _object(properties: dict[str, Schema], needed: list[str] | None = None) -> Schema:
    """All of these keys (or those that are ``needed``) and no other."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties) if needed is None else needed,
        "additionalProperties": False,
    }


def _each(item: Schema) -> Schema:
    """A mapping from names to what each has."""
    return {"type": "object", "additionalProperties": item}


def _list(item: Schema) -> Schema:
    return {"type": "array", "items": item}


def _or_null(found: Schema) -> Schema:
    return {"anyOf": [found, {"type": "null"}]}


def _interval() -> Schema:
    return {"description": "Median, 5 and 95 % points."} | _object(dict.fromkeys(_names(Interval), NUMBER))


def _names(cls: type) -> list[str]:
    return [field.name for field in dataclasses.fields(cls)]


def _run() -> Schema:
    found = of_class(Workload)
    found["required"].append("schema")  # of which version it is no default says
    found["properties"]["phases"]["minItems"] = 1
    return {"title": workload.SCHEMA} | found


def _prediction() -> Schema:
    interval = _interval()
    properties = {
        "schema": {"const": prediction.SCHEMA},
        "platform": TEXT,
        "scope": {"enum": list(SCOPES)},
        "setup": {"enum": list(prediction.SETUPS)},
        "energy_j": _object({"total": _or_null(interval), "dynamic": _or_null(interval)}),
        "time_s": _or_null(interval),
        "terms_j": _each(_or_null(interval)),
        "calibrated_on": TEXTS,
        "assumed": TEXTS,
        "unpriced": TEXTS,
        "lower_bound": YES_OR_NO,
        "unused": TEXTS,
        "evidence": {"enum": ["", *EVIDENCE]},
    }
    words = "Joules and seconds of one inference; null where that is not modelled."
    return {"title": prediction.SCHEMA, "description": words} | _object(properties)


def _report() -> Schema:
    """As `report.Report.to_dict`, key by key."""
    one_or_more = {"type": "integer", "minimum": 1}
    properties = {
        "schema": {"const": report.SCHEMA},
        "model": TEXT,
        "unit": {"enum": list(workload.UNITS)},
        "tokens": one_or_more | {"description": "of the whole run, in units"},
        "seed": COUNT,
        "phases": _list(_object({"name": {"enum": list(workload.PHASES)}, "tokens": COUNT, "calls": COUNT})),
        "counts": _list(_activity()),
        "uncounted": TEXTS,
        "measured": _or_null(
            _object(
                {"label": {"const": "measured"}, "source": _or_null(TEXT), "joules": JOULES, "joules_per_token": JOULES}
            )
        ),
        "chip": _chip(),
        "layers": _list(
            _object(
                {
                    "name": TEXT,
                    "spikes_per_synapse": JOULES,
                    "break_even": _interval(),
                    "margin": _or_null(NUMBER),
                }
            )
        ),
        "against": _list(_against()),
        "losses": _or_null(_object(dict.fromkeys(("model", "dense", "difference"), NUMBER))),
    }
    words = "The energy report: counts of the whole run, energies in joules per token (or sample)."
    return {"title": report.SCHEMA, "description": words} | _object(properties)


def _activity() -> Schema:
    found = of_class(Activity)
    for name, words in COLUMNS.items():
        found["properties"][name]["description"] = words
    found["properties"]["spikes_per_synapse"] = _or_null(JOULES)
    found["required"].append("spikes_per_synapse")
    return found


def _evidence() -> Schema:
    return {"enum": ["", *EVIDENCE]}


def _chip() -> Schema:
    interval, shares = _interval(), _each(NUMBER)
    term = of_class(Term)
    published = _object(
        {
            "joules_per_token": interval,
            "seconds_per_token": interval,
            "terms": _each(interval),
            "variance_share": shares,
            "calibrated_on": TEXTS,
            "assumed": TEXTS,
            "unpriced": TEXTS,
            "weakest_evidence": _evidence(),
        }
    )
    properties = {
        "name": TEXT,
        "label": {"const": "modelled"},
        "verdict": TEXT,
        "fits": YES_OR_NO,
        "cores": COUNT,
        "chips": COUNT,
        "placement": _each(TEXT),
        "counts": _each(_list(term)),
        "joules_per_token": _or_null(interval),
        "dynamic_joules_per_token": _or_null(interval),
        "static_joules_per_token": _or_null(interval),
        "seconds_per_token": _or_null(interval),
        "by_kind": _each(interval),
        "by_region": _each(interval),
        "variance_share": shares,
        "as_published": _or_null(published),
        "unpriced": _each(TEXT),
        "lower_bound": YES_OR_NO,
        "weakest_evidence": _evidence(),
        "mac_share_left": {"type": "number", "minimum": 0, "maximum": 1},
    }
    return {"description": "The spiking populations on the chip."} | _object(properties)


def _against() -> Schema:
    interval, shares = _interval(), _each(NUMBER)
    side = {"joules_per_token": interval, "terms": _each(interval), "variance_share": shares}
    dense = side | {
        "dynamic_joules_per_token": interval,
        "seconds_per_token": _or_null(interval),
        "phases": _each(_object({"joules_per_token": interval})),
    }
    ratios = ("ratio", "ratio_dynamic", "ratio_without_the_chips_host")
    properties = {
        "platform": TEXT,
        "label": {"const": "modelled"},
        "scope": {"enum": list(SCOPES)},
        "dense": _object(dense),
        "hybrid": _object(side),
        **{name: _or_null(interval) for name in ratios},
        "ratio_by_arithmetic_alone": _or_null(NUMBER),
        "verdict": TEXT,
        "calibrated_on": TEXTS,
        "assumed": TEXTS,
        "unpriced": TEXTS,
        "weakest_evidence": _evidence(),
    }
    return {"description": "The run with its spikes on the chip, and all products on one platform."} | _object(
        properties
    )
