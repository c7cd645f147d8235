"""When a trial of a search stops early: ASHA, and three rules of this harness that are no part of it.

1. Named points are never stopped. They are yardsticks: the paper's values, or a term switched off.
2. The best trial at a rung so far is never stopped, whatever the third rule says.
3. The promotion cap: of the trials judged at a rung, no more than 1/reduction_factor go on. A good sampler improves, so
   by ASHA alone nearly every new trial would be among the best so far, and nothing would be saved.

A decision depends on the curves and on who was stopped where, so a resumed search decides as it would have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.tuning.asha import Asha


@dataclass(frozen=True)
class Rung:
    """What is known of a rung, without the trial that has reached it.

    Attributes:
        others: held-out mAP of all other trials that reached it, named points included.
        judged: how many of them could have been stopped here: all but the named points.
        promoted: how many of those went on.
    """

    others: Sequence[float]
    judged: int
    promoted: int


def stop_reason(asha: Asha, epoch: int, value: float, rung: Rung, *, named: bool = False) -> str:
    """Why a trial must stop after this epoch; empty if it goes on.

    Args:
        asha: the rule.
        epoch: epochs it has done.
        value: its held-out mAP.
        rung: the other trials at this epoch.
        named: whether it is a named point.
    """
    better = sum(other > value for other in rung.others)
    if epoch not in asha.rungs or named or not better:
        return ""
    if not asha.goes_on(value, rung.others):
        rule, limit = "ASHA", f"one in {asha.reduction_factor} goes on"
    elif rung.promoted >= asha.quota(rung.judged + 1):
        rule, limit = "the promotion cap", f"{rung.promoted} of {rung.judged + 1} have been promoted"
    else:
        return ""
    return (
        f"Stopped by {rule} after epoch {epoch} of {asha.epochs}: held-out mAP {value:.2%} is number {better + 1} "
        f"of {len(rung.others) + 1}; {limit}."
    )
