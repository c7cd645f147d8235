"""Writes the features of a folder, of a list of images or of a dataset to a `.npz` file, with bounded memory."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datasets import layouts
from datasets.readers.source import IMAGE_KINDS
from harness import registry, weights
from harness.contracts import Item, Splits
from harness.data.images import UnreadableImages, read_sizes
from harness.errors import DataError, UsageError
from harness.registry import DatasetEntry, dataset_checks
from harness.system import files, paths, processes
from harness.system.device import untested
from harness.system.version import __version__
from harness.training.trained import check_cameras
from harness.worker.deploy.embedder import Embedder, load

Show = Callable[[str, int, int], None]
"""Called with what is embedded, the number of images done and the total."""

MEAN = "The cameras of the images are unknown, so the mean of the trained cameras is used."


@dataclass(frozen=True)
class How:
    """How features are computed.

    Attributes:
        flip: whether to average the features of each image and its mirror image.
        precision: `fp32`, `bf16` or, on a GPU, `fp16`.
        unit: whether to scale features to unit length.
        camera: trained camera of all images, from 0; `None` for the cameras of the dataset, or the mean.
        workers: number of threads that read images.
    """

    flip: bool = False
    precision: str = "fp32"
    unit: bool = True
    camera: int | None = None
    workers: int = 0


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        path: the file.
        backbone: the network's.
        counts: number of rows by array.
        dimension: width of a feature.
        sentences: what the user should know, for example about cameras.
    """

    path: Path
    backbone: str
    counts: Mapping[str, int]
    dimension: int
    sentences: tuple[str, ...]


@dataclass
class _Part:
    """Images of one array of the file, and the arrays that go with it."""

    items: Sequence[Item]
    labels: dict[str, np.ndarray]


@dataclass
class _Plan:
    """All that is embedded: parts by array name, and how cameras and gray values are read."""

    parts: dict[str, _Part]
    rows: Mapping[int, int] | None = None
    mean: bool = False
    value_range: tuple[float, float] | None = None
    sentences: list[str] = field(default_factory=list)


def write(
    backbone: str,
    settings: Mapping[str, Any],
    *,
    out: str | os.PathLike[str],
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None,
    dataset: str,
    data_root: str | os.PathLike[str],
    data_options: Mapping[str, Mapping[str, Any]],
    threads: int,
    how: How,
    show: Show | None,
) -> Written:
    """Loads a network and writes a file of features; see `harness.embed`."""
    if bool(images) == bool(dataset):
        raise UsageError("Pass either images (--images) or a dataset (--dataset).")
    path = check_out(paths.expand(out), ".npz")
    network = load(backbone, **settings)
    torch.set_num_threads(threads or network.source.threads or processes.cores())
    if how.camera is not None and not network.embeds_cameras:
        raise UsageError(f"{network.source.entry.name} does not use cameras. Leave --camera out.")
    show = show or (lambda *_: None)
    if images:
        place = Path(paths.expand(images)) if isinstance(images, str | os.PathLike) else [Path(i) for i in images]
        return of_images(network, place, path, how, show)
    root = Path(paths.expand(data_root) or paths.variable(paths.DATASETS) or ".")
    entry = registry.dataset(dataset, network.source.plugins)
    return of_dataset(network, entry, root, data_options, path, how, show)


def of_images(network: Embedder, images: Path | Sequence[Path], out: Path, how: How, show: Show) -> Written:
    """Writes `features` [N, D] and `paths` [N] of a folder with its subfolders, or of a list of images.

    Args:
        network: the network.
        images: a folder, an image, a text file with one path per line, or paths.
        out: the file.
        how: how features are computed.
        show: receives the progress.

    Raises:
        DataError: there are no images, or some cannot be read.
        UsageError: a camera that the network was not trained on.
    """
    listed = list_images(images) if isinstance(images, Path) else list(images)
    if not listed:
        raise DataError(f"There are no images in {images}.")
    items = [Item(path, 0, how.camera or 0) for path in listed]
    plan = _Plan({"features": _Part(items, {"paths": _texts(listed)})}, value_range=network.source.value_range)
    if network.embeds_cameras and how.camera is None:
        plan.mean = True
        plan.sentences.append(MEAN)
    return _write(network, plan, out, how, show)


def of_dataset(
    network: Embedder,
    entry: DatasetEntry,
    root: Path,
    options: Mapping[str, Mapping[str, Any]],
    out: Path,
    how: How,
    show: Show,
) -> Written:
    """Writes the arrays `query` and `gallery` [N, D] of a dataset with their paths, identities and cameras.

    Args:
        network: the network.
        entry: the dataset.
        root: folder that holds the datasets.
        options: reader options by dataset name; by default those of the network's run.
        out: the file.
        how: how features are computed.
        show: receives the progress.

    Raises:
        DataError: the dataset or an image cannot be read.
        UsageError: a camera that the network was not trained on.
    """
    record = network.source.record
    known = options or (record["spec"].get("dataset_options") if record else None) or {}
    splits = layouts.load(entry, root, **known.get(entry.name, {}))
    parts = {name: _split(name, getattr(splits, name), how.camera) for name in ("query", "gallery")}
    plan = _Plan(parts, value_range=splits.value_range)
    plan.sentences += dataset_checks.check_counts(entry, splits)
    plan.rows, why_mean = choose_cameras(network, entry.name, splits, how.camera)
    plan.mean = bool(why_mean)
    plan.sentences += filter(None, [why_mean])
    if network.source.metric == "euclidean" and how.unit:
        plan.sentences.append("The run ranked by Euclidean distance of unscaled features: pass --raw to write those.")
    return _write(network, plan, out, how, show)


