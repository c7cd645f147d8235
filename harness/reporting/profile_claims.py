"""Checks the efficiency claim of ReIDMamba's paper against the records of the efficiency study.

The claim (arXiv 2511.07948, abstract): about one third of TransReID's parameters, less memory, faster inference.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.reporting import text
from harness.reporting.accuracy import device
from harness.reporting.rows import image_size
from harness.reporting.section import bullets, paragraphs

NEW, OLD = "reidmamba", "transreid"
THIRD = 0.36
"""Largest ratio of parameters that counts as about one third."""

STEADY = 0.1
"""Largest relative difference of the fixed work, and relative drift of the repeats, for two times to be comparable."""

Record = Mapping[str, Any]
Pair = tuple[Record, Record]


def build(records: Sequence[Record], condition: Callable[[Record], tuple[Any, ...]]) -> str:
    """Markdown about the claim; empty if the two backbones share no condition."""
    pairs = _pairs(records, condition)
    if not pairs:
        return ""
    training = [p for p in pairs if p[0]["efficiency"].get("measure") == "training"]
    inference = [p for p in pairs if p not in training]
    lines = [
        _parameters(pairs[0]),
        *_speed(inference, "Inference speed", "latency"),
        *_memory(inference, "Memory of inference", _peak),
        *_memory(inference, "Activations of inference, which grow with the batch", _activations),
        *_speed(training, "Training speed", "train_step"),
        *_memory(training, "Memory of a training step", _peak),
        *_memory(training, "Activations of a training step, which grow with the batch", _activations),
    ]
    if all(p[0]["efficiency"].get("device") != "cuda" for p in pairs):
        lines.append(
            "All numbers were measured on a CPU. The paper's claim is about GPUs, which use another implementation of "
            "the scan; no GPU was measured here."
        )
    about = (
        "The paper claims about one third of TransReID's parameters, less memory and faster inference. Ratios are "
        "ReIDMamba to TransReID under equal conditions on one device; a speed ratio above 1 means that ReIDMamba is "
        "faster."
    )
    return paragraphs("### ReIDMamba's efficiency claim", about, bullets(lines))


def comparable(pair: Pair) -> bool:
    """Whether the device was equally fast for both records, and other processes did not affect their times."""
    watched = [record["efficiency"].get("conditions") for record in pair]
    if not all(watched):
        return False
    fixed = [statistics.fmean(c["fixed_work_ms"]) for c in watched]
    if max(fixed) > (1 + STEADY) * min(fixed) or any(abs(c.get("drift", 1.0) - 1) > STEADY for c in watched):
        return False
    return all(map(_by_processor_time, pair)) or not any("other" in note for c in watched for note in c["notes"])


def _differs(ratio: float, pair: Pair) -> bool:
    """Whether a ratio of two times differs from 1 by at least twice its standard error, if that is recorded."""
    errors = [record["efficiency"].get("relative_error") or 0.0 for record in pair]
    return abs(math.log(ratio)) >= 2 * math.hypot(*errors)


def _by_processor_time(record: Record) -> bool:
    """Whether to compare processor time: with one CPU thread it excludes waiting, with more threads it does not."""
    numbers = record["efficiency"]
    return numbers.get("device") == "cpu" and numbers.get("threads") == 1


def _pairs(records: Sequence[Record], condition: Callable[[Record], tuple[Any, ...]]) -> list[Pair]:
    """Pairs of records of both backbones under the same condition, in a fixed order."""

    def by_condition(backbone: str) -> dict[tuple[Any, ...], Record]:
        return {(device(r), *condition(r)): r for r in records if r["spec"]["backbone"] == backbone}

    new, old = by_condition(NEW), by_condition(OLD)
    return [(new[key], old[key]) for key in sorted(new.keys() & old.keys())]


def _parameters(pair: Pair) -> str:
    """Compares parameter counts with the claim of one third, and reports FLOPs."""
    new, old = (r["efficiency"] for r in pair)
    ratio = new["parameters"] / old["parameters"]
    at_test = new["parameters_inference"] / old["parameters_inference"]
    verdict = "supported" if ratio <= THIRD else "not supported"
    return (
        f"Parameters: {verdict}. {text.millions(new['parameters'])} to {text.millions(old['parameters'])} million, "
        f"ratio {ratio:.2f}; at test {at_test:.2f}. GFLOPs at {text.size(image_size(pair[0]))}: "
        f"{text.giga(new['flops'])} to {text.giga(old['flops'])}, ratio {new['flops'] / old['flops']:.2f}."
    )


def _speed(pairs: Sequence[Pair], what: str, name: str) -> list[str]:
    """Speed ratios under conditions where the device was equally fast for both."""

    def seconds(record: Record) -> float | None:
        numbers = record["efficiency"]
        used = numbers.get(f"{name}_cpu_ms") if _by_processor_time(record) else None
        return used or numbers.get(f"{name}_ms")

    found = [(seconds(old) / seconds(new), (new, old)) for new, old in pairs if seconds(new) and seconds(old)]  # type: ignore[operator]
    if not found:
        return []
    used = [(ratio, pair) for ratio, pair in found if comparable(pair) and _differs(ratio, pair)]
    excluded = len(found) - len(used)
    why = "the device was not equally fast or not steady, or the difference is within twice its standard error"
    note = f" {text.count(excluded, 'condition')} excluded: {why}." if excluded else ""
    if not used:
        return [f"{what}: not decided.{note}"]
    how = ", by processor time" if all(_by_processor_time(r) for _, pair in used for r in pair) else ""
    return [_verdict(what + how, used, "above", sum(ratio > 1 for ratio, _ in used)) + note]


def _memory(pairs: Sequence[Pair], what: str, read: Callable[[Record], float | None]) -> list[str]:
    """Memory ratios, which do not depend on other processes."""
    found = [(read(new) / read(old), (new, old)) for new, old in pairs if read(new) and read(old)]  # type: ignore[operator]
    return [_verdict(what, found, "below", sum(ratio < 1 for ratio, _ in found))] if found else []


def _peak(record: Record) -> float | None:
    return record["efficiency"].get("peak_memory_bytes")


def _activations(record: Record) -> float | None:
    return (record["efficiency"].get("memory_bytes") or {}).get("activations")


def _verdict(what: str, found: Sequence[tuple[float, Pair]], better: str, holds: int) -> str:
    """The number of conditions in which the claim holds, and all ratios."""
    verdict = "supported" if holds == len(found) else "supported in part" if holds else "not supported"
    ratios = ", ".join(f"{ratio:.2f} ({_where(pair[0])})" for ratio, pair in found)
    return f"{what}: {verdict}, ratio {better} 1 in {holds} of {text.count(len(found), 'condition')}. Ratios: {ratios}."


def _where(record: Record) -> str:
    numbers = record["efficiency"]
    return f"{text.size(image_size(record))}, batch {numbers['batch_size']}, {text.escape(numbers['precision'])}"
