"""Asynchronous successive halving (ASHA; Li et al., A System for Massively Parallel Hyperparameter Tuning, 2020).

This is the stopping variant: at a rung, a trial continues if it is among the best 1/reduction_factor of all trials that
have reached the rung so far. Trials never wait for each other, so the curves are the only state. See
`harness.tuning.stopping` for the additional rules.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct

from harness.errors import UsageError


class Asha(Struct, frozen=True, forbid_unknown_fields=True):
    """When trials are compared, and which of them continue.

    Attributes:
        epochs: epochs of a complete trial.
        grace_period: first rung, in epochs; 0 means `epochs` / `reduction_factor` squared.
        reduction_factor: keep the best 1/reduction_factor of trials at each rung; the next rung is at
            `reduction_factor` times the epochs. 0 disables early stopping.
    """

    epochs: int
    grace_period: int = 0
    reduction_factor: int = 3

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.grace_period < 0 or self.reduction_factor < 0 or self.reduction_factor == 1:
            raise UsageError(
                "ASHA needs at least 1 epoch, a grace period of at least 0, and a reduction factor of 0 or at least 2; "
                f"found {self.epochs}, {self.grace_period} and {self.reduction_factor}."
            )

    @property
    def rungs(self) -> list[int]:
        """Epochs after which trials are compared, without the last epoch."""
        if not self.reduction_factor:
            return []
        rung = self.grace_period or math.ceil(self.epochs / self.reduction_factor**2)
        found = []
        while rung < self.epochs:
            found.append(rung)
            rung *= self.reduction_factor
        return found

    def quota(self, trials: int) -> int:
        """Number of trials at a rung that may continue, out of `trials`; at least one."""
        return max(1, trials // self.reduction_factor)

    def promotes(self, value: float, others: Sequence[float]) -> bool:
        """Whether a trial continues after a rung.

        Args:
            value: its held-out mAP at the rung.
            others: held-out mAP of all other trials that reached the rung.
        """
        return sum(other > value for other in others) < self.quota(len(others) + 1)
