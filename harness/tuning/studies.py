"""Plans `--recipe tuned`: the same search for every backbone and dataset, then final runs with the chosen settings.

A study is a search with points drawn at random. Study s draws the same points, holds out the same people and trains
with the same seed for every backbone, so backbones are compared under equal chances. Random points do not depend on
earlier trials: a study can be planned completely before it starts, and its trials can run at the same time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from msgspec import structs

from harness import registry
from harness.errors import HarnessError, UsageError
from harness.planning import plan
from harness.planning.budget import TUNED, Budget
from harness.planning.plan import BLOCKED, TODO, Planned, planned
from harness.planning.request import Request
from harness.planning.train_time import EPOCHS
from harness.records import store
from harness.spec import recipe
from harness.spec.run_spec import RunSpec
from harness.tuning import space, state
from harness.tuning.asha import Asha
from harness.tuning.cost import Speeds
from harness.tuning.space import Point, Space
from harness.tuning.state import FAILED, RUNNING, Final, Search, Settings

BEST, UNTUNED = "best", "untuned"
"""Names of the final runs of a study: with the chosen point, and with the recipe as it is."""

FACTORS = (0.25, 0.5, 2.0, 4.0)
"""Factors of the chosen learning rate whose held-out mAP is also measured, in the first study."""

RATE = "optimizer.lr"
RATE_TIMES = "learning rate x "
"""Start of the names of these runs."""


@dataclass
class Study:
    """One study: a backbone, a dataset and a seed.

    Attributes:
        search: its search; the trials so far.
        request: what was asked for.
        trial: a trial before any point is applied; blocked if no trial can start.
        untuned: the final run with the recipe as it is.
        known: entries of the results folder by run id.
    """

    search: Search
    request: Request
    trial: Planned
    untuned: Planned
    known: Mapping[str, store.Entry]

    @property
    def number(self) -> int:
        """Its number from zero, which is also the seed of all its runs."""
        return self.search.settings.seed

    def plan_trial(self, point: Point) -> Planned:
        """Plans the trial of a point."""
        return self._at(self.trial, point)

    def trials(self) -> list[Planned]:
        """All trials: those of the study so far, and those to come."""
        return [self._unless_ended(self.plan_trial(point)) for point in self.search.points()]

    def _unless_ended(self, cell: Planned) -> Planned:
        """Marks a run that is a trial which ended: a stopped one has no finished record."""
        state = next((trial.state for trial in self.search.trials if trial.run_id == cell.spec.run_id), RUNNING)
        if cell.state != TODO or state in (RUNNING, FAILED):
            return cell
        return replace(cell, state=plan.CACHED, reason=state)

    @property
    def has_ended(self) -> bool:
        """Whether all trials were made and none is unfinished."""
        trials = self.search.trials
        return all(trial.state != RUNNING for trial in trials) and len(trials) >= len(self.search.points())

    @property
    def runs(self) -> int:
        """Number of all its runs, final runs and those at other learning rates included."""
        return len(self.search.points()) + self.later

    @property
    def later(self) -> int:
        """Number of runs after the trials: none but the untuned one if no trial can be chosen."""
        if self.has_ended and self.search.best is None:
            return len((UNTUNED,))
        return len((BEST, UNTUNED)) + (len(FACTORS) if not self.number else 0)

    @property
    def left(self) -> int:
        """Number of runs whose end is not in the search yet, or that failed; none if its trials are blocked."""
        if self.trial.state == BLOCKED:
            return 0
        ended = sum(trial.state not in (RUNNING, FAILED) for trial in self.search.trials)
        later = sum(cell.state == plan.CACHED for cell in [*self.finals(), *self.rates()])
        return max(0, self.runs - ended - later)

    @property
    def to_do(self) -> int:
        """Number of runs to start: as `left`, without those that another search has finished."""
        known = [*self.trials(), *self.finals(), *self.rates()]
        return max(0, self.runs - sum(cell.state == plan.CACHED for cell in known))

    def finals(self) -> list[Planned]:
        """The final runs whose settings are known: the untuned one, and the tuned one once every trial has ended."""
        best = self.search.best
        tuned = [self._at(self.untuned, best.point, name=TUNED)] if best and self.has_ended else []
        return [self.untuned, *tuned]

    def rates(self) -> list[Planned]:
        """Trials of the first study's choice at `FACTORS` of its learning rate; they do not change the choice."""
        best = self.search.best
        if best is None or self.number or not self.has_ended:
            return []
        chosen = self.plan_trial(best.point).spec.values["optimizer"]["lr"]
        overrides = ({RATE: float(f"{factor * chosen:.4g}")} for factor in FACTORS)
        return [self._unless_ended(self._at(self.trial, best.point, given)) for given in overrides]

    def cells(self) -> list[Planned]:
        """All runs whose settings are known: the settings of final runs are known when the trials have ended."""
        return [*self.trials(), *self.finals(), *self.rates()]

    def settle(self) -> list[Planned]:
        """Notes the choice in the search, and returns the runs that follow from it."""
        untuned, *tuned = self.finals()
        rates, best = self.rates(), self.search.best
        self.search.finals = [Final(UNTUNED, self.untuned_point(), [untuned.spec.run_id])]
        if best is not None:
            chosen = [(BEST, cell) for cell in tuned]
            chosen += [(f"{RATE_TIMES}{factor:g}", cell) for factor, cell in zip(FACTORS, rates, strict=False)]
            self.search.finals += [Final(name, best.point, [cell.spec.run_id]) for name, cell in chosen]
        return [*tuned, untuned, *rates]

    def untuned_point(self) -> Point:
        """The recipe as a point of the space, for tables; values that the space does not search are left out."""
        spec, found = self.trial.spec, self.search.space
        values = {**_flat(spec.values), **{f"option.{key}": value for key, value in spec.options.items()}}
        epochs = spec.values["training"]["epochs"]
        raw = {name: values.get(p.key.removeprefix("recipe.")) for name, p in found.parameters.items()}
        shown = {
            name: raw[name] / epochs if p.unit and epochs and raw[name] is not None else raw[name]
            for name, p in found.parameters.items()
        }
        return found.canonical(shown)

    def _at(
        self, cell: Planned, point: Point, overrides: Mapping[str, Any] | None = None, *, name: str = ""
    ) -> Planned:
        """A run with the values of a point laid over those of the recipe."""
        spec, found = cell.spec, self.search.space
        keys = {**found.recipe(point, spec.values["training"]["epochs"]), **(overrides or {})}
        with _values_of(found):
            values = recipe.from_values(name or spec.recipe, recipe.merge(spec.values, recipe.nested(keys))).values()
        options = {**spec.options, **found.options(point)}
        spec = structs.replace(spec, recipe=name or spec.recipe, values=values, options=options)
        return planned(self.request, spec, self.known, cell.problems if cell.state == BLOCKED else (), cell.asked)


