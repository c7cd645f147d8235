"""`tune`: search settings on held-out training identities, then train the chosen points and test them once."""

from __future__ import annotations

import contextlib
import sys
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from harness import registry
from harness.cli.launch import (
    check_writable,
    execution_options,
    generate_people,
    make_job,
    parse_duration,
    resources,
    stop_on_ctrl_c,
)
from harness.cli.options import (
    UserPath,
    apply_preset,
    load_preset,
    make_request,
    plugins_path,
    report_option,
    setting_options,
)
from harness.cli.run import finish
from harness.errors import RecordError, UsageError
from harness.execution.progress import ProgressDisplay
from harness.execution.trial_progress import TrialDisplay
from harness.planning import plan
from harness.planning.plan import Planned, Request
from harness.records import store
from harness.spec.job import Job
from harness.tuning import final_runs, sampler, space, state
from harness.tuning.asha import Asha
from harness.tuning.space import Point, label
from harness.tuning.state import FAILED, RUNNING, Search, Settings
from harness.tuning.trial_source import SearchTrials


@click.command(
    epilog="Exit codes: 0 all well, 1 some trial or final run failed, 2 wrong usage or no data, 130 interrupted. "
    "Example: python -m harness tune --backbone reidmamba --dataset market1501 --space ratr --samples 40"
)
@click.option("--backbone", required=True, help="Registered name, with a variant if wanted.")
@click.option("--dataset", required=True, help="Dataset whose training split is searched on.")
@click.option(
    "--space",
    "space_name",
    default="ratr",
    show_default=True,
    type=UserPath(),
    metavar="NAME|FILE",
    help="Search space: a name, or a TOML file.",
)
@click.option("--samples", default=40, show_default=True, type=click.IntRange(1), help="Trials, named points included.")
@click.option("--sampler", type=click.Choice(sampler.SAMPLERS), default="tpe", show_default=True)
@click.option(
    "--search-seed", default=0, show_default=True, type=click.IntRange(0, 2**32 - 1), help="Seed of the sampler."
)
@click.option("--seed", default=0, show_default=True, help="Seed of every trial's training.")
@click.option("--holdout", default=0.3, show_default=True, help="Share of the training identities to score on.")
@click.option(
    "--holdout-seed",
    default=0,
    show_default=True,
    type=click.IntRange(0, 2**63 - 1),
    help="Seed of the choice of these identities.",
)
@click.option("--trial-epochs", default=0, help="Epochs of a trial. [default: the recipe's]")
@click.option("--grace", default=0, help="Epochs before a trial may be stopped. [default: a ninth]")
@click.option("--factor", default=3, show_default=True, help="One trial in so many goes on at a rung; 0 stops none.")
@click.option("--time-budget", default="", metavar="10h", help="End the search after this time: 90s, 30m, 10h.")
@click.option(
    "--final-seeds", default="0,1,2", show_default=True, help="Seeds of the final runs; 'none' leaves them out."
)
@setting_options
@execution_options
@report_option
@click.option("--dry-run", is_flag=True, help="Say what would be searched, and stop.")
def command(preset: str, **values: Any) -> int:
    """Searches settings of a recipe or a backbone; the test split is not read before the choice is made.

    The same command goes on where it was left. More samples belong to the same search.
    """
    settings = load_preset(preset)
    values = apply_preset(values, {**settings, **settings.get("tune", {})})
    given = {"backbones": values["backbone"], "datasets": values["dataset"], "seeds": str(values["seed"])}
    request = make_request({**values, **given, "eval_datasets": "", "force": False}, settings)
    timeout, budget = parse_duration(values["timeout"]), parse_duration(values["time_budget"])
    if (generate := settings.get("generate")) and generate_people(request, generate, values["dry_run"]):
        return 0  # without data there is nothing to plan
    run = _Tuning(request, values, space.load(values["space_name"]), timeout, budget)
    search = state.go_on(request.results, run.new_search())
    click.echo(_summary(search))
    if values["dry_run"]:
        return 0
    check_writable(request.results)
    with state.only_one(request.results, search.id):
        return run.go(state.go_on(request.results, search))


