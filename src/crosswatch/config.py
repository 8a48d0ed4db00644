"""YAML to frozen dataclasses: strict about names and types, with dotted overrides.

A section of the configuration is a frozen dataclass. Its fields may be scalars, ``Literal``
choices, optional values, tuples of one type, other sections, or one of several sections that their
field `name` tells apart.
"""

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from crosswatch.errors import UserError

Section = TypeVar("Section")


def build(cls: type[Section], values: Mapping[str, Any], *, where: str) -> Section:
    """Make a section from plain values; `where` names the source in errors."""
    if _is_union(cls):
        cls = _named(typing.get_args(cls), values, where)
    if not isinstance(values, Mapping):
        raise UserError(f"{where}: expected a section of {cls.__name__}, found {values!r}")
    kinds = typing.get_type_hints(cls)
    known = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise UserError(
                f"{where}: unknown key {str(key)!r} for {cls.__name__}." + _meant(str(key), known)
            )
    made = {
        key: _convert(kinds[key], value, where=f"{where}.{key}") for key, value in values.items()
    }
    try:
        return cls(**made)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def plain(section: Any) -> Any:
    """The section as dictionaries, lists and scalars: what YAML and JSON can hold."""
    if dataclasses.is_dataclass(section) and not isinstance(section, type):
        return {
            field.name: plain(getattr(section, field.name)) for field in dataclasses.fields(section)
        }
    if isinstance(section, tuple | list):
        return [plain(item) for item in section]
    return section


def to_yaml(section: Any) -> str:
    return yaml.safe_dump(plain(section), sort_keys=False)


def to_json(section: Any) -> str:
    return json.dumps(plain(section), sort_keys=True)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; an empty file is an empty mapping."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text: {error.reason}") from error
    return parse_yaml(text, where=str(path))


def parse_yaml(text: str, *, where: str) -> dict[str, Any]:
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        first = " ".join(str(error).split())
        raise UserError(f"{where}: is not valid YAML: {first}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(f"{where}: expected keys and values, found {type(values).__name__}")
    return values


def merge(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """`top` over `base`, section by section."""
    merged = dict(base)
    for key, value in top.items():
        under = merged.get(key)
        both = isinstance(value, Mapping) and isinstance(under, Mapping)
        merged[key] = merge(under, value) if both else value  # type: ignore[arg-type]
    return merged


def override(values: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Apply ``a.b=c`` assignments; the right side is read as YAML."""
    result: dict[str, Any] = dict(values)
    for assignment in assignments:
        dotted, equals, text = assignment.partition("=")
        if not equals or not all(dotted.split(".")):
            raise UserError(f"--set {assignment}: expected a.b=value")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UserError(f"--set {assignment}: the value is not valid YAML") from error
        for key in reversed(dotted.split(".")):
            value = {key: value}
        result = merge(result, value)
    return result


def _meant(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else f" Known keys: {', '.join(known)}."


def _convert(kind: Any, value: Any, *, where: str) -> Any:
    origin = typing.get_origin(kind)
    if origin is Literal:
        return _choice(typing.get_args(kind), value, where)
    if _is_union(kind):
        kinds = typing.get_args(kind)
        if all(dataclasses.is_dataclass(each) for each in kinds):
            return build(kind, value, where=where)
        return _optional(kinds, value, where)
    if origin is tuple:
        return _tuple(typing.get_args(kind)[0], value, where)
    if dataclasses.is_dataclass(kind):
        return build(typing.cast(type, kind), value, where=where)
    return _scalar(kind, value, where)


def _is_union(kind: Any) -> bool:
    return typing.get_origin(kind) in (typing.Union, types.UnionType)


def _named(kinds: Sequence[type], values: Any, where: str) -> Any:
    """The section whose `name` the values give; the first where they give none."""
    by_name: dict[str, type] = {}
    for kind in kinds:
        by_name |= dict.fromkeys(typing.get_args(typing.get_type_hints(kind)["name"]), kind)
    if not isinstance(values, Mapping) or "name" not in values:
        return kinds[0]
    return by_name[_choice(tuple(by_name), values["name"], f"{where}.name")]


def _choice(choices: tuple[Any, ...], value: Any, where: str) -> Any:
    if value in choices and type(value) in {type(choice) for choice in choices}:
        return value
    allowed = ", ".join(map(str, choices))
    close = difflib.get_close_matches(str(value), [str(choice) for choice in choices], n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise UserError(f"{where}: {value!r} is not one of {allowed}.{hint}")


def _optional(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and types.NoneType in kinds:
        return None
    (kind,) = [kind for kind in kinds if kind is not types.NoneType]
    return _convert(kind, value, where=where)


def _tuple(kind: Any, value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise UserError(f"{where}: expected a list, found {value!r}")
    return tuple(_convert(kind, item, where=f"{where}[{at}]") for at, item in enumerate(value))


def _scalar(kind: type, value: Any, where: str) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError as error:
            raise UserError(
                f"{where}: a whole number of {value.bit_length()} bits is too large; "
                "numbers go up to 1.8e308."
            ) from error
    if type(value) is kind:
        return value
    hint = ""
    if isinstance(value, str) and kind in (int, float) and _is_number(value):
        hint = f" YAML reads {value} as text; write it with a dot, as {float(value):.10g}"
        hint = f"{hint if '.' in f'{float(value):.10g}' else f' Write it as {float(value)!r}'}."
    raise UserError(
        f"{where}: expected {kind.__name__}, found {type(value).__name__} {value!r}.{hint}"
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
