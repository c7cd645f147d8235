"""`profile`: the efficiency study."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import click

from harness.cli.groups import MAIN, MEASUREMENT, option
from harness.cli.groups import command as grouped
from harness.cli.options import (
    UserPath,
    backbones_option,
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
    threads_option,
    timeout_option,
)
from harness.cli.tables import STATES, Column, table
from harness.errors import UsageError
from harness.planning.plan import BLOCKED, CACHED, TODO, Planned
from harness.spec.condition import Condition
from harness.system.redact import readable


@grouped(
    exit_codes={
        0: "Every cell is measured or out of memory.",
        1: "Some cell failed.",
        2: "Wrong usage.",
        130: "Interrupted.",
    },
    example="python -m harness profile --backbones all --image-size 256x128,384x128 --batch 1,64,128",
)
@backbones_option()
@option(
    MAIN,
    "--exported",
    default="",
    metavar="FILE",
    type=UserPath(),
    help="Time a file of `export` beside PyTorch on the CPU, in place of --backbones.",
)
@option(MAIN, "--force", is_flag=True, help="Repeat finished measurements.")
@option(MAIN, "--dry-run", is_flag=True, help="Show the plan and stop.")
@option(
    MEASUREMENT,
    "--image-size",
    metavar="SIZES",
    default="256x128",
    show_default=True,
    help="Comma-separated image sizes, HEIGHTxWIDTH in pixels.",
)
@option(
    MEASUREMENT,
    "--batch",
    metavar="SIZES",
    default="1,64",
    show_default=True,
    help="Comma-separated batch sizes for inference, in images.",
)
@option(
    MEASUREMENT,
    "--train-batch",
    metavar="SIZES",
    default="64",
    show_default=True,
    help="Comma-separated batch sizes for training; '' skips training.",
)
@option(
    MEASUREMENT,
    "--precision",
    metavar="NAMES",
    default="fp32",
    show_default=True,
    help="Comma-separated fp32, bf16 and fp16.",
)
@option(MEASUREMENT, "--compile", "compiled", is_flag=True, help="Also measure with torch.compile.")
@option(
    MEASUREMENT,
    "--heights",
    metavar="HEIGHTS",
    default="256,512,768,1024",
    show_default=True,
    help="Heights of the scaling study, in pixels, or ''.",
)
@option(
    MEASUREMENT,
    "--heights-batch",
    type=click.IntRange(1),
    metavar="N",
    default=4,
    show_default=True,
    help="Batch size of the scaling study, in images.",
)
@option(
    MEASUREMENT,
    "--seconds",
    metavar="SECONDS",
    type=click.FloatRange(0.1),
    default=3.0,
    show_default=True,
    help="Maximum timing duration per measurement, in seconds.",
)
@threads_option("all cores, or 4 with a GPU")
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
def command(form: str, exported: str, **values: Any) -> int:
    """Measure parameters, FLOPs, throughput, latency and memory of inference and training steps.

    Each cell is one backbone under one condition, measured alone in its own process. Use a machine with no other load.
    Weights and images are random, because they do not change the cost.
    """
    if exported:
        return _exported(exported, form, values)
    from harness.execution import profile, run

    asked, cells = profile.plan(values["backbones"], study(values))
    if form == "json":
        click.echo(json.dumps([_described(cell) for cell in cells], indent=1))
        return 0
    click.echo(_shown(cells))
    if values["dry_run"]:
        return 0
    outcome = profile.measure(asked, cells)
    run.write_page(asked.request, asked.execution)
    return outcome.code


def _exported(path: str, form: str, values: dict[str, Any]) -> int:
    """Prints the speed of an exported file beside that of PyTorch."""
    import harness

    if others := sorted(given(values).keys() - {"batch", "threads", "seconds", "plugins"}):
        raise UsageError(f"--exported times one file; it does not use {others[0].replace('_', '-')}. Leave that out.")
    chosen = {name: values[name] for name in ("threads", "seconds", "plugins")}
    timings = harness.profile_exported(path, batches=_numbers("--batch", values["batch"]), **chosen)
    if form == "json":
        click.echo(json.dumps([{**t._asdict(), "speedup": t.speedup} for t in timings], indent=1))
        return 0
    columns = [Column(name, right=True) for name in ("batch", "file images/s", "PyTorch images/s", "ratio", "repeats")]
    rows = [
        [
            str(t.batch),
            *(f"{1000 * t.batch / ms:.1f}" for ms in (t.file_ms, t.pytorch_ms)),
            f"{t.speedup:.2f}",
            str(t.repeats),
        ]
        for t in timings
    ]
    click.echo(table(columns, rows))
    return 0


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


COLUMNS = (
    Column("state", colours=STATES),
    Column("backbone", folds=True),
    Column("measure"),
    Column("image size", right=True),
    Column("batch", right=True),
    Column("precision", optional=True),
    Column("compiled"),
    Column("reason", folds=True),
)


def _shown(cells: Sequence[Planned]) -> str:
    """The plan as a table, with the hardware that is measured."""
    rows = []
    for cell in cells:
        condition = Condition.from_values(cell.spec.values)
        height, width = condition.image_size
        compiled = "yes" if condition.compiled else ""
        size, batch = f"{height}x{width}", str(condition.batch_size)
        measured = [condition.measure, size, batch, condition.precision, compiled]
        rows.append([cell.state, cell.spec.backbone, *measured, readable(cell.short_reason)])
    counts = Counter(cell.state for cell in cells)
    total = ", ".join(f"{counts[s]} {s}" for s in (CACHED, TODO, BLOCKED) if counts[s])
    hardware = cells[0].spec.values["hardware"] if cells else ""
    return f"{table(COLUMNS, rows)}\n\n{len(cells)} cells on {hardware}: {total}."


def _described(cell: Planned) -> dict[str, Any]:
    """A cell as a JSON object: what `plan` prints for a run, and the condition."""
    return {**cell.to_dict(), **Condition.from_values(cell.spec.values).described()}


def _split(text: str) -> list[str]:
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    if not (height.isdigit() and width.isdigit() and int(height) > 0 and int(width) > 0):
        raise UsageError(f"--image-size must be HEIGHTxWIDTH, such as 256x128, found '{text}'.")
    return int(height), int(width)


def _numbers(flag: str, text: str) -> list[int]:
    parts = _split(text)
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise UsageError(f"{flag} must be whole numbers above 0, separated by commas, found '{text}'.")
    return [int(part) for part in parts]
