"""The efficiency study: one record per backbone, device, precision, batch size and input size."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.reporting import commands, plots, profile_summary, text
from harness.reporting.accuracy import heading, stem
from harness.reporting.cells import condition, current, is_training, named
from harness.reporting.efficiency_table import recorded
from harness.reporting.parallel import Drawn
from harness.reporting.rows import Table, device, image_size, matched_in, other_work
from harness.reporting.section import Context, Section, bullets, file_name, folded, paragraphs
from harness.spec.run_spec import canonical

RIGHT = (
    *("Images/s", "Latency (ms)", "Memory (GiB)", "Batch", "Threads", "CPU (ms)", "Repeats", "Error (%)"),
    *("Params (M)", "Params at test (M)", "GFLOPs", "Step (ms)"),
    *("Weights (GiB)", "Gradients (GiB)", "Optimiser (GiB)", "Activations (GiB)"),
)
MOST_FIGURES = 6

Build = tuple[str, str, tuple[int, ...]]
"""A backbone, its options, and its input size."""

COLUMNS = (
    "**Images/s, Latency (ms)**: from the median of repeated, synchronised calls; quartiles in brackets.",
    "**Memory (GiB)**: peak of one batch: weights, inputs and the additional memory of the call.",
    "**CPU (ms)**: processor time of one call, over all threads.",
    "**Error (%)**: standard error of the median latency. Repeats stop when it is below 1 %, or at the time limit.",
    "**Params at test (M)**: parameters that the test-time feature depends on.",
    "**GFLOPs**: two operations per multiply-add, for one image, including the selective scan.",
)
ABOUT_TRAINING = (
    "One step is forward pass, losses, backward pass, gradient clipping and optimiser, with the losses and the "
    "optimiser of the unified recipe. Images are already on the device."
)
TRAINING_COLUMNS = (
    "**Memory (GiB)**: peak of one step. The last columns give the memory of its parts.",
    "**Activations (GiB)**: memory that the forward pass keeps for the backward pass. Not all parts exist at the same "
    "time, so their sum may exceed the peak.",
)


def build(context: Context) -> Section:
    """Tables of inference and training, measurement conditions and figures."""
    records = current([r for r in context.data.records if r["source"] == "profile" and r["status"] == "ok"])
    if not records:
        return Section()
    inference = [r for r in records if not is_training(r)]
    training = [r for r in records if is_training(r)]
    figures: dict[str, Drawn] = {}
    links = _scaling(context, inference, figures) + _accuracy(context, inference, figures)
    about = (
        "Measured by `python -m harness profile` with random images and random weights, one process per cell. "
        f"{context.doc('speed.md')} explains the method. Per backbone and input size, over all batch sizes:"
    )
    cells = text.count(len(records), "cell")
    every = [bullets(COLUMNS), _lines(context, inference, _inference)]
    if training:
        every += ["### Training step", ABOUT_TRAINING, bullets(TRAINING_COLUMNS), _lines(context, training, _training)]
    every += [_conditions(records), commands.of_profile(records)]
    parts = [
        *("## Efficiency study", about, profile_summary.table(context.data, inference)),
        folded("All cells", f"{cells} with quartiles, memory, conditions and commands", *every),
        folded("Figures", "memory and throughput against resolution, accuracy against throughput", *links),
    ]
    return Section(paragraphs(*parts), figures)


def _lines(
    context: Context,
    records: Sequence[Mapping[str, Any]],
    line: Callable[[Context, Mapping[str, Any]], dict[str, str]],
) -> str:
    """A table sorted by device, condition and backbone, so that comparable rows are adjacent."""
    ordered = sorted(records, key=lambda r: (device(r), *condition(r), named(context.data, r), r["run_id"]))
    return text.table([line(context, record) for record in ordered], RIGHT)


def _common(context: Context, record: Mapping[str, Any]) -> dict[str, str]:
    numbers = record["efficiency"]
    return {
        "Device": text.escape(device(record)),
        "Backbone": text.escape(named(context.data, record)),
        "Size": text.size(image_size(record)),
        "Batch": recorded(numbers, "batch_size"),
        "Precision": recorded(numbers, "precision") + (", compiled" if numbers.get("compiled") else ""),
        "Threads": recorded(numbers, "threads"),
    }


def _inference(context: Context, record: Mapping[str, Any]) -> dict[str, str]:
    numbers = record["efficiency"]
    return {
        **_common(context, record),
        "Images/s": _rate(numbers, "inference_images_per_second"),
        "Latency (ms)": _milliseconds(numbers, "latency"),
        "Memory (GiB)": text.gibibytes(numbers.get("peak_memory_bytes")),
        "CPU (ms)": _milliseconds(numbers, "latency_cpu"),
        "Repeats": recorded(numbers, "repeats"),
        "Error (%)": _error(numbers),
        "Params (M)": text.millions(numbers.get("parameters")),
        "Params at test (M)": text.millions(numbers.get("parameters_inference")),
        "GFLOPs": text.giga(numbers.get("flops")),
        "Scan": recorded(numbers, "scan") if numbers.get("scan") else text.NOT_APPLICABLE,
    }


def _training(context: Context, record: Mapping[str, Any]) -> dict[str, str]:
    numbers = record["efficiency"]
    parts = numbers.get("memory_bytes") or {}
    return {
        **_common(context, record),
        "Images/s": _rate(numbers, "train_images_per_second"),
        "Step (ms)": _milliseconds(numbers, "train_step"),
        "Memory (GiB)": text.gibibytes(numbers.get("peak_memory_bytes")),
        "CPU (ms)": _milliseconds(numbers, "train_step_cpu"),
        "Repeats": recorded(numbers, "repeats"),
        "Error (%)": _error(numbers),
        "Weights (GiB)": text.gibibytes(parts.get("weights")),
        "Gradients (GiB)": text.gibibytes(parts.get("gradients")),
        "Optimiser (GiB)": text.gibibytes(parts.get("optimizer_state")),
        "Activations (GiB)": text.gibibytes(parts.get("activations")),
    }


def _milliseconds(numbers: Mapping[str, Any], name: str) -> str:
    """Median, and the quartiles if recorded."""
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
    """Images per second, marked if other processes used the device."""
    return text.rate(numbers.get(key)) + (" (shared)" if other_work(numbers) else "")


def _others(conditions: Mapping[str, Any]) -> float:
    """CPU cores used by other processes; 0 if negligible."""
    return found if (found := conditions.get("others_cores") or 0.0) > 0.1 else 0.0


def _three(value: float) -> str:
    """At least three significant digits, never an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _conditions(records: Sequence[Mapping[str, Any]]) -> str:
    """How many cells were measured on a shared or unsteady device."""
    watched = [r["efficiency"]["conditions"] for r in records if r["efficiency"].get("conditions")]
    if not watched:
        return ""
    shared = [others for c in watched if (others := _others(c))]
    fixed = [ms for c in watched for ms in c.get("fixed_work_ms") or ()]
    lines = []
    if shared:
        lines.append(
            f"In {len(shared)} of {text.count(len(watched), 'cell')}, other processes used {min(shared):.1f} to "
            f"{max(shared):.1f} CPU cores during the measurement (“shared” in the tables). Latencies and images/s of "
            "these cells are worse than on an idle machine."
        )
    unsteady = sum(any(not note.startswith("other work") for note in c.get("notes") or ()) for c in watched)
    if unsteady:
        lines.append(f"In {text.count(unsteady, 'cell')}, the device was not steady; see `notes` in the records.")
    if fixed and len({r["efficiency"].get("device") for r in records}) == 1:
        lines.append(
            f"The same matrix product, timed before and after each cell, took {min(fixed):.1f} to {max(fixed):.1f} ms."
        )
    return paragraphs("### Measurement conditions", bullets(lines)) if lines else ""


