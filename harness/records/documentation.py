"""The tables of docs/records.md, made from the types of a record: `python -m harness.records.documentation`."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from typing import Any

import msgspec

from harness.cards.tables import alternatives, expected
from harness.records.schema import Record
from harness.spec.names import PURPOSES
from harness.system.paths import REPOSITORY

PAGE = REPOSITORY / "docs" / "records.md"
BEGIN = "<!-- Made by `python -m harness.records.documentation` from harness/records/schema.py; edit the types. -->"
END = "<!-- End of the tables. -->"


def tables() -> str:
    """One table per level of a record, each below its path, and the purposes of runs."""
    levels = [f"{title}{_table(kind)}" for title, kind in _levels(Record, "", set())]
    rows = [f"| `{name}` | `{purpose.source}` | {purpose.about} |" for name, purpose in PURPOSES.items()]
    purposes = ["Purposes of runs, and the sources of their records:", "", "| `spec.purpose` | `source` | the run |"]
    return "\n\n".join([*levels, "\n".join([*purposes, "|---|---|---|", *rows])])


def updated(page: str) -> str:
    """The page with the tables as they are now.

    Raises:
        ValueError: the page lacks one of the two marks.
    """
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{tables()}\n\n{END}{after}"


def _levels(kind: Any, path: str, seen: set[Any]) -> Iterator[tuple[str, Any]]:
    """A table and those inside it, each once; a type without a docstring is an inside matter of the check."""
    if kind in seen or not kind.__doc__:
        return
    seen.add(kind)
    yield f"`{path}`: {kind.__doc__}\n\n" if path else "", kind
    for key, inner in _hints(kind).items():
        for suffix, table in _below(inner):
            yield from _levels(table, f"{path}.{key}{suffix}".lstrip("."), seen)


def _below(kind: Any) -> Iterator[tuple[str, Any]]:
    """Tables with keys of their own inside a type, and how their path goes on."""
    for arm, _ in alternatives(kind):
        if typing.is_typeddict(arm):
            yield "", arm
        elif (origin := typing.get_origin(arm)) in (list, dict):
            suffix = "[]" if origin is list else ".NAME"
            yield from ((suffix + more, table) for more, table in _below(typing.get_args(arm)[-1]))


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
