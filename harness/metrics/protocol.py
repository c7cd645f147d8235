"""The evaluation protocol: junk, ignored images of the query's own camera, and the matches of every query."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from harness.errors import HarnessError


class ProtocolError(HarnessError):
    """The identities or cameras do not allow a ranking."""

    exit_code = 1


@dataclass(frozen=True)
class Matches:
    """Pairs of a query and a gallery image of the same identity, sorted by query.

    Gallery columns count images without junk; `kept` maps them to the original gallery.

    Attributes:
        kept: original index of every gallery image that is not junk, [n_kept].
        offsets: pairs of query i are at `offsets[i]:offsets[i + 1]`, [n_query + 1].
        columns: gallery column of every pair, [n_pairs].
        is_match: False if the pair has the same camera and is therefore ignored, [n_pairs].
        n_gallery: number of gallery images including junk.
    """

    kept: np.ndarray
    offsets: np.ndarray
    columns: np.ndarray
    is_match: np.ndarray
    n_gallery: int

    @property
    def n_query(self) -> int:
        """Number of queries."""
        return len(self.offsets) - 1

    @property
    def n_junk(self) -> int:
        """Number of gallery images dropped as junk."""
        return self.n_gallery - len(self.kept)

    @property
    def n_same_camera(self) -> int:
        """Number of ignored pairs: the same identity and the same camera."""
        return len(self.is_match) - int(self.is_match.sum())

    @cached_property
    def rows(self) -> np.ndarray:
        """Query of every pair, [n_pairs]."""
        return np.repeat(np.arange(self.n_query), np.diff(self.offsets))

    @cached_property
    def n_positives(self) -> np.ndarray:
        """Number of matches of every query, [n_query]."""
        return np.bincount(self.rows[self.is_match], minlength=self.n_query)

    def of_query(self, query: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the gallery columns with the identity of one query, and whether each is a match."""
        span = slice(self.offsets[query], self.offsets[query + 1])
        return self.columns[span], self.is_match[span]

    def in_rows(self, rows: slice) -> Matches:
        """Returns the pairs of a block of queries, numbered from zero."""
        span = slice(self.offsets[rows.start], self.offsets[rows.stop])
        offsets = self.offsets[rows.start : rows.stop + 1] - self.offsets[rows.start]
        return Matches(self.kept, offsets, self.columns[span], self.is_match[span], self.n_gallery)


def find_matches(query_pids: Any, gallery_pids: Any, query_camids: Any, gallery_camids: Any) -> Matches:
    """Applies the protocol: drops junk from the gallery and finds the matches of every query.

    Args:
        query_pids: identity of every query, [n_query].
        gallery_pids: identity of every gallery image, [n_gallery]; negative means junk.
        query_camids: camera of every query, [n_query].
        gallery_camids: camera of every gallery image, [n_gallery].

    Raises:
        ProtocolError: labels are not integers, their lengths differ, or there is no query or no gallery image.
    """
    query_pids, gallery_pids = as_labels(query_pids, "query pids"), as_labels(gallery_pids, "gallery pids")
    query_camids, gallery_camids = (
        as_labels(query_camids, "query camids"),
        as_labels(gallery_camids, "gallery camids"),
    )
    for side, pids, camids in (
        ("query", query_pids, query_camids),
        ("gallery", gallery_pids, gallery_camids),
    ):
        if len(pids) != len(camids):
            raise ProtocolError(
                f"There are {len(pids)} {side} pids but {len(camids)} {side} camids; pass one of each per image."
            )

    kept = np.flatnonzero(gallery_pids >= 0)
    if not len(query_pids) or not len(kept):
        raise ProtocolError(
            f"Nothing to rank: there are {len(query_pids)} queries and {len(kept)} gallery images that are not junk. "
            "Check the images of the dataset."
        )
    order = np.argsort(gallery_pids[kept], kind="stable")
    by_pid = gallery_pids[kept][order]
    first, last = np.searchsorted(by_pid, query_pids, "left"), np.searchsorted(by_pid, query_pids, "right")
    offsets = np.concatenate([[0], np.cumsum(last - first)])
    rows = np.repeat(np.arange(len(query_pids)), last - first)
    columns = order[np.arange(offsets[-1]) - offsets[rows] + first[rows]]
    is_match = gallery_camids[kept][columns] != query_camids[rows]
    return Matches(kept, offsets, columns, is_match, len(gallery_pids))


def require_match(matches: Matches) -> None:
    """Checks that at least one query has a match.

    Raises:
        ProtocolError: no query has one; names the identities or the cameras as the reason.
    """
    if matches.is_match.any():
        return
    if len(matches.columns):
        raise ProtocolError(
            f"No query has a match: all {len(matches.columns)} pairs of the same identity have the same camera and are "
            "ignored. Check the camids of query and gallery; they must come from at least two cameras."
        )
    raise ProtocolError("No query has a match: query and gallery have no pid in common. Check how pids are read.")


def as_labels(values: Any, name: str) -> np.ndarray:
    """Converts identities or cameras from a list, an array or a tensor on any device to int64 [n].

    Raises:
        ProtocolError: the values are not one row of integers.
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    labels = np.asarray(values)
    if labels.ndim != 1:
        raise ProtocolError(f"The {name} have shape {labels.shape}; pass one integer per image.")
    if labels.size and (labels.dtype.kind not in "iuf" or (labels.astype(np.int64) != labels).any()):
        raise ProtocolError(f"The {name} are not integers; map names to numbers first.")
    return labels.astype(np.int64)
