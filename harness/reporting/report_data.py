"""Input of the report: records, per-query values, cards, searches and the plan."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.cards import BackboneCard, DatasetCard
from harness.errors import RecordError
from harness.records import store
from harness.records.per_query import read as read_rows
from harness.records.schema import Record
from harness.reporting import parallel
from harness.reporting.parallel import collector_paused
from harness.tuning import state

MANY_RECORDS = 2_000
"""Number of records from which reading in two processes saves time."""

COMPARED = ("query", "pid", "camid", "AP")
"""The per-query columns that comparisons need."""

LoadPerQuery = Callable[[Mapping[str, Any], str], Mapping[str, Any]]
"""Takes a record and a file name of `evaluations[].per_query`; returns its columns or raises RecordError."""


def no_per_query(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Default loader: raises RecordError, because there are no per-query values."""
    raise RecordError(f"The per-query values {name} of run {record['run_id'][:12]} are not available.")


@dataclass(frozen=True)
class ReportData:
    """All input of the report.

    Attributes:
        records: valid records, in any order; the order does not affect the page.
        per_query: loads the per-query values of a record.
        backbones: cards by name, for titles, side information and published numbers.
        datasets: cards by name, for titles, notices and access.
        plan: planned runs without results: `backbone`, `dataset`, `recipe`, `state`, `reason`.
        problems: messages about files that could not be read.
        searches: hyperparameter searches, sorted by id.
        folders: folders of the backbones' plug-ins by name, for their native recipes.
        merged: names of the results folders, if there are several; see `harness.reporting.others.merge`.
        remarks: duplicates and contradictions between these folders, one sentence each.
        search_origins: name of the results folder of each search, by its id, if there are several.
    """

    records: Sequence[Mapping[str, Any]]
    per_query: LoadPerQuery = no_per_query
    backbones: Mapping[str, BackboneCard] = field(default_factory=dict)
    datasets: Mapping[str, DatasetCard] = field(default_factory=dict)
    plan: Sequence[Mapping[str, str]] = ()
    problems: Sequence[str] = ()
    searches: Sequence[state.Search] = ()
    folders: Mapping[str, Path] = field(default_factory=dict)
    merged: Sequence[str] = ()
    remarks: Sequence[str] = ()
    search_origins: Mapping[str, str] = field(default_factory=dict)

    def origin(self, record: Mapping[str, Any]) -> str:
        """Name of the results folder of a record; empty if there is only one."""
        return str(record["origin"]) if self.merged else ""

    def backbone(self, name: str) -> BackboneCard | None:
        """Card of a backbone, by its name with or without variant."""
        return self.backbones.get(name) or self.backbones.get(name.partition(":")[0])

    def title(self, dataset: str) -> str:
        """Title of a dataset, or its name."""
        if "+" in dataset:  # trained on together
            return " + ".join(map(self.title, dataset.split("+")))
        return self.datasets[dataset].title if dataset in self.datasets else dataset


def gather(
    results: Path,
    backbones: Iterable[BackboneCard] = (),
    datasets: Iterable[DatasetCard] = (),
    folders: Mapping[str, Path] | None = None,
) -> ReportData:
    """Reads a results folder; files that cannot be read are listed as problems."""
    problems: list[str] = []

    def note(error: RecordError) -> None:
        problems.append(_portable(error, results))

    def per_query(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
        try:
            return read_rows(store.folder_of(results, record), name, COMPARED)
        except RecordError as error:
            raise RecordError(_portable(error, results)) from None

    with collector_paused():
        records, unread = _records(results)
    problems += unread
    searches = []
    for path in state.every(results):
        try:
            searches.append(state.read(path))
        except RecordError as error:
            note(error)
    try:
        plan = store.read_plan(results)
    except RecordError as error:
        note(error)
        plan = []
    return ReportData(
        records=records,
        per_query=per_query,
        backbones={card.name: card for card in backbones},
        datasets={card.name: card for card in datasets},
        plan=plan,
        problems=sorted(problems),
        searches=searches,
        folders=folders or {},
    )


def _records(results: Path) -> tuple[list[Record], list[str]]:
    """Reads all records; returns them with messages about unreadable ones. Uses a second process for many records."""
    paths = store.paths_of(results)
    own = len(paths) * 2 // 5 if len(paths) >= MANY_RECORDS else len(paths)
    with parallel.in_background(_read, results, paths[own:], worth_it=own < len(paths)) as others:
        if own < len(paths):
            import pandas  # noqa: F401 - per-query values need it later, and here there is time
        first, rest = _read(results, paths[:own]), others()
    return first[0] + rest[0], first[1] + rest[1]


def _read(results: Path, paths: Sequence[str]) -> tuple[list[Record], list[str]]:
    problems: list[str] = []
    return list(store.records(results, lambda e: problems.append(_portable(e, results)), paths=paths)), problems


def _portable(error: RecordError, results: Path) -> str:
    """The error message without the path of the results folder, so that the page is the same on every machine."""
    return str(error).replace(f"{results}{os.sep}", "")
