"""A search space as a table."""

from __future__ import annotations

from harness.cli.tables import Column, table
from harness.tuning.space import Parameter, Space

COLUMNS = (
    Column("parameter"),
    Column("sets", folds=True),
    Column("distribution"),
    Column("values", folds=True),
)


def space_table(space: Space) -> str:
    """What is searched: a line per parameter."""
    return table(
        COLUMNS,
        [[name, p.key.removeprefix("recipe."), p.distribution, values(p)] for name, p in space.parameters.items()],
    )


def values(parameter: Parameter) -> str:
    """The values that a parameter can take, and when."""
    if parameter.distribution == "choice":
        found = ", ".join(map(str, parameter.values))
    else:
        zero = f", 0 with probability {parameter.zero_probability:g}" if parameter.zero_probability else ""
        unit = " of the epochs" if parameter.unit else ""
        found = f"{parameter.low:g} to {parameter.high:g}{unit}{zero}"
    if isinstance(parameter.active_if, dict):
        found += "".join(f"; if {name} is {' or '.join(map(str, v))}" for name, v in parameter.active_if.items())
    return found + ("; if the backbone has it" if parameter.optional else "")
