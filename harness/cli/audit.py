"""`audit`: what the score of a trained network hides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from harness import audits
from harness.audits.layout import Matrix, arranged, described
from harness.cli import completion
from harness.cli.groups import MAIN, option
from harness.cli.groups import command as grouped
from harness.cli.networks import network_options, network_settings
from harness.cli.options import (
    cache_option,
    data_root_option,
    device_option,
    format_option,
    mlflow_option,
    no_mlflow_option,
    reader_option,
    threads_option,
    workers_option,
)
from harness.cli.tables import Column, prose, table
from harness.system.redact import readable


@grouped(
    exit_codes={
        0: "The audits are in the record.",
        1: "An audit failed.",
        2: "Wrong usage, or a file that does not fit.",
    },
    example="python -m harness audit --run 3f2a --checks camera,open-set --data-root data",
)
@network_options
@option(
    MAIN,
    "--dataset",
    default="",
    metavar="NAME",
    show_default="that of the run",
    shell_complete=completion.one(completion.datasets),
    help="Dataset to look at; for a run also several, comma-separated.",
)
@option(
    MAIN,
    "--checks",
    default=audits.DEFAULT,
    show_default=True,
    metavar="NAMES",
    help="Comma-separated audits, 'default' or 'all'.",
)
@threads_option("those of a run on the CPU, else all cores", "Number of CPU threads; it may change the last bit.")
@device_option
@data_root_option
@reader_option
@cache_option
@workers_option
@mlflow_option
@no_mlflow_option
@format_option
def command(backbone: str, dataset: str, checks: str, form: str, **values: Any) -> int:
    """Audit a trained network on the test split of a dataset, and keep the rows in its record.

    A run is audited from its checkpoint. A checkpoint file is scored first, as by `evaluate`. docs/audits.md lists the
    audits.
    """
    import json

    from harness.execution import audit

    settings = network_settings(values, without=("form",))
    chosen = {name: settings.pop(name, "") for name in ("checkpoint", "run")}
    trust_pickle = bool(settings.pop("trust_pickle", False))
    folder, blocks = audit.audit(backbone, dataset, checks, **chosen, trust_pickle=trust_pickle, given=settings)
    if form == "json":
        click.echo(json.dumps(blocks, indent=1))
    else:
        for block in blocks:
            click.echo(f"\n{readable(_shown(block))}")
        click.echo(f"\nRecord: {folder / 'record.json'}")
    return int(any(block["error"] for block in blocks))


COLUMNS = (
    Column("value of", folds=True),
    Column("setting", folds=True),
    Column("value", right=True),
    Column("95% interval"),
    Column("queries", right=True),
)


def _shown(block: Mapping[str, Any]) -> str:
    """The rows of an audit as tables, with its question above and its notes below."""
    rows, matrices = arranged(block["rows"])
    parts = [prose(f"{block['check']} on {block['dataset']}: {block['about']}", "  ", "")]
    if rows:
        parts.append(table(COLUMNS, [_row(row) for row in rows]))
    parts += [_grid(matrix) for matrix in matrices]
    parts += [prose(f"- {note}", "  ", "") for note in block["notes"]]
    if block["error"]:
        parts.append(f"Error: {block['error']}")
    return "\n".join(parts)


def _row(row: Mapping[str, Any]) -> list[str]:
    bounds = row["interval"]
    interval = f"{bounds[0]:.4f} to {bounds[1]:.4f}" if bounds else ""
    digits = 6 if row["name"] == "threshold" else 4
    value = "undefined" if row["value"] is None else f"{row['value']:.{digits}f}"
    queries = "" if row["queries"] is None else f"{row['queries']:,}"
    return [row["name"], described(row["setting"]), value, interval, queries]


def _grid(matrix: Matrix) -> str:
    """A matrix as a table; the record holds the intervals."""
    columns = [Column(matrix.keys[0]), *(Column(str(name), right=True) for name in matrix.columns)]
    lines = [
        [str(name), *("" if value is None else f"{value:.3f}" for value in values)]
        for name, values in zip(matrix.rows, matrix.values, strict=True)
    ]
    return f"{matrix.name}, by {matrix.keys[0]} (rows) and {matrix.keys[1]} (columns)\n{table(columns, lines)}"
