"""What is kept of a search: `results/searches/<id>/search.json`, replaced whole after every change.

The id is a hash of all that makes trials comparable, so the same command goes on with the same search, here or on
another machine that has the folder, and another search has another file. More samples belong to the same search.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from harness.cards import from_table
from harness.errors import RecordError, UsageError
from harness.spec.job import slug
from harness.spec.run_spec import RunSpec, canonical
from harness.system import files
from harness.tuning.asha import Asha
from harness.tuning.sampler import Known
from harness.tuning.space import Point, Space, rename

FOLDER = "searches"
FILE = "search.json"
VERSION = 2
"""Of the file. Version 1 had other names for some keys; it is still read."""

FORMER_ASHA_KEYS = {"grace": "grace_period", "factor": "reduction_factor"}
"""Former names of settings. They are still read, and ids are made of them."""

RUNNING, FINISHED, STOPPED, DIVERGED, FAILED = "running", "finished", "stopped", "diverged", "failed"
"""States of a trial. `running` means not ended: such a trial resumes from its checkpoint when the search does."""


class Trial(msgspec.Struct, forbid_unknown_fields=True):
    """One point that was tried.

    Attributes:
        number: from zero, in the order of asking.
        point: values by parameter name.
        run_id: run that trains it.
        name: of a named point, or empty.
        state: see above.
        reason: why it did not finish.
        value: held-out mAP after the last epoch of a finished trial; 0 for one that diverged.
        curve: held-out mAP by epoch.
        stopped_after: the rung at which it was told to stop; a few more epochs may have been done until it did.
    """

    number: int
    point: Point
    run_id: str
    name: str = ""
    state: str = RUNNING
    reason: str = ""
    value: float | None = None
    curve: dict[int, float] = {}
    stopped_after: int = 0

    @property
    def epochs(self) -> int:
        """Epochs that were spent on it."""
        return max(self.curve, default=0)

    def known(self) -> Known:
        """What the sampler may know of it."""
        return Known(self.point, self.value, self.curve, self.state == RUNNING)


class Final(msgspec.Struct, forbid_unknown_fields=True):
    """A chosen point, trained on the whole training set: one run a seed, scored once on the test split."""

    name: str
    point: Point
    run_ids: list[str]


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How is searched. `samples` and `final_seeds` may grow from one call to the next, the rest makes the id."""

    sampler: str = "tpe"
    seed: int = 0
    asha: Asha = Asha(1)
    samples: int = 40
    final_seeds: tuple[int, ...] = (0, 1, 2)


class Holdout(NamedTuple):
    """Which training identities trials are scored on."""

    seed: int
    fraction: float


