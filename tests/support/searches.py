"""A search whose objective is a formula: the real driver, sampler, stopping rule and files, but no training."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace

from harness.planning.plan import TODO, Planned
from harness.records import store
from harness.spec.job import Job, run_folder
from harness.tuning import space as spaces
from harness.tuning import state
from harness.tuning.asha import Asha
from harness.tuning.space import Point
from harness.tuning.state import Search, Settings
from harness.tuning.trial_source import SearchTrials
from tests.support import record_samples as samples

EPOCHS = 9
OPTIMUM = {"intra": 0.4, "inter": 0.12, "temperature": 0.25}


class Killed(Exception):
    """The driver dies here."""


def new_search(sampler: str = "tpe", seed: int = 0, samples_: int = 40, factor: int = 3) -> Search:
    spec = samples.spec("pixels", purpose="search", holdout={"seed": 0, "share": 0.3})
    settings = Settings(sampler=sampler, seed=seed, asha=Asha(EPOCHS, 0, factor), samples=samples_, final_seeds=(0, 1))
    return Search(spaces.load("ratr"), settings, spec)


def final_score(point: Point) -> float:
    """Held-out mAP after the last epoch: a smooth hill of height 1 at OPTIMUM."""
    space = spaces.load("ratr")
    here, top = space.positions(point), space.positions(OPTIMUM)
    return float(np.exp(-sum(w * (here[n] - top[n]) ** 2 for n, w in zip(here, (6, 3, 2), strict=True))))


def plan_in(results: Path, search: Search) -> Callable[[Point], Planned]:
    def plan(point: Point) -> Planned:
        spec = replace(search.spec, values={**search.spec.values, "loss": dict(point)})
        return Planned(spec, TODO, "", run_folder(results, spec))

    return plan


def play(
    search: Search, results: Path, *, die_after: int = 10**9, status: Callable[[Point], str] = lambda point: "ok"
) -> list[str]:
    """Continues a search, one trial after the other; returns the ids of the started runs.

    Args:
        search: the search.
        results: folder of the records.
        die_after: number of events after which the driver dies.
        status: final status of a trial.
    """
    left, started = [die_after], []

    def tick() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed

    def job(cell: Planned) -> Job:
        return Job(cell.spec, str(cell.folder))

    driver = SearchTrials(search, results, plan_in(results, search), job, threading.Event())
    while (job_ := driver.next()) is not None:
        started.append(job_.spec.run_id)
        tick()
        train(driver, job_, tick, status(job_.spec.values["loss"]))
    return started


def train(driver: SearchTrials, job: Job, tick: Callable[[], None], status: str) -> None:
    """Simulates a run: metrics and a checkpoint every epoch, then a record."""
    folder = Path(job.folder)
    folder.mkdir(parents=True, exist_ok=True)
    metrics, checkpoint = folder / "metrics.jsonl", folder / "checkpoint.pt"
    first = int(checkpoint.read_text()) if checkpoint.exists() else 0
    score = 0.7 * final_score(job.spec.values["loss"])
    for epoch in range(first + 1, EPOCHS + 1):
        value = score * (1 - 0.5 ** (1 + epoch / 3))
        with metrics.open("a") as file:
            file.write(json.dumps({"epoch": epoch, "mAP": value}) + "\n")
        checkpoint.write_text(str(epoch))
        tick()
        if driver.event(job, {"event": "epoch", "epoch": epoch, "metrics": {"mAP": value}}):
            status = "interrupted"
            break
        tick()
    record: dict[str, Any] = {**samples.failed(job.spec, status), "source": "search", "stage": "train"}
    if status == "ok":
        value = score * (1 - 0.5 ** (1 + EPOCHS / 3))
        record = samples.ok(job.spec, samples.evaluation(mAP=value), source="search")
    store.write(folder, record)
    tick()
    driver.event(job, {"event": "finished", "status": status})


def reload(results: Path, search: Search) -> Search:
    """Returns the search as a new driver reads it."""
    return state.resume(results, new_search(search.settings.sampler, search.settings.seed, search.settings.samples))
