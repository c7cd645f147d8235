"""Names used in run specs and records: the purpose of a run, the source of its numbers, its status and stage."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

Status = Literal["ok", "failed", "timeout", "oom", "diverged", "interrupted"]
"""Final status of a run. Only runs with `ok` are not repeated."""

STOPPED_EARLY = "Stopped"
"""Type of the error of a trial that its search ended early, which is not a failure; its message begins so, too."""

Stage = Literal["data", "build", "train", "checkpoint", "evaluate", "audit", "measure", "record"]
"""Stage of a run in which it can fail."""

Source = Literal["trained", "published-checkpoint", "features", "profile", "search"]
"""Source of the numbers of a record."""

Purpose = Literal["test", "search", "checkpoint", "features", "profile"]
"""Purpose of a run; part of the run id."""

STATUSES: tuple[Status, ...] = get_args(Status)
STAGES: tuple[Stage, ...] = get_args(Stage)


class PurposeOf(NamedTuple):
    """A purpose of runs.

    Attributes:
        source: `source` of the records of these runs.
        scored: whether these records have scores on a test split.
        about: what these runs do.
    """

    source: Source
    scored: bool
    about: str


PURPOSES: dict[Purpose, PurposeOf] = {
    "test": PurposeOf("trained", True, "Trains on the whole training set and scores the test split."),
    "search": PurposeOf("search", False, "Trains on part of the training identities and scores the held-out rest."),
    "checkpoint": PurposeOf("published-checkpoint", True, "Scores a checkpoint from outside."),
    "features": PurposeOf("features", True, "Scores features that were extracted elsewhere."),
    "profile": PurposeOf("profile", False, "Measures parameters, FLOPs, time and memory under one condition."),
}

SCORED: tuple[Source, ...] = tuple(purpose.source for purpose in PURPOSES.values() if purpose.scored)
"""Sources of records that have scores on a test split."""
