"""`evaluate`: score a checkpoint or stored features, without training."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from harness import PROTOCOL_VERSION, plan, registry, store, weights
from harness.cli.options import make_request, request_options
from harness.errors import UsageError
from harness.job import Job, run_folder
from harness.progress import Board
from harness.spec import RunSpec


@click.command(
    epilog="Example: python -m harness evaluate --backbone transreid --checkpoint transformer_120.pth "
    "--dataset market1501 --recipe native --data-root DIR"
)
@click.option("--backbone", required=True, help="Backbone of the checkpoint; with --features the name in the table.")
@click.option("--dataset", required=True, help="Dataset to score on.")
@click.option("--checkpoint", default="", help="File of the original code, or a checkpoint.pt of a run.")
@click.option("--features", default="", help="A .npz with the arrays query and gallery, rows in order of the paths.")
@click.option("--trust-pickle", is_flag=True, help="Allow a file that runs code when it is read.")
@click.option("--allow-count-mismatch", is_flag=True, help="Go on when counts differ from the card; recorded.")
@request_options
def command(
    backbone: str,
    dataset: str,
    checkpoint: str,
    features: str,
    trust_pickle: bool,
    allow_count_mismatch: bool,
    preset: str,
    **values: Any,
) -> int:
    """Scores a checkpoint or stored features with this harness's evaluator and writes a record."""
    if bool(checkpoint) == bool(features):
        raise UsageError("Give either --checkpoint FILE or --features FILE.")
    stored = Path(checkpoint or features).expanduser().absolute()
    if not stored.is_file():
        raise UsageError(f"{stored} does not exist.")
    request = make_request({**values, "backbones": backbone, "datasets": dataset, "from_scratch": True}, {})
    spec = _spec(request, stored, "checkpoint" if checkpoint else "features")
    folder = run_folder(request.results, spec)
    job = Job(
        spec,
        str(folder.absolute()),
        request.places,
        stored=str(stored),
        trust_pickle=trust_pickle,
        allow_count_mismatch=allow_count_mismatch,
        force=request.force,
    )
    return _run(job, folder)


def _spec(request: plan.Request, stored: Path, purpose: str) -> RunSpec:
    """The run as a value: the file's checksum stands where a training run has its starting weights."""
    plugins = Path(request.places.plugins) if request.places.plugins else None
    backbone = registry.backbone(request.backbones, plugins)
    dataset = registry.dataset(request.datasets, plugins)
    recipe = plan.load_recipe(request, backbone, dataset.name)
    reader = request.dataset_options.get(dataset.name, {})
    return RunSpec(
        backbone=backbone.name,
        dataset=dataset.name,
        recipe=recipe.name,
        values=recipe.values(),
        seed=0,
        device=plan.resolve_device(request.device),
        protocol=PROTOCOL_VERSION,
        torch=plan.torch_version(),
        source=backbone.source_hash(),
        pretrained=f"sha256:{weights.checksum(stored)}",
        fingerprint=dataset.fingerprint(request.places.data_root or ".", **reader),
        options=backbone.options({**recipe.options, **plan.chosen_options(request, backbone)}),
        dataset_options={dataset.name: reader} if reader else {},
        purpose=purpose,
    )


def _run(job: Job, folder: Path) -> int:
    from harness import child

    with Board(sys.stdout, [job]) as board:
        status = child.run(job, lambda event: board.event(job, event))
        board.event(job, {"event": "finished", "status": status})
    record = store.read(folder)
    for row in record["evaluations"]:
        marks = "".join(f" +{m}" for m in ("flip", "rerank") if row[m])
        low, high = row["interval"]["mAP"]
        click.echo(
            f"{row['dataset']}{marks}: mAP {row['mAP']:.2%} (95% interval {low:.2%} to {high:.2%}), "
            f"rank-1 {row['rank-1']:.2%}, mINP {row['mINP']:.2%}"
        )
    if record["error"]:
        click.echo(f"Error: {record['error']['message']}", err=True)
    click.echo(f"Record: {folder / 'record.json'}")
    return 0 if status == "ok" else 1
