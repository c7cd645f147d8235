"""The efficiency study: profile records, one a backbone, device, precision, batch and input size."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.reporting import commands, plots, profile_claims, text
from harness.reporting.accuracy import device, heading, stem
from harness.reporting.efficiency_table import other_work, recorded
from harness.reporting.parallel import Drawn
from harness.reporting.rows import Table, image_size, matched_in
from harness.reporting.section import Context, Section, bullets, file_name, paragraphs
from harness.spec.run_spec import canonical

RIGHT = (
    *("Params (M)", "At test (M)", "GFLOPs", "Images/s", "Latency (ms)", "Memory (GiB)", "Batch", "Threads"),
    *("Step (ms)", "CPU (ms)", "Weights", "Gradients", "Optimiser", "Activations", "Repeats", "Error (%)"),
)
MOST_FIGURES = 6

Build = tuple[str, str, tuple[int, ...]]
"""What is fast or slow: a backbone, its options, and the size of its input."""

ABOUT = (
    "Median of repeated, synchronised calls, in brackets the quartiles; random images, random weights, one process a "
    "cell. GFLOPs count two operations a multiply-add, for one image, the selective scan included. “At test” are the "
    "parameters the test-time feature depends on. Memory is the peak of one batch: weights, inputs and what the call "
    "needs beyond them; on a CPU a process holds more than it needs, docs/speed.md says what is counted. "
    "CPU is the processor time of the latency, over all threads. Error is the standard error of the "
    "median of the latency; repeats end below 1 %, or when the time given to a cell is over."
)
ABOUT_TRAINING = (
    "Forward pass, losses, backward pass, clipping and optimiser, with the losses and the optimiser of the unified "
    "recipe; images lie on the device. Memory in GiB: its peak, and what the parts hold; activations are what the "
    "forward pass keeps for the backward pass, and as not all parts live at once, they may exceed the peak."
)


def build(context: Context) -> Section:
    """Tables of inference and training, what the claim of ReIDMamba's paper comes to, doubts and plots."""
    records = current([r for r in context.material.records if r["source"] == "profile" and r["status"] == "ok"])
    if not records:
        return Section()
    inference = [r for r in records if not _is_training(r)]
    training = [r for r in records if _is_training(r)]
    figures: dict[str, Drawn] = {}
    links = _scaling(context, inference, figures) + _accuracy(context, inference, figures)
    parts = ["## Efficiency study", ABOUT, _lines(context, inference, _inference)]
    if training:
        parts += ["### Training step", ABOUT_TRAINING, _lines(context, training, _training)]
    as_named = [r for r in records if named(context, r) == r["spec"]["backbone"]]
    parts += [profile_claims.build(as_named, condition), _doubts(records), commands.of_profile(records), *links]
    return Section(paragraphs(*parts), figures)


