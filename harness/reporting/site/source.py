"""What every view of the site is made from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.records import store
from harness.reporting.report_data import ReportData
from harness.reporting.rows import Row, Table
from harness.reporting.section import Context
from harness.reporting.significance import Family

if TYPE_CHECKING:
    from harness.reporting.site.pictures import Images
    from harness.stats import Comparison

RUN_DIGITS = 12
IN_A_FILE = 64
"""Number of records in one data file, about."""


class Source:
    """Records with their tables, and the folder they come from.

    Attributes:
        data: records, cards and plan.
        results: folder of the results; None if only the records are there.
        images: opens images of the datasets; None if they are not shown.
        context: the tables of the report.
    """

    def __init__(self, data: ReportData, results: Path | None, images: Images | None) -> None:
        self.data, self.results, self.images = data, results, images
        self.context = Context(data, "")

    @property
    def tables(self) -> list[Table]:
        """One table per dataset and recipe."""
        return self.context.tables

    @cached_property
    def families(self) -> list[tuple[int, Family]]:
        """The comparable configurations of each table, with the number of the table."""
        from harness.reporting import significance

        found = ((number, significance.family(table, self.data)) for number, table in enumerate(self.tables))
        return [(number, one) for number, one in found if one]

    @cached_property
    def resamples(self) -> int:
        """Number of resamples of each comparison."""
        from harness.reporting import significance

        return significance.resamples_for([family for _, family in self.families])

    @cached_property
    def comparisons(self) -> dict[int, tuple[list[Comparison], list[str]]]:
        """Paired comparisons of each table, with remarks, by the number of the table."""
        from harness.reporting import significance

        return {number: significance.compare(family, self.resamples) for number, family in self.families}

    def folder_of(self, record: Mapping[str, Any]) -> Path | None:
        """Folder of a run."""
        return store.folder_of(self.results, record) if self.results else None

    @cached_property
    def sorted(self) -> list[Mapping[str, Any]]:
        """All records, sorted by run id."""
        return sorted(self.data.records, key=lambda record: record["run_id"])

    def by_file(self, name: str, values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Divides values by run id among files `name/<first letters>`; the page knows the number of letters."""
        files: dict[str, dict[str, Any]] = {}
        for run_id in sorted(values):
            files.setdefault(f"{name}/{run_id[: self.letters] or 'all'}", {})[run_id[:RUN_DIGITS]] = values[run_id]
        return files

    @cached_property
    def letters(self) -> int:
        """Number of letters of the run id that name a file of records."""
        files = len(self.data.records) / IN_A_FILE
        return math.ceil(math.log(files, 16)) if files > 1 else 0


def columnar(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Rows with equal keys as one list of keys and a list of values per row, which is a third of the size."""
    listed = list(rows)
    columns = list(listed[0]) if listed else []
    return {"columns": columns, "rows": [[row[column] for column in columns] for row in listed]}


def key_of(row: Row, table: int) -> str:
    """Name of a row of a table in addresses."""
    test = "".join(letter for letter, on in zip("urf", row.test, strict=True) if on) or "p"
    return f"{table}-{row.setting.runs[0]['run_id'][:RUN_DIGITS]}-{test}"


def runs_of(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """Short run ids."""
    return [record["run_id"][:RUN_DIGITS] for record in records]


def rounded(values: Sequence[float | None], digits: int) -> list[float | None]:
    """Values for plots."""
    return [None if value is None or not math.isfinite(value) else round(value, digits) for value in values]
