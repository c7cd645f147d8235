"""Plans the scoring of a file of the user: a checkpoint or stored features. A file that does not fit is refused here.

Nothing is written, so there are only records of files that fit the backbone and the dataset.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from msgspec import structs

from harness import registry, weights
from harness.contracts import Splits, inferred
from harness.errors import UsageError
from harness.planning.plan import Planned, planned
from harness.planning.request import Request, asked_for, check_models, chosen_options, load_recipe
from harness.planning.run_specs import SpecFactory
from harness.records import store
from harness.registry import BackboneEntry, DatasetEntry
from harness.spec import recipe
from harness.spec.job import slug
from harness.spec.run_spec import RunSpec

LONGEST_NAME = 255
"""Bytes that a file name may have on common file systems; results lie in a folder named after the backbone."""


def plan_checkpoint(
    request: Request, typed: Request, path: Path, *, camera_embedding: str = "", trust_pickle: bool = False
) -> Planned:
    """Returns the run that scores a checkpoint, after loading the checkpoint into its module once.

    Args:
        request: one backbone and one dataset.
        typed: the same without a preset, which tells which options the user typed.
        path: the checkpoint.
        camera_embedding: `mean` for the mean of the trained cameras; other modes are options of the request.
        trust_pickle: allow a file that runs code when it is read.

    Raises:
        UsageError: an unknown name, or an option that contradicts the file.
        WeightsError: the file is no checkpoint of this backbone.
        DataError: the dataset cannot be read.
    """
    from harness.data.loader import camera_rows
    from harness.training.trained import check_cameras, from_checkpoint

    backbone = registry.backbone(request.backbones, request.plugins)
    check_models([backbone])
    dataset = registry.dataset(request.datasets, request.plugins)
    spec = _spec(request, backbone.name, backbone, dataset, path, "checkpoint")
    if (camera_embedding or typed.options.get("", {}).get("camera_embedding")) and (
        "camera_embedding" not in spec.options
    ):
        raise UsageError(f"{backbone.name} has no camera embedding. Leave --camera-embedding out.")
    if camera_embedding == "mean":
        spec = structs.replace(spec, options={**spec.options, "camera_embedding": "mean"})
    state = weights.load_state(path, trust_pickle)
    spec = structs.replace(spec, options=_as_built(typed, backbone, spec, state, path))
    splits = _splits(request, dataset)
    height, width = spec.values["augmentation"]["image_size"]
    module, rows = from_checkpoint(
        backbone,
        state,
        spec.options,
        image_size=(height, width),
        num_classes=len({item.pid for item in splits.train}),
        num_cameras=len(camera_rows(splits.train)) or 1,
    )
    check_cameras(backbone, module, rows, splits)
    return _planned(request, spec, backbone, path, trust_pickle)


def plan_features(request: Request, path: Path) -> Planned:
    """Returns the run that scores stored features, after reading and ordering them once.

    Args:
        request: one dataset, and a name for the row, which need not be a backbone's.
        path: the file, or a folder of `.npy`.

    Raises:
        UsageError: an unknown dataset, or a name that cannot name a folder.
        WeightsError: the file holds no features of this dataset's images.
        DataError: the dataset cannot be read.
    """
    from harness.data.feature_rows import arrange

    name = request.backbones
    if not name.strip() or len(slug(name).encode(errors="replace")) > LONGEST_NAME or not _is_text(name):
        raise UsageError(
            f"--backbone names the row and a folder, so it must be 1 to {LONGEST_NAME} bytes of text; found "
            f"{len(name)} characters."
        )
    entry = _known(request)
    dataset = registry.dataset(request.datasets, request.plugins)
    spec = _spec(request, entry.name if entry else name, entry, dataset, path, "features")
    splits = _splits(request, dataset)
    arrange(path, splits.query, splits.gallery)
    return _planned(request, spec, entry, path)


def _known(request: Request) -> BackboneEntry | None:
    """The backbone of a request, or None for a network that this harness does not know."""
    try:
        return registry.backbone(request.backbones, request.plugins)
    except UsageError:
        return None


def _spec(
    request: Request, name: str, backbone: BackboneEntry | None, dataset: DatasetEntry, path: Path, purpose: str
) -> RunSpec:
    """The run spec. Its `pretrained` is the checksum of the file."""
    if backbone is None:
        chosen = recipe.load(recipe.find(request.recipe), dataset.name, request.overrides)
    else:
        chosen = load_recipe(request, backbone, dataset.name)
    reader = request.dataset_options.get(dataset.name, {})
    return SpecFactory(request).make(
        backbone,
        dataset.name,
        chosen.name,
        chosen.values(),
        name=name,
        recipe_options=chosen.options,
        pretrained=f"sha256:{weights.checksum(path)}",
        fingerprint=dataset.fingerprint(request.paths.data_root or ".", **reader),
        purpose=purpose,
    )


def _planned(
    request: Request, spec: RunSpec, backbone: BackboneEntry | None, path: Path, trust_pickle: bool = False
) -> Planned:
    cell = planned(request, spec, store.index(request.results), asked=asked_for(request, backbone))
    return replace(cell, input_file=str(path), trust_pickle=trust_pickle)


def _splits(request: Request, dataset: DatasetEntry) -> Splits:
    return dataset.load(request.paths.data_root or ".", **request.dataset_options.get(dataset.name, {}))


def _as_built(typed: Request, backbone: BackboneEntry, spec: RunSpec, state: Any, path: Path) -> dict[str, Any]:
    """The options to build the checkpoint's module with: those of the file override defaults.

    Options that the user typed, or that a named variant sets, must agree with the file. Only a camera embedding of the
    file may be switched off, or be replaced by its mean.

    Raises:
        UsageError: an option of the user, or of the variant, contradicts the file.
        WeightsError: the file is no checkpoint of this backbone.
    """
    height, width = spec.values["augmentation"]["image_size"]
    if (told := inferred(backbone.model(), state, (height, width))) is None:
        return spec.options
    found = told["options"]
    asked = {key: spec.options[key] for key in chosen_options(typed, backbone)}
    chosen = {**backbone.settings.options, **asked}
    if spec.options.get("camera_embedding") == "mean":
        asked["camera_embedding"] = chosen["camera_embedding"] = "mean"
    for key, value in found.items():
        if key in chosen and chosen[key] != value and not (key == "camera_embedding" and key in asked and value):
            instead = "Leave this option out" if key in asked else f"{backbone.name} is another variant"
            raise UsageError(f"{path.name} was built with {key}={_shown(value)}, not {_shown(chosen[key])}. {instead}.")
    unused = {key: spec.options[key] for key, value in found.items() if key == "camera_embedding" and value}
    return {**spec.options, **found, **unused}


def _shown(value: Any) -> str:
    return {True: "on", False: "off"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return name.isprintable()
