"""What the efficiency study says about the claim of ReIDMamba's paper, in words that follow from the records.

The claim (arXiv 2511.07948, abstract): about one third of TransReID's parameters, less memory, faster inference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.report import text
from harness.report.accuracy import device
from harness.report.rows import image_size
from harness.report.section import bullets, paragraphs

NEW, OLD = "reidmamba", "transreid"
THIRD = 0.36
"""Largest ratio of parameters that rounds to one third in the claim's sense."""

Pair = tuple[Mapping[str, Any], Mapping[str, Any]]


def build(records: Sequence[Mapping[str, Any]]) -> str:
    """The part of the section, or nothing where the two were not measured under one condition."""
    pairs = _pairs(records)
    if not pairs:
        return ""
    training = [p for p in pairs if p[0]["efficiency"].get("measure") == "training"]
    inference = [p for p in pairs if p not in training]
    lines = [
        _parameters(pairs[0]),
        *_compared(inference, "inference_images_per_second", "Inference speed", faster=True),
        *_compared(inference, "peak_memory_bytes", "Memory of inference", faster=False),
        *_compared(training, "train_images_per_second", "Training speed", faster=True),
        *_compared(training, "peak_memory_bytes", "Memory of a training step", faster=False),
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


def _pairs(records: Sequence[Mapping[str, Any]]) -> list[Pair]:
    """Records of both under one condition, in a fixed order."""
    from harness.report.profiles import condition

    def by_condition(backbone: str) -> dict[tuple[Any, ...], Mapping[str, Any]]:
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


def _compared(pairs: Sequence[Pair], key: str, what: str, *, faster: bool) -> list[str]:
    """Ratios over all conditions, and in how many the claim holds."""
    found = [
        (new["efficiency"][key] / old["efficiency"][key], new)
        for new, old in pairs
        if new["efficiency"].get(key) and old["efficiency"].get(key)
    ]
    if not found:
        return []
    holds = sum(ratio > 1 if faster else ratio < 1 for ratio, _ in found)
    verdict = "supported" if holds == len(found) else "not supported" if holds == 0 else "supported in part"
    ratios = ", ".join(f"{ratio:.2f} ({_where(record)})" for ratio, record in found)
    better = "above" if faster else "below"
    return [f"{what}: {verdict}, {better} 1 in {holds} of {text.count(len(found), 'condition')}. Ratios: {ratios}."]


def _where(record: Mapping[str, Any]) -> str:
    numbers = record["efficiency"]
    return f"{text.size(image_size(record))}, batch {numbers['batch_size']}, {text.escape(numbers['precision'])}"
