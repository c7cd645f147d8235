"""Merges several results folders into the input of one report; the origin of each record is kept."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.records import store
from harness.reporting.report_data import ReportData

ORIGIN = "origin"


def names(folders: Sequence[Path]) -> list[str]:
    """A short and unique name per folder: the end of its path, without an end that all have.

    Raises:
        UsageError: a folder is given twice, or does not exist.
    """
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(
                f"The results folder {folder} does not exist. Pass the folders of the records with --results."
            )
    parts = [list(Path(os.path.normpath(folder)).parts) for folder in folders]
    parts = [part[1:] if folder.is_absolute() else part for part, folder in zip(parts, folders, strict=True)]
    if not all(parts) or len(set(map(tuple, parts))) < len(parts):  # such as `.`, or `results` and `/results`
        parts = [list(Path(os.path.abspath(folder)).parts) for folder in folders]
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UsageError("The same results folder is given twice. Pass each folder once with --results.")
    while len({each[-1] for each in parts}) == 1 and min(map(len, parts)) > 1:  # such as `results` in each checkout
        parts = [each[:-1] for each in parts]
    length = 1
    while len({tuple(each[-length:]) for each in parts}) < len(parts):
        length += 1
    return ["/".join(each[-length:]) for each in parts]


def merge(found: Sequence[ReportData], origins: Sequence[str]) -> ReportData:
    """Merges the data of several folders.

    Args:
        found: one per folder, with the same cards.
        origins: name of each folder.

    Returns:
        All records, each with its origin. Of records and searches that are equal in two folders, the first is kept.
    """
    by_name = dict(zip(origins, found, strict=True))
    records: list[Mapping[str, Any]] = []
    seen: dict[str, list[Mapping[str, Any]]] = {}
    remarks = []
    for origin, data in by_name.items():
        for record in sorted(data.records, key=lambda r: r["run_id"]):
            one = {**record, ORIGIN: origin}
            former = seen.setdefault(record["run_id"], [])
            equal = next((known for known in former if same(known, one)), None)
            if former:
                remarks.append(relation(equal or former[0], one))
            if equal:
                continue
            former.append(one)
            records.append(one)

    def per_query(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
        return by_name[record[ORIGIN]].per_query(record, name)

    first = found[0]
    searches = [(origin, search) for origin, data in reversed(by_name.items()) for search in data.searches]
    kept = {search.id: (origin, search) for origin, search in searches}  # the first folder last, so it is kept
    return ReportData(
        records=records,
        per_query=per_query,
        backbones=first.backbones,
        datasets=first.datasets,
        plan=_unique(cell for data in found for cell in data.plan),
        problems=[f"{origin}: {problem}" for origin, data in by_name.items() for problem in data.problems],
        searches=[search for _, (_, search) in sorted(kept.items())],
        folders=first.folders,
        merged=tuple(origins),
        remarks=sorted(remarks),
        search_origins={name: origin for name, (origin, _) in kept.items()},
    )


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two records of one run have the same outcome and scores."""
    return bool(one["status"] == other["status"] and one["evaluations"] == other["evaluations"])


def relation(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """A sentence about two records of the same run: a duplicate or a contradiction."""
    spec, a, b = one["spec"], one[ORIGIN], other[ORIGIN]
    run = f"run {one['run_id'][:12]} ({spec['backbone']} on {spec['dataset']}, seed {spec['seed']})"
    if same(one, other):
        return f"Duplicate: {run} is in {a} and {b} with the same scores; the record of {a} is shown."
    return f"Contradiction: {run} {_outcome(one)} in {a}, but {_outcome(other)} in {b}; both are shown."


def _outcome(record: Mapping[str, Any]) -> str:
    plain = store.plain(record)
    if record["status"] != "ok" or plain is None:
        return f"ended with {record['status']}"
    return f"has mAP {100 * plain['mAP']:.4f} %, rank-1 {100 * plain['rank-1']:.4f} %"


def _unique(cells: Iterable[Mapping[str, str]]) -> list[Mapping[str, str]]:
    return list({tuple(sorted(cell.items())): cell for cell in cells}.values())
