"""The budget of `--recipe tuned`: the same search for every backbone, on top of one recipe."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.errors import UsageError, unknown
from harness.system import paths

TUNED = "tuned"
"""Name of the recipe that is a search, and of the final runs with the settings it chose."""

STOPPING = ("late", "off")
"""When trials are stopped early: after three quarters of their epochs, or never."""

SETTINGS = ("budget", "studies", "space", "stopping")


@dataclass(frozen=True)
class Budget:
    """An equal search for every backbone.

    Attributes:
        trials: number of trials of each study.
        studies: number of independent studies of each backbone and dataset; each has its own seed.
        space: name or file of the search space.
        stopping: one of `STOPPING`.
        holdout: fraction of the training identities that trials are scored on.
    """

    trials: int = 20
    studies: int = 3
    space: str = "training"
    stopping: str = "late"
    holdout: float = 0.3


def read(given: Mapping[str, Any], base: str) -> tuple[str, Budget | None]:
    """Returns the recipe of the runs, and the budget if `tuned` was asked for.

    Args:
        given: settings of the user and of a preset.
        base: recipe that a search starts from.

    Raises:
        UsageError: a setting that does not fit.
    """
    recipe = paths.expand(given.get("recipe") or "unified")
    found = [name for name in SETTINGS if given.get(name) not in (None, "")]
    if recipe != TUNED:
        if found:
            raise UsageError(f"--{found[0]} is part of a search. Pass --recipe {TUNED}, or leave it out.")
        return recipe, None
    if given.get("seeds") not in (None, "", 0):
        raise UsageError(f"--recipe {TUNED} takes its seeds from --studies: 3 studies have seeds 0, 1 and 2.")
    if given.get("protocol") not in (None, "", "each"):
        raise UsageError(f"--recipe {TUNED} trains on each dataset. Leave out --protocol {given['protocol']}.")
    if given.get("force"):
        raise UsageError(
            f"--recipe {TUNED} cannot repeat trials, because a choice was made from them. Leave out --force."
        )
    budget = Budget(
        trials=_count(given, "budget", Budget.trials),
        studies=_count(given, "studies", Budget.studies),
        space=paths.expand(os.fspath(given.get("space") or Budget.space)),
        stopping=Budget.stopping if given.get("stopping") in (None, "") else str(given["stopping"]),
    )
    if budget.stopping not in STOPPING:
        raise unknown("stopping rule", budget.stopping, STOPPING)
    return base, budget


def _count(given: Mapping[str, Any], name: str, usual: int) -> int:
    """A number of at least one."""
    value = usual if (asked := given.get(name)) is None else asked
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UsageError(f"--{name} must be a whole number of at least 1, found {value!r}.")
    return value
