"""A job: a run spec, its results folder and the paths of this machine. Only the run spec determines the run id."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from harness.cards import from_table
from harness.errors import HarnessError, RecordError
from harness.spec.run_spec import RunSpec


class LocalPaths(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Folders of data, weights, caches and external plug-ins on this machine. They do not affect results."""

    data_root: str = ""
    weights_root: str = ""
    cache: str = ""
    plugins: str = ""


class Job(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of `job.json` in the run's folder, which `run-one` reads.

    Attributes:
        spec: run spec.
        folder: absolute path of the run's folder, for the record, the log and the checkpoint.
        paths: folders of this machine.
        threads: number of CPU threads of the run.
        workers: number of threads that load images.
        processes: number of processes that train together, each with its own threads and, on GPUs, its own GPU.
        allow_count_mismatch: continue if counts differ from the card; noted in the record.
        trust_pickle: allow checkpoints that run code when loaded.
        force: run again even if a finished record exists.
        input_file: checkpoint or feature file to score instead of training.
        attempt: number of this attempt, counted from 1.
        ray_trial_id: id of the Ray trial that runs the job, or empty.
        audits: names of the audits that follow the evaluation.
        asked: what the user passed, for the record: recipe, build options, recipe keys.
    """

    spec: RunSpec
    folder: str
    paths: LocalPaths = LocalPaths()
    threads: int = 1
    workers: int = 0
    processes: int = 1
    allow_count_mismatch: bool = False
    trust_pickle: bool = False
    force: bool = False
    input_file: str = ""
    attempt: int = 1
    ray_trial_id: str = ""
    audits: tuple[str, ...] = ()
    asked: dict[str, Any] = {}

    def to_dict(self) -> dict[str, Any]:
        """Returns the job as plain data for JSON."""
        return {**msgspec.to_builtins(self), "spec": self.spec.to_dict()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Job:
        """Rebuilds a job from `to_dict`."""
        return from_table(cls, data, "job")

    @classmethod
    def read(cls, path: Path) -> Job:
        """Reads `job.json`.

        Raises:
            RecordError: the file is missing or damaged.
        """
        try:
            return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, RecursionError, HarnessError) as error:
            raise RecordError(f"{path} cannot be read: {error}") from error


def slug(name: str) -> str:
    """Returns a backbone or dataset name as a folder name. It need not be unique: run folders contain the run id."""
    return "".join(c if c.isalnum() or c in "-_." else "+" for c in name).strip(".") or "+"


def run_folder(results: Path, spec: RunSpec) -> Path:
    """Returns `results/<dataset>/<backbone>/<run_id[:12]>`."""
    return results / slug(spec.dataset) / slug(spec.backbone) / spec.run_id[:12]
