"""Matches rows of stored features to the images of a split, by paths or by identities and cameras."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.contracts import Item
from harness.data.feature_files import Rows, read
from harness.errors import FeatureError, WeightsError
from harness.metrics.features import FeatureReader

PATHS, LABELS, UNCHECKED = "paths", "identities and cameras", "unchecked"

ABOUT = {
    PATHS: "The rows of the features were matched to the images by the paths in the file.",
    LABELS: (
        "The rows of the features were matched to the images by identity and camera. Rows with the same identity and "
        "camera may be swapped: this does not change the mean scores, but may swap their per-query values."
    ),
    UNCHECKED: (
        "The order of the rows of the features could not be checked, because the file contains neither paths nor "
        "identities with cameras for query or gallery. The scores are right only if the rows have the order of the "
        "sorted image paths."
    ),
}


@dataclass(frozen=True)
class Arranged:
    """Features [N, D] of query and gallery in the order of their images.

    Attributes:
        order: how rows were matched: by `paths`, by `identities and cameras`, or `unchecked`.
        notes: sentences about the matching (`row_order`) and about rows that were left out (`rows_left_out`).
    """

    query: np.ndarray
    gallery: np.ndarray
    order: str
    notes: dict[str, str]


def arrange(path: Path, query: Sequence[Item], gallery: Sequence[Item]) -> Arranged:
    """Reads stored features and puts their rows in the order of the images.

    Rows of junk (a negative identity) and rows of images that are in neither split are left out.

    Args:
        path: file or folder of features.
        query: query images.
        gallery: gallery images.

    Raises:
        WeightsError: the file cannot be read, or its rows do not fit the images.
    """
    sides = [
        _Side(name, rows, items)
        for name, rows, items in zip(("query", "gallery"), read(path), (query, gallery), strict=True)
    ]
    try:
        offset = _camera_offset(sides)
        chosen = [side.choose(offset) for side in sides]
        for part in ("pids", "camids"):
            _check_labels(sides, chosen, part)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    order = max((side.order for side in sides), key=list(ABOUT).index)
    left_out = " ".join(filter(None, (side.left_out(len(rows)) for side, rows in zip(sides, chosen, strict=True))))
    notes = {"row_order": ABOUT[order], **({"rows_left_out": left_out} if left_out else {})}
    features = [side.rows.features[rows] for side, rows in zip(sides, chosen, strict=True)]
    try:
        for side, values in zip(sides, features, strict=True):
            for _ in FeatureReader(values, side.name).blocks():  # refuses NaN and rows of zero norm
                pass
    except FeatureError as error:
        raise WeightsError(f"{path}: {error}") from error
    return Arranged(features[0], features[1], order, notes)


class _Side:
    """Query or gallery: the rows of the file and the images they should belong to."""

    def __init__(self, name: str, rows: Rows, items: Sequence[Item]) -> None:
        self.name, self.rows, self.items = name, rows, items
        junk = np.zeros(len(rows.features), bool) if rows.pids is None else rows.pids < 0
        self.kept = np.flatnonzero(~junk)
        labelled = rows.pids is not None and rows.camids is not None
        self.order = PATHS if rows.paths is not None else LABELS if labelled else UNCHECKED

    def choose(self, offset: int) -> np.ndarray:
        """Returns the row of each image, in the order of the images."""
        if self.order == PATHS:
            return self._by_paths()
        if self.order == LABELS:
            return self._by_labels(offset)
        if len(self.kept) != len(self.items):
            raise WeightsError(
                f"the file has {len(self.kept)} {self.name} features, but the dataset has {len(self.items)} images "
                "without junk. Save the paths, or identities and cameras, in the file, so that rows can be matched."
            )
        return self.kept

    def _by_paths(self) -> np.ndarray:
        assert self.rows.paths is not None
        named: dict[str, list[tuple[int, list[str]]]] = {}
        for row in self.kept.tolist():
            parts = _parts(self.rows.paths[row])
            named.setdefault(parts[0], []).append((row, parts))
        rows = [_best(_parts(str(item.path)), named) for item in self.items]
        self._require_none("match no row", [i for i, row in enumerate(rows) if row is None])
        self._require_none("match several rows", [i for i, row in enumerate(rows) if row == -1])
        used = Counter(rows)
        self._require_none("match the row of another image", [i for i, row in enumerate(rows) if used[row] > 1])
        return np.array(rows, dtype=np.int64)

    def _require_none(self, problem: str, wrong: list[int]) -> None:
        if wrong:
            assert self.rows.paths is not None
            raise WeightsError(
                f"{len(wrong)} of {len(self.items)} {self.name} images {problem} by path, for example "
                f"{self.items[wrong[0]].path.name}; paths in the file look like {self.rows.paths[0]!r}."
            )

    def _by_labels(self, offset: int) -> np.ndarray:
        """Matches rows and images with the same identity and camera; among several of them the order is kept."""
        assert self.rows.pids is not None and self.rows.camids is not None
        given = np.stack([self.rows.pids[self.kept], self.rows.camids[self.kept] - offset])
        wanted = _labels(self.items)
        if given.shape != wanted.shape or (_counted(given) != _counted(wanted)):
            raise WeightsError(self._difference(given, wanted))
        rows = np.empty(len(self.items), dtype=np.int64)
        rows[np.lexsort(wanted[::-1])] = self.kept[np.lexsort(given[::-1])]
        return rows

    def _difference(self, given: np.ndarray, wanted: np.ndarray) -> str:
        have, need = _counted(given), _counted(wanted)
        wrong = sorted(key for key in {*have, *need} if have[key] != need[key])
        pid, camid = wrong[0]
        return (
            f"the file has {given.shape[1]} {self.name} features, the dataset {wanted.shape[1]} images, and the counts "
            f"differ for {len(wrong)} pairs of identity and camera: identity {pid} under camera {camid} (from 0) has "
            f"{have[wrong[0]]} rows but {need[wrong[0]]} images. Check that the features belong to this dataset and "
            "split."
        )

    def left_out(self, used: int) -> str:
        """Returns a sentence about rows without an image; empty if every row has one."""
        junk, other = len(self.rows.features) - len(self.kept), len(self.kept) - used
        parts = [f"{junk} of junk images"] * bool(junk) + [f"{other} of other images"] * bool(other)
        return f"Left-out rows of the {self.name}: {' and '.join(parts)}." if parts else ""


def _camera_offset(sides: Sequence[_Side]) -> int:
    """Returns the camera number at which the file starts, minus that of the dataset; the same for both sides."""
    labelled = [side for side in sides if side.order == LABELS]
    given = [int(camid) for side in labelled for camid in np.unique(side.rows.camids[side.kept])]  # type: ignore[index]
    own = [item.camid for side in labelled for item in side.items]
    return min(given) - min(own) if given and own else 0


def _check_labels(sides: Sequence[_Side], chosen: Sequence[np.ndarray], part: str) -> None:
    """Checks that the labels in the file group images as the dataset does; their numbers may differ."""
    theirs: dict[int, int] = {}
    ours: dict[int, int] = {}
    for side, rows in zip(sides, chosen, strict=True):
        if (given := getattr(side.rows, part)) is None:
            continue
        for item, label in zip(side.items, given[rows].tolist(), strict=True):
            own = item.pid if part == "pids" else item.camid
            if theirs.setdefault(own, label) != label or ours.setdefault(label, own) != own:
                what = "identity" if part == "pids" else "camera"
                by = "when rows are matched by path" if side.order == PATHS else "if rows follow the sorted image paths"
                raise WeightsError(
                    f"the {side.name} row of {item.path.name} has the {what} {label}, but the dataset says {what} "
                    f"{own}, {by}. Save the paths, or identities and cameras, in the file to allow any order of rows."
                )


def _labels(items: Sequence[Item]) -> np.ndarray:
    """Returns identities and cameras of images, [2, N]."""
    return np.array([[item.pid for item in items], [item.camid for item in items]], dtype=np.int64)


def _counted(labels: np.ndarray) -> Counter[tuple[int, int]]:
    return Counter(zip(*labels.tolist(), strict=True))


def _parts(path: str) -> list[str]:
    """Splits a path of any operating system into its names, last name first."""
    return [part for part in path.replace("\\", "/").split("/") if part not in ("", ".")][::-1] or [""]


def _best(parts: list[str], named: dict[str, list[tuple[int, list[str]]]]) -> int | None:
    """Returns the row whose path has the longest common ending; None without a row, -1 if several are equal."""
    candidates = named.get(parts[0], [])
    if len(candidates) < 2:
        return candidates[0][0] if candidates else None
    shared = [(_shared(parts, other), row) for row, other in candidates]
    most = max(shared)[0]
    best = [row for length, row in shared if length == most]
    return best[0] if len(best) == 1 else -1


def _shared(one: list[str], other: list[str]) -> int:
    length = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        length += 1
    return length
