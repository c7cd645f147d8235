"""What the user sees while runs go on: a live table on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import contextlib
import textwrap
import threading
import time
from pathlib import Path
from typing import Any, TextIO

from harness.errors import HarnessError
from harness.records import store
from harness.spec.job import Job
from harness.system.redact import readable


def duration(seconds: float) -> str:
    """Formats seconds as `42 s`, `3 min 05 s` or `2 h 10 min`."""
    seconds = max(0, round(seconds))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


LONGEST_REASON = 600
"""Letters of the reason that is shown for a failed run; its record holds all of it."""


class ProgressDisplay:
    """Shows each running job: which run, which epoch, images per second, time left; and every end.

    Args:
        out: a terminal gets a live table, anything else plain lines.
        jobs: all jobs of this invocation.
        every: seconds between plain lines of one run.
    """

    def __init__(self, out: TextIO, jobs: list[Job], *, every: float = 5.0) -> None:
        self.out, self.every, self.total = out, every, len(jobs)
        self.done = 0
        self.failed = 0
        self._widest = 1
        self._durations: list[float] = []
        self._running: dict[str, dict[str, Any]] = {}
        self._shown: dict[str, float] = {}
        self._lock = threading.Lock()
        self._live: Any = None

    def __enter__(self) -> ProgressDisplay:
        if self.out.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(file=self.out), refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()
            self._live = None

    def say(self, text: str) -> None:
        """Prints a line that stays."""
        text = readable(text)
        if self._live:
            self._live.console.print(text, markup=False, highlight=False)
        else:
            with contextlib.suppress(OSError):  # nobody reads, or a full disk: the runs go on
                print(text, file=self.out, flush=True)

    def event(self, job: Job, event: dict[str, Any]) -> None:
        """Takes an event of a run."""
        with self._lock:
            kind = event["event"]
            if kind == "finished":
                self._finish(job, event)
            elif kind == "warning":
                self.say(f"  {title(job)}: {event['text']}")
            else:
                new = {"title": title(job), "stage": "starting", "since": time.monotonic()}
                state = self._running.setdefault(job.folder, new)
                self._widest = max(self._widest, len(self._running))
                state.update({k: v for k, v in event.items() if k not in ("event", "metrics")})
                if kind == "epoch":
                    state["loss"] = event["metrics"].get("loss")
                self._show(job, state)
            if self._live:
                self._live.update(self._table())

    def _finish(self, job: Job, event: dict[str, Any]) -> None:
        state = self._take_off(job)
        self.done += 1
        self.failed += event["status"] != "ok"
        if error := event.get("error") or state.get("error") or _reason(job, event["status"]):
            detail = f" ({textwrap.shorten(str(error), LONGEST_REASON)})"
        else:
            scores = [f"{name} {value:.1%}" for name, value in state.get("scores", {}).items()]
            detail = "".join(f", {part}" for part in (*scores, state.get("matched")) if part)
        self.say(f"[{self.done}/{self.total}] {title(job)}: {event['status']}{detail}{self._left()}")

    def _take_off(self, job: Job) -> dict[str, Any]:
        """Takes a run off the display and returns what was known of it."""
        state = self._running.pop(job.folder, {})
        if state:
            self._durations.append(time.monotonic() - state["since"])
        return state

    def _left(self) -> str:
        """Time left for all runs, from the mean of those that ended and the number that run at once."""
        runs = self.total - self.done
        if not self._durations or runs <= 0:
            return ""
        mean = sum(self._durations) / len(self._durations)
        behind = sum(min(time.monotonic() - state["since"], mean) for state in self._running.values())
        return f", about {duration((mean * runs - behind) / self._widest)} left for {runs} run{'s' * (runs > 1)}"

    def _show(self, job: Job, state: dict[str, Any]) -> None:
        now = time.monotonic()
        if self._live or now - self._shown.get(job.folder, 0.0) < self.every:
            return
        self._shown[job.folder] = now
        self.say(f"  {state['title']}: {describe(state)}")

    def _table(self) -> Any:
        from rich.table import Table

        table = Table(title=f"{self.done} of {self.total} runs done{self._left()}", title_justify="left")
        for column in ("run", "stage"):
            table.add_column(column)
        for state in self._running.values():
            table.add_row(state["title"], describe(state))
        return table


def _reason(job: Job, status: str) -> str:
    """Why a run did not end well, as its record has it."""
    if status != "ok":
        with contextlib.suppress(HarnessError):
            if error := store.read(Path(job.folder))["error"]:
                return error["message"]
    return ""


def title(job: Job) -> str:
    """How a run is called on the screen."""
    return f"{job.spec.backbone} on {job.spec.dataset}, seed {job.spec.seed}"


def describe(state: dict[str, Any]) -> str:
    """One line about where a run is."""
    parts = [str(state["stage"])]
    if state["stage"] == "train" and "epoch" in state:
        parts.append(f"epoch {state['epoch']}/{state['epochs']}")
        if state.get("loss") is not None:
            parts.append(f"loss {state['loss']:.3f}")
    if state["stage"] == "decode":
        parts.append(f"{state['done']}/{state['total']} images")
    if state["stage"] in ("train", "evaluate") and state.get("images_per_second"):
        parts.append(f"{state['images_per_second']:.0f} images/s")
        if state.get("seconds_left") is not None:
            parts.append(f"{duration(state['seconds_left'])} left")
    return ", ".join(parts)
