"""A request: a grid of backbones, datasets, recipe and seeds, and how its names and options are resolved."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from msgspec import structs

from harness import registry
from harness.cards import LARGEST
from harness.errors import UsageError, unknown
from harness.planning import budget as budgets
from harness.planning.budget import Budget
from harness.registry import BackboneEntry, timm_names
from harness.spec import recipe
from harness.spec.job import LocalPaths
from harness.spec.recipe import Recipe
from harness.system import durations, gpu, paths

DEVICES = ("auto", "cpu", "cuda", "mps", "xpu")
"""Devices of `--device`; `auto` is `cuda` or `cpu`."""

EACH, LEAVE_ONE_OUT = PROTOCOLS = ("each", "leave-one-out")
"""What `--protocol` may be: train on each dataset, or on all others together."""

Names = str | Iterable[str]
"""Names as a comma list or as strings; `all` is everything registered for it."""

PathLike = str | os.PathLike[str]


class Settings(TypedDict, total=False):
    """How runs are set up. Every key may be left out; each is an option of the command line as well.

    Attributes:
        recipe: name or path of the recipe; `native` is each backbone's own; `tuned` searches. Default `unified`.
        budget: trials of each study, for `tuned`. Default 20.
        studies: independent studies of each backbone and dataset, for `tuned`. Default 3.
        space: search space of `tuned`. Default `training`.
        train_time: time of training per run, such as `30m`: trains as many epochs as fit. Default: those of the recipe.
        stopping: `late` stops bad trials of `tuned` after 3/4 of their epochs, `off` stops none. Default `late`.
        preset: settings for small machines, below the ones given here.
        seeds: one seed, several, or a comma list. Default 0.
        eval_datasets: further datasets that every model is scored on.
        protocol: `each` trains on each dataset; `leave-one-out` trains on all others together, and scores it.
        data_root: folder that holds the datasets. Default `$REID_DATASETS`.
        weights_root: folder of pretrained files. Default `$REID_WEIGHTS`.
        results: folder of the records. Default `results`.
        plugins: folder of further plug-ins. Default `$HARNESS_PLUGINS`.
        cache: folder of decoded images. Default `$HARNESS_CACHE`, or the user's cache folder.
        device: `auto`, `cpu`, `cuda`, `mps` or `xpu`.
        options: build options; by backbone name, or for every backbone that has them.
        data_options: reader options, by dataset name.
        overrides: recipe keys (dotted) and their values, such as `{"training.epochs": 10}`.
        camera_embedding: `on` or `off`, for every backbone that embeds cameras.
        from_scratch: start from random weights, not from the pretrained file.
        force: repeat finished runs.
    """

    recipe: PathLike
    budget: int
    studies: int
    space: PathLike
    stopping: str
    train_time: float | str
    preset: str
    seeds: int | str | Sequence[int]
    eval_datasets: Names
    protocol: str
    data_root: PathLike
    weights_root: PathLike
    results: PathLike
    plugins: PathLike
    cache: PathLike
    device: str
    options: Mapping[str, Any]
    data_options: Mapping[str, Mapping[str, Any]]
    overrides: Mapping[str, Any]
    camera_embedding: str
    from_scratch: bool
    force: bool


@dataclass(frozen=True)
class Request:
    """A grid of runs and how they are set up, with all settings resolved.

    Attributes:
        backbones: comma list of names, or `all`.
        datasets: comma list of names, or `all`.
        recipe: name or path of the recipe.
        seeds: seeds to run.
        results: folder of the records.
        paths: folders of this machine.
        device: `auto`, `cpu`, `cuda`, `mps` or `xpu`.
        options: build options, per backbone name, or under `""` for every backbone that has them.
        dataset_options: reader options, per dataset name.
        overrides: recipe keys (dotted) laid over the recipe.
        eval_datasets: further datasets every model is scored on, comma list.
        protocol: `each` trains on each dataset, `leave-one-out` on all others together.
        from_scratch: start from random weights instead of the card's pretrained file.
        force: repeat finished runs.
        processes: number of processes that train one run together.
        preset: name of the preset, for the record alone; its values are in the other attributes.
        preset_options: build options of the preset, per backbone name.
        holdout: seed and share of held-out training identities. If given, runs are trials of a search, which read
            only the training split.
        budget: the search of `--recipe tuned`; `recipe` is then the one it starts from.
        train_time: time of training per run, in seconds; 0 for the epochs of the recipe.
        epochs: number of epochs that fit into it, by backbone and dataset; the plan counts them.
    """

    backbones: str = "all"
    datasets: str = "all"
    recipe: str = "unified"
    seeds: tuple[int, ...] = (0,)
    results: Path = Path("results")
    paths: LocalPaths = field(default_factory=LocalPaths)
    device: str = "auto"
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    dataset_options: dict[str, dict[str, Any]] = field(default_factory=dict)
    overrides: dict[str, Any] = field(default_factory=dict)
    eval_datasets: str = ""
    protocol: str = "each"
    from_scratch: bool = False
    force: bool = False
    processes: int = 1
    preset: str = ""
    preset_options: dict[str, dict[str, Any]] = field(default_factory=dict)
    holdout: dict[str, Any] = field(default_factory=dict)
    budget: Budget | None = None
    train_time: float = 0.0
    epochs: dict[tuple[str, str], int] = field(default_factory=dict)

    @property
    def plugins(self) -> Path | None:
        """The folder of further plug-ins."""
        return Path(self.paths.plugins) if self.paths.plugins else None


def make(
    backbones: Names,
    datasets: Names,
    given: Mapping[str, Any],
    preset: Mapping[str, Any] | None = None,
    *,
    address: str = "",
    processes: int = 1,
) -> Request:
    """Builds a request from settings; environment variables are used where a setting is not given.

    Args:
        backbones: names.
        datasets: names.
        given: see `Settings`.
        preset: the preset whose settings are among the given ones; gives its name and build options.
        address: a Ray cluster that the runs are for.
        processes: number of processes that train one run together.

    Raises:
        UsageError: an unknown dataset or device, or a value that does not fit.
    """
    preset = preset or {}
    plugins = _absolute(given.get("plugins") or paths.variable(paths.PLUGINS))
    readers = given.get("data_options") or {}
    recipe_name, budget = budgets.read(given, str(preset.get("recipe") or "unified"))
    return Request(
        backbones=_comma_list(backbones),
        datasets=_comma_list(datasets),
        recipe=recipe_name,
        seeds=parse_seeds(given.get("seeds", 0)),
        results=Path(paths.expand(given.get("results") or "results")).absolute(),
        paths=LocalPaths(
            data_root=_absolute(given.get("data_root") or paths.variable(paths.DATASETS)),
            weights_root=_absolute(given.get("weights_root") or paths.variable(paths.WEIGHTS)),
            cache=_absolute(given.get("cache") or paths.cache_folder()),
            plugins=plugins,
        ),
        device=_device(given.get("device") or "auto", address),
        options=_options(given.get("options") or {}, given.get("camera_embedding") or ""),
        preset_options={name: dict(table) for name, table in preset.get("options", {}).items()},
        dataset_options=_reader_options(readers, Path(plugins) if plugins else None),
        overrides=dict(given.get("overrides") or {}),
        eval_datasets=_comma_list(given.get("eval_datasets") or ""),
        protocol=_protocol(given.get("protocol") or PROTOCOLS[0]),
        from_scratch=bool(given.get("from_scratch")),
        force=bool(given.get("force")),
        processes=processes,
        preset=preset.get("name", ""),
        budget=budget,
        train_time=durations.seconds(given.get("train_time") or ""),
    )


def _reader_options(given: Mapping[str, Any], plugins: Path | None) -> dict[str, dict[str, Any]]:
    """Reader options by the registered name of the dataset."""
    if wrong := [key for key, table in given.items() if not isinstance(table, Mapping)]:
        raise UsageError(f"--data-option must be of the form DATASET.KEY=VALUE, found '{wrong[0]}' without a dataset.")
    return {registry.dataset(name, plugins).name: dict(table) for name, table in given.items()}


def _options(given: Mapping[str, Any], camera_embedding: str) -> dict[str, dict[str, Any]]:
    """Build options by backbone name; under `""` those for every backbone that has them."""
    options: dict[str, dict[str, Any]] = {}
    for key, value in given.items():
        if isinstance(value, Mapping):
            options.setdefault(key, {}).update(value)
        else:
            options.setdefault("", {})[key] = value
    if camera_embedding:
        options.setdefault("", {})["camera_embedding"] = camera_embedding
    return options


def _comma_list(names: Names) -> str:
    return names if isinstance(names, str) else ",".join(names)


def _protocol(name: str) -> str:
    if name not in PROTOCOLS:
        raise unknown("protocol", name, PROTOCOLS)
    return name


def _absolute(path: PathLike) -> str:
    """The absolute path, with the home folder expanded; empty stays empty."""
    return str(Path(paths.expand(path)).absolute()) if str(path) else ""


def _device(device: str, address: str) -> str:
    """The device asked for; a machine without a GPU cannot tell whether the nodes of a cluster have some."""
    if not address and device == "cuda" and not gpu.usable():
        raise UsageError(
            "--device cuda was passed, but this machine shows no GPU. Pass --device cpu, or the --address of a Ray "
            "cluster with GPUs."
        )
    if device in ("mps", "xpu"):
        from harness.system.device import check  # imports torch

        check(device)
    if address and device == "auto" and resolve_device(device) == "cpu":
        raise UsageError(
            f"--device auto cannot tell whether the cluster at {address} has GPUs, because this machine has none. "
            "Pass --device cuda or --device cpu."
        )
    return device


def load_recipe(request: Request, backbone: BackboneEntry, dataset: str) -> Recipe:
    """The recipe as this backbone runs it on this dataset: file, variant, then the user's overrides."""
    path = recipe.find(request.recipe, backbone.native_recipe)
    settings = backbone.settings
    native = {**settings.native, **settings.dataset.get(dataset, {})} if path == backbone.native_recipe else {}
    found = recipe.load(path, dataset, {**settings.recipe, **native, **request.overrides})
    if not request.train_time:
        return found
    epochs = request.epochs.get((backbone.name, dataset), found.training.epochs)
    name = f"{found.name}-{durations.text(request.train_time)}"
    return structs.replace(found, name=name, training=structs.replace(found.training, epochs=epochs))


