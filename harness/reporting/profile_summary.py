"""The efficiency study in short: one row per device, backbone, input size and precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.reporting import text
from harness.reporting.cells import named
from harness.reporting.report_data import ReportData
from harness.reporting.rows import device, image_size, other_work

RIGHT = ("Params at test (M)", "GFLOPs", "Images/s, highest (batch)", "Latency (ms), one image", "Memory (GiB)")

Cells = Sequence[Mapping[str, Any]]


def table(data: ReportData, records: Cells) -> str:
    """Markdown with the highest throughput, the latency of one image, and the memory at the highest throughput."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for record in records:
        numbers = record["efficiency"]
        how = f"{numbers.get('precision')}{', compiled' if numbers.get('compiled') else ''}"
        key = (device(record), tuple(image_size(record) or ()), how, named(data, record))
        groups.setdefault(key, []).append(record)
    several = {side: len({key[side] for key in groups}) > 1 for side in (0, 2)}
    lines = []
    for key, cells in sorted(groups.items()):
        place, size, how, name = key
        lines.append(
            ({"Device": text.escape(place)} if several[0] else {})
            | {"Backbone": text.escape(name), "Size": text.size(size)}
            | ({"Precision": text.escape(how)} if several[2] else {})
            | _numbers(cells)
        )
    return text.table(lines, RIGHT)


def _numbers(cells: Cells) -> dict[str, str]:
    fastest = max(cells, key=lambda r: r["efficiency"].get("inference_images_per_second") or 0.0)
    numbers = fastest["efficiency"]
    shared = " (shared)" if other_work(numbers) else ""
    single = [r["efficiency"].get("latency_ms") for r in cells if r["efficiency"].get("batch_size") == 1]
    return {
        "Params at test (M)": text.millions(numbers.get("parameters_inference")),
        "GFLOPs": text.giga(numbers.get("flops")),
        "Images/s, highest (batch)": (
            f"{text.rate(numbers.get('inference_images_per_second'))} ({numbers.get('batch_size')}){shared}"
        ),
        "Latency (ms), one image": text.rate(min(single)) if single and None not in single else text.NOT_APPLICABLE,
        "Memory (GiB)": text.gibibytes(numbers.get("peak_memory_bytes")),
    }