def current(records: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The newest record of each backbone, build and condition: a code change makes a new one beside the old."""
    newest: dict[str, Mapping[str, Any]] = {}
    for record in sorted(records, key=lambda r: (str(r["timing"].get("started")), r["run_id"])):
        spec = record["spec"]
        newest[canonical([spec["backbone"], spec["options"], spec["values"], device(record)])] = record
    return list(newest.values())


def _is_training(record: Mapping[str, Any]) -> bool:
    return record["efficiency"].get("measure") == "training"


def _lines(
    context: Context,
    records: Sequence[Mapping[str, Any]],
    line: Callable[[Context, Mapping[str, Any]], dict[str, str]],
) -> str:
    """A table sorted by device, condition and backbone, so that what compares stands together."""
    ordered = sorted(records, key=lambda r: (device(r), *condition(r), named(context, r), r["run_id"]))
    return text.table([line(context, record) for record in ordered], RIGHT)


def condition(record: Mapping[str, Any]) -> tuple[Any, ...]:
    """What must be equal for two records of one device to compare."""
    numbers = record["efficiency"]
    size = image_size(record) or []
    return (
        str(numbers.get("measure", "inference")),
        *size,
        int(numbers.get("batch_size") or 0),
        str(numbers.get("precision")),
        bool(numbers.get("compiled")),
        int(numbers.get("threads") or 0),
    )


def named(context: Context, record: Mapping[str, Any]) -> str:
    """The backbone, with the build options in which it differs from what its card says."""
    spec = record["spec"]
    card = context.material.backbone(spec["backbone"])
    if card is None:
        return str(spec["backbone"])
    variant = card.variants.get(spec["backbone"].partition(":")[2])
    usual = {**card.options, **(variant.options if variant else {})}
    different = [f"{k}={v}" for k, v in sorted(spec["options"].items()) if k in usual and usual[k] != v]
    return f"{spec['backbone']} ({', '.join(different)})" if different else str(spec["backbone"])


def _common(context: Context, record: Mapping[str, Any]) -> dict[str, str]:
    numbers = record["efficiency"]
    return {
        "Device": text.escape(device(record)),
        "Backbone": text.escape(named(context, record)),
        "Size": text.size(image_size(record)),
        "Batch": recorded(numbers, "batch_size"),
        "Precision": recorded(numbers, "precision") + (", compiled" if numbers.get("compiled") else ""),
        "Threads": recorded(numbers, "threads"),
    }


def _inference(context: Context, record: Mapping[str, Any]) -> dict[str, str]:
    numbers = record["efficiency"]
    return {
        **_common(context, record),
        "Params (M)": text.millions(numbers.get("parameters")),
        "At test (M)": text.millions(numbers.get("parameters_inference")),
        "GFLOPs": text.giga(numbers.get("flops")),
        "Images/s": _rate(numbers, "inference_images_per_second"),
        "Latency (ms)": _milliseconds(numbers, "latency"),
        "CPU (ms)": _milliseconds(numbers, "latency_cpu"),
        "Memory (GiB)": text.gibibytes(numbers.get("peak_memory_bytes")),
        "Repeats": recorded(numbers, "repeats"),
        "Error (%)": _error(numbers),
        "Scan": recorded(numbers, "scan") if numbers.get("scan") else text.NOT_APPLICABLE,
    }


def _training(context: Context, record: Mapping[str, Any]) -> dict[str, str]:
    numbers = record["efficiency"]
    parts = numbers.get("memory_bytes") or {}
    return {
        **_common(context, record),
        "Images/s": _rate(numbers, "train_images_per_second"),
        "Step (ms)": _milliseconds(numbers, "train_step"),
        "CPU (ms)": _milliseconds(numbers, "train_step_cpu"),
        "Memory (GiB)": text.gibibytes(numbers.get("peak_memory_bytes")),
        "Weights": text.gibibytes(parts.get("weights")),
        "Gradients": text.gibibytes(parts.get("gradients")),
        "Optimiser": text.gibibytes(parts.get("optimizer_state")),
        "Activations": text.gibibytes(parts.get("activations")),
        "Repeats": recorded(numbers, "repeats"),
        "Error (%)": _error(numbers),
    }


def _milliseconds(numbers: Mapping[str, Any], name: str) -> str:
    """Median, and the quartiles where recorded."""
    if (median := numbers.get(f"{name}_ms")) is None:
        return text.NOT_RECORDED
    quartiles = numbers.get(f"{name}_quartiles_ms")
    low_high = f" ({_three(quartiles[0])} .. {_three(quartiles[1])})" if quartiles else ""
    return f"{_three(median)}{low_high}"


def _error(numbers: Mapping[str, Any]) -> str:
    """Standard error of the median, in percent of it."""
    error = numbers.get("relative_error")
    return text.NOT_RECORDED if error is None else f"{100 * error:.1f}"


def _rate(numbers: Mapping[str, Any], key: str) -> str:
    """Images per second, marked where others had part of the processor."""
    return text.rate(numbers.get(key)) + (" (shared)" if other_work(numbers) else "")


def _others(conditions: Mapping[str, Any]) -> float:
    """Cores that other work used; 0 where it was too little to count."""
    return found if (found := conditions.get("others_cores", 0.0)) > 0.1 else 0.0


def _three(value: float) -> str:
    """At least three significant digits, never an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _doubts(records: Sequence[Mapping[str, Any]]) -> str:
    """Which cells were measured on a device that was shared or not steady."""
    watched = [r["efficiency"]["conditions"] for r in records if r["efficiency"].get("conditions")]
    if not watched:
        return ""
    shared = [others for c in watched if (others := _others(c))]
    fixed = [ms for c in watched for ms in c["fixed_work_ms"]]
    lines = []
    if shared:
        lines.append(
            f"In {len(shared)} of {text.count(len(watched), 'cell')} other work used the processor meanwhile, "
            f"{min(shared):.1f} to {max(shared):.1f} cores (“shared” in the tables): latencies and images/s are worse "
            "there than on a machine of its own."
        )
    unsteady = sum(any(not note.startswith("other work") for note in c["notes"]) for c in watched)
    if unsteady:
        lines.append(f"In {text.count(unsteady, 'cell')} the device was not steady, as the records' `notes` say.")
    if len({r["efficiency"]["device"] for r in records}) == 1:
        lines.append(
            f"One fixed matrix product took {min(fixed):.1f} to {max(fixed):.1f} ms of the device over all cells."
        )
    return paragraphs("### How steady the device was", bullets(lines)) if lines else ""


def _scaling(context: Context, records: Sequence[Mapping[str, Any]], figures: dict[str, Drawn]) -> list[str]:
    """Memory and throughput against resolution, a figure each a device, precision and batch with two sizes or more."""
    drawn = (
        ("Memory against resolution", "memory", "peak memory (GiB)", "peak_memory_bytes", 2**30),
        ("Throughput against resolution", "throughput", "images/s", "inference_images_per_second", 1),
    )
    links: list[str] = []
    for what, short, label, key, unit in drawn:
        groups: dict[tuple[str, str, str], dict[str, dict[float, float]]] = defaultdict(lambda: defaultdict(dict))
        for record in records:
            numbers, size = record["efficiency"], image_size(record)
            if size and numbers.get(key):
                group = (device(record), str(numbers.get("precision")), str(numbers.get("batch_size")))
                groups[group][named(context, record)][size[0] * size[1] / 1e3] = numbers[key] / unit
        for group, series in sorted(groups.items()):
            grown = {name: sorted(points.items()) for name, points in series.items() if len(points) > 1}
            if grown and len(links) < MOST_FIGURES:
                title = f"{what} ({group[0]}, {group[1]}, batch {group[2]})"
                name = file_name("profile", short, *group) + ".png"
                figures[name] = context.draw(plots.lines, title, "input size (1,000 pixels)", label, grown)
                links.append(context.image(name, title))
    return links


def _accuracy(context: Context, records: Sequence[Mapping[str, Any]], figures: dict[str, Drawn]) -> list[str]:
    """MAP of a table against the highest measured throughput of the same build at the same size."""
    links: list[str] = []
    for name in sorted({device(r) for r in records}):
        fastest: dict[Build, float] = {}
        for record in (r for r in records if device(r) == name):
            key = _build(record["spec"], image_size(record))
            fastest[key] = max(fastest.get(key, 0.0), record["efficiency"].get("inference_images_per_second") or 0.0)
        for table in context.tables:
            if (points := _points(table, fastest)) and len(links) < MOST_FIGURES:
                counted = "".join(f" ({words})" for words in matched_in(table.plain()))
                title = f"{heading(context, table.key)}{counted}: accuracy against throughput"
                file = f"{stem(context, table.key)}.throughput.{file_name(name)}.png"
                panel = (f"highest throughput over batch and precision (images/s, {name})", True, points)
                figures[file] = context.draw(plots.cost, title, [panel], context.looks)
                links.append(context.image(file, title))
    return links


def _build(spec: Mapping[str, Any], size: Sequence[int] | None) -> Build:
    return str(spec["backbone"]), canonical(spec["options"]), tuple(size or ())


def _points(table: Table, fastest: Mapping[Build, float]) -> list[plots.Point]:
    return [
        plots.Point(row.label, row.setting.backbone, speed, 100 * row.mean("mAP"), 100 * (row.deviation("mAP") or 0))
        for row in table.plain()
        if (speed := fastest.get(_build(row.setting.spec, row.image_size()), 0.0)) > 0
    ]
