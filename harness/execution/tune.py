"""Runs a hyperparameter search: trials scored on held-out identities, then final runs scored on the test split."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from click import echo

from harness import registry
from harness.errors import RecordError, UsageError, unknown
from harness.execution.driver import Driver, Invocation
from harness.execution.options import Execution
from harness.execution.progress import ProgressDisplay
from harness.execution.run import INTERRUPTED, Outcome, check_writable, make_job
from harness.execution.trial_progress import TrialDisplay
from harness.planning import plan
from harness.planning.plan import Planned
from harness.planning.request import Request, parse_seeds
from harness.records import store
from harness.system import durations, paths
from harness.tuning import final_runs, sampler, space, state
from harness.tuning.asha import Asha
from harness.tuning.space import Point, label
from harness.tuning.state import FAILED, RUNNING, Search, Settings
from harness.tuning.trial_source import SearchTrials


@dataclass(frozen=True)
class SearchSettings:
    """Settings of a search. Each attribute is a keyword of `harness.tune` and an option of `tune`.

    Attributes:
        space: name or file of the search space.
        samples: number of trials, named points included.
        sampler: `tpe`, `random` or `grid`.
        search_seed: seed of the sampler.
        seed: seed for the training of every trial.
        holdout: fraction of the training identities that trials are scored on.
        holdout_seed: seed for the choice of these identities.
        trial_epochs: epochs per trial; 0 uses those of the recipe.
        grace_period: epochs before a trial may be stopped; 0 uses epochs / reduction_factor squared.
        reduction_factor: keep the best 1/reduction_factor of trials at each rung; 0 disables early stopping.
        time_budget: stop the search after this time: seconds, or text such as `10h`.
        final_seeds: seeds of the final runs; `none` skips them.
    """

    space: str | os.PathLike[str] = "ratr"
    samples: int = 40
    sampler: str = "tpe"
    search_seed: int = 0
    seed: int = 0
    holdout: float = 0.3
    holdout_seed: int = 0
    trial_epochs: int = 0
    grace_period: int = 0
    reduction_factor: int = 3
    time_budget: float | str = ""
    final_seeds: str | Sequence[int] | None = "0,1,2"


@dataclass
class Tuning:
    """One call of `tune`; the same call again resumes the search.

    Args:
        request: one backbone, one dataset, and the seed of the trials.
        settings: see `SearchSettings`.
        execution: how trials and final runs are executed.

    Raises:
        UsageError: an invalid setting, or a point of the space that cannot run.
    """

    request: Request
    settings: SearchSettings
    execution: Execution

    def __post_init__(self) -> None:
        self.budget = durations.seconds(self.settings.time_budget)
        (entry,) = registry.resolve_backbones(self.request.backbones, self.request.plugins)[:1]
        self.space = space.load(paths.expand(self.settings.space)).fitting(entry.card.options)
        self.search = state.resume(self.request.results, self._new_search())

    def _new_search(self) -> Search:
        """Builds the requested search and checks that its points can run."""
        given = self.settings
        if not 0 < given.holdout < 1:
            raise UsageError(f"--holdout must be a fraction between 0 and 1, found {given.holdout:g}.")
        if given.sampler not in sampler.SAMPLERS:
            raise unknown("sampler", given.sampler, sampler.SAMPLERS)
        cell = self.plan_trial({})
        if cell.state == plan.BLOCKED:
            raise UsageError(f"Nothing can run: {cell.reason}")
        seeds = given.final_seeds
        chosen = Settings(
            sampler=given.sampler,
            seed=given.search_seed,
            asha=Asha(cell.spec.values["training"]["epochs"], given.grace_period, given.reduction_factor),
            samples=given.samples,
            final_seeds=() if seeds in ("none", None, ()) else parse_seeds(seeds),
        )
        for point in self.space.points or sampler.grid(self.space, 2)[:1]:  # an unknown key is an error here
            tried = self.plan_trial(at := point.values if isinstance(point, space.NamedPoint) else point)
            if tried.state == plan.BLOCKED:
                raise UsageError(f"The point {label(at)} cannot run: {tried.reason}")
        return Search(self.space, chosen, cell.spec)

    def plan_trial(self, point: Point) -> Planned:
        """Plans a trial: trains on part of the training identities, scores the rest; an empty point changes nothing."""
        given = self.settings
        holdout = {"seed": given.holdout_seed, "share": given.holdout}
        epochs = {"training.epochs": given.trial_epochs} if given.trial_epochs else {}
        overrides = {**self.request.overrides, **epochs}
        return plan.build(self._at(point, replace(self.request, holdout=holdout, overrides=overrides)))[0]

    def plan_final(self, point: Point) -> list[Planned]:
        """Plans the final runs of a point: the whole training set, the epochs of the recipe, the test split."""
        return plan.build(self._at(point, replace(self.request, seeds=self.search.settings.final_seeds)))

    def _at(self, point: Point, request: Request) -> Request:
        if not point:
            return request
        name = registry.backbone(request.backbones, request.plugins).name
        options = {**request.options, name: {**request.options.get(name, {}), **self.space.options(point)}}
        unit = any(parameter.unit for parameter in self.space.parameters.values())
        epochs = plan.build(request)[0].spec.values["training"]["epochs"] if unit else 0
        keys = self.space.recipe(point, epochs)
        return replace(request, overrides={**request.overrides, **keys}, options=options)

    def run(self) -> Outcome:
        """Runs the trials, then trains and tests the chosen points.

        Raises:
            UsageError: another process works on this search, or the results folder is not writable.
        """
        results = self.request.results
        check_writable(results)
        with state.exclusive(results, self.search.id):
            self.search = state.resume(results, self.search)
            return self._run(self.search)

    def _run(self, search: Search) -> Outcome:
        with Driver(self.request.results, self.execution, self._invocation(search)) as driver:
            self._trials(search, driver)
            driver.good = not any(trial.state == FAILED for trial in search.trials)
            if search.settings.final_seeds and not driver.interrupted:
                self._finals(search, driver)
        if driver.interrupted:
            return Outcome(INTERRUPTED, self._folders(search))
        state.write(self.request.results, search)  # raises if the disk is still full
        return Outcome(0 if driver.good else 1, self._folders(search))

    def _trials(self, search: Search, driver: Driver) -> None:
        """Runs trials until there are enough, the time budget is spent or the user stops."""
        resources = self.execution.resources(search.settings.samples, search.spec.device)
        stop, out_of_time = threading.Event(), threading.Event()

        def end() -> None:
            out_of_time.set()
            stop.set()

        timer = threading.Timer(self.budget or threading.TIMEOUT_MAX, end)
        timer.daemon = True
        display = TrialDisplay(sys.stdout, search)
        make = lambda cell: make_job(cell, self.request, self.execution, resources)  # noqa: E731
        trials = SearchTrials(search, self.request.results, self.plan_trial, make, stop, display.ended, display.say)
        timer.start()
        try:
            driver.drive(trials, resources, display, stop)
        finally:
            timer.cancel()
        if out_of_time.is_set() and not driver.interrupted:
            unfinished = sum(trial.state == RUNNING for trial in search.trials)
            echo(
                f"The time budget is used up with {unfinished} trials unfinished; "
                "start the same command again to resume them."
            )

    def _finals(self, search: Search, driver: Driver) -> None:
        """Trains and tests the chosen points."""
        cells = final_runs.plan(search, self.plan_final)
        with contextlib.suppress(RecordError):  # already reported; it is written again at the end
            state.write(self.request.results, search)
        todo = [cell for cell in cells if cell.state == plan.TODO]
        if blocked := [cell for cell in cells if cell.state == plan.BLOCKED]:
            echo(f"The final runs cannot start: {blocked[0].reason}\nFix this, then start the same command again.")
            driver.good = False
        elif todo:
            echo(f"\nTraining {len(search.finals)} points on the whole training set: {len(todo)} runs.")
            resources = self.execution.resources(len(todo), search.spec.device)
            jobs = [make_job(cell, self.request, self.execution, resources) for cell in todo]
            driver.drive(jobs, resources, ProgressDisplay(sys.stdout, jobs))

    def _invocation(self, search: Search) -> Invocation:
        spec = search.spec.to_dict()
        tags = {name: spec[name] for name in ("backbone", "dataset", "recipe")}
        return Invocation(search.id, tags, lambda: self._folders(search), search=search.id)

    def _folders(self, search: Search) -> list[Path]:
        """Folders of all trials and final runs so far."""
        ids = [trial.run_id for trial in search.trials] + [run for final in search.finals for run in final.run_ids]
        spec = search.spec.to_dict()
        return [store.folder_of(self.request.results, {"spec": spec, "run_id": run_id}) for run_id in ids]
