"""What is shown while runs go on: plain lines in a file, lines updated in place on a terminal."""

from __future__ import annotations

import io
import re
from typing import Any
from unittest import mock

import pytest
from rich.console import Console

from harness.execution.progress import Lines, ProgressDisplay, crop, squeeze
from harness.execution.trial_progress import TrialDisplay
from harness.spec.job import Job
from tests.support import record_samples as samples
from tests.support import searches

LONG = "timm:vit_base_patch14_reg4_dinov2.lvd142m"
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class Terminal(io.StringIO):
    """A terminal that keeps what is written to it."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "60", "LINES": "24"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Terminal()


def jobs(number: int, backbone: str = "bot") -> list[Any]:
    made = [mock.Mock(spec=Job, folder=f"folder{n}") for n in range(number)]
    for n, job in enumerate(made):
        job.spec = samples.spec(backbone, seed=n)
    return made


def train(display: ProgressDisplay, job: Any, epoch: int = 1) -> None:
    event = {"event": "epoch", "stage": "train", "epoch": epoch, "epochs": 5, "metrics": {"loss": 0.5}}
    display.event(job, {**event, "images_per_second": 120.0, "seconds_left": 90})


def end(display: ProgressDisplay, job: Any, status: str = "ok", **more: Any) -> None:
    display.event(job, {"event": "end", "stage": "record", "scores": {"mAP": 0.652, "rank-1": 0.7}})
    display.event(job, {"event": "finished", "status": status, **more})


def test_plain_lines_for_a_file() -> None:
    out, (first, second) = io.StringIO(), jobs(2)
    with ProgressDisplay(out, [first, second], every=0) as display:
        train(display, first)
        end(display, first)
        end(display, second, "failed", error="ValueError: it broke")
    lines = out.getvalue().splitlines()
    assert lines[0] == "  bot on market1501, seed 0: train, epoch 1/5, loss 0.500, 120 images/s, 1 min 30 s left"
    assert "[1/2] bot on market1501, seed 0: ok, mAP 65.2%, rank-1 70.0%" in lines
    assert lines[-1] == "[2/2] bot on market1501, seed 1: failed (ValueError: it broke)"
    assert "\x1b" not in out.getvalue()


@pytest.mark.parametrize("columns", [60, 80, 200])
@pytest.mark.parametrize(("number", "height"), [(3, 24), (40, 24), (40, 100), (5, 4), (5, 3), (5, 1)])
def test_the_lines_updated_in_place_fit_the_terminal(columns: int, number: int, height: int) -> None:
    rows = [
        (f"{LONG} on cuhk03-classic-detected, seed {n}", f"train, epoch {n}/60, loss 0.123, 99 images/s")
        for n in range(number)
    ]
    console = Console(file=io.StringIO(), width=columns, height=height, force_terminal=True, color_system=None)
    shown = console.render_lines(
        Lines(rows, f"0 of {number} runs done, {number} running, about 3 h 20 min left"), pad=False
    )
    lines = ["".join(part.text for part in line) for line in shown]
    assert len(lines) <= max(1, height - 2) and len(lines) <= 21
    assert all(len(line) <= columns for line in lines)
    assert lines[-1].startswith(f"0 of {number} runs done")
    hidden = number - sum("seed" in line for line in lines)
    assert hidden == 0 or f"... and {hidden} more" in lines[-2:][0] or height < 4
    assert all(f"seed {n}  " in line for n, line in enumerate(lines[:-2])), "the end of a title stays"


def test_finished_runs_stay_one_line_each(terminal: Terminal) -> None:
    some = jobs(4, LONG)
    with ProgressDisplay(terminal, some) as display:
        for job in some:
            train(display, job)
        for job in some[:3]:
            end(display, job)
        end(display, some[3], "failed", error="ValueError: " + "reason " * 20)
    text = ESCAPES.sub("", terminal.getvalue())
    finished = [line.rstrip() for line in text.replace("\r", "\n").splitlines() if line.startswith("[")]
    assert len(finished) == 4 and all(len(line) <= 60 for line in finished)
    assert all(line.endswith(f"seed {n}: ok, mAP 65.2%, rank-1 70.0%") for n, line in enumerate(finished[:3]))
    assert finished[3].endswith("seed 3: failed") and "    ValueError: reason" in text
    assert "4 of 4 runs done, 1 failed" in text
    assert "\x1b[32mok" in terminal.getvalue() and "\x1b[31mfailed" in terminal.getvalue()


def test_no_colours_where_they_are_not_wanted(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    (job,) = jobs(1)
    with ProgressDisplay(terminal, [job]) as display:
        end(display, job)
    assert "seed 0: ok, mAP 65.2%" in terminal.getvalue()
    assert not re.search(r"\x1b\[(\d+;)*(3|4|9|10)\d(;\d+)*m", terminal.getvalue())


def test_a_terminal_without_escape_codes_gets_plain_lines(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    (job,) = jobs(1)
    with ProgressDisplay(terminal, [job], every=0) as display:
        train(display, job)
        end(display, job)
    assert "\x1b" not in terminal.getvalue() and "train, epoch 1/5" in terminal.getvalue()


def test_trials_are_counted_as_trials(terminal: Terminal) -> None:
    search = searches.new_search()
    with TrialDisplay(terminal, search):
        pass
    assert f"0 of {search.settings.samples} trials done" in terminal.getvalue()


def test_letters_that_steer_a_terminal_are_escaped(terminal: Terminal) -> None:
    (job,) = jobs(1)
    with ProgressDisplay(terminal, [job]) as display:
        end(display, job, "failed", error="\x1b]0;title\x07 [bold]x[/bold]")
    assert "\x1b]0;" not in terminal.getvalue() and "[bold]x" in terminal.getvalue()


def test_texts_that_are_too_long() -> None:
    assert (crop("abcdefgh", 8), crop("abcdefgh", 7), crop("\u4eba" * 4, 7)) == (
        "abcdefgh",
        "abcd...",
        "\u4eba\u4eba...",
    )
    assert (squeeze("abcdefgh", 8), squeeze("abcdefgh", 7)) == ("abcdefgh", "ab...gh")
