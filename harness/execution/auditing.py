"""Which finished runs lack an audit, and how it is made up for."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from click import echo

from harness.errors import HarnessError
from harness.execution.options import Execution
from harness.planning.plan import CACHED, TODO, Planned
from harness.planning.request import Request
from harness.records import store
from harness.system.redact import mask, readable

if TYPE_CHECKING:
    from harness.worker.deploy.audit import Where

EVERY = 2.0
"""Seconds between lines of progress."""


def where(request: Request, execution: Execution, threads: int = 0) -> Where:
    """Returns the folders and resources of a request for an audit in this process."""
    from harness.worker.deploy.audit import Where

    return Where(
        results=request.results,
        data_root=Path(request.paths.data_root or "."),
        cache=Path(request.paths.cache) if request.paths.cache else None,
        plugins=request.plugins,
        data_options=request.dataset_options,
        device=request.device,
        workers=execution.workers,
        threads=threads,
    )


def finished(cells: Sequence[Planned], request: Request, execution: Execution) -> None:
    """Audits the finished runs of a plan that lack an asked audit, from their checkpoints; says which have none."""
    for cell in cells:
        try:
            if cell.state == CACHED and (missing := lacking(cell.folder, execution.audit)):
                _audit(cell, missing, request, execution)
        except HarnessError as error:  # the other runs go on
            echo(f"Run {cell.spec.run_id[:12]} is not audited: {error}")


def _audit(cell: Planned, checks: Sequence[str], request: Request, execution: Execution) -> None:
    from harness.worker.deploy.audit import of_run

    name = cell.spec.run_id[:12]
    if not (cell.folder / "checkpoint.pt").is_file():
        echo(f"Run {name} is not audited, because it has no checkpoint here. Pass --force to repeat it.")
        return
    datasets = [cell.spec.dataset, *(name for name, _ in cell.spec.evaluate_on)]
    of_run("", cell.spec.run_id, datasets, checks, where(request, execution), Printer(f"{name}, "))


def lacking(folder: Path, checks: Sequence[str]) -> list[str]:
    """Returns the audits that a finished run does not have on its own dataset."""
    record = store.read(folder)
    own = record["spec"]["dataset"]
    there = {block["check"] for block in record.get("audits") or () if block["dataset"] == own}
    return [name for name in checks if name not in there]


def again(cell: Planned, checks: Sequence[str]) -> tuple[Planned, tuple[str, ...]]:
    """Returns a scored file as a run to do, with the audits that it has and those that it lacks."""
    record = store.read(cell.folder)
    there = [block["check"] for block in record.get("audits") or ()]
    return replace(cell, state=TODO), tuple(dict.fromkeys([*there, *checks]))


def send(request: Request, execution: Execution, folder: Path) -> None:
    """Sends a changed record to MLflow if its results are tracked; says so if the server cannot be reached."""
    from harness import tracking

    if not execution.mlflow or not (execution.mlflow_uri or tracking.is_tracked(request.results)):
        return
    try:
        uri = tracking.used_address(request.results, execution.mlflow_uri)
        tracking.send_missing(request.results, uri, [folder], "audit", {"command": "audit"})
    except HarnessError as error:
        echo(f"{mask(str(error))} {tracking.LATER}")


class Printer:
    """Prints the progress of audits, at most every two seconds, and all warnings.

    Args:
        start: what precedes each line.
    """

    def __init__(self, start: str = "") -> None:
        self._start, self._last, self._audit = start, time.monotonic(), "features"

    def __call__(self, event: str, **values: Any) -> None:
        if event == "warning":
            echo(f"  {readable(values['text'])}")
            return
        self._audit = str(values.get("audit", self._audit))
        if time.monotonic() - self._last < EVERY:
            return
        self._last = time.monotonic()
        parts = [f"{self._start}{self._audit}"]
        if "audits" in values:
            parts.append(f"audit {values['audits_done'] + 1} of {values['audits']}")
        if values.get("stage") == "decode":
            parts.append(f"{values['done']:,}/{values['total']:,} images decoded")
        if "images_per_second" in values:
            parts.append(
                f"{values['images_per_second']:.0f} images/s, {values['seconds_left']:.0f} s left in this pass"
            )
        if "passes" in values:
            parts.append(f"pass {values['passes_done']} of {values['passes']}")
        echo(f"  {', '.join(parts)}")
