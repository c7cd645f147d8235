"""A verdict for every published number and every claim of the backbones' cards, from the records alone.

`RULES` states the rules in words; docs/claims.md derives them, and tests check them by simulation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from harness.reporting import rows
from harness.reporting.claims import numbers, relations, rule
from harness.reporting.claims.numbers import Number, Result
from harness.reporting.claims.pairs import Pair
from harness.reporting.claims.relations import Relation
from harness.reporting.claims.setup import Difference
from harness.reporting.report_data import ReportData
from harness.reporting.rows import Table

__all__ = ["RULES", "Claims", "Difference", "Number", "Pair", "Relation", "Result", "judge"]

RULES = {"published": rule.RULE, "claims": relations.RULE}
"""Sentences of the rules for published numbers and for claims."""


class Claims(Struct, frozen=True):
    """All verdicts. Scores are in percent, differences in points.

    Attributes:
        published: one entry per published result, sorted by dataset and backbone.
        claims: one entry per claim, in the order of the cards; one per dataset for scores.
        problems: messages about records that could not be read.
    """

    published: list[Result]
    claims: list[Relation]
    problems: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Returns everything as plain data, with the rules."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return {"rules": {name: list(sentences) for name, sentences in RULES.items()}, **plain}


def judge(data: ReportData, tables: Sequence[Table] | None = None) -> Claims:
    """Judges all published numbers and claims of the cards; the order of the records does not matter.

    Args:
        data: records and cards.
        tables: the tables of the scored runs, if they are made already.
    """
    made = rows.tables(data) if tables is None else tables
    made = [table for table in made if not table.key.recipe.endswith(rows.CAMERAS_OFF)]  # repeats rows of others
    return Claims(numbers.results(data, made), relations.relations(data, made), list(data.problems))
