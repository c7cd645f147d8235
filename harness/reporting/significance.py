"""Which differences between backbones the query set supports: difference and interval first, the p-value last."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError, RecordError
from harness.reporting import accuracy, text
from harness.reporting.parallel import collector_paused
from harness.reporting.rows import Row, Table, fingerprint, matched_in
from harness.reporting.scores import Scores, mean_ap
from harness.reporting.section import Context, Section, bullets, paragraphs

if TYPE_CHECKING:
    import numpy as np

    from harness.stats import Comparison

MOST_SETTINGS = 8
"""Settings of a table that are compared pairwise: those with the highest mAP."""

MOST_SEEDS = 5
"""Seeds of a setting whose per-query values are averaged: the lowest ones."""

RESAMPLES = 10_000
FEWEST_RESAMPLES = 1_000
FULL_PAIRS = 10
"""Up to so many pairs on the page get `RESAMPLES`; beyond, fewer, so that the page stays quick to build."""

LEVEL = 0.05


Loaded = tuple[Row, Scores]


@dataclass(frozen=True)
class Family:
    """The settings of one table that can be compared: same queries, per-query values at hand."""

    table: Table
    rows: Sequence[Row]
    scores: dict[str, np.ndarray]
    groups: np.ndarray | None
    remarks: list[str]


def build(context: Context) -> Section:
    """Pairwise comparisons within every table, corrected over the table."""
    with collector_paused():
        families = [family for table in context.tables if (family := _family(context, table))]
    pairs = sum(math.comb(len(f.scores), 2) for f in families)
    if not families:
        return Section()
    resamples = RESAMPLES if pairs <= FULL_PAIRS else max(FEWEST_RESAMPLES, RESAMPLES * FULL_PAIRS // pairs)
    return Section(paragraphs("## Significance", _legend(resamples), *(_one(context, f, resamples) for f in families)))


def _legend(resamples: int) -> str:
    return (
        "Backbones are compared on the AP of the same queries, averaged over their seeds. The difference in mAP is in "
        "percentage points, its 95 % interval a bootstrap over query identities, p of a randomisation test with "
        f"identities as blocks ({resamples:,} resamples), corrected by Holm over the table. **What may be concluded:** "
        "an interval without zero speaks for other queries like these, seen by these trained models. It says nothing "
        "about training the models again: that is the seed spread, and one seed allows no statement about it. "
        "“No difference shown” does not mean that two backbones are equal; and a small p does not make a small "
        "difference matter."
    )


def _family(context: Context, table: Table) -> Family | None:
    """The comparable settings of a table, and why others are left out; None if there is nothing to say."""
    candidates = table.plain()
    if len(candidates) < 2:
        return None
    remarks: list[str] = []
    loaded: list[Loaded] = []
    for row in sorted(candidates, key=lambda r: (-r.mean("mAP"), r.label)):
        if len(loaded) == MOST_SETTINGS:
            remarks.append(f"Only the {MOST_SETTINGS} settings with the highest mAP and per-query values are compared.")
            break
        try:
            loaded.append((row, mean_ap(context.material, row.scored[:MOST_SEEDS])))
        except RecordError as error:
            remarks.append(f"{text.escape(row.label)} is not compared: {text.escape(error, limit=160)}")
    if not loaded:
        return Family(table, [], {}, None, ["Nothing is compared: no setting has its per-query values at hand."])
    alike = [(row, values) for row, values in loaded if _same_test(table, (row, values), loaded[0])]
    remarks += [
        f"{text.escape(row.label)} is not compared: it was scored on other queries or files than "
        f"{text.escape(loaded[0][0].label)}."
        for row, values in loaded
        if not _same_test(table, (row, values), loaded[0])
    ]
    alike.sort(key=lambda pair: pair[0].label)
    scores = {row.label: values.ap for row, values in alike}
    return Family(table, [row for row, _ in alike], scores, alike[0][1].queries["pid"], remarks)


def _same_test(table: Table, one: Loaded, other: Loaded) -> bool:
    """Same queries, and files of the same fingerprint, so the same gallery."""
    prints = [fingerprint(row.setting.spec, table.key.dataset) for row, _ in (one, other)]
    return prints[0] == prints[1] and one[1].comparable(other[1])


def _one(context: Context, family: Family, resamples: int) -> str:
    from harness import stats

    comparisons: list[Comparison] = []
    remarks = list(family.remarks)
    if len(family.scores) > 1:
        try:
            comparisons = stats.compare_many(family.scores, family.groups, resamples=resamples)
        except HarnessError as error:
            remarks.append(f"Not compared: {text.escape(error)}")
    remarks += [f"{words}." for words in matched_in(family.rows)]
    if any(len(row.scored) > MOST_SEEDS for row in family.rows):
        remarks.append(f"Per-query values are averaged over the first {MOST_SEEDS} seeds of each setting.")
    by_label = {row.label: row for row in family.rows}
    lines = [_line(c, by_label[c.first], by_label[c.second]) for c in comparisons]
    title = text.escape(accuracy.heading(context, family.table.key))
    table = text.table(lines, ("Difference (points)", "p (Holm)"))
    return paragraphs(f"### Differences: {title}", table, bullets(remarks))


def _line(comparison: Comparison, first: Row, second: Row) -> dict[str, str]:
    low, high = comparison.interval
    return {
        "First": text.escape(first.label),
        "Second": text.escape(second.label),
        "Difference (points)": text.signed(100 * comparison.difference),
        "95 % interval": f"[{text.signed(100 * low)}, {text.signed(100 * high)}]",
        "On this query set": _verdict(comparison, first, second),
        "About training": _training(comparison.difference, first, second),
        "p (Holm)": f"{comparison.p_holm:.4f}" if comparison.p_holm >= 0.0001 else "< 0.0001",
    }


def _verdict(comparison: Comparison, first: Row, second: Row) -> str:
    low, high = comparison.interval
    if comparison.p_holm < LEVEL and (low > 0 or high < 0):
        return f"{text.escape((first if low > 0 else second).label)} is ahead"
    return "no difference shown"


def _training(difference: float, first: Row, second: Row) -> str:
    """The spread over seeds beside the difference; no test, for there are few seeds."""
    deviations: list[Any] = [row.deviation("mAP") for row in (first, second)]
    if None in deviations:
        return "one seed: no statement"
    words = "larger than" if abs(difference) > max(deviations) else "within"
    spreads = " and ".join(f"{100 * d:.1f}" for d in deviations)
    return f"{words} the seed spread (std {spreads}; {len(first.scored)} and {len(second.scored)} seeds)"
