"""The truth: one folder a run, `results/<dataset>/<backbone>/<run_id[:12]>/record.json`, written atomically.

Nothing here is shared between runs, so any number of machines may write at once. `results/.index.json` is a
cache of `index` alone: it may be deleted at any time, and it is left out where the folder is read-only.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import orjson

from harness.errors import RecordError
from harness.records.per_query import Rows
from harness.records.per_query import render as render_rows
from harness.records.schema import SCHEMA_VERSION, Record, validate
from harness.spec.job import run_folder, slug
from harness.spec.run_spec import RunSpec
from harness.system import files

RECORD = "record.json"
INDEX = ".index.json"
PLAN = "plan.json"
INDEX_VERSION = 1

MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""From a schema version to the next one; `read` applies them in turn, the file stays as it is."""

Problem = Callable[[RecordError], None]

_slug = functools.cache(slug)

_NUMBERS = re.compile(r"\[\n[-+.\deE,\s]+\]")  # a raw line break is never inside a JSON string

log = logging.getLogger(__name__)


class Entry(NamedTuple):
    """What a listing needs to know of a record. The last four are of the plain test after training."""

    path: str
    run_id: str
    backbone: str
    dataset: str
    recipe: str
    seed: int
    status: str
    stage: str | None
    message: str
    source: str
    seconds: float
    mAP: float | None
    rank1: float | None
    n_query: int | None
    n_valid: int | None


def write(folder: Path, record: Mapping[str, Any], per_query: Mapping[str, Rows] | None = None) -> Path:
    """Writes a record, and the per-query values its evaluations name, into the folder of the run.

    Each file replaces its predecessor whole and the record comes last, so a crash or a full disk leaves the
    former record readable.

    Args:
        folder: the run's folder, made if absent.
        record: a valid record.
        per_query: file name, as in `evaluations[].per_query`, to one row a query.

    Returns:
        Path of `record.json`.

    Raises:
        RecordError: the record is invalid, or the disk did not take it.
    """
    path = folder / RECORD
    try:
        text = render(record)
    except (TypeError, ValueError) as error:
        raise RecordError(f"The record for {path} is not plain JSON: {error}; a missing number is null.") from None
    parse(text, f"The record for {path}")  # what is written can be read
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, rows in (per_query or {}).items():
            files.replace(folder / name, render_rows(rows))
        files.replace(path, text)
    except OSError as error:
        reason = error.strerror or error
        raise RecordError(f"{path} could not be written ({reason}); what was there is kept.") from error
    return path


def render(record: Mapping[str, Any]) -> str:
    """Text of a record: sorted keys, one line per value, but a list of numbers on one line."""
    text = json.dumps(record, indent=1, sort_keys=True, allow_nan=False)
    return _NUMBERS.sub(lambda match: " ".join(match[0].split()).replace("[ ", "[").replace(" ]", "]"), text) + "\n"


def read(path: Path) -> Record:
    """Reads and checks a record; an older schema is migrated in memory.

    Args:
        path: a `record.json`, or the folder that holds it.

    Raises:
        RecordError: absent, truncated, invalid, or of a newer schema.
    """
    path = path / RECORD if path.is_dir() else path
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror}.") from error
    return parse(data, str(path))


def parse(data: bytes | str, where: str) -> Record:
    """Checks the text of a record, for example one that came from MLflow; `where` names it in errors."""
    try:
        record = orjson.loads(data)  # also refuses NaN, half a Unicode character and endless nesting
    except ValueError as error:
        raise RecordError(f"{where} is not valid JSON ({error}); it is damaged or truncated: run it again.") from None
    version = record.get("schema_version") if isinstance(record, dict) else None
    if not isinstance(version, int) or isinstance(version, bool):
        raise RecordError(f"{where} has no schema_version, so it is not a record of this harness.")
    if version > SCHEMA_VERSION:
        raise RecordError(
            f"{where} has schema version {version} but this harness reads up to {SCHEMA_VERSION}: update the harness."
        )
    while version < SCHEMA_VERSION:
        if version not in MIGRATIONS:
            raise RecordError(f"{where} has schema version {version}, which this harness cannot read.")
        record = {**MIGRATIONS[version](record), "schema_version": version + 1}
        version += 1
    try:
        problems = validate(record)
    except (ValueError, RecursionError) as error:  # numbers and letters that JSON can name but not hold
        raise RecordError(f"{where} holds what cannot be written down ({error}); run it again.") from None
    if problems:
        raise RecordError(f"{where} is invalid: {'; '.join(problems[:5])}.")
    return cast(Record, record)


