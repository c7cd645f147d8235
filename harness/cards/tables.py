"""Converts tables of TOML and JSON to typed values. Errors name the file, the key and the expected type."""

from __future__ import annotations

import ast
import math
import re
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from harness.errors import UsageError, suggestion, unknown

LARGEST = 2**63
"""Whole numbers in files must be smaller in magnitude."""

LONGEST_SHOWN = 80
"""Maximum number of characters of a wrong value in a message."""

STEP = re.compile(r"\.([^.\[`]+)|\[(\d+|\.\.\.)\]")
"""One step of the path in an error of msgspec. `[...]` means any entry of a table with free keys."""

T = TypeVar("T")


def from_table(kind: type[T], table: Any, where: str) -> T:
    """Converts plain data to the struct `kind`, strictly: unknown keys and booleans for numbers are errors.

    Args:
        kind: a msgspec struct or TypedDict.
        table: data as read from TOML or JSON.
        where: file or place, for messages.

    Raises:
        UsageError: a key is unknown (with a suggestion), missing, or of the wrong type.
    """
    if not _is_plain(table):
        raise UsageError(
            f"{_place(where, _path_to_wrong(table).lstrip('.'))} must be plain data: "
            "text, finite numbers, true or false, lists and tables."
        )
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        raise explained(error, kind, table, where) from None
    except UnicodeEncodeError as error:
        raise UsageError(f"{where} contains text that is not valid Unicode: {error}.") from None


def explained(error: msgspec.ValidationError, kind: Any, value: Any, where: str) -> UsageError:
    """Translates an error of msgspec: names the first wrong key of `value`, what was expected and what was found."""
    message, _, path = str(error).partition(" - at `$")
    names = ""
    for named, numbered in STEP.findall(path):
        name, value, kind = _entry(kind, value, named or numbered)
        names += name
    place = _place(where, names.lstrip("."))
    if message.startswith("Object contains unknown field"):
        known = typing.get_type_hints(_table_of(kind))
        return unknown(f"key in {place}", next(key for key in value if key not in known), known)
    if message.startswith("Object missing required field"):
        return UsageError(f"{place or 'It'} lacks {', '.join(sorted(_required(_table_of(kind)) - value.keys()))}.")
    found = _shortened(value)
    near = suggestion(value, _choices(kind)) if isinstance(value, str) else ""
    return UsageError(f"{place or 'It'} must be {expected(kind)}, found {found}.{near}")


def expected(kind: Any, *, null: bool = True) -> str:
    """Describes a type in words, for example `a number from 0 to 1`, `one of mean, noise` or `a table`.

    Args:
        kind: the type.
        null: whether to add "or null" if the type allows `None`.
    """
    arms = list(alternatives(kind))
    words = [_words(arm, meta) for arm, meta in arms if arm is not type(None)]
    return " or ".join(words + ["null"] * (null and len(words) < len(arms)))


def _words(arm: Any, meta: msgspec.Meta | None) -> str:
    origin, args = typing.get_origin(arm), typing.get_args(arm)
    if origin is typing.Literal:
        choices = [f"'{choice}'" if choice == "" or len(args) < 3 else str(choice) for choice in args]
        return " or ".join(choices) if len(args) < 3 else f"one of {', '.join(sorted(choices))}"
    if origin in (list, tuple):
        length = len(args) if origin is tuple and Ellipsis not in args else meta and meta.min_length
        return f"a list of {length} values" if length else "a list"
    simple = {str: "text", bool: "true or false", int: "a whole number", float: "a number", Any: "anything"}
    return simple.get(arm, "a table") + (_range(meta) if meta and arm in (int, float) else "")


def _range(meta: msgspec.Meta) -> str:
    """Describes the range of a number in words; bounds near the largest whole number are left out."""
    if meta.ge is not None and meta.le is not None and meta.le < LARGEST - 1:
        return f" from {meta.ge:g} to {meta.le:g}"
    if meta.ge is not None and meta.ge > -LARGEST + 1:
        return f" of at least {meta.ge:g}"
    return f" above {meta.gt:g}" if meta.gt is not None and meta.gt > -LARGEST else ""