def chosen_options(request: Request, backbone: BackboneEntry) -> dict[str, Any]:
    """The options of preset and user for this backbone; those without a backbone's name go to all that declare them.

    A preset leaves options alone that the variant sets: `reidmamba:tokens-8` has 8 class tokens under every preset.
    """
    own = backbone.settings.options
    small = {k: v for k, v in request.preset_options.get(backbone.card.name, {}).items() if k not in own}
    shared = {k: v for k, v in request.options.get("", {}).items() if k in backbone.card.options}
    named = {**request.options.get(backbone.card.name, {}), **request.options.get(backbone.name, {})}
    return {**shared, **small, **named}


def asked_for(request: Request, backbone: BackboneEntry | None, about: str = "") -> dict[str, Any]:
    """What the user typed for this backbone, and the recipe's `about`; the record keeps it beside the spec.

    Commands in the report are derived from it, because a recipe file of the user cannot be looked up later.
    """
    options, preset = chosen_options(request, backbone) if backbone else {}, request.preset
    asked = {"recipe": request.recipe, "about": about, "preset": preset, "options": options, "set": request.overrides}
    return asked | ({"train_time": durations.text(request.train_time)} if request.train_time else {})


def check_options(request: Request, chosen: Sequence[BackboneEntry]) -> None:
    """Refuses options that no backbone declares, options of unknown backbones, and unknown names of models."""
    check_models(chosen)
    for key in request.options.get("", {}):
        if not any(key in backbone.card.options for backbone in chosen):
            if key == "camera_embedding":
                names = ", ".join(backbone.name for backbone in chosen)
                raise UsageError(f"No backbone of the plan has a camera embedding ({names}): leave it out.")
            raise unknown("backbone option", key, {k for b in chosen for k in b.card.options})
    known = {entry.card.name for entry in registry.backbones(request.plugins)}
    for name in request.options:
        if name and (base := name.partition(":")[0]) not in known:
            raise unknown("backbone in a build option", base, known)


