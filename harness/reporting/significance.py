"""Pairwise comparisons of backbones: difference in mAP, its interval, and a corrected p-value."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.errors import HarnessError, RecordError
from harness.reporting import grids, text
from harness.reporting.parallel import collector_paused
from harness.reporting.report_data import ReportData
from harness.reporting.rows import Row, Table, TableKey, fingerprint, matched_in
from harness.reporting.scores import Scores, mean_ap
from harness.reporting.section import Context, Section, bullets, folded, paragraphs

if TYPE_CHECKING:
    import numpy as np

    from harness.stats import Comparison

MOST_SETTINGS = 8
"""Number of configurations per table that are compared, those with the highest mAP."""

MOST_SEEDS = 5
"""Number of seeds whose per-query values are averaged, lowest seeds first."""

RESAMPLES = 10_000
FEWEST_RESAMPLES = 1_000
FULL_PAIRS = 10
"""Number of pairs on the page up to which each gets `RESAMPLES`; with more pairs, each gets fewer to save time."""

LEVEL = 0.05

MOST_LETTERS = 400
"""Length of a remark on the page, in characters."""


Loaded = tuple[Row, Scores]


@dataclass(frozen=True)
class Family:
    """Comparable configurations of one table: same queries, and available per-query values."""

    table: Table
    rows: Sequence[Row]
    scores: dict[str, np.ndarray]
    queries: Mapping[str, np.ndarray]
    remarks: list[str]

    @property
    def groups(self) -> np.ndarray:
        """Identity of each query."""
        return self.queries["pid"]


@dataclass(frozen=True)
class Compared:
    """Comparisons of one table, and remarks on what was not compared."""

    pairs: Sequence[Comparison]
    remarks: Sequence[str]


@dataclass(frozen=True)
class Found:
    """Comparisons of all tables, and the number of resamples per pair."""

    tables: Mapping[TableKey, Compared]
    resamples: int

    def verdict(self, table: Table, one: Row, other: Row) -> bool | None:
        """Whether two rows differ, on these queries and beyond the spread over seeds; None if it was not tested."""
        compared = self.tables.get(table.key)
        for pair in compared.pairs if compared else ():
            if {pair.first, pair.second} == {one.label, other.label}:
                return bool(ahead(pair)) and _within_seeds(pair.difference, one, other) is not True
        return None


def found(context: Context) -> Found:
    """All comparisons; they are made once."""
    if context.comparisons is None:
        context.comparisons = compare_all(context)
    made: Found = context.comparisons
    return made


def compare_all(context: Context) -> Found:
    """Compares all pairs within every table, with Holm correction per table."""
    with collector_paused():
        families = [found for table in context.tables if (found := family(table, context.data))]
    resamples = resamples_for(families)
    return Found({one.table.key: Compared(*compare(one, resamples)) for one in families}, resamples)


def build(context: Context) -> Section:
    """One grid per recipe: a row per pair, a column per dataset."""
    made = found(context)
    tables = [table for table in context.tables if table.key in made.tables]
    if not tables:
        return Section()
    remarks = [
        (f"{grids.named(context, table)}: " if len(context.tables) > 1 else "") + text.escape(remark, MOST_LETTERS)
        for table in tables
        for remark in made.tables[table.key].remarks
    ]
    pairs = [pair for table in tables for pair in made.tables[table.key].pairs]
    about = (
        f"{sum(map(bool, map(ahead, pairs)))} of {text.count(len(pairs), 'difference')} in mAP shown on these queries"
    )
    parts = [_grid(context, made, kind, members) for kind, members in grids.kinds(tables).items()]
    return Section(folded("Significance", about, _legend(context, made.resamples), *parts, bullets(remarks)))


def _legend(context: Context, resamples: int) -> str:
    """Explanation of a cell."""
    return (
        "mAP of the first minus mAP of the second backbone in points, on the AP of the same queries, averaged over "
        "seeds; in brackets its 95 % interval, a bootstrap over the identities of the queries. p is of a paired "
        f"randomisation test with identities as blocks ({resamples:,} resamples), Holm-corrected within a dataset and "
        "recipe. **Bold**: shown on these queries, p < 0.05 and an interval without zero. This says nothing about "
        "training again: “beyond seeds” and “within seeds” compare the difference with the standard deviation over "
        "seeds, where both have several. A difference that is not shown does not mean that two backbones are equal. "
        f"{context.doc('statistics.md')} explains the methods."
    )


def _grid(context: Context, made: Found, kind: grids.Kind, tables: Sequence[Table]) -> str:
    cells: grids.Cells = {}
    for table in tables:
        rows = {row.label: row for row in table.plain()}
        for pair in made.tables[table.key].pairs:
            first, second = rows[pair.first], rows[pair.second]
            names = (text.escape(pair.first), text.escape(pair.second))
            cells[names, grids.column(context, table)] = _cell(pair, first, second)
    if not cells:
        return ""
    columns = list(dict.fromkeys(column for _, column in cells))
    return paragraphs(grids.caption(context, kind), grids.grid(columns, cells, ("First", "Second")))


def resamples_for(families: Sequence[Family]) -> int:
    """Number of resamples of each comparison: fewer if there are many."""
    pairs = sum(math.comb(len(f.scores), 2) for f in families)
    return RESAMPLES if pairs <= FULL_PAIRS else max(FEWEST_RESAMPLES, RESAMPLES * FULL_PAIRS // pairs)


def family(table: Table, data: ReportData) -> Family | None:
    """The comparable configurations of a table, with remarks on the others; None for fewer than two configurations."""
    candidates = table.plain()
    if len(candidates) < 2:
        return None
    remarks: list[str] = []
    loaded: list[Loaded] = []
    for row in sorted(candidates, key=lambda r: (-r.mean("mAP"), r.label)):
        if len(loaded) == MOST_SETTINGS:
            remarks.append(
                f"Only the {MOST_SETTINGS} configurations with the highest mAP and per-query values are compared."
            )
            break
        try:
            loaded.append((row, mean_ap(data, row.scored[:MOST_SEEDS])))
        except RecordError as error:
            remarks.append(f"{row.label} is not compared: {error}")
    if not loaded:
        return Family(table, [], {}, {}, ["Nothing is compared: no configuration has per-query values here."])
    alike = [(row, values) for row, values in loaded if _same_test(table, (row, values), loaded[0])]
    remarks += [
        f"{row.label} is not compared: its queries or files differ from those of {loaded[0][0].label}."
        for row, values in loaded
        if not _same_test(table, (row, values), loaded[0])
    ]
    alike.sort(key=lambda pair: pair[0].label)
    scores = {row.label: values.ap for row, values in alike}
    return Family(table, [row for row, _ in alike], scores, alike[0][1].queries, remarks)


def _same_test(table: Table, one: Loaded, other: Loaded) -> bool:
    """Whether queries and file fingerprints are equal, and so the gallery as well."""
    prints = [fingerprint(row.setting.spec, table.key.dataset) for row, _ in (one, other)]
    return prints[0] == prints[1] and one[1].comparable(other[1])


def compare(family: Family, resamples: int) -> tuple[list[Comparison], list[str]]:
    """All pairs of a family, and remarks in plain text."""
    from harness import stats

    comparisons: list[Comparison] = []
    remarks = list(family.remarks)
    if len(family.scores) > 1:
        try:
            comparisons = stats.compare_many(family.scores, family.groups, resamples=resamples)
        except HarnessError as error:
            remarks.append(f"Not compared: {error}")
    remarks += [f"{words}." for words in matched_in(family.rows)]
    if any(len(row.scored) > MOST_SEEDS for row in family.rows):
        remarks.append(f"Per-query values are averaged over the first {MOST_SEEDS} seeds of each configuration.")
    return comparisons, remarks


def _cell(pair: Comparison, first: Row, second: Row) -> str:
    """Difference, interval, p and the comparison with the spread over seeds."""
    low, high = (text.signed(100 * bound) for bound in pair.interval)
    difference = text.signed(100 * pair.difference)
    p = f"p {pair.p_holm:.4f}" if pair.p_holm >= 0.0001 else "p < 0.0001"
    words = {None: "", True: ", within seeds", False: ", beyond seeds"}[_within_seeds(pair.difference, first, second)]
    return f"{f'**{difference}**' if ahead(pair) else difference} [{low}, {high}], {p}{words}"


def ahead(comparison: Comparison) -> int:
    """1 if the first is ahead on these queries, -1 if the second is, 0 if no difference is shown."""
    low, high = comparison.interval
    if comparison.p_holm >= LEVEL or low <= 0 <= high:
        return 0
    return 1 if low > 0 else -1


def _within_seeds(difference: float, first: Row, second: Row) -> bool | None:
    """Whether a difference is within the deviation over seeds; None if one of both has a single seed."""
    deviations = [row.deviation("mAP") for row in (first, second)]
    known = [deviation for deviation in deviations if deviation is not None]
    return abs(difference) <= max(known) if len(known) == len(deviations) else None