def alternatives(kind: Any, meta: msgspec.Meta | None = None) -> Iterator[tuple[Any, msgspec.Meta | None]]:
    """Yields the members of a union type, each with its constraints."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        yield from alternatives(args[0], next((a for a in args[1:] if isinstance(a, msgspec.Meta)), meta))
    elif origin in (typing.Required, typing.NotRequired):
        yield from alternatives(args[0], meta)
    elif origin in (typing.Union, types.UnionType):
        for arm in args:
            yield from alternatives(arm, meta)
    else:
        yield kind, meta


def _entry(kind: Any, value: Any, step: str) -> tuple[str, Any, Any]:
    """Follows one step of the path into a table or list; returns the entry's name, value and type."""
    for arm, _ in alternatives(kind):
        origin, args = typing.get_origin(arm), typing.get_args(arm)
        if step == "..." and origin in (dict, Mapping):
            for key, one in value.items():
                if not _fits(one, args[1]):
                    return f".{key}", one, args[1]
        elif step.isdigit() and origin in (list, tuple):
            inner = args[int(step)] if origin is tuple and Ellipsis not in args else args[0]
            return f"[{step}]", value[int(step)], inner
        elif isinstance(arm, type) and step in (hints := typing.get_type_hints(arm, include_extras=True)):
            return f".{step}", value[step], hints[step]
    raise LookupError(f"{kind} has no {step}")


def _fits(value: Any, kind: Any) -> bool:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return True


def _table_of(kind: Any) -> Any:
    """Returns the struct or TypedDict among the members of a union type."""
    return next(arm for arm, _ in alternatives(kind) if isinstance(arm, type) and typing.get_type_hints(arm))


def _required(table: Any) -> set[str]:
    if issubclass(table, msgspec.Struct):
        return {field.name for field in msgspec.structs.fields(table) if field.required}
    return set(table.__required_keys__)


def _choices(kind: Any) -> list[str]:
    return [
        c for arm, _ in alternatives(kind) if typing.get_origin(arm) is typing.Literal for c in typing.get_args(arm)
    ]


def _place(where: str, path: str) -> str:
    return f"{where}: {path}" if where and path else where or path


def _shortened(value: Any) -> str:
    text = repr(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def _is_plain(value: Any) -> bool:
    """Returns whether JSON can hold a value: no dates, no NaN or infinity, no whole number of 2**63 or more."""
    if isinstance(value, dict):
        return all(isinstance(key, str | int) and _is_plain(inner) for key, inner in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, str | bool) or (isinstance(value, int) and abs(value) < LARGEST)


def _path_to_wrong(value: Any) -> str:
    """Returns the path to the first entry that is not plain data."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, inner in entries:
        if not _is_plain(inner):
            return (f".{key}" if isinstance(value, dict) else f"[{key}]") + _path_to_wrong(inner)
    return ""


def read_toml(path: Path) -> dict[str, Any]:
    """Reads a TOML file.

    Raises:
        UsageError: the file cannot be read, or its syntax is wrong; names the file and the line.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}.") from error
    except (
        ValueError,
        RecursionError,
    ) as error:  # a TOMLDecodeError, or a number with too many digits
        raise UsageError(f"{path} is not valid TOML: {error}.") from error


def same_type(value: Any, default: Any, where: str) -> Any:
    """Converts text from the command line to the type of the option's default.

    Raises:
        UsageError: the text has another type.
    """
    if isinstance(value, str) and isinstance(default, bool):
        value = {"on": "True", "off": "False"}.get(value.lower(), value)
    if isinstance(value, str) and not isinstance(default, str):
        try:
            value = ast.literal_eval(value.capitalize() if value.lower() in ("true", "false") else value)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
            raise UsageError(f"{where} must have the type of its default {default!r}, found '{value}'.") from error
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not type(default) or not _is_plain(value):
        raise UsageError(f"{where} must have the type of its default {default!r}, found {value!r}.")
    return value
