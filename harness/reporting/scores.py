"""AP of each query, averaged over seeds: the input of paired comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.errors import RecordError
from harness.reporting.report_data import ReportData

if TYPE_CHECKING:
    import numpy as np

_SAME = ("query", "pid", "camid")


@dataclass(frozen=True)
class Scores:
    """Queries in the order of the per-query file, and their scores.

    Attributes:
        queries: arrays `query`, `pid` and `camid`, each [n].
        ap: average precision, [n]; NaN for queries without a match.
    """

    queries: Mapping[str, np.ndarray]
    ap: np.ndarray

    def comparable(self, other: Scores) -> bool:
        """Whether both have the same queries."""
        return all(self.queries[name].tobytes() == other.queries[name].tobytes() for name in _SAME)


def mean_ap(data: ReportData, scored: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> Scores:
    """Averages the AP of each query over runs, given as (record, evaluation); at least one is required.

    Raises:
        RecordError: values are missing or damaged, or the runs have different queries.
    """
    found: list[Scores] = []
    for run, evaluation in scored:
        if not evaluation.get("per_query"):
            raise RecordError(f"run {run['run_id'][:12]} has no per-query values.")
        columns = data.per_query(run, evaluation["per_query"])
        found.append(Scores({name: columns[name] for name in _SAME}, columns["AP"]))
    if not all(each.comparable(found[0]) for each in found):
        raise RecordError("its seeds were scored on different queries.")
    return Scores(found[0].queries, sum(each.ap / len(found) for each in found))  # type: ignore[arg-type]
