"""The efficiency study: profile records, one a backbone, device, precision, batch and input size."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from harness.report import plots, text
from harness.report.accuracy import device, heading, stem
from harness.report.costs import recorded
from harness.report.rows import Table, image_size
from harness.report.section import Context, Section, file_name, paragraphs

RIGHT = ("Params (M)", "At test (M)", "GFLOPs", "Images/s", "Train images/s", "Latency (ms)", "Memory (GiB)", "Batch")
MOST_FIGURES = 6


def build(context: Context) -> Section:
    """The study's table, accuracy against measured throughput, memory against resolution."""
    records = [r for r in context.material.records if r["source"] == "profile" and r["status"] == "ok"]
    if not records:
        return Section()
    lines = sorted((_line(record) for record in records), key=lambda line: list(line.values()))
    figures: dict[str, bytes] = {}
    links = _memory(context, records, figures) + _accuracy(context, records, figures)
    about = (
        "Measured with nothing else on the device; batch, precision and input size as stated. "
        "Memory is the peak of one batch."
    )
    return Section(paragraphs("## Efficiency study", about, text.table(lines, RIGHT), *links), figures)


def _line(record: Mapping[str, Any]) -> dict[str, str]:
    numbers = record["efficiency"]
    latency = numbers.get("latency_ms")
    return {
        "Device": text.escape(device(record)),
        "Backbone": text.escape(record["spec"]["backbone"]),
        "Size": text.size(image_size(record)),
        "Precision": recorded(numbers, "precision"),
        "Batch": recorded(numbers, "batch_size"),
        "Params (M)": text.millions(numbers.get("parameters")),
        "At test (M)": text.millions(numbers.get("parameters_inference")),
        "GFLOPs": text.giga(numbers.get("flops")),
        "Images/s": text.rate(numbers.get("inference_images_per_second")),
        "Train images/s": text.rate(numbers.get("train_images_per_second")),
        "Latency (ms)": text.NOT_RECORDED if latency is None else f"{latency:.2f}",
        "Memory (GiB)": text.gibibytes(numbers.get("peak_memory_bytes")),
        "Scan": recorded(numbers, "scan") if numbers.get("scan") else text.NOT_APPLICABLE,
    }


def _memory(context: Context, records: Sequence[Mapping[str, Any]], figures: dict[str, bytes]) -> list[str]:
    """Memory against resolution, one figure a device, precision and batch with at least two sizes of a backbone."""
    groups: dict[tuple[str, str, str], dict[str, dict[float, float]]] = defaultdict(lambda: defaultdict(dict))
    for record in records:
        numbers, size = record["efficiency"], image_size(record)
        if size and numbers.get("peak_memory_bytes"):
            key = (device(record), str(numbers.get("precision")), str(numbers.get("batch_size")))
            groups[key][record["spec"]["backbone"]][size[0] * size[1] / 1e3] = numbers["peak_memory_bytes"] / 2**30
    links: list[str] = []
    for key, series in sorted(groups.items()):
        grown = {name: sorted(points.items()) for name, points in series.items() if len(points) > 1}
        if grown and len(links) < MOST_FIGURES:
            title = f"Memory against resolution ({key[0]}, {key[1]}, batch {key[2]})"
            name = file_name("profile", "memory", *key) + ".png"
            figures[name] = plots.lines(title, "input size (1,000 pixels)", "peak memory (GiB)", grown)
            links.append(context.image(name, title))
    return links


def _accuracy(context: Context, records: Sequence[Mapping[str, Any]], figures: dict[str, bytes]) -> list[str]:
    """MAP of a table against the highest measured throughput of the same backbone at the same size."""
    links: list[str] = []
    for name in sorted({device(r) for r in records}):
        fastest: dict[tuple[str, tuple[int, ...]], float] = {}
        for record in (r for r in records if device(r) == name):
            key = (record["spec"]["backbone"], tuple(image_size(record) or ()))
            fastest[key] = max(fastest.get(key, 0.0), record["efficiency"].get("inference_images_per_second") or 0.0)
        for table in context.tables:
            if (points := _points(table, fastest)) and len(links) < MOST_FIGURES:
                title = f"{heading(context, table.key)}: accuracy against throughput"
                file = f"{stem(context, table.key)}.throughput.{file_name(name)}.png"
                panel = (f"highest throughput over batch and precision (images/s, {name})", True, points)
                figures[file] = plots.cost(title, [panel], context.looks)
                links.append(context.image(file, title))
    return links


def _points(table: Table, fastest: Mapping[tuple[str, tuple[int, ...]], float]) -> list[plots.Point]:
    return [
        plots.Point(row.label, row.setting.backbone, speed, 100 * row.mean("mAP"), 100 * (row.deviation("mAP") or 0))
        for row in table.plain()
        if (speed := fastest.get((row.setting.backbone, tuple(row.image_size() or ())), 0.0)) > 0
    ]
