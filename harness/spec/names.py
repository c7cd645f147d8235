"""Names that run specs and records share: what a run is for, where its numbers come from, how and where it ended."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

Status = Literal["ok", "failed", "timeout", "oom", "diverged", "interrupted"]
"""How a run can end. Only `ok` satisfies the cache."""

Stage = Literal["data", "build", "train", "checkpoint", "evaluate", "measure", "record"]
"""Where a run can end."""

Source = Literal["trained", "published-checkpoint", "features", "profile", "search"]
"""Where the numbers of a record come from."""

Purpose = Literal["test", "search", "checkpoint", "features", "profile"]
"""What a run is for; part of its id."""

STATUSES: tuple[Status, ...] = get_args(Status)
STAGES: tuple[Stage, ...] = get_args(Stage)


class PurposeOf(NamedTuple):
    """A purpose of runs.

    Attributes:
        source: of the records of such runs.
        scored: whether a record of such a run has scores on a test split.
        about: what such a run does.
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
