"""`evaluate`: score a checkpoint or stored features, without training."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from harness import PROTOCOL_VERSION, plan, processes, registry, store, weights
from harness.cli.launch import make_job
from harness.cli.options import UserPath, apply_preset, load_preset, make_request, plugins_path, setting_options
from harness.errors import UsageError
from harness.job import Job, run_folder
from harness.progress import Board
from harness.record import matched
from harness.registry import BackboneEntry
from harness.spec import RunSpec


@click.command(
    epilog="Example: python -m harness evaluate --backbone transreid --checkpoint transformer_120.pth "
    "--dataset market1501 --recipe native --data-root DIR"
)
@click.option("--backbone", required=True, help="Backbone of the checkpoint; with --features the name in the table.")
@click.option("--dataset", required=True, help="Dataset to score on.")
@click.option(
    "--checkpoint",
    default="",
    metavar="FILE",
    type=UserPath(),
    help="File of the original code, or a checkpoint.pt of a run.",
)
@click.option(
    "--features",
    default="",
    metavar="FILE",
    type=UserPath(),
    help="A .npz with the arrays query and gallery, rows in order of the paths.",
)
@click.option(
    "--camera-embedding",
    type=click.Choice(["on", "off", "mean"]),
    default=None,
    help="Of the checkpoint: on another dataset cameras are unknown, and their mean is the neutral choice.",
)
@click.option("--trust-pickle", is_flag=True, help="Allow a file that runs code when it is read.")
@click.option("--allow-count-mismatch", is_flag=True, help="Go on when counts differ from the card; recorded.")
@click.option("--force", is_flag=True, help="Score again what was scored.")
@click.option("--threads", type=click.IntRange(0), default=0, help="CPU threads. [default: all cores]")
@click.option("--workers", type=click.IntRange(0), default=0, help="Loader threads; scores do not depend on it.")
@setting_options
def command(
    backbone: str,
    dataset: str,
    checkpoint: str,
    features: str,
    camera_embedding: str | None,
    trust_pickle: bool,
    threads: int,
    preset: str,
    **values: Any,
) -> int:
    """Scores a checkpoint or stored features with this harness's evaluator and writes a record."""
    if bool(checkpoint) == bool(features):
        raise UsageError("Give either --checkpoint FILE or --features FILE.")
    stored = Path(checkpoint or features).absolute()
    if not stored.is_file():
        raise UsageError(f"{stored} does not exist.")
    settings = load_preset(preset)
    one = {"backbones": backbone, "datasets": dataset, "seeds": "0", "eval_datasets": "", "from_scratch": True}
    one["camera_embedding"] = camera_embedding if camera_embedding in ("on", "off") else ""
    request = make_request({**apply_preset(values, settings), **one}, settings)
    spec = _spec(request, stored, "checkpoint" if checkpoint else "features")
    if camera_embedding and "camera_embedding" not in spec.options:
        raise UsageError(f"{backbone} has no camera embedding; leave --camera-embedding out.")
    if camera_embedding == "mean":
        spec = replace(spec, options={**spec.options, "camera_embedding": "mean"})
    if checkpoint:
        given = make_request({**values, **one}, {})  # without the preset, which nobody typed option by option
        spec = replace(spec, options=_as_built(given, spec, stored, trust_pickle))
    folder = run_folder(request.results, spec)
    cell = plan.Planned(spec, plan.TODO, "", folder, asked=plan.asked_for(request, _backbone(request)))
    job = replace(
        make_job(cell, request, values, threads or processes.cores()), stored=str(stored), trust_pickle=trust_pickle
    )
    return _run(job, folder)


def _spec(request: plan.Request, stored: Path, purpose: str) -> RunSpec:
    """The run as a value: the file's checksum stands where a training run has its starting weights."""
    backbone = _backbone(request)
    dataset = registry.dataset(request.datasets, plugins_path(request.places.plugins))
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


def _backbone(request: plan.Request) -> BackboneEntry:
    return registry.backbone(request.backbones, plugins_path(request.places.plugins))


def _as_built(given: plan.Request, spec: RunSpec, stored: Path, trust_pickle: bool) -> dict[str, Any]:
    """The options the checkpoint is built with: what the file tells goes before what nobody asked for.

    A named variant asks for its options. A camera embedding that is in the file may still be left unused, or be
    replaced by its mean, by the user.

    Raises:
        UsageError: an option of the user, or of the variant, contradicts the file.
        WeightsError: the file is no checkpoint of this backbone.
    """
    backbone = _backbone(given)
    if (infer := getattr(backbone.model(), "infer", None)) is None:
        return spec.options
    height, width = spec.values["augmentation"]["image_size"]
    found = infer(weights.load_state(stored, trust_pickle), (height, width))["options"]
    typed = {key: spec.options[key] for key in plan.chosen_options(given, backbone)}
    chosen = {**backbone.settings.options, **typed}
    if spec.options.get("camera_embedding") == "mean":
        typed["camera_embedding"] = chosen["camera_embedding"] = "mean"
    for key, value in found.items():
        if key in chosen and chosen[key] != value and not (key == "camera_embedding" and key in typed and value):
            instead = "leave this option out" if key in typed else f"{backbone.name} is another variant"
            raise UsageError(
                f"{stored.name} was built with {key}={_shown(value)}, not {_shown(chosen[key])}; {instead}."
            )
    unused = {key: spec.options[key] for key, value in found.items() if key == "camera_embedding" and value}
    return {**spec.options, **found, **unused}


def _shown(value: Any) -> str:
    return {True: "on", False: "off"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def _run(job: Job, folder: Path) -> int:
    from harness import child

    with Board(sys.stdout, [job]) as board:
        status = child.run(job, lambda event: board.event(job, event))
        board.event(job, {"event": "finished", "status": status})
    record = store.read(folder)
    for row in record["evaluations"]:
        click.echo(_in_words(row))
    if record["error"]:
        click.echo(f"Error: {record['error']['message']}", err=True)
    click.echo(f"Record: {folder / 'record.json'}")
    return 0 if status == "ok" else 1


def _in_words(row: Mapping[str, Any]) -> str:
    marks = "".join(f" +{m}" for m in ("flip", "rerank") if row[m])
    bounds = row["interval"].get("mAP")
    interval = " (95% interval {:.2%} to {:.2%})".format(*bounds) if bounds else ""
    scores = [f"mAP {row['mAP']:.2%}{interval}", f"rank-1 {row['rank-1']:.2%}", f"mINP {row['mINP']:.2%}", matched(row)]
    return f"{row['dataset']}{marks}: {', '.join(filter(None, scores))}"
