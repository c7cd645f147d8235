"""Asynchronous successive halving (ASHA; Li et al., A System for Massively Parallel Hyperparameter Tuning, 2020).

At a rung a trial goes on if it is among the best 1/factor of all trials that reached the rung so far, and as long as no
more than 1/factor of those that were judged there went on; the best so far always does. The second condition matters
because a good sampler improves: without it nearly every new trial would be among the best, and nothing be saved. Nobody
waits, so no state is needed but the curves, and a resumed search decides as it would have.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct

from harness.errors import UsageError


class Asha(Struct, frozen=True, forbid_unknown_fields=True):
    """When to stop a trial.

    Attributes:
        epochs: of a whole trial.
        grace: first rung, in epochs; 0 is a `factor`-squared part of the epochs.
        factor: of a rung's trials one in so many goes on, to so many times the epochs; 0 stops nothing.
    """

    epochs: int
    grace: int = 0
    factor: int = 3

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.grace < 0 or self.factor < 0 or self.factor == 1:
            raise UsageError(
                f"Successive halving needs epochs of at least 1, grace of at least 0 and a factor of 0 or at least 2; "
                f"found {self.epochs}, {self.grace} and {self.factor}."
            )

    @property
    def rungs(self) -> list[int]:
        """Epochs after which trials are judged; the last epoch is not among them."""
        if not self.factor:
            return []
        rung = self.grace or math.ceil(self.epochs / self.factor**2)
        found = []
        while rung < self.epochs:
            found.append(rung)
            rung *= self.factor
        return found

    def reason(self, epoch: int, value: float, others: Sequence[float], judged: int, went_on: int) -> str:
        """Why a trial must stop after this epoch; empty if it goes on.

        Args:
            epoch: epochs it has done.
            value: its held-out mAP.
            others: held-out mAP after this epoch of all other trials that reached it, named points included.
            judged: how many of them were judged here; named points are not.
            went_on: how many of those went on.
        """
        if epoch not in self.rungs:
            return ""
        places = max(1, (len(others) + 1) // self.factor)
        better = sum(other > value for other in others)
        if not better or (better < places and went_on < max(1, (judged + 1) // self.factor)):
            return ""
        return (
            f"Stopped by ASHA after epoch {epoch} of {self.epochs}: held-out mAP {value:.2%} is number {better + 1} "
            f"of {len(others) + 1}; one in {self.factor} goes on."
        )
