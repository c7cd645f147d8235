"""What the user sees while a search runs: the running trials, and a line for every trial that ended."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, TextIO

from harness.execution.progress import ProgressDisplay
from harness.planning.plan import BLOCKED
from harness.spec.job import Job
from harness.spec.run_spec import RunSpec
from harness.tuning.space import label
from harness.tuning.state import FAILED, FINISHED, RUNNING, Search, Trial
from harness.tuning.studies import Study


class TrialDisplay(ProgressDisplay):
    """Shows trials. `ended` prints how one ended, after the search has judged it."""

    noun = "trial"

    def __init__(self, out: TextIO, search: Search) -> None:
        super().__init__(out, [])
        self.search, self.total = search, search.settings.samples
        self.done = sum(trial.state not in (RUNNING, FAILED) for trial in search.trials)

    def event(self, job: Job, event: dict[str, Any]) -> None:
        """Takes an event of a trial."""
        if event["event"] == "finished":
            with self._lock:
                self._take_off(job)
                self._refresh()
            return
        trial = self.search.trial(job.spec.run_id)
        new = {"title": f"trial {trial.number}", "stage": "starting", "since": time.monotonic()}
        self._running.setdefault(job.folder, new)
        super().event(job, event)

    def ended(self, trial: Trial) -> None:
        """Prints how a trial ended."""
        self.done += 1
        self.failed += trial.state == FAILED
        name = f" ({trial.name})" if trial.name else ""
        how = _result(trial, self.search)
        self.say(f"[{self.done}/{self.total}] trial {trial.number}{name}: {label(trial.point)}: {how}")


class StudiesDisplay(ProgressDisplay):
    """Shows the trials and final runs of several studies."""

    def __init__(self, out: TextIO, studies: Sequence[Study]) -> None:
        super().__init__(out, [])
        self._searches = {_key(study.search.spec): study.search for study in studies}
        can_run = [study for study in studies if study.trial.state != BLOCKED]
        self.total = sum(study.runs for study in can_run)
        self.done = self.total - sum(study.left for study in can_run)

    def event(self, job: Job, event: dict[str, Any]) -> None:
        """Takes an event of a trial or a final run."""
        search = self._searches[_key(job.spec)]
        if event["event"] == "finished" and any(trial.run_id == job.spec.run_id for trial in search.trials):
            with self._lock:  # `ended` prints it, after the search has judged it
                self._take_off(job)
                self._refresh()
        else:
            super().event(job, event)

    def title(self, job: Job) -> str:
        """Backbone, dataset, study, and which run of the study it is."""
        search = self._searches[_key(job.spec)]
        for trial in search.trials:
            if trial.run_id == job.spec.run_id:
                return _title(search, f"trial {trial.number + 1}")
        final = next((final.name for final in search.finals if job.spec.run_id in final.run_ids), "final run")
        return _title(search, final)

    def ended(self, study: Study, trial: Trial) -> None:
        """Prints how a trial ended."""
        self.done += 1
        self.failed += trial.state == FAILED
        how = f"{label(trial.point)}: {_result(trial, study.search)}"
        self.say(f"[{self.done}/{self.total}] {_title(study.search, f'trial {trial.number + 1}')}: {how}")


def _key(spec: RunSpec) -> tuple[str, str, int]:
    """What tells the studies of one call apart."""
    return spec.backbone, spec.dataset, spec.seed


def _title(search: Search, run: str) -> str:
    return f"{search.spec.backbone} on {search.spec.dataset}, study {search.spec.seed + 1}, {run}"


def _result(trial: Trial, search: Search) -> str:
    """How a trial ended."""
    if trial.state != FINISHED:
        return f"{trial.state}. {trial.reason}"
    return f"held-out mAP {trial.value:.2%}{', best so far' if trial is search.best else ''}"
