"""`--force`: what was there is removed once an attempt, however often its process is started."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.execution import driver
from harness.records import store
from harness.spec.job import Job
from harness.worker import main
from harness.worker.events import Progress
from tests.support.record_samples import ok, spec
from tests.support.runs import arguments

NAMES = ("checkpoint.pt", "metrics.jsonl")


def started(folder: Path, attempt: int, *, force: bool = True) -> list[str]:
    """What is left when a process of this attempt starts to work, and then does an epoch."""
    main._clear(folder, Job(spec(), str(folder), force=force, attempt=attempt))
    left = [name for name in NAMES if (folder / name).exists()]
    for name in NAMES:
        (folder / name).write_text(str(attempt))
    return left


def test_the_same_attempt_goes_on_and_the_next_one_begins_anew(tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / name).write_text("of a run before")
    assert started(tmp_path, 2) == []
    assert started(tmp_path, 2) == [*NAMES], "Ray starts a lost run once more"
    assert started(tmp_path, 3, force=False) == [*NAMES], "repeated without --force"
    assert started(tmp_path, 4) == []


def test_who_interrupts_it_is_told_how_to_go_on(
    cli: Callable[..., tuple[int, str, str]], world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pressed(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(driver, "executor", lambda name: pressed)
    for more, words in (((), "The same command resumes the rest"), (("--force",), "without --force resumes")):
        code, _, err = cli(*arguments(world, tmp_path, *more))
        assert code == 130 and words in err


def test_an_attempt_that_finished_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(Progress):
        def emit(self, event: str, **values: object) -> None:
            said.append((event, values.get("cached")))

    said: list[tuple[str, object]] = []
    monkeypatch.setattr(main, "_attempt", lambda *_: 1 / 0)
    folder = store.folder_of(tmp_path, ok(spec()))
    store.write(folder, {**ok(spec()), "attempts": 2})
    assert main._run(Job(spec(), str(folder), force=True, attempt=2), folder, Silent(None)) == 0
    assert said == [("end", True)]
