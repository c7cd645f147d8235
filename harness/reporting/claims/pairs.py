"""One comparison of two backbones under equal conditions."""

from __future__ import annotations

from msgspec import Struct


class Pair(Struct, frozen=True):
    """Two records, or two groups of runs, under equal conditions.

    Attributes:
        where: the conditions.
        ours: value of the backbone, in the metric's unit.
        theirs: value of the comparator.
        comparator: its name.
        ratio: ours / theirs.
        holds: whether the claim holds here; None if undecided.
        reason: why undecided; empty if decided.
        runs: ids of the records, ours first.
    """

    where: str
    ours: float
    theirs: float
    comparator: str
    ratio: float
    holds: bool | None
    reason: str
    runs: tuple[str, ...]


def holds(relation: str, ours: float, limit: float) -> bool:
    """Whether a value is on the claimed side of a limit."""
    return ours < limit if relation == "below" else ours > limit
