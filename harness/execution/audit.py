"""Audits trained networks: those of finished runs from their checkpoints, other checkpoints by scoring them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import audits
from harness.errors import HarnessError, UsageError, unknown
from harness.execution import evaluate as evaluation
from harness.execution.auditing import Printer, send, where
from harness.execution.options import Execution
from harness.planning import request as requests
from harness.records import store

OF_A_RUN = ("results", "data_root", "cache", "plugins", "data_options", "device", "workers", "mlflow", "mlflow_uri")
"""Settings of an audit of a run, beside `threads`; everything else is that of the run."""


def audit(
    backbone: str,
    dataset: str,
    checks: Any,
    *,
    checkpoint: str = "",
    run: str = "",
    trust_pickle: bool = False,
    given: Mapping[str, Any],
) -> tuple[Path, list[dict[str, Any]]]:
    """Audits one network; returns the folder of its record and the blocks of the asked audits; see `harness.audit`."""
    if bool(checkpoint) == bool(run):
        raise UsageError("Name a trained network: pass either --run ID or --checkpoint FILE with --backbone NAME.")
    if run and trust_pickle:
        raise UsageError("The checkpoint of a run holds no code. Leave out --trust-pickle.")
    names = audits.parse(checks or True)
    if run:
        return _of_run(backbone, run, dataset, names, given)
    if not backbone or not dataset or "," in dataset:
        raise UsageError("A checkpoint needs its backbone (--backbone NAME) and one dataset (--dataset NAME).")
    settings = {**given, "audit": names}
    if (size := settings.pop("image_size", None)) is not None:
        settings["overrides"] = {**settings.get("overrides", {}), "augmentation.image_size": list(size)}
    outcome = evaluation.evaluate(backbone, dataset, checkpoint=checkpoint, trust_pickle=trust_pickle, given=settings)
    (folder,) = outcome.finished()
    record = store.read(folder)
    if record["error"]:
        raise HarnessError(str(record["error"]["message"]))
    return folder, [dict(block) for block in record.get("audits") or () if block["check"] in names]


def _of_run(
    backbone: str, run: str, dataset: str, names: Sequence[str], given: Mapping[str, Any]
) -> tuple[Path, list[dict[str, Any]]]:
    from harness.worker.deploy.audit import of_run

    for name in given:
        if name not in (*OF_A_RUN, "threads"):
            raise unknown("setting of an audit of a run", name, [*OF_A_RUN, "threads"])
    execution = Execution.of({key: given[key] for key in ("workers", "mlflow", "mlflow_uri") if key in given})
    request = requests.make(backbone or "all", dataset or "all", given)
    datasets = [name.strip() for name in dataset.split(",") if name.strip()]
    here = where(request, execution, int(given.get("threads") or 0))
    folder, found = of_run(backbone, run, datasets, names, here, Printer())
    send(request, execution, folder)
    return folder, found
