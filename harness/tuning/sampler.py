"""Which point comes next: named points first, then Optuna's TPE, random search, or a grid.

A suggestion is a function of the space, the seed, the number of the trial and what is known so far. Nothing else is
kept, so a resumed search is told of finished trials by asking again, and every scheduler asks the same function.
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
"""Trials known before TPE takes over from random search; named points count."""

TPE: dict[str, Any] = {"n_startup_trials": 1, "multivariate": True, "constant_liar": True}
"""Arguments of Optuna's sampler. Optuna 4 and 5 have other defaults for the last two.

`multivariate` models the parameters jointly. With `constant_liar` a running trial counts as a bad one, so trials side
by side do not try the same region. Both versions then run the same method; their kernel widths differ, so a suggestion
repeats exactly with one version only.
"""

TRIES = 50
"""Draws for a point that was not tried yet."""


@dataclass(frozen=True)
class Known:
    """What is known of a trial.

    Attributes:
        point: its point.
        value: held-out mAP after the last epoch; None for a trial that was stopped or still runs.
        curve: held-out mAP by epoch.
        running: it has not ended.
    """

    point: Point
    value: float | None = None
    curve: dict[int, float] = field(default_factory=dict)
    running: bool = False


def suggest(
    space: Space, sampler: str, *, seed: int, number: int, samples: int, known: Sequence[Known]
) -> Point | None:
    """The point of trial `number` (from zero), one that is not among the known; None if all were tried.

    Args:
        space: what is searched.
        sampler: `tpe`, `random` or `grid`.
        seed: of the search.
        number: of the trial.
        samples: trials of the whole search; a grid without values of its own has about so many points.
        known: all earlier trials that did not fail, in the order of their numbers.
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
    """All points of the grid, the last parameter varying fastest; points that mean the same are one."""
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
    """Asks Optuna's tree-structured Parzen estimator; stopped trials rank below finished ones, by their last epoch."""
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
    from optuna.trial import TrialState, create_trial

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)  # Optuna 4 warns of both
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
                    name: p.values.index(trial.point[name]) if p.distribution == "choice" else positions[name]
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
