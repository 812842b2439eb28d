"""Configurations as text: nested dictionaries, TOML files, typed ``--set`` overrides; of any frozen dataclasses."""

from __future__ import annotations

import dataclasses
import json
import tomllib
import types
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from neuro.errors import MissingError, UsageError, nearest

if TYPE_CHECKING:
    from neuro.config import RunConfig

Config = TypeVar("Config")


def from_dict(kind: type[Config], data: dict[str, Any], where: str = "config") -> Config:
    """Build a dataclass from nested dictionaries, each value checked against its field's type.

    Raises:
        UsageError: an unknown key (with the nearest match) or a value of another type.
    """
    if not isinstance(data, dict):
        raise UsageError(f"{where}: got {data!r}, expected a table of keys.", f"Write it as [{where}].")
    hints = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    values = {}
    for key, value in data.items():
        if key not in names:
            raise UsageError(f"{where}: unknown key '{key}'.", nearest(key, names))
        values[key] = _convert(hints[key], value, f"{where}.{key}")
    return kind(**values)


def apply_sets(config: Config, sets: list[str]) -> Config:
    """Apply ``a.b=c`` overrides, each parsed by its field's type (never evaluated), checked when all are in place.

    Raises:
        UsageError: no ``=``, an unknown key, a value that does not parse, or values that do not fit together.
    """
    data = to_dict(config)
    for item in sets:
        path, equals, text = item.partition("=")
        if not equals:
            raise UsageError(f"--set: got '{item}', expected KEY=VALUE.", "Write for example --set train.steps=100.")
        _set(config, data, path.strip().split("."), text.strip(), path.strip())
    return from_dict(type(config), data) if sets else config


def load(target: str | Path | None = None, sets: list[str] | None = None) -> RunConfig:
    """A run configuration from a preset's name or a TOML file (None: the preset ``small``), with overrides.

    Raises:
        MissingError: neither a preset nor a file.
        UsageError: a folder, not TOML, unknown keys or wrong values.
    """
    from neuro import config, presets

    name = str(target or "small")
    if name in presets.PRESETS:
        return apply_sets(presets.PRESETS[name](), sets or [])
    path = Path(name)
    if not path.exists():
        raise MissingError(f"config '{name}': no such preset or file.", nearest_or_path(name, list(presets.PRESETS)))
    do = "Give a TOML file; 'neuro config show' prints a full one."
    if path.is_dir():
        raise UsageError(f"config '{name}': got a folder, expected a preset or a TOML file.", do)
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"config '{name}': got a file that is no TOML ({error}), expected one.", do) from error
    preset = data.pop("preset", "small")
    if not isinstance(preset, str) or preset not in presets.PRESETS:
        raise UsageError(f"{path}: unknown preset {preset!r}.", nearest(str(preset), list(presets.PRESETS)))
    merged = _merge(to_dict(presets.PRESETS[preset]()), data)
    return apply_sets(from_dict(config.RunConfig, merged, "config"), sets or [])


def nearest_or_path(name: str, known: list[str]) -> str:
    """What to do about a name that is neither known nor a file: nobody misspells a preset with a slash or a suffix."""
    return "Check the path." if Path(name).name != name or Path(name).suffix else nearest(name, known)


def to_dict(config: Any) -> dict[str, Any]:
    """Nested plain dictionaries, tuples as lists."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def to_toml(config: Any) -> str:
    """The fully resolved configuration as TOML that `load` reads back to an equal object."""
    lines: list[str] = []

    def table(prefix: str, data: dict[str, Any]) -> None:
        plain = {k: v for k, v in data.items() if not isinstance(v, dict)}
        if prefix and plain:
            lines.append(f"\n[{prefix}]")
        lines.extend(f"{key} = {_toml(value)}" for key, value in plain.items())
        for key, value in data.items():
            if isinstance(value, dict):
                table(f"{prefix}.{key}" if prefix else key, value)

    table("", to_dict(config))
    return "\n".join(lines).strip() + "\n"


def _toml(value: Any) -> str:
    """A value in TOML, which is JSON but for characters beyond the basic plane, DEL and infinity."""
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value).replace("Infinity", "inf")


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _set(config: Any, data: dict[str, Any], keys: list[str], text: str, where: str) -> None:
    names = [field.name for field in dataclasses.fields(config)]
    if keys[0] not in names:
        raise UsageError(f"--set {where}: unknown key '{keys[0]}'.", nearest(keys[0], names))
    value = getattr(config, keys[0])
    if dataclasses.is_dataclass(value):
        if len(keys) == 1:
            below = [field.name for field in dataclasses.fields(value)]
            raise UsageError(f"--set {where}: is a table, expected one of its keys.", nearest("", below))
        return _set(value, data[keys[0]], keys[1:], text, where)
    if len(keys) > 1:
        raise UsageError(f"--set {where}: '{keys[0]}' has no keys below it.", f"Set {keys[0]} itself.")
    hint = typing.get_type_hints(type(config))[keys[0]]
    data[keys[0]] = _convert(hint, _parse(hint, text, where), f"--set {where}")


def _parse(hint: Any, text: str, where: str) -> Any:
    if hint is str:
        return text
    if typing.get_origin(hint) is tuple:
        item = typing.get_args(hint)[0]
        return [_parse(item, part.strip(" \"'"), where) for part in text.strip("[]()").split(",") if part.strip()]
    try:
        return json.loads(text.lower() if hint is bool else text)
    except json.JSONDecodeError:
        return text  # _convert says what was expected


def _convert(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_dict(typing.cast(type, hint), value, where)
    if typing.get_origin(hint) is tuple and isinstance(value, list | tuple):
        item = typing.get_args(hint)[0]
        return tuple(_convert(item, part, where) for part in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, types.GenericAlias) or type(value) is not hint:
        expected = getattr(hint, "__name__", str(hint)) if not isinstance(hint, types.GenericAlias) else str(hint)
        raise UsageError(f"{where}: got {value!r}, expected {expected}.", f"Give {where} a value of that type.")
    return value
