"""The one driver of run, tune, profile and evaluate: executor, progress, tracking, Ctrl-C and the end state."""

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
    """One call of a command, as the tracker names it.

    Attributes:
        name: name of the parent run.
        tags: tags of the parent run.
        folders: gives the folders of all its runs.
        search: id of a search, which keeps one parent run over several calls.
    """

    name: str
    tags: dict[str, str] = field(default_factory=dict)
    folders: Callable[[], Iterable[Path]] = tuple
    search: str = ""


class Driver:
    """Carries jobs to their records. Use it as a context manager, drive once or more, then close it.

    Args:
        results: folder of the records.
        execution: how runs are carried out.
        invocation: names the call for the tracker.
        accepted: statuses that count as good.

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

            self._tracker = tracking.Tracker(
                self.results,
                tracking.address(self.results, self.execution.mlflow_uri),
                self.say,
                name=self.invocation.name,
                tags=self.invocation.tags,
                search=self.invocation.search,
                folders=self.invocation.folders,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the tracker with the end state; says so where not everything reached it."""
        state = "interrupted" if self.interrupted else "ok" if self.good and kind is None else "failed"
        if self._tracker and not self._tracker.close(state) and kind is None:
            self.say("Not everything reached MLflow; 'python -m harness status --sync' sends the rest.")

    def say(self, text: str) -> None:
        """Prints a line, above the live table while one is shown."""
        if self._display:
            self._display.say(text)
        else:
            echo(text)

    def drive(
        self,
        work: Sequence[Job] | TrialSource,
        share: Resources,
        display: ProgressDisplay,
        stop: threading.Event | None = None,
    ) -> dict[str, str]:
        """Runs jobs until they ended or the user stops; returns status by run id.

        Args:
            work: all jobs, or a source that decides about the next one from what it hears.
            share: what each run gets.
            display: shows them.
            stop: set by somebody else to let runs save and stop.
        """
        stop = stop or threading.Event()
        jobs = None if isinstance(work, TrialSource) else list(work)
        source = JobList(jobs) if jobs is not None else work
        assert isinstance(source, TrialSource)
        statuses: dict[str, str] = {}
        with display, self._shown_by(display), _stop_on_ctrl_c(stop, display.say) as pressed:
            listening = _Listening(source, display, self._tracker, statuses)
            executor(self.execution.scheduler)(listening, share, stop)
        self.interrupted = self.interrupted or pressed.is_set()
        if jobs is not None:
            self.good &= statuses.keys() >= {job.spec.run_id for job in jobs}
            self.good &= self.accepted >= set(statuses.values())
        return statuses

    @contextmanager
    def _shown_by(self, display: ProgressDisplay) -> Iterator[None]:
        self._display = display
        try:
            yield
        finally:
            self._display = None


def executor(name: str) -> Callable[[TrialSource, Resources, threading.Event], None]:
    """The executor of a scheduler; Ray is imported only for its own."""
    if name == "ray":
        from harness.execution.ray_executor import run_with_ray

        return run_with_ray
    from harness.execution.local_executor import run_locally

    return run_locally


@dataclass
class _Listening:
    """A source that passes events on to display and tracker, after itself: it completes the records they show."""

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
    """One Ctrl-C lets runs save and stop; a second one ends them at once.

    Yields whether there was one, which `stop` does not tell: something else may have set it. Python lets only the main
    thread handle signals; in another one nothing is changed.
    """
    pressed = threading.Event()

    def handler(*_: Any) -> None:
        if pressed.is_set():
            say("Stopping at once.")
            processes.end_descendants()
            os._exit(130)
        say("Stopping: runs keep their last epoch. Ctrl-C again stops at once.")
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
