"""What the efficiency study says about the claim of ReIDMamba's paper, in words that follow from the records.

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
"""Largest ratio of parameters that rounds to one third in the claim's sense."""

STEADY = 0.1
"""Times compare only where the fixed work beside them took the same time, to this part, and the repeats stayed so."""

Record = Mapping[str, Any]
Pair = tuple[Record, Record]


def build(records: Sequence[Record], condition: Callable[[Record], tuple[Any, ...]]) -> str:
    """The part of the section, or nothing where the two were not measured under one condition."""
    pairs = _pairs(records, condition)
    if not pairs:
        return ""
    training = [p for p in pairs if p[0]["efficiency"].get("measure") == "training"]
    inference = [p for p in pairs if p not in training]
    lines = [
        _parameters(pairs[0]),
        *_speed(inference, "Inference speed", "latency"),
        *_memory(inference, "Memory of inference", _peak),
        *_memory(inference, "Its activations alone, which grow with the batch", _activations),
        *_speed(training, "Training speed", "train_step"),
        *_memory(training, "Memory of a training step", _peak),
        *_memory(training, "Its activations alone, which grow with the batch", _activations),
    ]
    if all(p[0]["efficiency"].get("device") != "cuda" for p in pairs):
        lines.append(
            "All of this was measured on a processor. The paper's claim is about GPUs, where another scan runs and "
            "speeds differ: about those, nothing was measured here."
        )
    about = (
        "ReIDMamba's paper claims about one third of TransReID's parameters, less memory and faster inference. Ratios "
        "are ReIDMamba to TransReID under equal conditions on one device."
    )
    return paragraphs("### What this says about ReIDMamba's claim", about, bullets(lines))


def comparable(pair: Pair) -> bool:
    """Whether the device was equally fast for both, and their times are free of other work."""
    watched = [record["efficiency"].get("conditions") for record in pair]
    if not all(watched):
        return False
    fixed = [statistics.fmean(c["fixed_work_ms"]) for c in watched]
    if max(fixed) > (1 + STEADY) * min(fixed) or any(abs(c.get("drift", 1.0) - 1) > STEADY for c in watched):
        return False
    return all(map(_by_processor_time, pair)) or not any("other" in note for c in watched for note in c["notes"])


def _told_apart(ratio: float, pair: Pair) -> bool:
    """Whether a ratio of two times differs from 1 by more than twice its standard error, where that is recorded."""
    errors = [record["efficiency"].get("relative_error") or 0.0 for record in pair]
    return abs(math.log(ratio)) >= 2 * math.hypot(*errors)


def _by_processor_time(record: Record) -> bool:
    """On one thread the processor time leaves waiting for others out; more threads also spend it waiting."""
    numbers = record["efficiency"]
    return numbers.get("device") == "cpu" and numbers.get("threads") == 1


def _pairs(records: Sequence[Record], condition: Callable[[Record], tuple[Any, ...]]) -> list[Pair]:
    """Records of both under one condition, in a fixed order."""

    def by_condition(backbone: str) -> dict[tuple[Any, ...], Record]:
        return {(device(r), *condition(r)): r for r in records if r["spec"]["backbone"] == backbone}

    new, old = by_condition(NEW), by_condition(OLD)
    return [(new[key], old[key]) for key in sorted(new.keys() & old.keys())]


def _parameters(pair: Pair) -> str:
    """Counts, and whether they are a third; FLOPs beside them."""
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
    """How many times as fast; only where the device was equally fast for both."""

    def seconds(record: Record) -> float | None:
        numbers = record["efficiency"]
        used = numbers.get(f"{name}_cpu_ms") if _by_processor_time(record) else None
        return used or numbers.get(f"{name}_ms")

    found = [(seconds(old) / seconds(new), (new, old)) for new, old in pairs if seconds(new) and seconds(old)]  # type: ignore[operator]
    if not found:
        return []
    fair = [(ratio, pair) for ratio, pair in found if comparable(pair) and _told_apart(ratio, pair)]
    left_out = len(found) - len(fair)
    why = "the device was not equally fast, or not steady, or the difference is within twice its error"
    unfair = f" {text.count(left_out, 'condition')} left out: {why}." if left_out else ""
    if not fair:
        return [f"{what}: not decided.{unfair}"]
    how = ", by processor time" if all(_by_processor_time(r) for _, pair in fair for r in pair) else ""
    return [_verdict(what + how, fair, "above", sum(ratio > 1 for ratio, _ in fair)) + unfair]


def _memory(pairs: Sequence[Pair], what: str, read: Callable[[Record], float | None]) -> list[str]:
    """Ratios of memory, which does not depend on how busy the device was."""
    found = [(read(new) / read(old), (new, old)) for new, old in pairs if read(new) and read(old)]  # type: ignore[operator]
    return [_verdict(what, found, "below", sum(ratio < 1 for ratio, _ in found))] if found else []


def _peak(record: Record) -> float | None:
    return record["efficiency"].get("peak_memory_bytes")


def _activations(record: Record) -> float | None:
    return (record["efficiency"].get("memory_bytes") or {}).get("activations")


def _verdict(what: str, found: Sequence[tuple[float, Pair]], better: str, holds: int) -> str:
    """In how many conditions the claim holds, and every ratio."""
    verdict = "supported" if holds == len(found) else "supported in part" if holds else "not supported"
    ratios = ", ".join(f"{ratio:.2f} ({_where(pair[0])})" for ratio, pair in found)
    return f"{what}: {verdict}, {better} 1 in {holds} of {text.count(len(found), 'condition')}. Ratios: {ratios}."


def _where(record: Record) -> str:
    numbers = record["efficiency"]
    return f"{text.size(image_size(record))}, batch {numbers['batch_size']}, {text.escape(numbers['precision'])}"
