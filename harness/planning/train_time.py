"""`--train-time`: the same time of training for every backbone, as the number of epochs that fits into it.

The number of epochs follows from the training step that `profile` measured, so it is the same in every plan. Run times
vary, and a run that stops by the clock could not be repeated.
"""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness import registry
from harness.errors import HarnessError, UsageError
from harness.planning.profile import hardware_of
from harness.planning.request import Request, chosen_options, load_recipe, resolve_device
from harness.records import store
from harness.registry import BackboneEntry
from harness.spec.recipe import Recipe

EPOCHS = "training.epochs"


def applied(request: Request, seconds: float, label: str) -> Request:
    """Returns the request with the epochs of each backbone and dataset whose images can be counted.

    Args:
        request: a request without them.
        seconds: time of training per run.
        label: the time as the user wrote it; part of the name of the recipe.

    Raises:
        UsageError: the training speed of a backbone is not measured, or the epochs were set as well.
    """
    if EPOCHS in request.overrides:
        raise UsageError(f"--train-time sets the number of epochs. Leave out --set {EPOCHS}.")
    from datasets import layouts

    known, epochs = store.index(request.results), {}
    for entry in registry.resolve_datasets(request.datasets, request.plugins):
        options = request.dataset_options.get(entry.name, {})
        try:
            root = Path(request.paths.data_root or ".")
            images = layouts.facts(entry, root, splits=("train",), **options).images
        except HarnessError:
            continue  # the plan says why
        for backbone in registry.resolve_backbones(request.backbones, request.plugins):
            recipe = load_recipe(request, backbone, entry.name)
            rate = _measured(request, backbone, recipe, known)
            epochs[backbone.name, entry.name] = max(1, int(seconds * rate / recipe.sampler.images(images)))
    return replace(request, train_time=label, epochs=epochs)


def _measured(request: Request, backbone: BackboneEntry, recipe: Recipe, known: Mapping[str, store.Entry]) -> float:
    """Images per second of the profiled training step under the conditions of a recipe."""
    device = resolve_device(request.device)
    batch = _batch(recipe)
    size = list(recipe.augmentation.image_size)
    precision = recipe.training.precision
    if precision == "auto":
        precision = "fp16" if device == "cuda" else "fp32"
    chosen = {**recipe.options, **chosen_options(request, backbone)}
    options = backbone.options(chosen)
    wanted: dict[str, Any] = {"measure": "training", "image_size": size, "batch_size": batch, "precision": precision}
    hardware, rates = hardware_of(device), []
    for entry in known.values():
        if (entry.source, entry.status, entry.backbone) != ("profile", "ok", backbone.name):
            continue
        record = store.read(request.results / entry.path)
        values: dict[str, Any] = dict(record["spec"]["values"])
        cell = values.get("cell", {})
        alike = {key: cell.get(key) for key in wanted} == wanted and not cell.get("compiled")
        if alike and values.get("hardware") == hardware and record["spec"]["options"] == options:
            rates.append(1000 * batch / float(record["efficiency"]["train_step_ms"] or 0))
    if not rates:
        height, width = size
        words = "".join(f" --option {backbone.name}.{key}={value}" for key, value in sorted(chosen.items()))
        raise UsageError(
            f"--train-time needs the training speed of {backbone.name} on this machine. Measure it: "
            f"python -m harness profile --backbones {backbone.name} --device {device} "
            f"--image-size {height}x{width} --batch 1 --train-batch {batch} --precision {precision} "
            f'--heights ""{words} '
            f"--results {shlex.quote(str(request.results))}"
        )
    return statistics.median(rates)


def _batch(recipe: Recipe) -> int:
    return recipe.sampler.identities * recipe.sampler.instances