def folder_of(results: Path, record: Mapping[str, Any]) -> Path:
    """The folder a record belongs to."""
    spec = record["spec"]
    return results / slug(spec["dataset"]) / slug(spec["backbone"]) / record["run_id"][:12]


def records(results: Path, problem: Problem | None = None, *, paths: Sequence[str] | None = None) -> Iterator[Record]:
    """Yields every readable record in order of path; the others go to `problem`, by default the log.

    Args:
        results: the results folder.
        problem: gets what cannot be read.
        paths: some of `paths_of(results)`; all by default.
    """
    for path in paths_of(results) if paths is None else paths:
        try:
            yield _read_in_place(results, Path(path))
        except RecordError as error:
            (problem or _warn)(error)


def find(results: Path, run: RunSpec | str) -> Record | None:
    """Returns the record of a run, given its spec (one look) or its run id (one look a backbone folder).

    Raises:
        RecordError: the record is there but cannot be read.
    """
    if isinstance(run, RunSpec):
        run_id, folders = run.run_id, [run_folder(results, run)]
    else:
        run_id, folders = run, sorted(results.glob(f"*/*/{run[:12]}"))
    for folder in folders:
        if (folder / RECORD).is_file() and (record := read(folder))["run_id"] == run_id:
            return record
    return None


def index(results: Path, problem: Problem | None = None) -> dict[str, Entry]:
    """Lists all records by run id, in order of path, reading only those that are new since the last call.

    A file counts as known while its time of change, size and inode stay the same.
    """
    known = _read_index(results)
    entries: dict[str, list[Any]] = {}
    for path in paths_of(results):
        relative = os.path.relpath(path, results)
        try:
            status = os.stat(path)
            stamp = [status.st_mtime_ns, status.st_size, status.st_ino]
            if (old := known.get(relative)) and old[0] == stamp:
                entries[relative] = old
            else:
                entries[relative] = [stamp, _entry(relative, _read_in_place(results, Path(path)))]
        except OSError:
            continue  # removed while we looked
        except RecordError as error:
            (problem or _warn)(error)
    if entries != known:
        _write_index(results, entries)
    return {(entry := Entry(*row)).run_id: entry for _, row in entries.values()}


def plain(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """The evaluation a run is known by: after training, on its own dataset, no flip, no re-ranking; or the first."""
    own = [e for e in record["evaluations"] if e["trained"] and e["dataset"] == record["spec"]["dataset"]]
    return cast("dict[str, Any] | None", min(own, key=lambda e: (e["rerank"], e["flip"]), default=None))


def write_plan(results: Path, cells: Sequence[Mapping[str, Any]]) -> None:
    """Remembers what was planned but could not run, so that the report can say so.

    Args:
        results: the results folder.
        cells: one mapping a planned run with `backbone`, `dataset`, `recipe`, `state` and `reason`. They replace
            what was remembered of the same backbone, dataset and recipe; only `blocked` and `to do` are kept.
    """
    keys = ("backbone", "dataset", "recipe", "state", "reason")
    new = [{k: str(cell.get(k) or "") for k in keys} for cell in cells]
    replaced = {(c["backbone"], c["dataset"], c["recipe"]) for c in new}
    results.mkdir(parents=True, exist_ok=True)
    with files.locked(results / f".{PLAN}.lock"):  # two drivers would lose each other's cells
        kept = [c for c in read_plan(results) if (c["backbone"], c["dataset"], c["recipe"]) not in replaced]
        cells = sorted([*kept, *(c for c in new if c["state"] in ("blocked", "to do"))], key=lambda c: list(c.values()))
        files.write_json(results / PLAN, list({tuple(c.values()): c for c in cells}.values()))


def read_plan(results: Path) -> list[dict[str, str]]:
    """What `write_plan` remembered; empty if nothing was.

    Raises:
        RecordError: the file is damaged.
    """
    path = results / PLAN
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))
        json.dumps(cells, ensure_ascii=False).encode()
        return [{k: str(cell[k]) for k in ("backbone", "dataset", "recipe", "state", "reason")} for cell in cells]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise RecordError(f"{path} is damaged ({error}): delete it, the next run rewrites it.") from None


