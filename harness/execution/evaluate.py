"""Scores a checkpoint or stored features: one run without training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from click import echo

from harness.errors import UsageError
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
    """Scores one file on one dataset; what was scored before is not scored again.

    Args:
        backbone: the backbone of the checkpoint; with features any name for the row.
        dataset: the dataset to score on.
        checkpoint: a checkpoint of the original code or of a run.
        features: a file or folder with features of query and gallery.
        trust_pickle: allow a file that runs code when it is read.
        given: further settings, as of `resolve`, `threads`, and `camera_embedding`, which may be `mean` here.

    Raises:
        UsageError: not exactly one file, or an option that contradicts it.
        WeightsError: the file does not fit.
        DataError: the dataset cannot be read.
    """
    if bool(checkpoint) == bool(features):
        raise UsageError("Give either --checkpoint FILE or --features FILE.")
    path = Path(paths.expand(checkpoint or features)).absolute()
    if not (path.is_file() or (features and path.is_dir())):
        raise UsageError(f"{path} does not exist.")
    cameras = str(given.get("camera_embedding") or "")
    fixed = {"from_scratch": True, "seeds": 0, "camera_embedding": "" if cameras == "mean" else cameras}
    asked = resolve(backbone, dataset, {**given, **fixed}, others=["threads"])
    if checkpoint:
        # Without the preset, which nobody typed option by option.
        own = {name: value for name, value in given.items() if name != "preset"}
        typed = resolve(backbone, dataset, {**own, **fixed}, others=["threads"]).request
        cell = input_file.plan_checkpoint(
            asked.request, typed, path, camera_embedding=cameras, trust_pickle=trust_pickle
        )
    elif cameras:
        raise UsageError("--camera-embedding is of a checkpoint; stored features are scored as they are.")
    else:
        cell = input_file.plan_features(asked.request, path)
    if cell.state == CACHED:
        echo("Scored before, with the same file, data and settings; --force scores it again.")
    threads = asked.others.get("threads") or processes.cores()
    execution = replace(asked.execution, scheduler="local", cpus_per_run=threads, max_concurrent=1)
    return run(asked.request, [cell], execution)
