"""A job: a run, the folder its results go to, and where this machine keeps things. Only the run is in the key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from harness.cards import from_table
from harness.errors import HarnessError, RecordError
from harness.spec.run_spec import RunSpec


class LocalPaths(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where this machine keeps data, weights, caches and outside plug-ins; none of it changes a number."""

    data_root: str = ""
    weights_root: str = ""
    cache: str = ""
    plugins: str = ""


class Job(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `run-one` reads: `job.json` in the run's folder.

    Attributes:
        spec: the run.
        folder: absolute path of the run's folder; the record, log and checkpoint are written there.
        paths: folders of this machine.
        threads: CPU threads of the run.
        workers: loader processes.
        allow_count_mismatch: go on when counts differ from the card; kept in the record.
        trust_pickle: the user allowed checkpoints that run code when loaded.
        force: run again although a finished record is there.
        input_file: a checkpoint or feature file to score instead of training.
        attempt: how often this run was started, this one included.
        ray_trial_id: trial that runs the job, or empty.
        asked: what the user typed, for the record: recipe, build options, recipe keys.
    """

    spec: RunSpec
    folder: str
    paths: LocalPaths = LocalPaths()
    threads: int = 1
    workers: int = 0
    allow_count_mismatch: bool = False
    trust_pickle: bool = False
    force: bool = False
    input_file: str = ""
    attempt: int = 1
    ray_trial_id: str = ""
    asked: dict[str, Any] = {}

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {**msgspec.to_builtins(self), "spec": self.spec.to_dict()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Job:
        """Inverse of `to_dict`."""
        return from_table(cls, data, "job")

    @classmethod
    def read(cls, path: Path) -> Job:
        """Reads `job.json`.

        Raises:
            RecordError: it is missing or damaged.
        """
        try:
            return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, RecursionError, HarnessError) as error:
            raise RecordError(f"{path} cannot be read: {error}") from error


def slug(name: str) -> str:
    """File-system form of a backbone or dataset name; the run id, not the name, makes a folder unique."""
    return "".join(c if c.isalnum() or c in "-_." else "+" for c in name).strip(".") or "+"


def run_folder(results: Path, spec: RunSpec) -> Path:
    """`results/<dataset>/<backbone>/<run_id[:12]>`."""
    return results / slug(spec.dataset) / slug(spec.backbone) / spec.run_id[:12]
