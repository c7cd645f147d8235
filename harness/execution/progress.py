"""What the user sees while runs go on: lines updated in place on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import contextlib
import textwrap
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from harness.errors import HarnessError
from harness.records import store
from harness.spec.condition import Condition
from harness.spec.job import Job
from harness.system import terminal
from harness.system.redact import readable

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult


def duration(seconds: float) -> str:
    """Formats seconds as `42 s`, `3 min 05 s` or `2 h 10 min`."""
    seconds = max(0, round(seconds))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


LONGEST_REASON = 600
"""Characters of the reason that is shown for a failed run; its record holds all of it."""

MOST_LINES = 20
"""Running runs that are shown at once, on however high a terminal."""

COLOURS = {"ok": "green", "interrupted": "yellow"}
"""Colour of a status on a terminal; all others are red."""


class ProgressDisplay:
    """Shows each running job: its run, epoch, images per second and time left; and how every run ended.

    On a terminal each running job has one line, which is updated in place, and below them is one line for all runs.
    These lines are never more than the terminal has. Elsewhere, plain lines are printed.

    Args:
        out: a terminal, or anything else for plain lines.
        jobs: all jobs of this invocation.
        every: seconds between plain lines of one run.

    Attributes:
        in_place: whether lines may be updated in place.
    """

    noun = "run"
    """What a job is called in the line for all of them."""

    def __init__(self, out: TextIO, jobs: list[Job], *, every: float = 5.0) -> None:
        self.out, self.every, self.total = out, every, len(jobs)
        self.done = 0
        self.failed = 0
        self._widest = 1
        self._durations: list[float] = []
        self._running: dict[str, dict[str, Any]] = {}
        self._shown: dict[str, float] = {}
        self._lock = threading.Lock()
        self.in_place = True
        self._live: Any = None

    def __enter__(self) -> ProgressDisplay:
        if self.in_place and terminal.steers(self.out):
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(file=self.out), refresh_per_second=4, transient=True)
            self._live.start()
            self._refresh()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()
            self._live = None

    def say(self, text: str) -> None:
        """Prints a line that stays."""
        text = readable(text)
        if self._live:
            from rich.padding import Padding
            from rich.text import Text

            start = text.lstrip(" ")
            self._live.console.print(Padding(Text(start), (0, 0, 0, len(text) - len(start))), highlight=False)
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
                self.say(f"  {self.title(job)}: {event['text']}")
            else:
                new = {"title": self.title(job), "stage": "starting", "since": time.monotonic()}
                state = self._running.setdefault(job.folder, new)
                self._widest = max(self._widest, len(self._running))
                state.update({k: v for k, v in event.items() if k not in ("event", "metrics")})
                if kind == "epoch":
                    state["loss"] = event["metrics"].get("loss")
                self._show(job, state)
            self._refresh()

    def _finish(self, job: Job, event: dict[str, Any]) -> None:
        state, status = self._take_off(job), event["status"]
        self.done += 1
        self.failed += status != "ok"
        reason = event.get("error") or state.get("error") or _reason(job, status)
        scores = [f"{name} {value:.1%}" for name, value in state.get("scores", {}).items()]
        measured, notes = ([], "") if reason else self.result(job)
        detail = "".join(f", {part}" for part in (*scores, state.get("matched"), *measured) if part)
        self._say_end(self.title(job), status, "" if reason else detail, str(reason or ""))
        if notes:
            self.say(f"    {notes}")

    def title(self, job: Job) -> str:
        """The name of a job on the screen; for subclasses."""
        return title(job)

    def result(self, job: Job) -> tuple[list[str], str]:
        """Returns what to print of a finished job beside its scores, and a line below it; for subclasses."""
        return [], ""

    def _say_end(self, name: str, status: str, detail: str, reason: str = "") -> None:
        """Prints how a job ended; on a terminal on one line, with the reason of a failure below it."""
        reason = textwrap.shorten(reason, LONGEST_REASON)
        start = f"[{self.done}/{self.total}] "
        if not self._live:
            left = f"{left} for {self._counted(self.total - self.done)}" if (left := self._left()) else ""
            self.say(f"{start}{name}: {status}{f' ({reason})' if reason else detail}{left}")
            return
        from rich.text import Text

        console = self._live.console
        name = squeeze(readable(name), max(16, console.width - len(start) - len(": ") - len(status) - len(detail)))
        line = Text(crop(f"{start}{name}: {status}{readable(detail)}", console.width))
        line.stylize(COLOURS.get(status, "red"), at := len(start) + len(name) + 2, at + len(status))
        console.print(line, no_wrap=True, highlight=False)
        if reason:
            self.say(f"    {reason}")

    def _take_off(self, job: Job) -> dict[str, Any]:
        """Takes a run off the display and returns what was known of it."""
        state = self._running.pop(job.folder, {})
        if state:
            self._durations.append(time.monotonic() - state["since"])
        return state

    def _left(self) -> str:
        """Time left for all runs: by the mean of those that ended, and at least what a running one needs by itself."""
        runs = self.total - self.done
        if not self._durations or runs <= 0:
            return ""
        mean = sum(self._durations) / len(self._durations)
        behind = sum(min(time.monotonic() - state["since"], mean) for state in self._running.values())
        own = [state.get("seconds_left") or 0.0 for state in self._running.values()]
        seconds = max((mean * runs - behind) / self._widest, *own, 0.0)
        return f", about {duration(seconds)} left" if seconds >= 1 else ""

    def _counted(self, number: int) -> str:
        return f"{number} {self.noun}{'s' * (number != 1)}"

    def _show(self, job: Job, state: dict[str, Any]) -> None:
        now = time.monotonic()
        if self._live or now - self._shown.get(job.folder, 0.0) < self.every:
            return
        self._shown[job.folder] = now
        self.say(f"  {state['title']}: {describe(state)}")

    def _refresh(self) -> None:
        """Gives the lines as they are now to the terminal."""
        if self._live:
            rows = [(readable(state["title"]), readable(describe(state))) for state in self._running.values()]
            failed = f", {self.failed} failed" if self.failed else ""
            running = f", {len(rows)} running" if rows else ""
            total = f"{self.done} of {self._counted(self.total)} done{failed}{running}{self._left()}"
            self._live.update(Lines(rows, total))


@dataclass(frozen=True)
class Lines:
    """The lines that are updated in place: one per running job, cropped to the terminal, and one for all.

    Attributes:
        rows: title and stage of each running job.
        total: the line for all jobs.
    """

    rows: list[tuple[str, str]]
    total: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Lays the lines out for the present size of the terminal."""
        from rich.text import Text

        width, room = options.max_width, max(0, min(console.size.height - 3, MOST_LINES))
        rows, more = self.rows, 0
        if len(rows) > room:
            rows, more = rows[: max(0, room - 1)], len(rows) - max(0, room - 1)
        titles = min(max((len(name) for name, _ in rows), default=0), max(16, width // 2))
        lines = [f"  {squeeze(name, titles):{titles}}  {stage}" for name, stage in rows]
        lines += [f"  ... and {more} more"] if more else []
        for line in lines[:room]:
            yield Text(crop(line, width), no_wrap=True)
        yield Text(crop(self.total, width), style="bold", no_wrap=True)


def crop(text: str, width: int) -> str:
    """Returns the text in at most so many columns of a terminal, with an ellipsis where something is left out."""
    from rich.cells import cell_len, set_cell_size

    return text if cell_len(text) <= width else set_cell_size(text, max(0, width - 3)).rstrip() + "..."


def squeeze(text: str, width: int) -> str:
    """Returns the text in at most so many characters, with an ellipsis in its middle: a title ends with the seed."""
    if len(text) <= width:
        return text
    end = (width - 3) // 2
    return f"{text[: width - 3 - end]}...{text[len(text) - end :]}"


def _reason(job: Job, status: str) -> str:
    """Why a run failed, from its record."""
    if status != "ok":
        with contextlib.suppress(HarnessError):
            if error := store.read(Path(job.folder))["error"]:
                return error["message"]
    return ""


def title(job: Job) -> str:
    """The name of a run on the screen; a measurement has no dataset, but a condition."""
    if job.spec.purpose == "profile":
        return f"{job.spec.backbone}, {Condition.from_values(job.spec.values)}"
    return f"{job.spec.backbone} on {job.spec.dataset}, seed {job.spec.seed}"


def describe(state: dict[str, Any]) -> str:
    """Returns the stage of a run, with its progress."""
    parts = [str(state["stage"])]
    if state["stage"] == "train" and "epoch" in state:
        parts.append(f"epoch {state['epoch']}/{state['epochs']}")
        if state.get("loss") is not None:
            parts.append(f"loss {state['loss']:.3f}")
    if state["stage"] == "decode":
        parts.append(f"{state['done']}/{state['total']} images")
    if state["stage"] == "audit" and state.get("audit"):
        parts.append(f"{state['audit']} ({state['audits_done'] + 1}/{state['audits']})")
    if state["stage"] in ("train", "evaluate", "audit") and state.get("images_per_second"):
        parts.append(f"{state['images_per_second']:.0f} images/s")
        if state.get("seconds_left") is not None:
            parts.append(f"{duration(state['seconds_left'])} left")
    return ", ".join(parts)