def check_models(chosen: Sequence[BackboneEntry]) -> None:
    """Refuses backbones named after a timm model that timm does not know."""
    for backbone in chosen:
        if backbone.names_timm_model and (problem := timm_names.problem(backbone.variant)):
            raise UsageError(problem)


def parse_seeds(seeds: int | str | Sequence[int]) -> tuple[int, ...]:
    """Returns seeds, each once, from a number, numbers or a comma list such as `0,1,2`."""
    parts = seeds.split(",") if isinstance(seeds, str) else [seeds] if isinstance(seeds, int) else seeds
    try:
        found = tuple(dict.fromkeys(int(part) for part in parts))
    except (ValueError, TypeError) as error:
        raise UsageError(f"--seeds must be whole numbers separated by commas, found '{str(seeds)[:100]}'.") from error
    if wrong := [seed for seed in found if not 0 <= seed < LARGEST]:
        raise UsageError(f"A seed must be a whole number from 0 to 2^63 - 1, found {str(wrong[0])[:100]}.")
    return found


def resolve_device(device: str) -> str:
    """Returns `cuda` for `auto` if the driver shows a visible GPU, else `cpu`; torch is not imported."""
    if device not in DEVICES:
        raise unknown("device", device, DEVICES)
    if device != "auto":
        return device
    return "cuda" if gpu.driver() and gpu.names() else "cpu"
