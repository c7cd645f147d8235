"""`--train-time`: the same time of training for every backbone, as the number of epochs that fits into it.

The number of epochs follows from the training step that `profile` measured, so it is the same in every plan. Run times
vary, and a run that stops by the clock could not be repeated.
"""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, UsageError
from harness.planning.request import Request, chosen_options, load_recipe, resolve_device
from harness.records import environment, store
from harness.registry import BackboneEntry, DatasetEntry
from harness.spec.recipe import Recipe

EPOCHS = "training.epochs"


def applied(
    request: Request,
    backbones: Sequence[BackboneEntry],
    datasets: Sequence[DatasetEntry],
    known: Mapping[str, store.Entry],
) -> Request:
    """Returns the request with the epochs of each backbone on each dataset whose images can be counted.

    Args:
        request: a request with a training time.
        backbones: its backbones; those without training are left out.
        datasets: what they train on.
        known: entries of the results folder by run id.

    Raises:
        UsageError: the training speed of a backbone is not measured, or cannot be.
    """
    if EPOCHS in request.overrides:
        raise UsageError(f"--train-time sets the number of epochs. Leave out --set {EPOCHS}.")
    if request.processes > 1:
        raise UsageError(
            "--train-time counts on one process per run, because `profile` measures one. Found "
            f"{request.processes}; pass --gpus-per-run 1."
        )
    from datasets import layouts

    epochs = {}
    for dataset in datasets:
        options = request.dataset_options.get(dataset.name, {})
        try:
            root = Path(request.paths.data_root or ".")
            images = layouts.facts(dataset, root, splits=("train",), **options).images
        except HarnessError:
            continue  # the plan says why
        for backbone in (backbone for backbone in backbones if backbone.card.trainable):
            recipe = load_recipe(request, backbone, dataset.name)
            rate = _measured(request, backbone, recipe, known)
            epochs[backbone.name, dataset.name] = max(1, int(request.train_time * rate / recipe.sampler.images(images)))
    return replace(request, epochs=epochs)


def _measured(request: Request, backbone: BackboneEntry, recipe: Recipe, known: Mapping[str, store.Entry]) -> float:
    """Images per second of the profiled training step under the conditions of a recipe."""
    training = recipe.training
    if training.compile not in ("no", "default"):
        raise UsageError(
            f"--train-time does not know the speed of training.compile '{training.compile}'. Leave it out."
        )
    device = resolve_device(request.device)
    batch = _batch(recipe)
    size = list(recipe.augmentation.image_size)
    precision = training.precision
    if precision == "auto":
        precision = "fp16" if device == "cuda" else "fp32"
    chosen = {**recipe.options, **chosen_options(request, backbone)}
    options = backbone.options(chosen)
    compiled = training.compile == "default"
    wanted: dict[str, Any] = {"measure": "training", "image_size": size, "batch_size": batch, "precision": precision}
    hardware, rates = environment.hardware(device), []
    for entry in known.values():
        if (entry.source, entry.status, entry.backbone) != ("profile", "ok", backbone.name):
            continue
        record = store.read(request.results / entry.path)
        values: dict[str, Any] = dict(record["spec"]["values"])
        cell = values.get("cell", {})
        alike = {key: cell.get(key) for key in wanted} == wanted and bool(cell.get("compiled")) == compiled
        if alike and values.get("hardware") == hardware and record["spec"]["options"] == options:
            rates.append(1000 * batch / float(record["efficiency"]["train_step_ms"] or 0))
    if not rates:
        height, width = size
        words = "".join(f" --option {backbone.name}.{key}={value}" for key, value in sorted(chosen.items()))
        raise UsageError(
            f"--train-time needs the training speed of {backbone.name} on this machine. Measure it: "
            f"python -m harness profile --backbones {backbone.name} --device {device} "
            f"--image-size {height}x{width} --batch 1 --train-batch {batch} --precision {precision} "
            f'--heights ""{" --compile" if compiled else ""}{words} '
            f"--results {shlex.quote(str(request.results))}"
        )
    return statistics.median(rates)


def _batch(recipe: Recipe) -> int:
    return recipe.sampler.identities * recipe.sampler.instances
