"""Writes the tables of docs/records.md from the types of a record: `python -m harness.records.documentation`."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator
from typing import Any

import msgspec

from harness.cards.tables import alternatives, expected
from harness.records.schema import Record
from harness.spec.names import PURPOSES
from harness.system.paths import REPOSITORY

PAGE = REPOSITORY / "docs" / "records.md"
BEGIN = "<!-- Written by `python -m harness.records.documentation` from harness/records/schema.py: edit that file. -->"
END = "<!-- End of the tables. -->"


def tables() -> str:
    """Returns one table per level of a record, with the path of the level as heading, and the purposes of runs."""
    levels = [f"{_heading(path, kind)}{_table(kind)}" for path, kind in _levels(Record, "", set())]
    rows = [f"| `{name}` | `{purpose.source}` | {purpose.about} |" for name, purpose in PURPOSES.items()]
    purposes = ["### Purposes and sources", "", "| `spec.purpose` | `source` | the run |", "|---|---|---|", *rows]
    return "\n\n".join([*levels, "\n".join(purposes)])


def updated(page: str) -> str:
    """Returns the page with current tables.

    Raises:
        ValueError: the page lacks one of the two comments that enclose the tables.
    """
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{tables()}\n\n{END}{after}"


def _levels(kind: Any, path: str, seen: set[Any]) -> Iterator[tuple[str, Any]]:
    """Yields the path and type of each level, outer levels first and each type once.

    A type without a docstring serves the check alone and gets no table.
    """
    if kind in seen or not kind.__doc__:
        return
    seen.add(kind)
    yield path, kind
    for key, inner in _hints(kind).items():
        for suffix, table in _below(inner):
            yield from _levels(table, f"{path}.{key}{suffix}".lstrip("."), seen)


def _below(kind: Any) -> Iterator[tuple[str, Any]]:
    """Yields each table type inside a type, with what it appends to the path."""
    for arm, _ in alternatives(kind):
        if typing.is_typeddict(arm):
            yield "", arm
        elif (origin := typing.get_origin(arm)) in (list, dict):
            suffix = "[]" if origin is list else ".NAME"
            yield from ((suffix + more, table) for more, table in _below(typing.get_args(arm)[-1]))


def _heading(path: str, kind: Any) -> str:
    """Heading and docstring of a level; the outermost level has none."""
    return f"### `{path}`\n\n{inspect.cleandoc(kind.__doc__)}\n\n" if path else ""


def _table(kind: Any) -> str:
    rows = ["| key | value | content |", "|---|---|---|"]
    for key, inner in _hints(kind).items():
        always = key in kind.__required_keys__
        name, value = (f"**`{key}`**", expected(inner)) if always else (f"`{key}`", expected(inner, null=False))
        rows.append(f"| {name} | {value.removesuffix(' of at least 0')} | {_description(inner)} |")
    return "\n".join(rows)


def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)


def _description(kind: Any) -> str:
    while typing.get_origin(kind) in (typing.Required, typing.NotRequired):
        kind = typing.get_args(kind)[0]
    return next(m.description for m in kind.__metadata__ if isinstance(m, msgspec.Meta) and m.description)


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
