"""Pairs of groups of runs for claims about scores."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from harness import stats
from harness.cards import ALL, Claim
from harness.errors import HarnessError
from harness.reporting import text
from harness.reporting.cells import is_usual
from harness.reporting.claims.pairs import Pair, holds
from harness.reporting.report_data import ReportData
from harness.reporting.rows import Row, Table, fingerprint
from harness.reporting.scores import mean_ap

MOST_SEEDS = 5
"""Number of seeds whose per-query values are averaged, lowest seeds first."""

RESAMPLES = 2_000
"""Bootstrap samples per pair; there may be many pairs, and only the side of 0 is needed."""


def pairs(name: str, claim: Claim, dataset: str, data: ReportData, tables: Iterable[Table]) -> list[Pair]:
    """All pairs of a backbone and its comparators on a dataset under one recipe, in the order of the tables."""
    found = []
    for table in tables:
        if table.key.dataset == table.key.trained_on == dataset:
            rows = _chosen([r for r in table.plain() if r.setting.source == "trained" and _is_usual(data, r)])
            for ours in (row for row in rows if row.setting.backbone == name):
                found += [
                    _pair(claim, table, ours, theirs, data) for theirs in rows if _is_comparator(claim, ours, theirs)
                ]
    return found


def _chosen(rows: Sequence[Row]) -> list[Row]:
    """One row per backbone: that with most seeds, then the newest; changed code leaves older ones beside it."""
    chosen: dict[str, Row] = {}
    for row in sorted(rows, key=lambda r: (len(r.scored), r.setting.started, r.setting.runs[0]["run_id"])):
        chosen[row.setting.backbone] = row
    return [row for row in rows if chosen[row.setting.backbone] is row]


def _is_usual(data: ReportData, row: Row) -> bool:
    return not row.setting.untrained and is_usual(data, row.setting.runs[0])


def _is_comparator(claim: Claim, ours: Row, theirs: Row) -> bool:
    name = theirs.setting.backbone
    if theirs.mean(claim.metric) == 0:  # no ratio
        return False
    other = name.partition(":")[0] != ours.setting.backbone.partition(":")[0]
    return theirs.test == ours.test and (other if claim.comparator == ALL else name == claim.comparator)


def _pair(claim: Claim, table: Table, ours: Row, theirs: Row, data: ReportData) -> Pair:
    value, reference = ours.mean(claim.metric), theirs.mean(claim.metric)
    reason = _not_comparable(table, ours, theirs)
    held: bool | None = None
    if not reason:
        try:
            held, reason = _compared(claim, ours, theirs, data)
        except HarnessError as error:
            reason = f"per-query values: {error}".rstrip(".")
    return Pair(
        where=f"recipe {table.key.recipe}, {ours.test.label}",
        ours=100 * value,
        theirs=100 * reference,
        comparator=theirs.setting.backbone,
        ratio=value / reference,
        holds=held,
        reason=reason,
        runs=tuple(run["run_id"] for row in (ours, theirs) for run, _ in row.scored),
    )


def _not_comparable(table: Table, ours: Row, theirs: Row) -> str:
    """Why scores of two rows say nothing about a claim; empty if they may."""
    if table.key.generated:
        return "the images are generated"
    datas = [run["data"] for row in (ours, theirs) for run, _ in row.scored]
    if any((data.get("notes") or {}).get("image_sizes") for data in datas):
        return "the images are resized"
    if any(data.get("count_mismatch") for data in datas):
        return "image counts differ from the card"
    prints = [fingerprint(row.setting.spec, table.key.dataset) for row in (ours, theirs)]
    if prints[0] != prints[1]:
        return "the files of the dataset differ"
    return "one seed says nothing about training" if min(len(ours.scored), len(theirs.scored)) < 2 else ""


def _compared(claim: Claim, ours: Row, theirs: Row, data: ReportData) -> tuple[bool | None, str]:
    """Whether the claim holds over seeds and over queries; None with a reason if they cannot decide.

    The seeds come first, because their scores are in the records; the values of each query are not.
    """
    values = ours.values(claim.metric), [claim.factor * value for value in theirs.values(claim.metric)]
    points = 100 * (statistics.fmean(values[0]) - statistics.fmean(values[1]))
    name = theirs.setting.backbone
    over_seeds = _side(claim.relation, stats.difference_of_means(*values))
    if over_seeds is None:
        return None, f"{text.signed(points)} points to {name}, which the seeds cannot tell from 0"
    first, second = (mean_ap(data, row.scored[:MOST_SEEDS]) for row in (ours, theirs))
    if not first.comparable(second):
        return None, "the queries differ"
    difference = first.ap - claim.factor * second.ap
    interval = stats.bootstrap_interval(difference, first.queries["pid"], resamples=RESAMPLES)
    if _side(claim.relation, interval) != over_seeds:
        return None, f"{text.signed(points)} points to {name}, which the queries cannot tell from 0"
    return over_seeds, ""


def _side(relation: str, interval: Sequence[float]) -> bool | None:
    """Whether an interval lies on the claimed side of 0; None if it contains 0."""
    low, high = interval
    return None if low <= 0 <= high or low != low else holds(relation, low, 0.0)
