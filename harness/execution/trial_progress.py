"""What the user sees while a search runs: the running trials, and a line for every trial that ended."""

from __future__ import annotations

import time
from typing import Any, TextIO

from harness.execution.progress import ProgressDisplay
from harness.spec.job import Job
from harness.tuning.space import label
from harness.tuning.state import FAILED, FINISHED, Search, Trial


class TrialDisplay(ProgressDisplay):
    """Shows trials. `ended` prints how one ended, after the search has judged it."""

    noun = "trial"

    def __init__(self, out: TextIO, search: Search) -> None:
        super().__init__(out, [])
        self.search, self.total = search, search.settings.samples
        self.done = sum(trial.state != "running" for trial in search.trials)

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
        best = ", best so far" if trial is self.search.best else ""
        how = f"held-out mAP {trial.value:.2%}{best}" if trial.state == FINISHED else f"{trial.state}. {trial.reason}"
        self.say(f"[{self.done}/{self.total}] trial {trial.number}{name}: {label(trial.point)}: {how}")
