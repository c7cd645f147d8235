"""Chooses the next point: named points first, then Optuna's TPE, random search, or a grid.

A suggestion is a function of the space, the seed, the number of the trial and the trials so far. There is no other
state, so a search can be resumed with any scheduler.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from harness.tuning.space import Point, Space

SAMPLERS = ("tpe", "random", "grid")
STARTUP = 10
"""Number of trials, named points included, before TPE replaces random search."""

TPE: dict[str, Any] = {"n_startup_trials": 1, "multivariate": True, "constant_liar": True}
"""Arguments of Optuna's sampler. The defaults of the last two differ between Optuna 4 and 5.

`multivariate` models the parameters jointly. `constant_liar` counts a running trial as a bad one, so that concurrent
trials do not explore the same region. With these arguments both versions use the same method, but with different kernel
widths; exact repetition needs the same version.
"""

TRIES = 50
"""Maximum number of draws to find a new point."""


@dataclass(frozen=True)
class Known:
    """A trial as the sampler sees it.

    Attributes:
        point: its values by parameter name.
        value: held-out mAP after the last epoch; None for a stopped or running trial.
        curve: held-out mAP by epoch.
        running: whether it has not ended.
    """

    point: Point
    value: float | None = None
    curve: dict[int, float] = field(default_factory=dict)
    running: bool = False


def suggest(
    space: Space, sampler: str, *, seed: int, number: int, samples: int, known: Sequence[Known]
) -> Point | None:
    """Suggests a new point for a trial; None if all points were tried.

    Args:
        space: the search space.
        sampler: `tpe`, `random` or `grid`.
        seed: seed of the search.
        number: number of the trial, from zero.
        samples: trials of the whole search; a grid over ranges has about as many points.
        known: all earlier trials, in order of their numbers.
    """
    tried = [trial.point for trial in known]
    for named in space.points:
        if (point := space.canonical(named.values)) not in tried:
            return point
    if sampler == "grid":
        return next((point for point in grid(space, samples) if point not in tried), None)
    for attempt in range(TRIES):
        draws = np.random.default_rng([seed, number, attempt])
        if sampler == "tpe" and attempt < TRIES // 2 and len(tried) >= STARTUP:
            positions = _tpe(space, int(draws.integers(2**31)), known)
        else:
            positions = {name: float(draws.random()) for name in space.parameters}
        if (point := space.at(positions)) not in tried:
            return point
    return None


def grid(space: Space, samples: int) -> list[Point]:
    """All points of the grid, with the last parameter varying fastest, without duplicates."""
    free = [p for p in space.parameters.values() if not p.grid and p.distribution != "choice"]
    each = max(2, int(samples ** (1 / max(1, len(free)))))
    axes: list[Sequence[Any]] = []
    for parameter in space.parameters.values():
        if parameter.grid or parameter.distribution == "choice":
            axes.append(parameter.grid or parameter.values)
        else:
            axes.append([parameter.value(i / (each - 1)) for i in range(each)])
    points = [space.canonical(dict(zip(space.parameters, values, strict=True))) for values in itertools.product(*axes)]
    return [point for i, point in enumerate(points) if point not in points[:i]]


def _tpe(space: Space, seed: int, known: Sequence[Known]) -> dict[str, float]:
    """Asks Optuna's TPE sampler for positions; stopped trials are passed as pruned, with their curves."""
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
    from optuna.trial import TrialState, create_trial

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)  # for both arguments in Optuna 4
    axes: dict[str, BaseDistribution] = {
        name: CategoricalDistribution(list(range(len(p.values))))
        if p.distribution == "choice"
        else FloatDistribution(0.0, 1.0)
        for name, p in space.parameters.items()
    }
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=seed, **TPE),
    )
    for trial in known:
        state = TrialState.RUNNING if trial.running else TrialState.COMPLETE
        if not trial.running and trial.value is None:
            state = TrialState.PRUNED
        positions = space.positions(trial.point)
        study.add_trial(
            create_trial(
                params={
                    name: p.index(trial.point[name]) if p.distribution == "choice" else positions[name]
                    for name, p in space.parameters.items()
                },
                distributions=axes,
                value=trial.value if state == TrialState.COMPLETE else None,
                intermediate_values=trial.curve,
                state=state,
            )
        )
    asked = study.ask(axes).params
    return {
        name: (asked[name] + 0.5) / len(p.values) if p.distribution == "choice" else float(asked[name])
        for name, p in space.parameters.items()
    }
