"""Turns a search into jobs: asks the sampler, hears of epochs, stops trials, keeps what they found.

`SearchTrials` is a `harness.execution.sources.TrialSource`: the executors, with or without Ray, ask it for the
next job and pass every event to it. The sampler and the rule that stops trials are the same with both.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, RecordError
from harness.planning.plan import Planned
from harness.records import store
from harness.records.schema import Record
from harness.spec.job import Job
from harness.tuning import sampler, state
from harness.tuning.space import Point
from harness.tuning.state import DIVERGED, FAILED, FINISHED, RUNNING, STOPPED, Search, Trial
from harness.tuning.stopping import Rung, stop_reason

PlanTrial = Callable[[Point], Planned]
MakeJob = Callable[[Planned], Job]
OnTrial = Callable[[Trial], None]

ATTEMPTS = 2
"""How often one call tries a trial that fails; a killed one resumes from its checkpoint."""


class SearchTrials:
    """One call of `tune`: goes on with a search until it has its samples.

    Args:
        search: as it was left, or new.
        results: folder of the records.
        plan: from a point to its planned run.
        make_job: from a planned run to its job.
        stop: set when nothing new may start; trials that end now are left to go on later.
        on_trial: called with every trial that ended.
        warn: called once if the disk does not take the state; it is rebuilt from the runs, which keep theirs.
    """

    ahead = 0
    """A point is chosen only when it can start, from all that is known then."""

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
        """The next job: first what was left unfinished, then a new point; None if there is nothing to start now."""
        with self._lock:
            if self.stop.is_set():
                return None
            trial = self._waiting.pop(0) if self._waiting else self._ask()
            if trial is None:
                return None
            if trial.state == FAILED:
                trial.state, trial.reason, trial.stopped_after = RUNNING, "", 0
            self._attempts[trial.run_id] = self._attempts.get(trial.run_id, 0) + 1
            job = self._make_job(self._plan(trial.point))
            self._catch_up(trial, Path(job.folder))
            self._keep()
            return job

    def event(self, job: Job, event: dict[str, Any]) -> bool:
        """Takes an event of a trial; returns whether the trial must stop."""
        with self._lock:
            trial = self.search.trial(job.spec.run_id)
            if event["event"] == "finished":
                self._finish(trial, Path(job.folder), event)
            if event["event"] != "epoch" or "mAP" not in event["metrics"]:
                return False
            trial.curve[int(event["epoch"])] = float(event["metrics"]["mAP"])
            if not trial.stopped_after:
                trial.reason = self._verdict(trial, int(event["epoch"]))
            self._keep()
            return bool(trial.stopped_after)

    def _keep(self) -> None:
        try:
            state.write(self.results, self.search)
        except RecordError as error:
            if not self._warned:
                self._warn(f"{error} The search goes on meanwhile.")
            self._warned = True

    def _catch_up(self, trial: Trial, folder: Path) -> None:
        """Judges epochs that were done while no driver listened; a trial that must stop does so after its next one."""
        found = curve(folder)
        for epoch in sorted(found.keys() - trial.curve.keys()):
            trial.curve[epoch] = found[epoch]
            if not trial.stopped_after:
                trial.reason = self._verdict(trial, epoch)

    def _ask(self) -> Trial | None:
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
        if point is None:  # the space has no other point
            self._exhausted = True
            return None
        named = {n.name: search.space.canonical(n.values) for n in search.space.points}
        name = next((name for name, values in named.items() if values == point), "")
        trial = Trial(len(search.trials), point, self._plan(point).spec.run_id, name)
        search.trials.append(trial)
        return trial

    def _verdict(self, trial: Trial, epoch: int) -> str:
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
            return  # it goes on when the search does
        elif status == "diverged" or error.get("type") == "FeatureError":
            trial.state, trial.value = DIVERGED, 0.0
        elif self._attempts[trial.run_id] < ATTEMPTS:
            self._waiting.insert(0, trial)
            return
        else:
            trial.state = FAILED
        for checkpoint in folder.glob("checkpoint*.pt"):  # forty models would fill a disk, and nobody scores them
            checkpoint.unlink(missing_ok=True)
        self._keep()
        self._on_trial(trial)


def curve(folder: Path) -> dict[int, float]:
    """Held-out mAP by epoch, as the run wrote it down; also for a run that another search finished."""
    found: dict[int, float] = {}
    with contextlib.suppress(OSError):
        for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                values = json.loads(line)
                found[int(values["epoch"])] = float(values["mAP"])
    return found


def _read(folder: Path) -> Record | None:
    with contextlib.suppress(HarnessError):
        return store.read(folder)
    return None


def _mark_stopped(folder: Path, record: Record | None, reason: str) -> None:
    """Says in the record of a stopped trial why it was stopped."""
    if record is not None and record["status"] == "interrupted":
        record["error"] = {"type": "Stopped", "message": reason, "log_tail": ""}
        with contextlib.suppress(HarnessError):  # a full disk: the search file still says so
            store.write(folder, record)
