"""Parameters, metrics, tags and files that are sent to MLflow."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from harness.records import epochs, store
from harness.spec.run_spec import canonical
from harness.system import files
from harness.system.redact import mask
from harness.tracking.server import Server
from harness.tuning import state

NOT_ALLOWED = re.compile(r"[^\w\-. :/]")
"""Characters that MLflow refuses in the name of a metric."""

SIDECAR = ".mlflow.json"
SEARCHES = f"{state.FOLDER}/*/{state.FILE}"
"""File beside a record that names the server and the attempt that was sent."""


def parameters_of(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The spec as flat parameters: `recipe.loss.margin`, `option.stride`, `seed`, ..."""
    flat: dict[str, Any] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(f"{prefix}.{key}" if prefix else key, inner)
        else:
            flat[prefix] = value

    walk("", {"recipe": spec["values"], "option": spec["options"]})
    plain = {k: v for k, v in spec.items() if k not in ("values", "options", "holdout", "evaluate_on")}
    return {**{("recipe.name" if k == "recipe" else k): v for k, v in plain.items()}, **flat}


def metrics_of(record: Any) -> dict[str, Any]:
    """The numbers of a record as flat metrics; names of the plain test have no prefix."""
    values: dict[str, Any] = {}
    for row in record["evaluations"]:
        marks = [] if row["trained"] else ["untrained"]
        marks += [row["dataset"]] if row["dataset"] != record["spec"]["dataset"] else []
        marks += [mark for mark in ("flip", "rerank") if row[mark]]
        prefix = "".join(f"{mark}/" for mark in marks)
        names = ("mAP", "mINP", "rank-1", "rank-5", "rank-10", "n_query", "n_valid")
        values |= {prefix + name: row[name] for name in names}
    return {**values, **_audited(record), **dict(_numbers("efficiency", record["efficiency"]))}


def _audited(record: Any) -> dict[str, float]:
    """The values of audits: `audit/open-set/TPIR/FPIR 0.01`; further datasets are part of the name."""
    values = {}
    for block in record.get("audits") or ():
        other = [block["dataset"]] if block["dataset"] != record["spec"]["dataset"] else []
        for row in block["rows"]:
            settings = [f"{key} {value}" for key, value in row["setting"].items()]
            name = "/".join(["audit", *other, block["check"], row["name"], *settings])
            if row["value"] is not None:
                values[NOT_ALLOWED.sub("-", name)] = row["value"]
    return values


def _numbers(name: str, value: Any) -> Iterator[tuple[str, float]]:
    """The numbers of nested tables: `efficiency/memory_bytes/activations`, ..."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _numbers(f"{name}/{key}", inner)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, value


def tags_of(spec: Mapping[str, Any], attempt: int) -> dict[str, str]:
    """Tags of a child run: two to find it, and what runs are grouped by."""
    return {
        "harness.run_id": hashlib.sha256(canonical(spec).encode()).hexdigest(),
        "harness.attempt": str(attempt),
        "backbone": spec["backbone"],
        "dataset": spec["dataset"],
        "recipe": spec["recipe"],
        "seed": str(spec["seed"]),
        "kind": spec.get("purpose") or "test",
    }


def outcome_of(record: Any) -> dict[str, str]:
    """Tags that are known at the end of a run: its device, whether the data is generated, and why it failed."""
    environment = record["environment"]
    device = environment.get("gpu") or environment.get("cpu") or ""
    reason = mask(record["error"]["message"])[:500] if record["error"] else ""
    found = {"device": str(device), "generated": str(bool(record["data"].get("generated"))).lower(), "reason": reason}
    return {name: value for name, value in found.items() if value}


def name_of(spec: Mapping[str, Any]) -> str:
    """Name of a child run."""
    return f"{spec['backbone']} on {spec['dataset']}, seed {spec['seed']}"


def epochs_of(folder: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number and metrics of every epoch of a run."""
    for values in epochs.read(folder):
        yield values.pop("epoch"), values


def is_sent(folder: Path, uri: str) -> bool:
    """Whether the current record of a folder was sent to this server completely."""
    try:
        sent = json.loads((folder / SIDECAR).read_bytes())
        return bool(sent["uri"] == mask(uri) and _state(sent) == _state(_summary(folder)))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _summary(folder: Path) -> dict[str, Any]:
    return _sent_of(orjson.loads((folder / store.RECORD).read_bytes()))


def _sent_of(record: Any) -> dict[str, Any]:
    """What the sidecar tells of a record, by which a change is noticed: an audit may follow later."""
    audits = [f"{block['dataset']}/{block['check']}" for block in record.get("audits") or ()]
    return {"attempts": record.get("attempts", 1), **({"audits": audits} if audits else {})}


def _state(sent: dict[str, Any]) -> tuple[Any, Any]:
    return sent["attempts"], sent.get("audits", [])


def send(server: Server, folder: Path, parent: str) -> None:
    """Sends a record with its files; deletes incomplete MLflow runs of the same attempt.

    Raises:
        RecordError: the record cannot be read.
    """
    record = store.read(folder)
    tags = tags_of(record["spec"], record.get("attempts", 1))
    for partial in server.find({name: tags[name] for name in ("harness.run_id", "harness.attempt")}):
        server.client.delete_run(partial)
    run = server.start(name_of(record["spec"]), tags, parent)
    server.dataset(run, record["spec"])
    server.parameters(run, parameters_of(record["spec"]))
    server.metrics(run, list(epochs_of(folder)))
    finish(server, run, folder, record)


def send_searches(server: Server, parent: str, results: Path, folders: Iterable[Path]) -> None:
    """Logs the files of the searches with runs in these folders as artifacts of a parent run."""
    runs = {folder.name for folder in folders}
    for path in sorted(results.glob(SEARCHES)):
        text = path.read_text(encoding="utf-8", errors="replace")
        if any(run in text for run in runs):
            server.client.log_artifact(parent, str(path), path.parent.relative_to(results).as_posix())


def finish(server: Server, run: str, folder: Path, record: Any) -> None:
    """Logs the metrics and files of a record, closes its run, and marks the record as sent."""
    server.metrics(run, [(0, metrics_of(record))])
    names = [
        "record.json",
        epochs.FILE,
        *sorted({e["per_query"] for e in record["evaluations"] if e["per_query"]}),
    ]
    for name in names:
        if (folder / name).is_file():
            server.client.log_artifact(run, str(folder / name))
    for picture in sorted((folder / "pictures").glob("*.png")):
        server.client.log_artifact(run, str(picture), "pictures")
    for name, value in outcome_of(record).items():
        server.client.set_tag(run, name, value)
    server.end(run, record["status"])
    sent = {"uri": mask(server.uri), "run": run, **_sent_of(record)}
    files.replace(folder / SIDECAR, json.dumps(sent) + "\n")
