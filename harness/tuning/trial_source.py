"""Turns a search into jobs: asks the sampler for points, stops trials early, and stores their results.

`SearchTrials` is a `harness.execution.sources.TrialSource`: executors ask it for the next job and pass all events to
it. Sampler and stopping rules are the same with and without Ray.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, RecordError
from harness.planning.plan import CACHED, Planned
from harness.records import epochs, store
from harness.records.schema import Record
from harness.spec.job import Job
from harness.spec.names import STOPPED_EARLY
from harness.tuning import sampler, state
from harness.tuning.space import Point
from harness.tuning.state import DIVERGED, FAILED, FINISHED, RUNNING, STOPPED, Search, Trial
from harness.tuning.stopping import Rung, stop_reason

PlanTrial = Callable[[Point], Planned]
MakeJob = Callable[[Planned], Job]
OnTrial = Callable[[Trial], None]

ATTEMPTS = 2
"""Attempts per call for a failing trial; a killed one resumes from its checkpoint."""


class SearchTrials:
    """One call of `tune`: continues a search until it has all its samples.

    Args:
        search: a new or a resumed search.
        results: folder of the records.
        plan: returns the planned run of a point.
        make_job: returns the job of a planned run.
        stop: set when no new trial may start; interrupted trials can be resumed later.
        on_trial: called with every trial that ended.
        warn: called once if the search file cannot be written; the runs themselves keep their results.
    """

    ahead = 0
    """A point is chosen only when its trial can start, to use all results so far."""

    def __init__(
        self,
        search: Search,
        results: Path,
        plan: PlanTrial,
        make_job: MakeJob,
        stop: threading.Event,
        on_trial: OnTrial = lambda trial: None,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.search, self.results, self.stop = search, results, stop
        self._plan, self._make_job, self._on_trial = plan, make_job, on_trial
        self._warn, self._warned = warn, False
        self._lock = threading.RLock()
        self._waiting = [t for t in search.trials if t.state in (RUNNING, FAILED)]
        self._attempts: dict[str, int] = {}
        self._exhausted = False

    def next(self) -> Job | None:
        """Returns the next job: unfinished trials first, then new points; None if there is nothing to start now."""
        with self._lock:
            while not self.stop.is_set() and (trial := self._waiting.pop(0) if self._waiting else self._new_trial()):
                if job := self._start(trial):
                    return job
            return None

    def _start(self, trial: Trial) -> Job | None:
        """Returns the job of a trial; None if its run has finished already, for example in another search."""
        if trial.state == FAILED:
            trial.state, trial.reason, trial.stopped_after = RUNNING, "", 0
        cell = self._plan(trial.point)
        self._attempts[trial.run_id] = self._attempts.get(trial.run_id, 0) + 1
        if cell.state == CACHED:
            self._finish(trial, cell.folder, {"status": "ok"})
            return None
        job = self._make_job(cell)
        self._judge_missed_epochs(trial, Path(job.folder))
        self._save()
        return job

    def event(self, job: Job, event: dict[str, Any]) -> bool:
        """Handles an event of a trial; returns whether the trial must stop."""
        with self._lock:
            trial = self.search.trial(job.spec.run_id)
            if event["event"] == "finished":
                self._finish(trial, Path(job.folder), event)
            if event["event"] != "epoch" or "mAP" not in event["metrics"]:
                return False
            trial.curve[int(event["epoch"])] = float(event["metrics"]["mAP"])
            if not trial.stopped_after:
                trial.reason = self._stop_reason(trial, int(event["epoch"]))
            self._save()
            return bool(trial.stopped_after)

    def _save(self) -> None:
        try:
            state.write(self.results, self.search)
        except RecordError as error:
            if not self._warned:
                self._warn(f"{error} The search continues in the meantime.")
            self._warned = True

    def _judge_missed_epochs(self, trial: Trial, folder: Path) -> None:
        """Judges epochs that finished while no driver was running; a trial to be stopped ends after its next epoch."""
        found = curve(folder)
        for epoch in sorted(found.keys() - trial.curve.keys()):
            trial.curve[epoch] = found[epoch]
            if not trial.stopped_after:
                trial.reason = self._stop_reason(trial, epoch)

    def _new_trial(self) -> Trial | None:
        """Asks the sampler for a new trial; None if all samples or all points are used."""
        search, settings = self.search, self.search.settings
        if self._exhausted or len(search.trials) >= settings.samples:
            return None
        point = sampler.suggest(
            search.space,
            settings.sampler,
            seed=settings.seed,
            number=len(search.trials),
            samples=settings.samples,
            known=[trial.known() for trial in search.trials],
        )
        if point is None:  # all points of the space were tried
            self._exhausted = True
            return None
        named = {n.name: search.space.canonical(n.values) for n in search.space.points}
        name = next((name for name, values in named.items() if values == point), "")
        trial = Trial(len(search.trials), point, self._plan(point).spec.run_id, name)
        search.trials.append(trial)
        return trial

    def _stop_reason(self, trial: Trial, epoch: int) -> str:
        """Judges a trial after an epoch; returns why it must stop, or an empty string."""
        others = [
            t for t in self.search.trials if t is not trial and epoch in t.curve and not 0 < t.stopped_after < epoch
        ]
        judged = [t for t in others if not t.name]
        rung = Rung([t.curve[epoch] for t in others], len(judged), sum(t.stopped_after != epoch for t in judged))
        asha, named = self.search.settings.asha, bool(trial.name)
        reason = stop_reason(asha, epoch, trial.curve[epoch], rung, named=named)
        trial.stopped_after = epoch if reason else 0
        return reason

    def _finish(self, trial: Trial, folder: Path, event: dict[str, Any]) -> None:
        """Updates a trial whose run ended; a failed run may be retried."""
        status, stopped_for = event["status"], trial.reason if trial.stopped_after else ""
        record = _read(folder)
        trial.curve |= curve(folder)
        found = record["error"] if record else None
        error: dict[str, Any] = {**found} if found else {}
        trial.reason = error.get("message", "") if record else str(event.get("error", ""))
        if status == "ok" and record:
            row = store.plain(record) or {}
            trial.state, trial.value, trial.reason = FINISHED, float(row["mAP"]), ""
        elif status == "interrupted" and stopped_for:
            trial.state, trial.reason = STOPPED, stopped_for
            _mark_stopped(folder, record, stopped_for)
        elif status == "interrupted" and self.stop.is_set():
            return  # resumed with the search
        elif status == "diverged" or error.get("type") == "FeatureError":
            trial.state, trial.value = DIVERGED, 0.0
        elif self._attempts[trial.run_id] < ATTEMPTS:
            self._waiting.insert(0, trial)
            return
        else:
            trial.state = FAILED
        if trial.state != FAILED:  # a failed trial is repeated, and resumes from its checkpoint
            for checkpoint in folder.glob("checkpoint*.pt"):
                checkpoint.unlink(missing_ok=True)
        self._save()
        self._on_trial(trial)


def curve(folder: Path) -> dict[int, float]:
    """Reads held-out mAP by epoch from the `metrics.jsonl` of a run, which another search may have written."""
    return {values["epoch"]: float(values["mAP"]) for values in epochs.read(folder) if "mAP" in values}


def _read(folder: Path) -> Record | None:
    with contextlib.suppress(HarnessError):
        return store.read(folder)
    return None


def _mark_stopped(folder: Path, record: Record | None, reason: str) -> None:
    """Adds the reason to the record of a stopped trial."""
    if record is not None and record["status"] == "interrupted":
        record["error"] = {"type": STOPPED_EARLY, "message": reason, "log_tail": ""}
        with contextlib.suppress(HarnessError):  # on a full disk, only the search file has the reason
            store.write(folder, record)