def _scaling(context: Context, records: Sequence[Mapping[str, Any]], figures: dict[str, Drawn]) -> list[str]:
    """Draws memory and throughput against resolution, per device, precision and batch size with at least two sizes."""
    drawn = (
        ("Memory against resolution", "memory", "peak memory (GiB)", "peak_memory_bytes", 2**30),
        ("Throughput against resolution", "throughput", "images/s", "inference_images_per_second", 1),
    )
    links: list[str] = []
    for what, short, label, key, unit in drawn:
        groups: dict[tuple[str, str, str, str], dict[str, dict[float, float]]] = defaultdict(lambda: defaultdict(dict))
        for record in records:
            numbers, size = record["efficiency"], image_size(record)
            if size and numbers.get(key):
                group = (device(record), str(numbers.get("precision")), str(numbers.get("batch_size")), _how(record))
                groups[group][named(context.data, record)][size[0] * size[1] / 1e3] = numbers[key] / unit
        for group, series in sorted(groups.items()):
            grown = {name: sorted(points.items()) for name, points in series.items() if len(points) > 1}
            if grown and len(links) < MOST_FIGURES:
                title = f"{what} ({group[0]}, {group[1]}, batch {group[2]}{group[3]})"
                name = file_name("profile", short, *filter(None, group)) + ".png"
                figures[name] = context.draw(plots.lines, title, "input size (1,000 pixels)", label, grown)
                links.append(context.image(name, title))
    return links


def _how(record: Mapping[str, Any]) -> str:
    """What else divides the lines: compilation, and the number of threads on a CPU."""
    numbers = record["efficiency"]
    threads = numbers.get("threads") if numbers.get("device") == "cpu" else None
    return (f", {text.count(threads, 'thread')}" if threads else "") + (", compiled" if numbers.get("compiled") else "")


def _accuracy(context: Context, records: Sequence[Mapping[str, Any]], figures: dict[str, Drawn]) -> list[str]:
    """Draws mAP against the highest measured throughput of the same backbone, options and input size."""
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
