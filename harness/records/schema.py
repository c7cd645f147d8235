"""What a record holds, as types, and the check that a record holds it. See docs/records.md for every field."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, TypedDict

from harness.records.blocks import wrong_parts
from harness.spec.job import STATUSES
from harness.spec.run_spec import RunSpec, canonical

SCHEMA_VERSION = 1

SOURCES = ("trained", "published-checkpoint", "features", "profile", "search")
"""Where a record's numbers come from. `profile` and `search` have sections of their own in the report."""

SCORED = ("trained", "published-checkpoint", "features")
"""Sources that are scored on a test split, and so have evaluations."""

Error = TypedDict("Error", {"type": str, "message": str, "log_tail": str})  # noqa: UP013 - beside the next ones

Evaluation = TypedDict(
    "Evaluation",
    {
        "dataset": str,
        "trained": bool,
        "flip": bool,
        "rerank": bool,
        "metric": str,
        "mAP": float,
        "mINP": float | None,
        "rank-1": float,
        "rank-5": float,
        "rank-10": float,
        "cmc": list[float],
        "n_query": int,
        "n_valid": int,
        "n_gallery": int,
        "n_junk": int | None,
        "tied_queries": int | None,
        "interval": dict[str, list[float]],
        "per_query": str | None,
    },
    total=False,
)
"""One scoring; every fraction lies in [0, 1]. `trained` is false for the model before training."""


class Record(TypedDict, total=False):
    """One run, as `record.json` holds it."""

    schema_version: int
    protocol_version: str
    run_id: str
    spec: dict[str, Any]
    status: str
    stage: str | None
    error: Error | None
    source: str
    data: dict[str, Any]
    evaluations: list[Evaluation]
    efficiency: dict[str, Any]
    environment: dict[str, Any]
    timing: dict[str, Any]
    mlflow_run_id: str | None
    ray_trial_id: str | None
    attempts: int
    request: dict[str, Any]


_NUMBER = (int, float)
_NONE = type(None)

_RECORD: dict[str, tuple[type, ...]] = {
    "schema_version": (int,),
    "protocol_version": (str,),
    "run_id": (str,),
    "spec": (dict,),
    "status": (str,),
    "stage": (str, _NONE),
    "error": (dict, _NONE),
    "source": (str,),
    "data": (dict,),
    "evaluations": (list,),
    "efficiency": (dict,),
    "environment": (dict,),
    "timing": (dict,),
}
_SPEC: dict[str, tuple[type, ...]] = {
    "backbone": (str,),
    "dataset": (str,),
    "recipe": (str,),
    "values": (dict,),
    "options": (dict,),
    "seed": (int,),
    "device": (str,),
    "protocol": (str,),
}
_EVALUATION: dict[str, tuple[type, ...]] = {
    "dataset": (str,),
    "trained": (bool,),
    "flip": (bool,),
    "rerank": (bool,),
    "metric": (str,),
    "mAP": _NUMBER,
    "mINP": (*_NUMBER, _NONE),
    "rank-1": _NUMBER,
    "rank-5": _NUMBER,
    "rank-10": _NUMBER,
    "cmc": (list,),
    "n_query": (int,),
    "n_valid": (int,),
    "n_gallery": (int,),
    "interval": (dict,),
}
_FRACTIONS = ("mAP", "mINP", "rank-1", "rank-5", "rank-10")


def new(spec: RunSpec, *, source: str = "trained") -> Record:
    """Returns an empty record of a run, to be filled stage by stage; until then it is `interrupted`."""
    return Record(
        schema_version=SCHEMA_VERSION,
        protocol_version=spec.protocol,
        run_id=spec.run_id,
        spec=spec.to_dict(),
        status="interrupted",
        stage=None,
        error={"type": "Interrupted", "message": "The run has not ended.", "log_tail": ""},
        source=source,
        data={"layout": "", "generated": None, "notes": {}, "count_mismatch": [], "splits": {}},
        evaluations=[],
        efficiency={},
        environment={},
        timing={"started": None, "ended": None, "seconds": {}},
        mlflow_run_id=None,
        ray_trial_id=None,
        attempts=1,
    )


def matched(evaluation: Mapping[str, Any]) -> str:
    """'7 of 100 queries have a match', to stand beside a score; empty where all have one or it is not recorded."""
    valid, queries = evaluation.get("n_valid"), evaluation.get("n_query")
    if valid is None or queries is None or valid == queries:
        return ""
    return f"{valid:,} of {queries:,} queries {'has' if valid == 1 else 'have'} a match"


def validate(record: Any) -> list[str]:
    """Returns what is wrong with a record of the present schema, one sentence each; empty if nothing is."""
    if not isinstance(record, dict):
        return ["it is not a JSON object"]
    if problems := _types(record, _RECORD, ""):
        return problems
    problems = _types(record["spec"], _SPEC, "spec.") + _outcome(record)
    for i, evaluation in enumerate(record["evaluations"]):
        where = f"evaluations[{i}]"
        problems += _evaluation(evaluation, where) if isinstance(evaluation, dict) else [f"{where} is not an object"]
    if not problems:
        problems = wrong_parts(record)
    if hashlib.sha256(canonical(record["spec"]).encode()).hexdigest() != record["run_id"]:
        problems.append("run_id is not the hash of spec, so one of them was changed by hand")
    return problems


def _types(table: dict[str, Any], fields: dict[str, tuple[type, ...]], where: str) -> list[str]:
    problems = []
    for name, types in fields.items():
        if name not in table:
            problems.append(f"{where}{name} is missing")
        elif type(table[name]) not in types:  # exact types: a truth value is no number
            problems.append(f"{where}{name} is of type {type(table[name]).__name__}")
    return problems


def _outcome(record: dict[str, Any]) -> list[str]:
    """Status, error and evaluations must tell one story."""
    problems = []
    status, error = record["status"], record["error"]
    for name, known in (("status", STATUSES), ("source", SOURCES)):
        if record[name] not in known:
            problems.append(f"{name} is '{record[name]}'")
    if status == "ok" and error is not None:
        problems.append("status is ok but there is an error")
    if status != "ok" and not (error and isinstance(error.get("message"), str)):
        problems.append(f"status is {status} but error.message is missing")
    if status == "ok" and record["source"] in SCORED and not record["evaluations"]:
        problems.append("status is ok but there is no evaluation")
    return problems


def _evaluation(evaluation: dict[str, Any], where: str) -> list[str]:
    if problems := _types(evaluation, _EVALUATION, f"{where}."):
        return problems
    problems = [
        f"{where}.{name} is {evaluation[name]}, not a fraction"
        for name in _FRACTIONS
        if evaluation[name] is not None and not 0 <= evaluation[name] <= 1
    ]
    cmc = evaluation["cmc"]
    if not {*map(type, cmc)} <= {int, float} or (cmc and not 0 <= min(cmc) <= max(cmc) <= 1):
        problems.append(f"{where}.cmc holds something that is not a fraction")
    elif cmc != sorted(cmc):
        problems.append(f"{where}.cmc falls")
    if not 0 <= evaluation["n_valid"] <= evaluation["n_query"]:
        problems.append(f"{where} has {evaluation['n_valid']} valid of {evaluation['n_query']} queries")
    return problems
