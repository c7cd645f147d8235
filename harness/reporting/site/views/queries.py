"""Queries on which configurations disagree most, with their ranked lists side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from harness.errors import RecordError
from harness.records import ranked_lists
from harness.records.ranked_lists import Image
from harness.reporting.significance import Family
from harness.reporting.site.source import Source, rounded

OF_A_PAIR = 12
"""Number of queries with the largest difference in AP that are kept of each pair, and with the lowest AP of each one.

The largest difference within any choice of configurations is that of some pair. So the first queries of any choice are
among those kept.
"""


def build(source: Source) -> Mapping[str, Any]:
    """One file per table with comparable configurations."""
    found = {f"queries/{number}": _table(source, number, family) for number, family in source.families if family.rows}
    return {**found, "queries": {"tables": [number for number, family in source.families if family.rows]}}


def worst(scores: np.ndarray) -> list[int]:
    """Numbers of the queries to keep.

    Args:
        scores: AP by configuration and query, NaN for a query without a match, [configurations, n].
    """
    chosen: set[int] = set()
    for values in [*(-scores[i] for i in range(len(scores))), *_differences(scores)]:
        valid = np.flatnonzero(~np.isnan(values))
        order = valid[np.argsort(-values[valid], kind="stable")]
        chosen.update(order[:OF_A_PAIR].tolist())
    return sorted(chosen)


def _differences(scores: np.ndarray) -> list[np.ndarray]:
    return [np.abs(scores[i] - scores[j]) for i, j in combinations(range(len(scores)), 2)]


def _table(source: Source, number: int, family: Family) -> dict[str, Any]:
    scores = np.stack([family.scores[row.label] for row in family.rows])
    chosen = worst(scores)
    lists, problems = _lists(source, family, set(chosen))
    names = _Names()
    queries = [
        {
            "query": query,
            "pid": int(family.queries["pid"][query]),
            "camera": int(family.queries["camid"][query]),
            "image": next((names.add(source, family, one[query][0]) for one in lists if query in one), None),
            "AP": rounded(scores[:, query].tolist(), 6),
            "lists": [
                [[names.add(source, family, image), image.distance] for image in one[query][1:]]
                if query in one
                else None
                for one in lists
            ],
        }
        for query in chosen
    ]
    return {
        "keys": [source.key(row, number) for row in family.rows],
        "labels": [row.label for row in family.rows],
        "mAP": [row.mean("mAP") for row in family.rows],
        "total": int(scores.shape[1]),
        "kept": OF_A_PAIR,
        "queries": queries,
        "images": names.listed,
        "problems": problems,
    }


def _lists(
    source: Source, family: Family, wanted: set[int]
) -> tuple[list[Mapping[int, Sequence[Image]]], list[str | None]]:
    """The ranked lists of the first seed of each configuration, and why there are none."""
    lists: list[Mapping[int, Sequence[Image]]] = []
    problems: list[str | None] = []
    for row in family.rows:
        run = row.scored[0][0]
        folder, dataset = source.folder_of(run), family.table.key.dataset
        lists.append({})
        problems.append(None)
        if not folder or not (folder / ranked_lists.file_name(dataset)).is_file():
            problems[-1] = f"{row.label} has no ranked lists."
            continue
        try:
            lists[-1] = ranked_lists.read(folder, dataset, wanted)
        except RecordError as error:
            problems[-1] = str(error).replace(f"{folder}/", "")
    return lists, problems


class _Names:
    """The images of a table, each once: path, identity, camera, and its picture if pictures are shown."""

    def __init__(self) -> None:
        self.listed: list[list[Any]] = []
        self._places: dict[str, int] = {}

    def add(self, source: Source, family: Family, image: Image) -> int:
        """Returns the number of an image."""
        if image.path not in self._places:
            self._places[image.path] = len(self.listed)
            entry: list[Any] = [image.path, image.pid, image.camid]
            if source.images:
                entry.append(source.images.add(family.rows[0].scored[0][0], family.table.key.dataset, image.path))
            self.listed.append(entry)
        return self._places[image.path]