def list_images(place: Path) -> list[Path]:
    """Lists the images of a folder and its subfolders, sorted; or those that a text file names; or a single image.

    Raises:
        DataError: the place does not exist, or a text file names no file.
    """
    if place.is_dir():
        found = (Path(folder) / name for folder, _, names in os.walk(place, followlinks=True) for name in names)
        return sorted(path for path in found if _is_image(path))
    if not place.is_file():
        raise DataError(f"{place} does not exist. Pass a folder of images, an image, or a text file with paths.")
    if _is_image(place):
        return [place]
    try:
        lines = place.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise DataError(f"{place} is neither an image nor a text file with one path per line.") from None
    return [Path(line.strip()) for line in lines if line.strip()]


def _is_image(path: Path) -> bool:
    return path.suffix[1:].lower() in IMAGE_KINDS and not path.name.startswith(".")


def _split(name: str, items: Sequence[Item], camera: int | None) -> _Part:
    labels = {
        f"{name}_paths": _texts([item.path for item in items]),
        f"{name}_pids": np.array([item.pid for item in items], dtype=np.int64),
        f"{name}_camids": np.array([item.camid for item in items], dtype=np.int64),
    }
    return _Part([item._replace(camid=camera) for item in items] if camera is not None else items, labels)


def _texts(images: Sequence[Path]) -> np.ndarray:
    return np.array([str(image) for image in images], dtype=str)


def choose_cameras(
    network: Embedder, dataset: str, splits: Splits, camera: int | None = None
) -> tuple[Mapping[int, int] | None, str]:
    """Chooses the cameras of the dataset as the evaluation does, and the mean of the trained ones where that fails.

    Args:
        network: the network.
        dataset: name of the dataset.
        splits: its images.
        camera: the camera of all images, if it was given.

    Returns:
        The row of each camera in the embedding, `None` for its number; and why the mean is used, empty if it is not.
    """
    if not network.embeds_cameras or camera is not None:
        return None, ""
    trained_on = network.source.dataset
    if trained_on and trained_on != dataset:
        return None, f"The network was trained on {trained_on}, so the mean of its cameras is used."
    try:
        return check_cameras(network.source.entry, network.module, network.num_cameras, splits), ""
    except DataError:
        return None, (
            f"The cameras of {dataset} are not those of the network, so the mean of its {network.num_cameras} trained "
            "cameras is used."
        )


def _write(network: Embedder, plan: _Plan, out: Path, how: How, show: Show) -> Written:
    """Computes the features of all parts in files beside the output, and packs them into it."""
    _check_images(plan)
    plan.sentences += filter(None, [untested(network.device.type)])
    with contextlib.ExitStack() as stack:
        stack.enter_context(files.writing(out, "--out"))
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = stack.enter_context(files.replacing(out))
        folder = stack.enter_context(tempfile.TemporaryDirectory(dir=out.parent, prefix=".embed-"))
        arrays: dict[str, np.ndarray] = {}
        for name, part in plan.parts.items():
            arrays[name] = _features(network, plan, name, Path(folder) / name, how, show)
            arrays |= part.labels
        with temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays, about=np.array(json.dumps(_about(network, plan, how))))
        dimension = next(iter(arrays.values())).shape[1]
        del arrays
    counts = {name: len(part.items) for name, part in plan.parts.items()}
    return Written(out, network.source.entry.name, counts, dimension, tuple(plan.sentences))


def _features(network: Embedder, plan: _Plan, name: str, path: Path, how: How, show: Show) -> np.ndarray:
    """Computes one array, [N, D] float32, in a file; returns it mapped into memory.

    The file is not mapped while it is written, because a full disk would then end the process with a signal.
    """
    items, width = plan.parts[name].items, 0
    batches = network.stream(
        items,
        rows=plan.rows,
        mean=plan.mean,
        value_range=plan.value_range,
        flip=how.flip,
        precision=how.precision,
        unit=how.unit,
        workers=how.workers,
    )
    with path.open("wb") as file:
        for done, batch in batches:
            width = batch.shape[1]
            file.write(batch.numpy().tobytes())
            show(name, done, len(items))
    return np.memmap(path, dtype=np.float32, mode="r", shape=(len(items), width))


def _check_images(plan: _Plan) -> None:
    """Reads the header of every image, so that all bad files are named before the work starts."""
    images = [item.path for part in plan.parts.values() for item in part.items]
    sizes = read_sizes(images, value_range=plan.value_range)
    if bad := [reason for reason in sizes.values() if isinstance(reason, str)]:
        raise UnreadableImages(bad)


def _about(network: Embedder, plan: _Plan, how: How) -> dict[str, Any]:
    """What the file should tell about itself."""
    source = network.source
    cameras = "mean" if plan.mean else "given" if how.camera is None else how.camera
    return {
        "backbone": source.entry.name,
        "run_id": source.record["run_id"] if source.record else None,
        "checkpoint": f"sha256:{weights.checksum(source.checkpoint)}" if source.checkpoint else None,
        "image_size": list(source.image_size),
        "camera": cameras if network.embeds_cameras else None,
        "flip": how.flip,
        "precision": how.precision,
        "unit_length": how.unit,
        "harness": __version__,
    }


def check_out(out: str, suffix: str) -> Path:
    """Returns the path of a file to write.

    Raises:
        UsageError: it has another suffix, or is a folder.
    """
    path = Path(out)
    if path.suffix != suffix or path.is_dir():
        raise UsageError(f"--out must name a {suffix} file, found {out or 'nothing'}.")
    return path
