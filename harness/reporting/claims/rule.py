"""The rule that compares our runs with a published number; `RULE` states it, and docs/claims.md derives it.

All values are in percent, as sources print them.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from decimal import Decimal
from typing import Literal, NamedTuple

from harness import stats

Verdict = Literal["reproduced", "below", "above", "not comparable", "not run"]

LEVEL = 0.05
"""Probability that a correct reproduction is called below or above."""

NORMAL = 1.96
"""Standard errors that a 95 % interval reaches to a side."""

WIDEST = 3.0
"""Points that the interval may reach to a side; a wider one cannot show that a number was reproduced.

On Market-1501, BoT (85.9) and TransReID with stride 12 (88.9) are 3 points of mAP apart, and a wider interval could not
tell them apart.
"""

CHECKPOINT = 0.1
"""Points by which the score of a released checkpoint may differ from the published one."""

RULE = (
    "A published number is taken as one training run, scored on the same test images as ours. Chance then lies in "
    "the training alone: the choice of queries affects both numbers equally.",
    "Several seeds: the interval over seeds says where one more run would score. It is Student's 95 % prediction "
    "interval, mean ± t·s·√(1 + 1/n), plus half a unit of the published number's last digit.",
    "reproduced: the published number is inside, and the interval reaches at most "
    f"{WIDEST:g} points to a side. below, above: our mean is below or above what the interval allows.",
    "One seed: the spread over seeds is unknown, and the interval over identities times √2 takes its place. Such a "
    "verdict says little, and it says how little.",
    f"A released checkpoint is not trained again, so its score may differ by {CHECKPOINT:g} points only.",
    "not comparable: data, test or set-up differ, or the interval is too wide. Generated and resized images are "
    "always such a difference.",
    "The verdict is that of mAP. By chance, 5 % of all correct reproductions are called below or above.",
)
"""The rule in words, as it is printed with the verdicts."""


class Outcome(NamedTuple):
    """A verdict with its reason or a caution, and the interval that decided it; None if there is none."""

    verdict: Verdict
    reason: str
    interval: tuple[float, float] | None


def judge(
    published: float, ours: Sequence[float], over_queries: Sequence[float] | None = None, *, checkpoint: bool = False
) -> Outcome:
    """Compares the scores of comparable runs with a published number, by `RULE`.

    Args:
        published: the published number, in percent.
        ours: our score per seed, in percent; at least one.
        over_queries: our interval over identities, in percent; it decides only if there is one seed.
        checkpoint: whether both are scores of the same released checkpoint.
    """
    if checkpoint:
        mean = statistics.fmean(ours)
        low, high = mean - CHECKPOINT, mean + CHECKPOINT
    elif len(ours) > 1:
        low, high = stats.another_run(ours, confidence=1 - LEVEL)
    elif over_queries and not any(map(math.isnan, over_queries)):
        low, high = stats.another_run_of_one(ours[0], over_queries)
    else:
        return Outcome("not comparable", "one seed, and no interval over identities", None)
    reach = (high - low) / 2
    rounding = _unit(published) / 2 + 1e-9  # the last digits of binary fractions
    low, high = low - rounding, high + rounding
    inside = low <= published <= high
    if inside and reach > WIDEST:
        seeds = "one seed is" if len(ours) == 1 else f"{len(ours)} seeds are"
        return Outcome("not comparable", f"{seeds} too few: the interval is ±{reach:.1f} points", (low, high))
    verdict: Verdict = "reproduced" if inside else "below" if published > high else "above"
    caution = _of_one_seed(inside, reach) if len(ours) == 1 and not checkpoint else ""
    return Outcome(verdict, caution, (low, high))


def _of_one_seed(inside: bool, reach: float) -> str:
    """How little a verdict from one seed says."""
    if inside:
        return f"one seed says little: less than {reach:.1f} points would not show"
    assumed = reach / (NORMAL * math.sqrt(2))
    return f"one seed says little: it is assumed that seeds spread by at most {assumed:.1f} points"


def _unit(published: float) -> float:
    """One unit of the last printed digit; a card cannot tell 89 from 89.0, so at most 0.1."""
    digits = -int(Decimal(repr(published)).as_tuple().exponent)
    return 10.0 ** -max(1, digits)
