"""The state of a search: `results/searches/<id>/search.json`, replaced atomically after every change.

The id is a hash of everything that affects the trials. The same command therefore resumes the same search, also on
another machine with a copy of the folder. A change in the number of samples or in the final seeds keeps the id.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from harness.cards import from_table
from harness.errors import RecordError, UsageError
from harness.spec.job import slug
from harness.spec.run_spec import RunSpec, canonical
from harness.system import files
from harness.tuning.asha import Asha
from harness.tuning.sampler import Known, suggest
from harness.tuning.space import Point, Space, rename

FOLDER = "searches"
FILE = "search.json"
VERSION = 2
"""Version of the file. Version 1 has other names for some keys and can still be read."""

FORMER_ASHA_KEYS = {"grace": "grace_period", "factor": "reduction_factor"}
"""Former names of settings. They can still be read, and ids are computed from them."""

State = Literal["running", "finished", "stopped", "diverged", "failed"]
"""How a trial ended. A `running` trial has not; it resumes from its checkpoint when the search is resumed."""

RUNNING: State = "running"
FINISHED: State = "finished"
STOPPED: State = "stopped"
DIVERGED: State = "diverged"
FAILED: State = "failed"

DAMAGE = (OSError, ArithmeticError, ValueError, TypeError, LookupError, AttributeError, RecursionError, UsageError)
"""What reading a damaged file can raise."""


class Trial(msgspec.Struct, forbid_unknown_fields=True):
    """One trial of a search.

    Attributes:
        number: counts from zero, in order of creation.
        point: values by parameter name.
        run_id: id of its run.
        name: name of a named point, or empty.
        state: `running`, `finished`, `stopped`, `diverged` or `failed`.
        reason: why it did not finish.
        value: held-out mAP after the last epoch of a finished trial; 0 for a diverged one.
        curve: held-out mAP by epoch.
        stopped_after: rung, in epochs, at which it was asked to stop; it may have run a few more epochs.
    """

    number: int
    point: Point
    run_id: str
    name: str = ""
    state: State = RUNNING
    reason: str = ""
    value: float | None = None
    curve: dict[int, float] = {}
    stopped_after: int = 0

    @property
    def epochs(self) -> int:
        """Number of epochs it has run."""
        return max(self.curve, default=0)

    def known(self) -> Known:
        """The trial as the sampler needs it."""
        return Known(self.point, self.value, self.curve, self.state == RUNNING)


class Final(msgspec.Struct, forbid_unknown_fields=True):
    """A chosen point and its final runs, one per seed: trained on the whole training set, scored on the test split."""

    name: str
    point: Point
    run_ids: list[str]


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of a search. `samples` and `final_seeds` may change between calls; the others are part of the id.

    `tuned` marks a study of `run --recipe tuned`, where `samples` is part of the id too. Ids and files of other
    searches leave it out.
    """

    sampler: str = "tpe"
    seed: int = 0
    asha: Asha = Asha(1)
    samples: int = 40
    final_seeds: tuple[int, ...] = (0, 1, 2)
    tuned: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Converts to plain data for JSON."""
        return {key: value for key, value in msgspec.to_builtins(self).items() if key != "tuned" or value}


class Holdout(NamedTuple):
    """Selects the training identities that trials are scored on: a random fraction with a seed."""

    seed: int
    fraction: float


@dataclass
class Search:
    """A search and its trials.

    Attributes:
        space: the search space.
        settings: sampler, early stopping and numbers of trials.
        spec: run spec of a trial before any point is applied: data, backbone, recipe and versions.
        trials: all trials, in order of their numbers.
        finals: the chosen points, after the search.
        estimate: expected duration of all its runs, in seconds; None if nothing was measured.
    """

    space: Space
    settings: Settings
    spec: RunSpec
    trials: list[Trial] = field(default_factory=list)
    finals: list[Final] = field(default_factory=list)
    estimate: float | None = None

    @property
    def id(self) -> str:
        """`<space>-<backbone>-<dataset>-<hash>`, also the name of the folder."""
        asha = rename(msgspec.to_builtins(self.settings.asha), {new: old for old, new in FORMER_ASHA_KEYS.items()})
        samples = self.settings.samples if self.settings.tuned else 0  # another budget is another study
        fixed = msgspec.structs.replace(self.settings, samples=samples, final_seeds=()).to_dict()
        content = canonical(
            [1, self.space.identity(), fixed | {"asha": asha, "holdout": self.spec.holdout}, self.spec.to_dict()]
        )
        digest = hashlib.sha256(content.encode()).hexdigest()[:10]
        return "-".join(slug(part) for part in (self.space.name, self.spec.backbone, self.spec.dataset, digest))

    @property
    def holdout(self) -> Holdout:
        """Selects the training identities that trials are scored on."""
        held = self.spec.holdout or {}
        return Holdout(int(held["seed"]), float(held["share"]))

    @property
    def best(self) -> Trial | None:
        """The finished trial with the highest held-out mAP; of equal ones, the first."""
        finished = [trial for trial in self.trials if trial.state == FINISHED]
        return max(finished, key=lambda trial: (trial.value or 0.0, -trial.number), default=None)

    @property
    def epochs(self) -> tuple[int, int]:
        """Epochs run by all trials, and the epochs if no trial had been stopped."""
        return sum(trial.epochs for trial in self.trials), len(self.trials) * self.settings.asha.epochs

    def points(self) -> list[Point]:
        """Points of the trials so far, and those still to be drawn; fewer than the samples if the space has no more."""
        points, samples = [trial.point for trial in self.trials], self.settings.samples
        while len(points) < samples:
            known, number = [Known(point) for point in points], len(points)
            drawn = suggest(self.space, "random", seed=self.settings.seed, number=number, samples=samples, known=known)
            if drawn is None:
                break
            points.append(drawn)
        return points

    def trial(self, run_id: str) -> Trial:
        """Returns the trial of a run."""
        return next(trial for trial in self.trials if trial.run_id == run_id)

    def to_dict(self) -> dict[str, Any]:
        """Converts to plain data for JSON."""
        trials = [msgspec.to_builtins(trial) | {"curve": sorted(trial.curve.items())} for trial in self.trials]
        return {
            "version": VERSION,
            "id": self.id,
            "space": self.space.to_dict(),
            "settings": self.settings.to_dict(),
            "spec": self.spec.to_dict(),
            "trials": trials,
            "finals": [msgspec.to_builtins(final) for final in self.finals],
            **({"estimate": self.estimate} if self.estimate is not None else {}),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Search:
        """Inverse of `to_dict`."""
        how = {key: value for key, value in data["settings"].items() if key != "holdout"}  # in version 1 only
        how["asha"] = rename(how["asha"], FORMER_ASHA_KEYS)
        space, settings = Space.from_dict(data["space"]), from_table(Settings, how, "settings")
        curves = [{int(epoch): value for epoch, value in trial["curve"]} for trial in data["trials"]]
        both = zip(data["trials"], curves, strict=True)
        trials = [from_table(Trial, {**trial, "curve": curve}, "trials") for trial, curve in both]
        finals = [from_table(Final, final, "finals") for final in data["finals"]]
        for point in [trial.point for trial in trials] + [final.point for final in finals]:
            space.positions(point)
        search = cls(space, settings, RunSpec.from_dict(data["spec"]), trials, finals, data.get("estimate"))
        search.holdout  # noqa: B018  raises if it is missing
        return search


def path_of(results: Path, identity: str) -> Path:
    """Path of the file of a search."""
    return results / FOLDER / identity / FILE


def write(results: Path, search: Search) -> None:
    """Writes a search atomically.

    Raises:
        RecordError: the file could not be written.
    """
    path = path_of(results, search.id)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(path, search.to_dict())
    except OSError as error:
        reason = error.strerror or error
        raise RecordError(f"Cannot write {path} ({reason}). Free some space, then start the command again.") from error


def read(path: Path) -> Search:
    """Reads a search.

    Raises:
        RecordError: the file is damaged, or was written by another version.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if not 1 <= data["version"] <= VERSION:
            raise RecordError(
                f"{path} has version {data['version']}, but this harness reads up to version {VERSION}; update it."
            )
        return Search.from_dict(data)
    except DAMAGE as error:
        raise RecordError(f"{path} is damaged ({error}). Delete it; the search reuses its finished runs.") from error


