"""Runs `--recipe tuned`: the trials of all studies, then the final runs of each study as soon as its trials ended."""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from click import echo

from harness.errors import RecordError, UsageError
from harness.execution import auditing
from harness.execution.driver import Driver, Invocation
from harness.execution.options import Execution
from harness.execution.run import INTERRUPTED, Outcome, check_writable, describe, make_job, page_of, send_missing
from harness.execution.trial_progress import StudiesDisplay
from harness.planning.budget import TUNED
from harness.planning.plan import BLOCKED, TODO, Planned
from harness.planning.request import Request
from harness.records import store
from harness.spec.job import Job
from harness.tuning import state
from harness.tuning.state import FAILED
from harness.tuning.studies import Study
from harness.tuning.trial_source import SearchTrials


def run(request: Request, studies: Sequence[Study], execution: Execution) -> Outcome:
    """Runs what is not finished yet; the outcome has the folders of the final runs.

    Raises:
        UsageError: nothing can run, another process works on a study, or the results folder is not writable.
    """
    from harness import reporting

    if all(study.trial.state == BLOCKED for study in studies):
        raise UsageError(f"Nothing can run: {studies[0].trial.reason}")
    check_writable(request.results)
    with contextlib.ExitStack() as locks:
        for study in studies:
            locks.enter_context(state.exclusive(request.results, study.search.id))
            study.search = state.resume(request.results, study.search)
            state.write(request.results, study.search)
        if execution.audit:
            auditing.finished([cell for study in studies for cell in study.finals()], request, execution)
        reporting.write(request.results, page_of(request, execution), request.plugins)  # says what it will cost
        return _run(request, studies, execution)


def _run(request: Request, studies: Sequence[Study], execution: Execution) -> Outcome:
    if not any(study.left for study in studies):
        if execution.mlflow:
            send_missing(request, execution, _folders(request, studies))
        return Outcome(1 if _say_blocked(studies) else 0, _tested(studies))
    jobs = sum(study.left for study in studies)
    resources, stop = execution.resources(jobs, studies[0].trial.spec.device), threading.Event()
    display = StudiesDisplay(sys.stdout, studies)

    def make(cell: Planned) -> Job:
        searched = cell.spec.purpose == "search"  # audits are about the test split
        return make_job(cell, request, replace(execution, audit=()) if searched else execution, resources)

    work = StudiesSource([_Queue(study, request.results, make, stop, display) for study in studies])
    name, tags = describe(request)
    invocation = Invocation(name, {**tags, "recipe": TUNED}, lambda: _folders(request, studies))
    with Driver(request.results, execution, invocation) as driver:
        driver.drive(work, resources, display, stop)
        driver.good = work.good
    for study in studies:
        state.write(request.results, study.search)  # raises if the disk is still full
    blocked = _say_blocked(studies)
    return Outcome(INTERRUPTED if driver.interrupted else 0 if work.good and not blocked else 1, _tested(studies))


def _say_blocked(studies: Sequence[Study]) -> bool:
    """Prints why trials or final runs cannot start, each reason once; returns whether there was one."""
    reasons = [f"The trials cannot start: {study.trial.reason}" for study in studies if study.trial.state == BLOCKED]
    reasons += [
        f"The final runs cannot start: {study.untuned.reason}"
        for study in studies
        if study.untuned.state == BLOCKED and study.trial.state != BLOCKED
    ]
    for reason in dict.fromkeys(reasons):
        echo(f"{reason}\nFix this, then start the same command again.")
    return bool(reasons)


class StudiesSource:
    """The jobs of several studies, in their order. A study that has nothing to start does not hold up the others."""

    ahead = 0

    def __init__(self, queues: Sequence[_Queue]) -> None:
        self._queues, self._lock = queues, threading.RLock()
        self._owner: dict[str, _Queue] = {}

    @property
    def good(self) -> bool:
        """Whether no run failed; a trial that was stopped or diverged has not."""
        return all(queue.good for queue in self._queues)

    def next(self) -> Job | None:
        """Returns the next job; None if there is nothing to start now."""
        with self._lock:
            for queue in self._queues:
                if job := queue.next():
                    self._owner[job.spec.run_id] = queue
                    return job
            return None

    def event(self, job: Job, event: dict[str, Any]) -> bool:
        """Passes the event to the study of the job; returns whether the job must stop."""
        with self._lock:
            return self._owner[job.spec.run_id].event(job, event)


class _Queue:
    """The jobs of one study: its trials, then its final runs and the trials at other learning rates."""

    def __init__(
        self,
        study: Study,
        results: Path,
        make: Callable[[Planned], Job],
        stop: threading.Event,
        display: StudiesDisplay,
    ) -> None:
        self.study, self._make, self._results, self._stop = study, make, results, stop
        ended = functools.partial(display.ended, study)
        self._trials = SearchTrials(study.search, results, study.plan_trial, make, stop, ended, display.say)
        self._later: list[Planned] | None = None
        self._failed: set[str] = set()

    @property
    def good(self) -> bool:
        return not self._failed and all(trial.state != FAILED for trial in self.study.search.trials)

    def next(self) -> Job | None:
        """Returns the next job of the study; None if there is nothing to start now."""
        if self._stop.is_set() or self.study.trial.state == BLOCKED:
            return None
        if job := self._trials.next():
            return job
        if self._later is None and self.study.has_ended:
            self._later = [cell for cell in self.study.settle() if cell.state == TODO]
            with contextlib.suppress(RecordError):  # written again at the end
                state.write(self._results, self.study.search)
        return self._make(self._later.pop(0)) if self._later else None

    def event(self, job: Job, event: dict[str, Any]) -> bool:
        """Takes an event of a job; returns whether the job must stop."""
        if any(trial.run_id == job.spec.run_id for trial in self.study.search.trials):
            return self._trials.event(job, event)
        if event["event"] == "finished" and event["status"] not in ("ok", "interrupted"):
            self._failed.add(job.spec.run_id)
        return False


def _folders(request: Request, studies: Sequence[Study]) -> list[Path]:
    """Folders of all trials and final runs so far."""
    found = []
    for search in (study.search for study in studies):
        ids = [trial.run_id for trial in search.trials] + [run for final in search.finals for run in final.run_ids]
        spec = search.spec.to_dict()
        found += [store.folder_of(request.results, {"spec": spec, "run_id": run_id}) for run_id in ids]
    return found


def _tested(studies: Sequence[Study]) -> list[Path]:
    """Folders of the runs that were scored on the test split."""
    return [cell.folder for study in studies for cell in study.finals() if cell.state != BLOCKED]
