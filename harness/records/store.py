"""The store of records: one folder per run, `results/<dataset>/<backbone>/<run_id[:12]>/record.json`.

Records are written atomically, and runs share no files, so any number of machines may write at the same time.
`results/.index.json` is only a cache for `index`: it may be deleted at any time, and a read-only folder has none.
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

from harness.errors import RecordError, UsageError
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
"""Functions that convert a record from a schema version to the next. `read` applies them in memory."""

Problem = Callable[[RecordError], None]

_slug = functools.cache(slug)

_NUMBERS = re.compile(r"\[\n[-+.\deE,\s]+\]")  # JSON strings contain no raw line breaks, so this never matches in one

log = logging.getLogger(__name__)


class Entry(NamedTuple):
    """Summary of a record for listings. The last four values belong to the plain evaluation, see `plain`."""

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
    """Writes a record and its per-query values to the folder of the run.

    Every file is replaced atomically and the record is written last, so after a crash or on a full disk the previous
    record is still readable.

    Args:
        folder: folder of the run; created if it does not exist.
        record: a valid record.
        per_query: rows by file name, as in `evaluations[].per_query`.

    Returns:
        Path of `record.json`.

    Raises:
        RecordError: the record is invalid or could not be written.
    """
    path = folder / RECORD
    try:
        text = render(record)
    except (TypeError, ValueError) as error:
        raise RecordError(f"The record for {path} is not plain JSON: {error}. Use null for missing numbers.") from None
    parse(text, f"The record for {path}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, rows in (per_query or {}).items():
            files.replace(folder / name, render_rows(rows))
        files.replace(path, text)
    except OSError as error:
        reason = error.strerror or error
        raise RecordError(f"{path} could not be written ({reason}); the previous record is kept.") from error
    return path


def render(record: Mapping[str, Any]) -> str:
    """Returns the JSON text of a record: sorted keys, one value per line, lists of numbers on one line."""
    text = json.dumps(record, indent=1, sort_keys=True, allow_nan=False)
    return _NUMBERS.sub(lambda match: " ".join(match[0].split()).replace("[ ", "[").replace(" ]", "]"), text) + "\n"


def find_run(results: Path, run: str) -> Path:
    """Returns the folder of the run whose id starts with the given characters.

    Raises:
        UsageError: there is no such run, or more than one.
    """
    found = [entry for run_id, entry in index(results).items() if run_id.startswith(run)]
    if not found:
        raise UsageError(
            f"No run in {results} has an id that starts with '{run}'. If it is in another folder, pass "
            "--results FOLDER."
        )
    if len(found) > 1:
        raise UsageError(
            f"{len(found)} runs in {results} have an id that starts with '{run}'. Pass more characters of the id; "
            "'python -m harness status' lists the runs."
        )
    return (results / found[0].path).parent


def read(path: Path) -> Record:
    """Reads and validates a record; older schemas are migrated in memory.

    Args:
        path: a `record.json` or its folder.

    Raises:
        RecordError: the record is missing, truncated, invalid, or has a newer schema.
    """
    path = path / RECORD if path.is_dir() else path
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror}.") from error
    return parse(data, str(path))


def parse(data: bytes | str, where: str) -> Record:
    """Parses and validates the JSON text of a record, for example from MLflow; `where` names it in messages.

    Raises:
        RecordError: as `read`.
    """
    try:
        record = orjson.loads(data)  # also refuses NaN, invalid Unicode and deep nesting
    except ValueError as error:
        raise RecordError(
            f"{where} is not valid JSON ({error}); it is damaged or truncated. Repeat the run to replace it."
        ) from None
    version = record.get("schema_version") if isinstance(record, dict) else None
    if not isinstance(version, int) or isinstance(version, bool):
        raise RecordError(f"{where} has no schema_version, so it is not a record of this harness.")
    if version > SCHEMA_VERSION:
        raise RecordError(
            f"{where} has schema version {version}, but this harness reads versions up to {SCHEMA_VERSION}. Update the "
            "harness."
        )
    while version < SCHEMA_VERSION:
        if version not in MIGRATIONS:
            raise RecordError(f"{where} has schema version {version}, which this harness cannot read.")
        record = {**MIGRATIONS[version](record), "schema_version": version + 1}
        version += 1
    try:
        problems = validate(record)
    except (ValueError, RecursionError) as error:  # values that orjson reads but canonical JSON cannot represent
        raise RecordError(
            f"{where} contains values that JSON cannot represent ({error}). Repeat the run to replace it."
        ) from None
    if problems:
        raise RecordError(f"{where} is invalid: {'; '.join(problems[:5])}.")
    return cast(Record, record)


def folder_of(results: Path, record: Mapping[str, Any]) -> Path:
    """Returns the folder that a record belongs in."""
    spec = record["spec"]
    return results / slug(spec["dataset"]) / slug(spec["backbone"]) / record["run_id"][:12]


def records(results: Path, problem: Problem | None = None, *, paths: Sequence[str] | None = None) -> Iterator[Record]:
    """Yields all readable records, sorted by path.

    Args:
        results: results folder.
        problem: called with the error of every unreadable record; by default it is logged.
        paths: paths of the records to read, from `paths_of(results)`; by default all.
    """
    for path in paths_of(results) if paths is None else paths:
        try:
            yield _read_in_place(results, Path(path))
        except RecordError as error:
            (problem or _warn)(error)


def find(results: Path, run: RunSpec | str) -> Record | None:
    """Returns the record of a run by its spec or run id, or `None`. A spec is faster, because it gives the folder.

    Raises:
        RecordError: the record exists but cannot be read.
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
    """Lists all records by run id, sorted by path. Only new and changed records are read.

    A file is unchanged if its modification time, size and inode are the same.

    Args:
        results: results folder.
        problem: called with the error of every unreadable record; by default it is logged.
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
            continue  # removed in the meantime
        except RecordError as error:
            (problem or _warn)(error)
    if entries != known:
        _write_index(results, entries)
    return {(entry := Entry(*row)).run_id: entry for _, row in entries.values()}


def plain(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns the main evaluation of a run: after training, on its own dataset, preferably without flip and re-ranking.

    Returns `None` if the run has no evaluation on its own dataset.
    """
    own = [e for e in record["evaluations"] if e["trained"] and e["dataset"] == record["spec"]["dataset"]]
    return cast("dict[str, Any] | None", min(own, key=lambda e: (e["rerank"], e["flip"]), default=None))


