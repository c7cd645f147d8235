"""The efficiency table of the scored runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.reporting import text
from harness.reporting.rows import Row, device
from harness.reporting.section import Context, Section, bullets, paragraphs

RIGHT = ("Params (M)", "Params at test (M)", "GFLOPs", "Train images/s", "Test images/s", "Memory (GiB)")


def build(context: Context) -> Section:
    """One row per configuration and dataset; medians over seeds."""
    lines = [_line(context, row) for table in context.tables for row in table.plain()]
    if not lines:
        return Section()
    about = (
        "Measured during the runs above; medians over seeds. Compare speeds only for the same device, precision and "
        f"batch size. {context.doc('speed.md')} explains the measurements."
    )
    columns = [
        "**Params (M)**: all parameters, as trained.",
        "**Params at test (M)**: parameters without classifiers and other parts that the test-time feature does not "
        "need.",
        "**GFLOPs**: two operations per multiply-add, for one image.",
        "**Memory (GiB)**: peak of the run: memory allocated by torch on a GPU, resident memory on a CPU.",
        "**(shared)**: other processes or runs used the device during the test. `python -m harness profile` measures "
        "one cell at a time.",
    ]
    return Section(paragraphs("## Efficiency of the runs", about, bullets(columns), text.table(lines, RIGHT)))


def _line(context: Context, row: Row) -> dict[str, str]:
    record, key = row.scored[0][0], row.setting.spec
    numbers = record["efficiency"]
    return {
        "Backbone": text.escape(row.label),
        "Dataset": text.escape(context.data.title(key["dataset"])),
        "Recipe": text.escape(key["recipe"]),
        "Size": text.size(row.image_size()),
        "Params (M)": text.millions(row.efficiency("parameters")),
        "Params at test (M)": text.millions(row.efficiency("parameters_inference")),
        "GFLOPs": text.giga(row.efficiency("flops")),
        "Train images/s": text.rate(row.efficiency("train_images_per_second")),
        "Test images/s": row.speed(),
        "Memory (GiB)": text.gibibytes(row.efficiency("peak_memory_bytes")),
        "Batch (train / test)": _both(numbers, "batch_size"),
        "Precision (train / test)": _both(numbers, "precision"),
        "Scan": recorded(numbers, "scan") if numbers.get("scan") else text.NOT_APPLICABLE,
        "Device": text.escape(device(record)),
    }


def _both(numbers: Mapping[str, Any], name: str) -> str:
    """The values for training and for the test; a run that was only scored has no training value."""
    trained = recorded(numbers, f"train_{name}") if numbers.get(f"train_{name}") else text.NOT_APPLICABLE
    return f"{trained} / {recorded(numbers, name)}"


def recorded(numbers: Mapping[str, Any], name: str) -> str:
    """A value as text, or “not recorded”."""
    return text.NOT_RECORDED if numbers.get(name) is None else text.escape(numbers[name])
