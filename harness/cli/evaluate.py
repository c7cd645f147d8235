"""`evaluate`: score a checkpoint or stored features, without training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from harness.cli.groups import MAIN, RECIPE, option
from harness.cli.groups import command as grouped
from harness.cli.options import (
    UserPath,
    audit_option,
    backbone_option,
    count_option,
    dataset_option,
    debug_option,
    given,
    mlflow_option,
    no_mlflow_option,
    setting_options,
    threads_option,
    timeout_option,
    workers_option,
)
from harness.cli.tables import Column, table
from harness.records import store
from harness.records.schema import matched


@grouped(
    exit_codes={
        0: "Scored, or scored before.",
        1: "The run failed.",
        2: "Wrong usage, or a file that does not fit.",
    },
    example="python -m harness evaluate --backbone bot --checkpoint bot.pth --dataset msmt17 --data-root data",
)
@backbone_option("Backbone; with --features any name for the row.")
@dataset_option("Dataset to score on.")
@option(
    MAIN,
    "--checkpoint",
    default="",
    metavar="FILE",
    type=UserPath(),
    help="Checkpoint of the original code, or checkpoint.pt of a run.",
)
@option(
    MAIN,
    "--features",
    default="",
    metavar="FILE|DIR",
    type=UserPath(),
    help="Stored features of query and gallery; formats: docs/features.md.",
)
@audit_option
@option(MAIN, "--trust-pickle", is_flag=True, help="Allow a file that runs code when it is loaded.")
@option(MAIN, "--force", is_flag=True, help="Score again what was scored before.")
@option(
    RECIPE,
    "--camera-embedding",
    type=click.Choice(["on", "off", "mean"]),
    default=None,
    help="Camera embedding; 'mean' suits a dataset with other cameras.",
)
@threads_option("all cores")
@timeout_option
@debug_option
@workers_option
@mlflow_option
@no_mlflow_option
@setting_options
@count_option
def command(backbone: str, dataset: str, checkpoint: str, features: str, trust_pickle: bool, **values: Any) -> int:
    """Score a checkpoint or stored features without training, and write a record.

    Give either --checkpoint or --features. A file that does not fit is refused and nothing is written.
    """
    from harness.execution import evaluate

    outcome = evaluate.evaluate(
        backbone, dataset, checkpoint=checkpoint, features=features, trust_pickle=trust_pickle, given=given(values)
    )
    (folder,) = outcome.folders
    record = store.read(folder)
    if rows := [_row(evaluation) for evaluation in record["evaluations"]]:
        click.echo(f"\n{table(COLUMNS, rows)}\n")
    if record["error"]:
        click.echo(f"Error: {record['error']['message']}", err=True)
    click.echo(f"Record: {folder / 'record.json'}")
    return outcome.code


COLUMNS = (
    Column("dataset"),
    Column("variant"),
    Column("mAP", right=True),
    Column("95% interval"),
    Column("rank-1", right=True),
    Column("mINP", right=True),
    Column("note", folds=True),
)


def _row(evaluation: Mapping[str, Any]) -> list[str]:
    variant = "".join(f"+{name}" for name in ("flip", "rerank") if evaluation[name])
    bounds = evaluation["interval"].get("mAP")
    interval = "{:.2%} to {:.2%}".format(*bounds) if bounds else ""
    scores = [f"{evaluation[name]:.2%}" for name in ("mAP", "rank-1", "mINP")]
    return [evaluation["dataset"], variant or "plain", scores[0], interval, *scores[1:], matched(evaluation)]
