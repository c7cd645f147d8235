"""Pairs of records for claims about parameters, FLOPs, memory and speed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.cards import ALL, Claim
from harness.reporting import text
from harness.reporting.cells import condition, current, is_training, is_usual
from harness.reporting.claims.pairs import Pair, holds
from harness.reporting.report_data import ReportData
from harness.reporting.rows import device, image_size

STEADY = 0.1
"""Largest relative difference of the fixed work, and relative drift of the repeats, for two times to be comparable."""

Record = Mapping[str, Any]


def pairs(name: str, claim: Claim, data: ReportData) -> list[Pair]:
    """All pairs of a backbone and its comparator under one condition, in a fixed order."""
    records = [r for r in data.records if r["status"] == "ok" and is_usual(data, r)]
    find = _counts if claim.metric in COUNTS else _cells
    mine, others = find(name, records, claim), find("", records, claim)
    found = []
    for (backbone, *where), theirs in sorted(others.items()):
        base = backbone.partition(":")[0]
        wanted = base != name.partition(":")[0] if claim.comparator == ALL else backbone == claim.comparator
        if wanted and (ours := mine.get((name, *where))):
            found.append(_pair(claim, ours, theirs))
    return [pair for pair in found if pair]


def _counts(name: str, records: Sequence[Record], claim: Claim) -> dict[tuple[Any, ...], Record]:
    """Records by backbone, data and image size, which give the same counts on every device."""
    return {
        (r["spec"]["backbone"], r["spec"]["dataset"], *(image_size(r) or ())): r
        for r in sorted(records, key=lambda r: (str(r["timing"].get("started")), r["run_id"]))
        if name in ("", r["spec"]["backbone"]) and r["source"] in ("profile", "trained")
    }


def _cells(name: str, records: Sequence[Record], claim: Claim) -> dict[tuple[Any, ...], Record]:
    """The newest cells of `profile`, by backbone, device and condition."""
    cells = current([r for r in records if r["source"] == "profile"])
    return {
        (r["spec"]["backbone"], device(r), *condition(r)): r
        for r in cells
        if name in ("", r["spec"]["backbone"]) and is_training(r) == (claim.measure == "training")
    }


def _pair(claim: Claim, ours: Record, theirs: Record) -> Pair | None:
    """The comparison of two records; None if a value is not recorded."""
    value, reference = (READ[claim.metric](r["efficiency"]) for r in (ours, theirs))
    if not value or not reference:
        return None
    reason = _undecided(claim, ours, theirs, value / (claim.factor * reference))
    return Pair(
        where=_where(claim, ours),
        ours=float(value),
        theirs=float(reference),
        comparator=theirs["spec"]["backbone"],
        ratio=value / reference,
        holds=None if reason else holds(claim.relation, value, claim.factor * reference),
        reason=reason,
        runs=(ours["run_id"], theirs["run_id"]),
    )


def _undecided(claim: Claim, ours: Record, theirs: Record, ratio: float) -> str:
    """Why two records do not decide a claim; empty if they do."""
    if claim.metric in COUNTS:
        return ""
    if claim.metric == "speed" and not steady(ours, theirs):
        return "the device was not equally fast or not steady"
    if claim.device and ours["efficiency"].get("device") != claim.device:
        return f"measured on {ours['efficiency'].get('device')}, and the claim is about {claim.device}"
    if claim.metric != "speed":
        return ""
    errors = [record["efficiency"].get("relative_error") or 0.0 for record in (ours, theirs)]
    return (
        "" if abs(math.log(ratio)) >= 2 * math.hypot(*errors) else "the difference is within twice its standard error"
    )


def steady(ours: Record, theirs: Record) -> bool:
    """Whether the device was equally fast for both records, and other processes did not affect their times."""
    watched = [record["efficiency"].get("conditions") for record in (ours, theirs)]
    if not all(c and c.get("fixed_work_ms") for c in watched):
        return False
    fixed = [statistics.fmean(c["fixed_work_ms"]) for c in watched]
    if max(fixed) > (1 + STEADY) * min(fixed) or any(abs((c.get("drift") or 1.0) - 1) > STEADY for c in watched):
        return False
    alone = not any("other" in note for c in watched for note in c.get("notes") or ())
    return alone or all(_by_processor_time(r["efficiency"]) for r in (ours, theirs))


def _by_processor_time(numbers: Mapping[str, Any]) -> bool:
    """Whether to compare processor time: with one CPU thread it excludes waiting, with more threads it does not."""
    return numbers.get("device") == "cpu" and numbers.get("threads") == 1


def _speed(numbers: Mapping[str, Any]) -> float | None:
    """Images per second, by processor time where that excludes waiting."""
    name = "train_step" if numbers.get("measure") == "training" else "latency"
    used = numbers.get(f"{name}_cpu_ms") if _by_processor_time(numbers) else None
    milliseconds = used or numbers.get(f"{name}_ms")
    return 1000 * (numbers.get("batch_size") or 0) / milliseconds if milliseconds else None


def _activations(numbers: Mapping[str, Any]) -> float | None:
    return (numbers.get("memory_bytes") or {}).get("activations")


def _where(claim: Claim, record: Record) -> str:
    numbers, size = record["efficiency"], text.size(image_size(record))
    if claim.metric in COUNTS:
        return size
    return f"{size}, batch {numbers.get('batch_size')}, {numbers.get('precision')}, {device(record)}"


READ: dict[str, Callable[[Mapping[str, Any]], float | None]] = {
    "parameters": lambda numbers: numbers.get("parameters"),
    "parameters_at_test": lambda numbers: numbers.get("parameters_inference"),
    "flops": lambda numbers: numbers.get("flops"),
    "memory": lambda numbers: numbers.get("peak_memory_bytes"),
    "activations": _activations,
    "speed": _speed,
}
"""Value of a metric from the `efficiency` block of a record."""

COUNTS = ("parameters", "parameters_at_test", "flops")
"""Metrics that do not depend on device and batch."""
