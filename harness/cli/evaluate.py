"""`evaluate`: score a checkpoint or stored features, without training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from harness.cli.groups import command as grouped
from harness.cli.groups import option
from harness.cli.options import (
    UserPath,
    count_option,
    given,
    mlflow_option,
    no_mlflow_option,
    setting_options,
    timeout_option,
    workers_option,
)
from harness.records import store
from harness.records.schema import matched


@grouped(
    epilog="Example: python -m harness evaluate --backbone transreid --checkpoint transformer_120.pth "
    "--dataset market1501 --recipe native --data-root DIR"
)
@option("What", "--backbone", required=True, help="Backbone of the checkpoint; with --features any name for the row.")
@option("What", "--dataset", required=True, help="Dataset to score on.")
@option(
    "What",
    "--checkpoint",
    default="",
    metavar="FILE",
    type=UserPath(),
    help="File of the original code, or a checkpoint.pt of a run.",
)
@option(
    "What",
    "--features",
    default="",
    metavar="FILE|DIR",
    type=UserPath(),
    help="Features of query and gallery: .npz, .mat, a torch file, or a folder of .npy; see docs/features.md.",
)
@option("What", "--trust-pickle", is_flag=True, help="Allow a file that runs code when it is read.")
@option("What", "--force", is_flag=True, help="Score again what was scored.")
@option(
    "Recipe",
    "--camera-embedding",
    type=click.Choice(["on", "off", "mean"]),
    default=None,
    help="Of the checkpoint: on another dataset cameras are unknown, and their mean is the neutral choice.",
)
@option("Machine", "--threads", type=click.IntRange(0), default=0, help="CPU threads. [default: all cores]")
@timeout_option
@workers_option
@count_option
@mlflow_option
@no_mlflow_option
@setting_options
def command(backbone: str, dataset: str, checkpoint: str, features: str, trust_pickle: bool, **values: Any) -> int:
    """Scores a checkpoint or stored features with this harness's evaluator and writes a record.

    A file that does not fit is refused with exit code 2, and nothing is written. What was scored before is not scored
    again.
    """
    from harness.execution import evaluate

    outcome = evaluate.evaluate(
        backbone, dataset, checkpoint=checkpoint, features=features, trust_pickle=trust_pickle, given=given(values)
    )
    (folder,) = outcome.folders
    record = store.read(folder)
    for row in record["evaluations"]:
        click.echo(_in_words(row))
    if record["error"]:
        click.echo(f"Error: {record['error']['message']}", err=True)
    click.echo(f"Record: {folder / 'record.json'}")
    return outcome.code


def _in_words(row: Mapping[str, Any]) -> str:
    marks = "".join(f" +{m}" for m in ("flip", "rerank") if row[m])
    bounds = row["interval"].get("mAP")
    interval = " (95% interval {:.2%} to {:.2%})".format(*bounds) if bounds else ""
    scores = [f"mAP {row['mAP']:.2%}{interval}", f"rank-1 {row['rank-1']:.2%}", f"mINP {row['mINP']:.2%}", matched(row)]
    return f"{row['dataset']}{marks}: {', '.join(filter(None, scores))}"