def write_plan(results: Path, cells: Sequence[Mapping[str, Any]]) -> None:
    """Stores planned runs that have no record, for the report.

    Args:
        results: results folder.
        cells: one mapping per planned run, with `backbone`, `dataset`, `recipe`, `state` and `reason`. They replace
            stored cells of the same backbone, dataset and recipe. Only the states `blocked` and `to do` are stored.
    """
    keys = ("backbone", "dataset", "recipe", "state", "reason")
    new = [{k: str(cell.get(k) or "") for k in keys} for cell in cells]
    replaced = {(c["backbone"], c["dataset"], c["recipe"]) for c in new}
    results.mkdir(parents=True, exist_ok=True)
    with files.locked(results / f".{PLAN}.lock"):  # another driver may write at the same time
        kept = [c for c in read_plan(results) if (c["backbone"], c["dataset"], c["recipe"]) not in replaced]
        cells = sorted([*kept, *(c for c in new if c["state"] in ("blocked", "to do"))], key=lambda c: list(c.values()))
        files.write_json(results / PLAN, list({tuple(c.values()): c for c in cells}.values()))


def read_plan(results: Path) -> list[dict[str, str]]:
    """Returns the cells stored by `write_plan`; an empty list if there are none.

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
        raise RecordError(f"{path} is damaged ({error}). Delete it; the next run writes it again.") from None


def paths_of(results: Path) -> list[str]:
    """Returns the sorted paths of all records. Three levels of `scandir` are ten times as fast as `rglob`."""
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
    """Reads a record and checks that it is in the folder where `find` looks for it."""
    record = read(path)
    spec = record["spec"]
    if path.parts[-4:-1] != (_slug(spec["dataset"]), _slug(spec["backbone"]), record["run_id"][:12]):
        raise RecordError(f"{path} belongs in {folder_of(results, record)}. Move it there or delete it.")
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
        return {}  # missing, damaged or from another version; all records are read again


def _is_entry(path: str, row: Any) -> bool:
    """Returns whether a row of the index has the form that `_entry` writes."""
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
        log.debug("The index of records cannot be written: %s", error)


def _warn(error: RecordError) -> None:
    log.warning("%s", error)