def paths_of(results: Path) -> list[str]:
    """Paths of all records, sorted; three levels of `scandir` are an order of magnitude faster than `rglob`."""
    folders = [str(results)]
    for _ in range(3):
        folders = [sub for folder in folders for sub in _subfolders(folder)]
    return sorted(path for f in folders if os.path.isfile(path := os.path.join(f, RECORD)))


def _subfolders(folder: str) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.path for entry in entries if not entry.name.startswith(".") and entry.is_dir()]
    except OSError:
        return []


def _read_in_place(results: Path, path: Path) -> Record:
    """Reads a record and checks that it lies where `find` would look for it."""
    record = read(path)
    spec = record["spec"]
    if path.parts[-4:-1] != (_slug(spec["dataset"]), _slug(spec["backbone"]), record["run_id"][:12]):
        raise RecordError(f"{path} belongs into {folder_of(results, record)}: move it there or delete it.")
    return record


def _entry(relative: str, record: Record) -> Entry:
    spec, error, main = record["spec"], record["error"], plain(record) or {}
    return Entry(
        path=relative,
        run_id=record["run_id"],
        backbone=spec["backbone"],
        dataset=spec["dataset"],
        recipe=spec["recipe"],
        seed=spec["seed"],
        status=record["status"],
        stage=record["stage"],
        message=error["message"] if error else "",
        source=record["source"],
        seconds=float(sum((record["timing"].get("seconds") or {}).values())),
        mAP=main.get("mAP"),
        rank1=main.get("rank-1"),
        n_query=main.get("n_query"),
        n_valid=main.get("n_valid"),
    )


def _read_index(results: Path) -> dict[str, list[Any]]:
    try:
        stored = json.loads((results / INDEX).read_bytes())
        current = stored["version"] == [INDEX_VERSION, SCHEMA_VERSION, list(Entry._fields)]
        entries = stored["entries"] if current else {}
        return entries if all(_is_entry(path, row) for path, row in entries.items()) else {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}  # absent, damaged or from another version: read the records again


def _is_entry(path: str, row: Any) -> bool:
    """Whether a row of the index is what `_entry` made."""
    _, values = row
    texts, scores = (values[i] for i in (0, 1, 2, 3, 4, 6, 8, 9)), values[11:]
    return (
        len(values) == len(Entry._fields)
        and values[0] == path
        and all(isinstance(text, str) for text in texts)
        and len(values[1]) == 64
        and values[1][:12] == path.split("/")[-2]
        and (values[7] is None or isinstance(values[7], str))
        and isinstance(values[5], int)
        and values[10] is not None
        and all(0 <= value < 1e30 for value in (values[10], *scores) if value is not None)
        and len({score is None for score in scores}) == 1
    )


def _write_index(results: Path, entries: dict[str, list[Any]]) -> None:
    stored = {"version": [INDEX_VERSION, SCHEMA_VERSION, list(Entry._fields)], "entries": entries}
    try:
        files.replace(results / INDEX, json.dumps(stored, separators=(",", ":")))
    except OSError as error:
        log.debug("no index kept: %s", error)


def _warn(error: RecordError) -> None:
    log.warning("%s", error)