def resume(results: Path, search: Search) -> Search:
    """Loads the trials of a search with the same id, if there is one; settings are those of `search`.

    Raises:
        RecordError: the search file is damaged.
    """
    if not (path := path_of(results, search.id)).is_file():
        return search
    stored = read(path)
    estimate = search.estimate if stored.estimate is None else stored.estimate
    return replace(search, trials=stored.trials, finals=stored.finals, estimate=estimate)


def every(results: Path) -> Iterator[Path]:
    """Paths of all search files, sorted."""
    yield from sorted((results / FOLDER).glob(f"*/{FILE}"))


@contextlib.contextmanager
def exclusive(results: Path, identity: str) -> Iterator[None]:
    """Holds the lock of a search, so that only one driver works on it.

    Raises:
        UsageError: another process holds it, or the folder is not writable.
    """
    folder = path_of(results, identity).parent
    with contextlib.ExitStack() as lock:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.enter_context(files.locked(folder / ".lock", wait=False))
        except BlockingIOError as error:
            raise UsageError(
                f"Another process is working on the search {identity}. Wait until it ends, or stop it."
            ) from error
        except OSError as error:
            reason = error.strerror or error
            raise UsageError(
                f"Cannot write to {folder} ({reason}). Free some space, or choose another folder with --results."
            ) from error
        yield
