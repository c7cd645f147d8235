"""Decides whether a trial stops early: by ASHA, with three additional rules.

1. Named points are never stopped. They are references, such as the values of the paper.
2. The best trial so far at a rung is never stopped.
3. The promotion cap: at most 1/reduction_factor of the trials judged at a rung are promoted. A good sampler improves
   over time, so with ASHA alone nearly every new trial would be among the best and would not be stopped.

Decisions depend only on the curves and on which trials stopped at which rung, so a resumed search decides identically.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.spec.names import STOPPED_EARLY
from harness.tuning.asha import Asha


@dataclass(frozen=True)
class Rung:
    """The other trials at a rung, without the one to be judged.

    Attributes:
        others: held-out mAP of all other trials that reached the rung, named points included.
        judged: number of these trials that are not named points.
        promoted: number of judged trials that were not stopped here.
    """

    others: Sequence[float]
    judged: int
    promoted: int


def stop_reason(asha: Asha, epoch: int, value: float, rung: Rung, *, named: bool = False) -> str:
    """Returns the reason why a trial must stop after this epoch; empty if it continues.

    Args:
        asha: the ASHA rule.
        epoch: number of finished epochs.
        value: held-out mAP of the trial.
        rung: the other trials at this epoch.
        named: whether the trial is a named point.
    """
    better = sum(other > value for other in rung.others)
    if epoch not in asha.rungs or named or not better:
        return ""
    if not asha.promotes(value, rung.others):
        rule, limit = "ASHA", f"1 in {asha.reduction_factor} trials continues"
    elif rung.promoted >= asha.quota(rung.judged + 1):
        rule, limit = "the promotion cap", f"{rung.promoted} of {rung.judged + 1} have been promoted"
    else:
        return ""
    return (
        f"{STOPPED_EARLY} by {rule} after epoch {epoch} of {asha.epochs}: held-out mAP {value:.2%} is number "
        f"{better + 1} of {len(rung.others) + 1}; {limit}."
    )