@dataclass
class Search:
    """A search and its trials.

    Attributes:
        space: what is searched.
        settings: how.
        spec: a trial's run spec without a point laid over it; tells data, backbone, recipe and versions.
        trials: in the order of their numbers.
        finals: the chosen points, once the search is over.
    """

    space: Space
    settings: Settings
    spec: RunSpec
    trials: list[Trial] = field(default_factory=list)
    finals: list[Final] = field(default_factory=list)

    @property
    def id(self) -> str:
        """`<space>-<backbone>-<dataset>-<hash>`: a name for people and for the folder."""
        asha = rename(msgspec.to_builtins(self.settings.asha), {new: old for old, new in FORMER_ASHA_KEYS.items()})
        fixed = msgspec.to_builtins(msgspec.structs.replace(self.settings, samples=0, final_seeds=()))
        content = canonical(
            [1, self.space.identity(), fixed | {"asha": asha, "holdout": self.spec.holdout}, self.spec.to_dict()]
        )
        digest = hashlib.sha256(content.encode()).hexdigest()[:10]
        return "-".join(slug(part) for part in (self.space.name, self.spec.backbone, self.spec.dataset, digest))

    @property
    def holdout(self) -> Holdout:
        """Which training identities trials are scored on."""
        held = self.spec.holdout or {}
        return Holdout(int(held["seed"]), float(held["share"]))

    @property
    def best(self) -> Trial | None:
        """The finished trial with the highest held-out mAP; of equals the first."""
        finished = [trial for trial in self.trials if trial.state == FINISHED]
        return max(finished, key=lambda trial: (trial.value or 0.0, -trial.number), default=None)

    @property
    def epochs(self) -> tuple[int, int]:
        """Epochs that were spent on all trials, and what they would be if no trial was stopped."""
        return sum(trial.epochs for trial in self.trials), len(self.trials) * self.settings.asha.epochs

    def trial(self, run_id: str) -> Trial:
        """The trial of a run."""
        return next(trial for trial in self.trials if trial.run_id == run_id)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        trials = [msgspec.to_builtins(trial) | {"curve": sorted(trial.curve.items())} for trial in self.trials]
        return {
            "version": VERSION,
            "id": self.id,
            "space": self.space.to_dict(),
            "settings": msgspec.to_builtins(self.settings),
            "spec": self.spec.to_dict(),
            "trials": trials,
            "finals": [msgspec.to_builtins(final) for final in self.finals],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Search:
        """Inverse of `to_dict`."""
        how = {key: value for key, value in data["settings"].items() if key != "holdout"}  # version 1 had it twice
        how["asha"] = rename(how["asha"], FORMER_ASHA_KEYS)
        space, settings = Space.from_dict(data["space"]), from_table(Settings, how, "settings")
        curves = [{int(epoch): value for epoch, value in trial["curve"]} for trial in data["trials"]]
        both = zip(data["trials"], curves, strict=True)
        trials = [from_table(Trial, {**trial, "curve": curve}, "trials") for trial, curve in both]
        finals = [from_table(Final, final, "finals") for final in data["finals"]]
        for point in [trial.point for trial in trials] + [final.point for final in finals]:
            space.positions(point)
        search = cls(space, settings, RunSpec.from_dict(data["spec"]), trials, finals)
        search.holdout  # noqa: B018  refuses a file without it
        return search


def path_of(results: Path, identity: str) -> Path:
    """Where a search is kept."""
    return results / FOLDER / identity / FILE


def write(results: Path, search: Search) -> None:
    """Keeps a search, whole or not at all.

    Raises:
        RecordError: the disk did not take it.
    """
    path = path_of(results, search.id)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(path, search.to_dict())
    except OSError as error:
        reason = error.strerror or error
        raise RecordError(
            f"{path} could not be written ({reason}); free space, and start the command again."
        ) from error


def read(path: Path) -> Search:
    """Reads a search.

    Raises:
        RecordError: the file is damaged, or was written by another version.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if not 1 <= data["version"] <= VERSION:
            raise RecordError(f"{path} has version {data['version']}; this harness reads up to {VERSION}: update it.")
        return Search.from_dict(data)
    except (OSError, ArithmeticError, ValueError, TypeError, LookupError, AttributeError, UsageError) as error:
        raise RecordError(f"{path} is damaged ({error}); delete it, the search then starts from its runs.") from error
    except RecursionError as error:
        raise RecordError(f"{path} is damaged ({error}); delete it, the search then starts from its runs.") from error


def resume(results: Path, search: Search) -> Search:
    """The search as it was left, with the samples and final seeds asked for now; or the new one.

    Raises:
        RecordError: what was left is damaged.
    """
    if not (path := path_of(results, search.id)).is_file():
        return search
    left = read(path)
    return replace(search, trials=left.trials, finals=left.finals)


def every(results: Path) -> Iterator[Path]:
    """Files of all searches, in order."""
    yield from sorted((results / FOLDER).glob(f"*/{FILE}"))


@contextlib.contextmanager
def exclusive(results: Path, identity: str) -> Iterator[None]:
    """Holds a search; a second driver of the same search is refused.

    Raises:
        UsageError: another process holds it, or the disk takes no files.
    """
    folder = path_of(results, identity).parent
    with contextlib.ExitStack() as lock:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.enter_context(files.locked(folder / ".lock", wait=False))
        except BlockingIOError as error:
            raise UsageError(f"Another process works on search {identity}; wait for it or end it.") from error
        except OSError as error:
            reason = error.strerror or error
            raise UsageError(f"{folder} takes no files ({reason}); free space, or choose --results.") from error
        yield
