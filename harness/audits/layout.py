"""How the rows of an audit are shown: a list, and matrices. Needs no torch and no numpy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Matrix:
    """Values under two settings.

    Attributes:
        name: what was measured.
        keys: names of the settings of rows and columns.
        rows: settings of the rows.
        columns: settings of the columns.
        values: value by row and column; None where there is none.
    """

    name: str
    keys: tuple[str, str]
    rows: list[Any]
    columns: list[Any]
    values: list[list[float | None]]


class Arranged(NamedTuple):
    """Rows of an audit, divided into those of a list and matrices."""

    rows: Rows
    matrices: list[Matrix]


def arranged(rows: Rows) -> Arranged:
    """Divides rows: those of one name whose settings have the same two keys are a matrix.

    The key with more values goes downwards, or else the last one by name: records do not keep the order of keys.
    """
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        if len(row["setting"]) == 2:
            first, second = sorted(row["setting"], reverse=True)
            groups.setdefault((row["name"], first, second), []).append(row)
    single = [row for row in rows if len(row["setting"]) != 2]
    return Arranged(single, [_matrix(*key, group) for key, group in groups.items()])


def _matrix(name: str, first: str, second: str, rows: Rows) -> Matrix:
    found = {(row["setting"][first], row["setting"][second]): row["value"] for row in rows}
    downward, across = (_ordered(place[side] for place in found) for side in (0, 1))
    if len(across) > len(downward):
        turned = {(column, row): value for (row, column), value in found.items()}
        found, first, second, downward, across = turned, second, first, across, downward
    values = [[found.get((row, column)) for column in across] for row in downward]
    return Matrix(name, (first, second), downward, across, values)


def _ordered(values: Any) -> list[Any]:
    """Each value once: numbers sorted, words in their order."""
    unique = list(dict.fromkeys(values))
    return unique if any(isinstance(value, str) for value in unique) else sorted(unique)


def described(setting: Mapping[str, Any]) -> str:
    """A setting in words: `query camera 1, gallery camera 2`."""
    return ", ".join(f"{key} {value}" for key, value in setting.items())
