"""Scores a checkpoint or stored features: one run without training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from click import echo

from harness.errors import UsageError
from harness.execution import auditing
from harness.execution.run import Outcome, run
from harness.execution.settings import resolve
from harness.planning import input_file
from harness.planning.plan import CACHED
from harness.system import paths, processes


def evaluate(
    backbone: str,
    dataset: str,
    *,
    checkpoint: str = "",
    features: str = "",
    trust_pickle: bool = False,
    given: Mapping[str, Any],
) -> Outcome:
    """Scores one checkpoint or feature file on one dataset, unless there is a record of it already.

    Args:
        backbone: the backbone of the checkpoint; with features any name for the row.
        dataset: the dataset to score on.
        checkpoint: a checkpoint of the original code or of a run.
        features: a file or folder with features of query and gallery.
        trust_pickle: allow a pickle file, which runs code when it is loaded.
        given: settings of `resolve`, `threads`, and `camera_embedding`, which may be `mean` here.

    Raises:
        UsageError: not exactly one of checkpoint and features, or an option that contradicts it.
        WeightsError: the file does not fit the backbone or the dataset.
        DataError: the dataset cannot be read.
    """
    if bool(checkpoint) == bool(features):
        raise UsageError("Pass either --checkpoint FILE or --features FILE.")
    path = Path(paths.expand(checkpoint or features)).absolute()
    if not (path.is_file() or (features and path.is_dir())):
        raise UsageError(f"The {'checkpoint' if checkpoint else 'feature file'} {path} does not exist.")
    cameras = str(given.get("camera_embedding") or "")
    fixed = {"from_scratch": True, "seeds": 0, "camera_embedding": "" if cameras == "mean" else cameras}
    asked = resolve(backbone, dataset, {**given, **fixed}, grid=False, others=["threads"])
    if checkpoint:
        # Resolved again without the preset, to know which options the user chose.
        own = {name: value for name, value in given.items() if name != "preset"}
        typed = resolve(backbone, dataset, {**own, **fixed}, grid=False, others=["threads"]).request
        cell = input_file.plan_checkpoint(
            asked.request, typed, path, camera_embedding=cameras, trust_pickle=trust_pickle
        )
    elif cameras:
        raise UsageError("--camera-embedding applies to checkpoints only; stored features are scored unchanged.")
    else:
        cell = input_file.plan_features(asked.request, path)
    execution, request = asked.execution, asked.request
    if cell.state == CACHED and auditing.lacking(cell.folder, execution.audit):
        cell, checks = auditing.again(cell, execution.audit)
        execution, request = replace(execution, audit=checks), replace(request, force=True)
    if cell.state == CACHED:
        echo("Already scored with the same file, data and settings. Pass --force to score it again.")
    threads = asked.others.get("threads") or processes.cores()
    execution = replace(execution, scheduler="local", cpus_per_run=threads, max_concurrent=1)
    return run(request, [cell], execution)
