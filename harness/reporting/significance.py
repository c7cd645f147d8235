"""Pairwise comparisons of backbones: difference in mAP, its interval, and a corrected p-value."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError, RecordError
from harness.reporting import accuracy, text
from harness.reporting.parallel import collector_paused
from harness.reporting.report_data import ReportData
from harness.reporting.rows import Row, Table, fingerprint, matched_in
from harness.reporting.scores import Scores, mean_ap
from harness.reporting.section import Context, Section, bullets, paragraphs

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


def build(context: Context) -> Section:
    """Pairwise comparisons within every table, with Holm correction per table."""
    with collector_paused():
        families = [found for table in context.tables if (found := family(table, context.data))]
    if not families:
        return Section()
    resamples = resamples_for(families)
    parts = [_one(context, family, resamples) for family in families]
    return Section(paragraphs("## Significance", *_legend(context, resamples), *parts))


def _legend(context: Context, resamples: int) -> tuple[str, str]:
    """Introduction and explanation of the columns."""
    about = (
        "Each pair of backbones in a table is compared on the AP of the same queries, averaged over seeds. "
        f"{context.doc('statistics.md')} explains the methods."
    )
    columns = [
        "**Difference (points)**: mAP of the first minus mAP of the second backbone, in percentage points.",
        "**95 % interval**: bootstrap over the identities of the queries.",
        f"**p (Holm)**: paired randomisation test with identities as blocks ({resamples:,} resamples), Holm-corrected "
        "within the table.",
        "**On these queries**: a backbone is ahead if p < 0.05 and the interval excludes zero. This holds for similar "
        "queries and these trained models. It says nothing about training the models again.",
        "**Over seeds**: the difference relative to the standard deviation over seeds. With one seed, nothing "
        "is known about training again.",
        "“No difference shown” does not mean that two backbones are equal. A small p-value does not make a small "
        "difference relevant.",
    ]
    return about, bullets(columns)


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


def _one(context: Context, family: Family, resamples: int) -> str:
    comparisons, remarks = compare(family, resamples)
    by_label = {row.label: row for row in family.rows}
    lines = [_line(c, by_label[c.first], by_label[c.second]) for c in comparisons]
    title = text.escape(accuracy.heading(context, family.table.key))
    table = text.table(lines, ("Difference (points)", "p (Holm)"))
    return paragraphs(
        f"### Differences: {title}", table, bullets([text.escape(r, limit=MOST_LETTERS) for r in remarks])
    )


def _line(comparison: Comparison, first: Row, second: Row) -> dict[str, str]:
    low, high = comparison.interval
    return {
        "First": text.escape(first.label),
        "Second": text.escape(second.label),
        "Difference (points)": text.signed(100 * comparison.difference),
        "95 % interval": f"[{text.signed(100 * low)}, {text.signed(100 * high)}]",
        "On these queries": _verdict(comparison, first, second),
        "Over seeds": _training(comparison.difference, first, second),
        "p (Holm)": f"{comparison.p_holm:.4f}" if comparison.p_holm >= 0.0001 else "< 0.0001",
    }


def _verdict(comparison: Comparison, first: Row, second: Row) -> str:
    side = ahead(comparison)
    return f"{text.escape((first if side > 0 else second).label)} is ahead" if side else "no difference shown"


def ahead(comparison: Comparison) -> int:
    """1 if the first is ahead on these queries, -1 if the second is, 0 if no difference is shown."""
    low, high = comparison.interval
    if comparison.p_holm >= LEVEL or low <= 0 <= high:
        return 0
    return 1 if low > 0 else -1


def _training(difference: float, first: Row, second: Row) -> str:
    """Compares the difference with the deviation over seeds; no test, because there are too few seeds."""
    deviations: list[Any] = [row.deviation("mAP") for row in (first, second)]
    if None in deviations:
        return "one seed: no statement"
    words = "larger than" if abs(difference) > max(deviations) else "within"
    spreads = " and ".join(f"{100 * d:.1f}" for d in deviations)
    return f"{words} the seed spread (std {spreads}; {len(first.scored)} and {len(second.scored)} seeds)"
