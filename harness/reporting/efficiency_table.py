"""The efficiency table of the scored runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.reporting import text
from harness.reporting.rows import Row, Table, device
from harness.reporting.section import Context, Section, folded

RIGHT = ("Params (M)", "Params at test (M)", "GFLOPs", "Train images/s", "Test images/s", "Memory (GiB)")

Measured = tuple[Table, Row]


def build(context: Context) -> Section:
    """One row per configuration and condition; ranges over datasets of medians over seeds."""
    groups: dict[tuple[str, ...], list[Measured]] = {}
    for table in context.tables:
        for row in table.plain():
            groups.setdefault(_condition(row), []).append((table, row))
    if not groups:
        return Section()
    about = (
        "Measured during the runs above; medians over seeds, with the range over datasets. Compare speeds only for the "
        f"same device, precision and batch size. {context.doc('speed.md')} explains the measurements. **Params (M)**: "
        "as trained; **at test**: without classifiers and other parts that the feature does not need. **GFLOPs**: two "
        "operations per multiply-add, for one image. **Memory (GiB)**: peak of the run, on a GPU memory allocated by "
        "torch, on a CPU resident memory. **(shared)**: other processes or runs used the device during the test; "
        "`python -m harness profile` measures one cell at a time."
    )
    lines = [_line(context, key, group) for key, group in sorted(groups.items())]
    shown = text.table(lines, RIGHT)
    return Section(folded("Efficiency of the runs", "parameters, FLOPs, speed and memory", about, shown))


def _condition(row: Row) -> tuple[str, ...]:
    """What the rows of one line have in common: label, recipe, size, batch, precision, scan and device."""
    record = row.scored[0][0]
    numbers = record["efficiency"]
    return (
        text.escape(row.label),
        text.escape(row.setting.spec["recipe"]),
        text.size(None if row.setting.source == "features" else row.image_size()),
        _both(numbers, "batch_size"),
        _both(numbers, "precision"),
        recorded(numbers, "scan") if numbers.get("scan") else text.NOT_APPLICABLE,
        text.escape(device(record)),
    )


def _line(context: Context, key: tuple[str, ...], group: Sequence[Measured]) -> dict[str, str]:
    label, recipe, size, batch, precision, scan, place = key
    rows = [row for _, row in group]
    titles = list(dict.fromkeys(context.data.title(row.setting.spec["dataset"]) for row in rows))
    shared = " (shared)" if any(row.disturbed() for row in rows) else ""
    return {
        "Backbone": label,
        "Runs on": text.escape(titles[0]) if len(titles) == 1 else text.count(len(titles), "dataset"),
        "Recipe": recipe,
        "Size": size,
        "Params (M)": _range(rows, text.millions, "parameters"),
        "Params at test (M)": _range(rows, text.millions, "parameters_inference"),
        "GFLOPs": _range(rows, text.giga, "flops"),
        "Train images/s": _training_speed(rows),
        "Test images/s": _range(rows, text.rate, "inference_images_per_second") + shared,
        "Memory (GiB)": _range(rows, text.gibibytes, "peak_memory_bytes"),
        "Batch (train / test)": batch,
        "Precision (train / test)": precision,
        "Scan": scan,
        "Device": place,
    }


def _range(rows: Sequence[Row], shown: Callable[[float | None], str], name: str) -> str:
    """The smallest and the largest value, or the only one."""
    values = sorted(value for row in rows if (value := row.efficiency(name)) is not None)
    ends = list(dict.fromkeys(shown(value) for value in (values[0], values[-1]))) if values else [shown(None)]
    return " to ".join(ends)


def _training_speed(rows: Sequence[Row]) -> str:
    """Images per second, with the number of processes or GPUs if there were several."""
    count = max(row.scored[0][0]["efficiency"].get("train_processes") or 1 for row in rows)
    return _range(rows, text.rate, "train_images_per_second") + (f" ({count} processes)" if count > 1 else "")


def _both(numbers: Mapping[str, Any], name: str) -> str:
    """The values for training and for the test; a run that was only scored has no training value."""
    trained = recorded(numbers, f"train_{name}") if numbers.get(f"train_{name}") else text.NOT_APPLICABLE
    return f"{trained} / {recorded(numbers, name)}"


def recorded(numbers: Mapping[str, Any], name: str) -> str:
    """A value as text, or “not recorded”."""
    return text.NOT_RECORDED if numbers.get(name) is None else text.escape(numbers[name])
