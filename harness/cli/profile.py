"""`profile`: the efficiency study."""

from __future__ import annotations

import json
from typing import Any

import click

from harness.cli.groups import command as grouped
from harness.cli.groups import option
from harness.cli.options import (
    build_option,
    camera_option,
    device_option,
    format_option,
    given,
    mlflow_option,
    no_mlflow_option,
    plugins_option,
    report_option,
    results_option,
    timeout_option,
)
from harness.errors import UsageError
from harness.planning.plan import Planned
from harness.spec.condition import Condition


@grouped(epilog="Example: python -m harness profile --backbones all --image-size 256x128,384x128 --batch 1,64,128")
@option("What", "--backbones", help="Comma list of names, or 'all'.", default="all", show_default=True)
@option("What", "--force", is_flag=True, help="Measure again what is finished.")
@option("What", "--dry-run", is_flag=True, help="Stop after the plan.")
@option("Measurement", "--image-size", default="256x128", show_default=True, help="Comma list of HEIGHTxWIDTH.")
@option("Measurement", "--batch", default="1,64", show_default=True, help="Batch sizes of inference.")
@option(
    "Measurement",
    "--train-batch",
    default="64",
    show_default=True,
    help="Batch sizes of training; empty leaves it out.",
)
@option("Measurement", "--precision", default="fp32", show_default=True, help="Comma list of fp32, bf16, fp16.")
@option("Measurement", "--compile", "compiled", is_flag=True, help="Measure with torch.compile too.")
@option(
    "Measurement",
    "--heights",
    default="256,512,768,1024",
    show_default=True,
    help="Image heights of the scaling study, or empty.",
)
@option(
    "Measurement",
    "--heights-batch",
    type=click.IntRange(1),
    default=4,
    show_default=True,
    help="Batch size of the scaling study.",
)
@option(
    "Measurement",
    "--seconds",
    type=click.FloatRange(0.1),
    default=3.0,
    show_default=True,
    help="Maximum timing duration per measurement, in seconds.",
)
@option(
    "Machine", "--threads", type=click.IntRange(0), default=0, help="CPU threads. [default: all cores; with a GPU 4]"
)
@device_option
@build_option
@camera_option
@timeout_option
@mlflow_option
@no_mlflow_option
@report_option
@plugins_option
@format_option
@results_option
def command(form: str, **values: Any) -> int:
    """Measures what backbones cost: parameters, FLOPs, time and memory of inference and of a training step.

    One process per cell, one cell at a time; use a machine that has nothing else to do. Random weights and images:
    cost does not depend on them.
    """
    from harness.execution import profile, run

    asked, cells = profile.plan(values["backbones"], study(values))
    if form == "json":
        click.echo(json.dumps([_described(cell) for cell in cells], indent=1))
        return 0
    click.echo(_table(cells))
    if values["dry_run"]:
        return 0
    outcome = profile.measure(asked, cells)
    run.write_page(asked.request, asked.execution)
    return outcome.code


def study(values: dict[str, Any]) -> dict[str, Any]:
    """The settings of a study from the values of the options."""
    return {
        **given(values, "backbones", "dry_run", "form", *MEASURED),
        "image_sizes": [_size(text) for text in _split(values["image_size"])],
        "batches": _numbers("--batch", values["batch"]),
        "train_batches": _numbers("--train-batch", values["train_batch"]),
        "precisions": _split(values["precision"]),
        "heights": _numbers("--heights", values["heights"]),
        **{name: values[name] for name in ("heights_batch", "compiled", "threads", "seconds")},
    }


MEASURED = (
    *("image_size", "batch", "train_batch", "precision", "compiled", "heights", "heights_batch", "seconds", "threads"),
)
"""Options that say what is measured."""


def _table(cells: list[Planned]) -> str:
    lines = [
        f"{cell.state:8} {cell.spec.backbone:24} {Condition.from_values(cell.spec.values)}  {cell.reason}"
        for cell in cells
    ]
    hardware = cells[0].spec.values["hardware"] if cells else ""
    return "\n".join([*lines, "", f"{len(cells)} cells on {hardware}."])


def _described(cell: Planned) -> dict[str, Any]:
    """One object a cell, as `plan` gives them, with its condition."""
    return {**cell.to_dict(), **Condition.from_values(cell.spec.values).described()}


def _split(text: str) -> list[str]:
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    if not (height.isdigit() and width.isdigit() and int(height) > 0 and int(width) > 0):
        raise UsageError(f"--image-size wants HEIGHTxWIDTH, such as 256x128, found '{text}'.")
    return int(height), int(width)


def _numbers(flag: str, text: str) -> list[int]:
    parts = _split(text)
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise UsageError(f"{flag} wants whole numbers above zero, separated by commas, found '{text}'.")
    return [int(part) for part in parts]