@dataclass
class _Tuning:
    """One call of the command."""

    request: Request
    values: dict[str, Any]
    space: space.Space
    timeout: float
    budget: float
    interrupted: bool = False

    def new_search(self) -> Search:
        """The search asked for; what cannot run is refused here."""
        values = self.values
        if not 0 < values["holdout"] < 1:
            raise UsageError(f"--holdout is a share between 0 and 1, found {values['holdout']:g}.")
        cell = self.plan_trial({})
        if cell.state == plan.BLOCKED:
            raise UsageError(f"Nothing can run: {cell.reason}")
        chosen = Settings(
            sampler=values["sampler"],
            seed=values["search_seed"],
            asha=Asha(cell.spec.values["training"]["epochs"], values["grace"], values["factor"]),
            samples=values["samples"],
            final_seeds=() if values["final_seeds"] == "none" else plan.parse_seeds(values["final_seeds"]),
        )
        for point in self.space.points or sampler.grid(self.space, 2)[:1]:  # an unknown key is refused here, too
            tried = self.plan_trial(at := point.values if isinstance(point, space.NamedPoint) else point)
            if tried.state == plan.BLOCKED:
                raise UsageError(f"The point {label(at)} cannot run: {tried.reason}")
        return Search(self.space, chosen, cell.spec)

    def plan_trial(self, point: Point) -> Planned:
        """The run of a point: part of the training identities, scored on the rest; an empty point sets nothing."""
        values = self.values
        holdout = {"seed": values["holdout_seed"], "share": values["holdout"]}
        epochs = {"training.epochs": values["trial_epochs"]} if values["trial_epochs"] else {}
        overrides = {**self.request.overrides, **epochs}
        return plan.build(self._at(point, replace(self.request, holdout=holdout, overrides=overrides)))[0]

    def plan_final(self, point: Point, seeds: tuple[int, ...]) -> list[Planned]:
        """The runs of a chosen point: the whole training set, the recipe's epochs, the test split."""
        return plan.build(self._at(point, replace(self.request, seeds=seeds)))

    def _at(self, point: Point, request: Request) -> Request:
        if not point:
            return request
        name = registry.backbone(request.backbones, plugins_path(self.values["plugins"])).name
        options = {**request.options, name: {**request.options.get(name, {}), **self.space.options(point)}}
        return replace(request, overrides={**request.overrides, **self.space.recipe(point)}, options=options)

    def go(self, search: Search) -> int:
        """Searches, then trains and tests the chosen points, then reports."""
        tracker = self._tracker(search)
        self._search(search, tracker)
        good = not any(trial.state == FAILED for trial in search.trials)
        if search.settings.final_seeds and not self.interrupted:
            good = self._finals(search, tracker) and good
        if self.interrupted:
            if tracker:
                tracker.close("interrupted")
            click.echo("Interrupted; what was finished is kept, and the same command goes on from here.", err=True)
            return 130
        if tracker and not tracker.close("ok" if good else "failed"):
            click.echo("Not everything reached MLflow; 'python -m harness status --sync' sends the rest.")
        if best := search.best:
            click.echo(
                f"\nBest on held-out identities: {label(best.point)} (mAP {best.value:.2%}, trial {best.number})."
            )
        spent, full = search.epochs
        click.echo(f"{len(search.trials)} trials, {spent} epochs; without stopping they would be {full}.")
        state.write(self.request.results, search)  # where the disk is still full, this is the last word
        finish(self.request, self.values)
        return 0 if good else 1

    def _search(self, search: Search, tracker: Any) -> None:
        """Runs trials until there are enough, the time budget is spent or the user stops."""
        from harness.execution import ray_executor

        share = resources(self.values, search.settings.samples, search.spec.device, self.timeout)
        stop, out_of_time = threading.Event(), threading.Event()

        def end() -> None:
            out_of_time.set()
            stop.set()

        timer = threading.Timer(self.budget or threading.TIMEOUT_MAX, end)
        timer.daemon = True
        board = TrialDisplay(sys.stdout, search)
        with board, stop_on_ctrl_c(stop, board) as pressed:
            make = lambda cell: make_job(cell, self.request, self.values, share.cpus)  # noqa: E731
            driver = SearchTrials(search, self.request.results, self.plan_trial, make, stop, board.ended, board.say)
            timer.start()
            try:
                ray_executor.SOURCE_SCHEDULERS[self.values["scheduler"]](_Told(driver, board, tracker), share, stop)
            finally:
                timer.cancel()
        self.interrupted = pressed.is_set()
        if out_of_time.is_set() and not self.interrupted:
            left = sum(trial.state == RUNNING for trial in search.trials)
            click.echo(
                f"The time budget is spent; {left} trials are left unfinished, the same command goes on with them."
            )

    def _finals(self, search: Search, tracker: Any) -> bool:
        """Trains and tests the chosen points; returns whether all went well."""
        from harness.execution import ray_executor

        cells = final_runs.plan(search, lambda point: self.plan_final(point, search.settings.final_seeds))
        with contextlib.suppress(RecordError):  # the driver said so, and it is tried again at the end
            state.write(self.request.results, search)
        todo = [cell for cell in cells if cell.state == plan.TODO]
        if blocked := [cell for cell in cells if cell.state == plan.BLOCKED]:
            click.echo(f"The final runs cannot start: {blocked[0].reason}\nThe same command goes on with them later.")
            return False
        if not todo:
            return True
        click.echo(f"\nTraining {len(search.finals)} points on the whole training set, {len(todo)} runs to do.")
        share = resources(self.values, len(todo), search.spec.device, self.timeout)
        jobs = [make_job(cell, self.request, self.values, share.cpus) for cell in todo]
        stop = threading.Event()
        with ProgressDisplay(sys.stdout, jobs) as board, stop_on_ctrl_c(stop, board) as pressed:

            def on_event(job: Job, event: dict[str, Any]) -> None:
                board.event(job, event)
                if tracker:
                    tracker.event(job, event)

            statuses = ray_executor.SCHEDULERS[self.values["scheduler"]](jobs, share, on_event, stop)
        self.interrupted = pressed.is_set()
        return len(statuses) == len(jobs) and all(status == "ok" for status in statuses.values())

    def _tracker(self, search: Search) -> Any:
        if self.values["no_mlflow"]:
            return None
        from harness import tracking

        results, spec = self.request.results, search.spec.to_dict()
        uri = tracking.address(results, self.values["mlflow_uri"])
        tags = {name: spec[name] for name in ("backbone", "dataset", "recipe")}

        def folders() -> list[Path]:
            ids = [trial.run_id for trial in search.trials] + [run for final in search.finals for run in final.run_ids]
            return [store.folder_of(results, {"spec": spec, "run_id": run_id}) for run_id in ids]

        return tracking.Tracker(results, uri, click.echo, name=search.id, tags=tags, search=search.id, folders=folders)


@dataclass
class _Told:
    """A feed that also tells the board and the tracker; the driver comes first, for it completes records."""

    driver: SearchTrials
    board: TrialDisplay
    tracker: Any

    def next(self) -> Job | None:
        return self.driver.next()

    def event(self, job: Job, event: dict[str, Any]) -> bool:
        must_stop = self.driver.event(job, event)
        self.board.event(job, event)
        if self.tracker:
            self.tracker.event(job, event)
        return must_stop


def _summary(search: Search) -> str:
    settings, asha = search.settings, search.settings.asha
    done = sum(trial.state != RUNNING for trial in search.trials)
    rungs = ", ".join(map(str, asha.rungs)) or "none"
    lines = [
        f"Search {search.id}",
        f"  {search.space.about or search.space.name}",
        *(f"  {name}: {p.distribution} of {p.key}" for name, p in search.space.parameters.items()),
        f"  {settings.samples} trials by {settings.sampler}, {done} done; {asha.epochs} epochs each, rungs {rungs}",
        f"  scored on {search.holdout.fraction:.0%} of the training identities; the test split is not read",
    ]
    return "\n".join(lines)
