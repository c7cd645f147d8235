"""The driver behind `run`, `tune`, `profile` and `evaluate`: executor, progress, tracking and Ctrl-C."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from click import echo

from harness.execution.options import Execution, Resources
from harness.execution.progress import ProgressDisplay
from harness.execution.sources import JobList, TrialSource
from harness.spec.job import Job
from harness.system import processes

if TYPE_CHECKING:
    from harness.tracking import Tracker


@dataclass(frozen=True)
class Invocation:
    """One call of a command, as it appears in the tracker.

    Attributes:
        name: name of the parent run.
        tags: tags of the parent run.
        folders: returns the folders of all its runs.
        search: id of a search; all calls of one search share a parent run.
    """

    name: str
    tags: dict[str, str] = field(default_factory=dict)
    folders: Callable[[], Iterable[Path]] = tuple
    search: str = ""


class Driver:
    """Runs jobs and tracks them. Use it as a context manager; `drive` may be called several times.

    Args:
        results: folder of the records.
        execution: how runs are executed.
        invocation: name and tags for the tracker.
        accepted: statuses that count as success.

    Attributes:
        interrupted: whether the user pressed Ctrl-C.
        good: whether every run so far ended with an accepted status.
    """

    def __init__(
        self, results: Path, execution: Execution, invocation: Invocation, *, accepted: Iterable[str] = ("ok",)
    ) -> None:
        self.results, self.execution, self.invocation = results, execution, invocation
        self.accepted = frozenset(accepted)
        self.interrupted, self.good = False, True
        self._display: ProgressDisplay | None = None
        self._tracker: Tracker | None = None

    def __enter__(self) -> Driver:
        if self.execution.mlflow:
            from harness import tracking
            from harness.reporting import summary

            def overview() -> str:
                return summary.of_runs(self.results, self.invocation.folders())

            self._tracker = tracking.Tracker(
                self.results,
                tracking.address(self.results, self.execution.mlflow_uri),
                self.say,
                name=self.invocation.name,
                tags=self.invocation.tags,
                search=self.invocation.search,
                folders=self.invocation.folders,
                overview=overview,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the tracker with the end state, and reports if it could not send everything."""
        state = "interrupted" if self.interrupted else "ok" if self.good and kind is None else "failed"
        if self._tracker and not self._tracker.close(state) and kind is None:
            self.say("Some results were not sent to MLflow; run 'python -m harness status --sync' to send them.")

    def say(self, text: str) -> None:
        """Prints a line, above the progress display while one is shown."""
        if self._display:
            self._display.say(text)
        else:
            echo(text)

    def drive(
        self,
        work: Sequence[Job] | TrialSource,
        resources: Resources,
        display: ProgressDisplay,
        stop: threading.Event | None = None,
    ) -> dict[str, str]:
        """Runs jobs until all have ended or the user stops; returns status by run id.

        Args:
            work: all jobs, or a source that chooses the next job from the events so far.
            resources: resources per run.
            display: shows the progress.
            stop: set it to make runs save a checkpoint and stop.
        """
        stop = stop or threading.Event()
        jobs = None if isinstance(work, TrialSource) else list(work)
        source = JobList(jobs) if jobs is not None else work
        assert isinstance(source, TrialSource)
        statuses: dict[str, str] = {}
        display.in_place &= not self.execution.debug  # a debugger needs the terminal
        with display, self._active_display(display), _stop_on_ctrl_c(stop, display.say) as pressed:
            observed = _ObservedSource(source, display, self._tracker, statuses)
            executor(self.execution)(observed, resources, stop)
        self.interrupted = self.interrupted or pressed.is_set()
        if jobs is not None:
            self.good &= statuses.keys() >= {job.spec.run_id for job in jobs}
            self.good &= self.accepted >= set(statuses.values())
        return statuses

    @contextmanager
    def _active_display(self, display: ProgressDisplay) -> Iterator[None]:
        self._display = display
        try:
            yield
        finally:
            self._display = None


def executor(execution: Execution) -> Callable[[TrialSource, Resources, threading.Event], None]:
    """Returns the function that runs jobs; Ray and torch are imported only if it needs them here."""
    if execution.debug:
        from harness.execution.debug_executor import run_here

        return run_here
    if execution.scheduler == "ray":
        from harness.execution.ray_executor import run_with_ray

        return run_with_ray
    from harness.execution.local_executor import run_locally

    return run_locally


@dataclass
class _ObservedSource:
    """Forwards the events of a source to display and tracker.

    The source gets each event first, because it completes the record that the others read.
    """

    source: TrialSource
    display: ProgressDisplay
    tracker: Tracker | None
    statuses: dict[str, str]

    @property
    def ahead(self) -> int:
        return self.source.ahead

    def next(self) -> Job | None:
        return self.source.next()

    def event(self, job: Job, event: dict[str, Any]) -> bool:
        must_stop = self.source.event(job, event)
        if event["event"] == "finished":
            self.statuses[job.spec.run_id] = event["status"]
        self.display.event(job, event)
        if self.tracker:
            self.tracker.event(job, event)
        return must_stop


@contextmanager
def _stop_on_ctrl_c(stop: threading.Event, say: Callable[[str], None]) -> Iterator[threading.Event]:
    """The first Ctrl-C lets runs save and stop; the second ends them immediately.

    Yields an event that is set by Ctrl-C only; `stop` may also be set elsewhere. Does nothing outside the main thread,
    where Python does not allow signal handlers.
    """
    pressed = threading.Event()

    def handler(*_: Any) -> None:
        if pressed.is_set():
            say("Stopping immediately.")
            processes.end_descendants()
            os._exit(130)
        say("Stopping: runs keep the checkpoint of their last epoch. Press Ctrl-C again to stop immediately.")
        pressed.set()
        stop.set()

    if threading.current_thread() is not threading.main_thread():
        yield pressed
        return
    old = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield pressed
    finally:
        for number, previous in old.items():
            signal.signal(number, previous)