def build(request: Request) -> list[Study]:
    """Plans all studies: the first of every backbone and dataset, then the second, and so on.

    Raises:
        UsageError: an unknown name, option, recipe key or space, or a space that does not fit.
        RecordError: the file of a study is damaged.
    """
    budget = request.budget
    assert budget is not None
    searched = structs.replace(space.load(budget.space), points=())
    tested = replace(request, budget=None, seeds=tuple(range(budget.studies)))
    held = replace(tested, seeds=(0,), holdout={"seed": 0, "share": budget.holdout}, eval_datasets="")
    corner = searched.at(dict.fromkeys(searched.parameters, 0.99))
    trials = plan.build(held)
    with _values_of(searched):
        if EPOCHS in searched.recipe(corner, 1):
            raise UsageError(f"every trial has the same number of epochs. Remove the parameter of {EPOCHS}.")
        at_corner = plan.build(replace(held, overrides={**held.overrides, **searched.recipe(corner, 1)}))
    trials = [
        other if other.state == BLOCKED and cell.state != BLOCKED else cell
        for cell, other in zip(trials, at_corner, strict=True)
    ]
    finals, known = plan.build(tested), store.index(request.results)
    speeds, images = Speeds(request.results, known), _images(held)
    studies = []
    for number in range(budget.studies):
        for place, trial in enumerate(trials):
            entry = registry.backbone(trial.spec.backbone, request.plugins)
            own = searched.fitting(entry.card.options)
            with _values_of(own):
                entry.options({**trial.spec.options, **own.options(corner)})  # an unknown option is an error here
            spec = structs.replace(trial.spec, seed=number, holdout={**trial.spec.holdout, "seed": number})
            search = state.resume(request.results, Search(own, _settings(budget, spec), spec))
            untuned = finals[place * budget.studies + number]
            study = Study(search, request, replace(trial, spec=spec), untuned, known)
            if search.estimate is None:  # later ones would be made from the runs of the study itself
                search.estimate = _estimate(study, speeds, images.get(spec.dataset, 0))
            studies.append(study)
    return studies


@contextlib.contextmanager
def _values_of(searched: Space) -> Iterator[None]:
    """Says that a value comes from the space and not from the recipe or the user's options."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"The space {searched.name} does not fit: {error}") from error


def _settings(budget: Budget, spec: RunSpec) -> Settings:
    """Random search; with `late`, trials are compared once, after 3/4 of their epochs, and the better half continues.

    Earlier comparisons favour fast starters; `benchmarks/early_stopping.py` measures how much.
    """
    epochs = spec.values["training"]["epochs"]
    late, off = Asha(epochs, -(-3 * epochs // 4), 2), Asha(epochs, 0, 0)
    late = late if budget.stopping == "late" and late.rungs else off
    return Settings("random", spec.seed, late, budget.trials, (spec.seed,), tuned=True)


def _images(request: Request) -> dict[str, int]:
    """Number of training images by dataset, as far as they can be read."""
    from datasets import layouts

    found = {}
    for entry in registry.resolve_datasets(request.datasets, request.plugins):
        with contextlib.suppress(HarnessError):
            options = request.dataset_options.get(entry.name, {})
            root = Path(request.paths.data_root or ".")
            found[entry.name] = layouts.facts(entry, root, splits=("train",), **options).images
    return found


def _estimate(study: Study, speeds: Speeds, images: int) -> float | None:
    """Seconds of training of a whole study without early stopping; None without a measured speed."""
    spec, search = study.trial.spec, study.search
    searched = search.space.options(search.space.at(dict.fromkeys(search.space.parameters, 0.5)))
    rate = speeds.of(spec, searched)
    if not rate or not images:
        return None
    held_out = search.settings.samples + (len(FACTORS) if not study.number else 0)
    sampler = recipe.from_values(spec.recipe, spec.values).sampler
    of_trial = sampler.images((1 - search.holdout.fraction) * images)
    epoch = held_out * of_trial + len((BEST, UNTUNED)) * sampler.images(images)
    return epoch * spec.values["training"]["epochs"] / rate


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Recipe values by dotted key, as recipe files write them."""
    return {
        f"{table}.{key}": recipe.shown(f"{table}.{key}", value)
        for table, keys in values.items()
        if isinstance(keys, dict)
        for key, value in keys.items()
    }
