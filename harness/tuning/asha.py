"""Asynchronous successive halving (ASHA; Li et al., A System for Massively Parallel Hyperparameter Tuning, 2020).

This is the stopping variant: at a rung a trial goes on if it is among the best 1/reduction_factor of all trials that
have reached the rung so far. Nobody waits, so no state is needed but the curves. What this harness adds to ASHA is in
`harness.tuning.stopping`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct

from harness.errors import UsageError


class Asha(Struct, frozen=True, forbid_unknown_fields=True):
    """When trials are compared, and which of them go on.

    Attributes:
        epochs: of a whole trial.
        grace_period: first rung, in epochs; 0 is the epochs over `reduction_factor` squared.
        reduction_factor: one trial in so many goes on at a rung, to so many times the epochs; 0 stops none.
    """

    epochs: int
    grace_period: int = 0
    reduction_factor: int = 3

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.grace_period < 0 or self.reduction_factor < 0 or self.reduction_factor == 1:
            raise UsageError(
                "ASHA needs epochs of at least 1, a grace period of at least 0 and a reduction factor of 0 or from 2 "
                f"on; found {self.epochs}, {self.grace_period} and {self.reduction_factor}."
            )

    @property
    def rungs(self) -> list[int]:
        """Epochs after which trials are compared; the last epoch is not among them."""
        if not self.reduction_factor:
            return []
        rung = self.grace_period or math.ceil(self.epochs / self.reduction_factor**2)
        found = []
        while rung < self.epochs:
            found.append(rung)
            rung *= self.reduction_factor
        return found

    def quota(self, trials: int) -> int:
        """How many of so many trials at a rung go on, at least one."""
        return max(1, trials // self.reduction_factor)

    def goes_on(self, value: float, others: Sequence[float]) -> bool:
        """Whether a trial goes on at a rung.

        Args:
            value: its held-out mAP there.
            others: those of all other trials that reached the rung.
        """
        return sum(other > value for other in others) < self.quota(len(others) + 1)
