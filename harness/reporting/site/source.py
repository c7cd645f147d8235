"""What every view of the site is made from."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.records import store
from harness.reporting import significance
from harness.reporting.report_data import ReportData
from harness.reporting.rows import Row, Table
from harness.reporting.section import Context
from harness.reporting.significance import Compared, Family, Found

if TYPE_CHECKING:
    from harness.reporting.site.pictures import Images

RUN_DIGITS = 12
IN_A_FILE = 64
"""Number of records in one data file, about."""


class Source:
    """Records with their tables, and the folder they come from.

    Attributes:
        data: records, cards and plan.
        folders: results folders by the name of the origin; empty if only the records are there.
        images: opens images of the datasets; None if they are not shown.
        context: the tables of the report.
    """

    def __init__(self, data: ReportData, results: Sequence[Path], images: Images | None) -> None:
        self.data, self.images = data, images
        self.folders = dict(zip(data.merged or [""], results, strict=False))
        self.context = Context(data, "")

    @property
    def tables(self) -> list[Table]:
        """One table per dataset and recipe."""
        return self.context.tables

    @cached_property
    def families(self) -> list[tuple[int, Family]]:
        """The comparable configurations of each table, with the number of the table."""
        found = ((number, significance.family(table, self.data)) for number, table in enumerate(self.tables))
        return [(number, one) for number, one in found if one]

    @cached_property
    def comparisons(self) -> Found:
        """Paired comparisons of each table."""
        families = [family for _, family in self.families]
        resamples = significance.resamples_for(families)
        found = {one.table.key: Compared(*significance.compare(one, resamples)) for one in families}
        self.context.comparisons = Found(found, resamples)
        return Found(found, resamples)

    def folder_of(self, record: Mapping[str, Any]) -> Path | None:
        """Folder of a run."""
        results = self.folders.get(self.data.origin(record))
        return store.folder_of(results, record) if results else None

    @cached_property
    def _repeated(self) -> set[str]:
        """Ids of runs with several records, which contradict each other."""
        counts = Counter(record["run_id"] for record in self.data.records)
        return {run_id for run_id, count in counts.items() if count > 1}

    def short(self, record: Mapping[str, Any]) -> str:
        """Short name of a record, unique on the site: the first digits of its run id, and its origin if needed."""
        name: str = record["run_id"][:RUN_DIGITS]
        if record["run_id"] not in self._repeated:
            return name
        return f"{name}-{self.data.merged.index(self.data.origin(record)) + 1}"

    def short_of(self, run_id: str) -> str:
        """Short name of the record of a run; the digits of its id if there is no record."""
        record = self.context.by_id.get(run_id)
        return run_id[:RUN_DIGITS] if record is None else self.short(record)

    def shorts(self, records: Iterable[Mapping[str, Any]]) -> list[str]:
        """Short names of records."""
        return [self.short(record) for record in records]

    def key(self, row: Row, table: int) -> str:
        """Name of a row of a table in addresses."""
        test = "".join(letter for letter, on in zip("urf", row.test, strict=True) if on) or "p"
        return f"{table}-{self.short(row.setting.runs[0])}-{test}"

    @cached_property
    def sorted(self) -> list[Mapping[str, Any]]:
        """All records, sorted by run id."""
        return sorted(self.data.records, key=lambda record: (record["run_id"], self.data.origin(record)))

    def by_file(self, name: str, values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Divides values by short name among files `name/<first letters>`; the page knows the number of letters."""
        files: dict[str, dict[str, Any]] = {}
        for name_of_run in sorted(values):
            files.setdefault(f"{name}/{name_of_run[: self.letters] or 'all'}", {})[name_of_run] = values[name_of_run]
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


def rounded(values: Sequence[float | None], digits: int) -> list[float | None]:
    """Values for plots."""
    return [None if value is None or not math.isfinite(value) else round(value, digits) for value in values]
