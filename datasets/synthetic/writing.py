"""Writes generated datasets; each folder is created atomically."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from datasets.synthetic.drawing import draw
from datasets.synthetic.layouts import LAYOUTS, OFFICIAL, Layout
from datasets.synthetic.people import derive, person
from datasets.synthetic.worlds import SCALES, Scale, Sighting, World, camera_of
from harness.errors import DataError, unknown
from harness.system import files

GENERATOR_VERSION = 4  # raise it with every change of an image or a file name
MARKER = "stand-in.json"
HUFFMAN_ONLY = 2  # zlib's strategy for noisy data: smaller here, and three times as fast


@dataclass(frozen=True, slots=True)
class _Job:
    """One image and all files to write it to (Occluded-Duke has the images of Duke)."""

    world: World
    seen: Sighting
    seed: int
    size: tuple[int, int]
    box_error: float
    paths: tuple[str, ...]


def generate(
    root: str | Path,
    *,
    layouts: Sequence[str] = OFFICIAL,
    scale: str | Scale = "demo",
    seed: int = 0,
    size: tuple[int, int] = (128, 64),
    progress: Callable[[int, int], None] | None = None,
    workers: int = 1,
) -> dict[str, Path]:
    """Writes generated stand-ins of datasets below ``root``.

    Every dataset is written to a temporary folder, which is renamed when it is complete, so an interrupted call leaves
    no incomplete dataset. Existing folders for the same arguments are kept. The files depend only on the arguments, not
    on ``workers``.

    Args:
        root: data root; created if it does not exist.
        layouts: names of `LAYOUTS`; `cuhk03` means both of its datasets.
        scale: a name of `SCALES`, or a `Scale`.
        seed: seed of people, cameras and images.
        size: (height, width) of the images in pixels; in some datasets the maximum size.
        progress: called with the number of images done and the total.
        workers: number of processes.

    Returns:
        The folder of every dataset.

    Raises:
        UsageError: a layout or scale is unknown.
        DataError: a folder exists with other content; nothing is overwritten.
    """
    root, names = Path(root), _expand(layouts)
    if isinstance(scale, str):
        if scale not in SCALES:
            raise unknown("scale", scale, SCALES)
        scale = SCALES[scale]
    root.mkdir(parents=True, exist_ok=True)
    with files.locked(root):  # so that temporary folders of other processes are leftovers, which can be removed
        missing = [name for name in names if not _complete(root, name, _request(name, scale, seed, size))]
        plans = {name: LAYOUTS[name].plan(scale, seed) for name in missing}
        jobs: dict[tuple[World, Sighting, float], list[str]] = {}
        for name, plan in plans.items():
            partial = _partial(root, name)
            shutil.rmtree(partial, ignore_errors=True)
            for folder in {os.path.dirname(file.path) for file in plan.files}:
                (partial / folder).mkdir(parents=True, exist_ok=True)
            for file in plan.files:
                key = LAYOUTS[name].world, file.seen, LAYOUTS[name].box_error
                jobs.setdefault(key, []).append(str(partial / file.path))
        work = [_Job(world, seen, seed, size, error, tuple(paths)) for (world, seen, error), paths in jobs.items()]
        _run(work, workers, progress)
        for name, plan in plans.items():
            for path, text in plan.texts.items():
                (_partial(root, name) / path).write_text(text, encoding="utf-8")
            marker = {**_request(name, scale, seed, size), "counts": plan.counts()}
            (_partial(root, name) / MARKER).write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")
            _partial(root, name).rename(root / LAYOUTS[name].folder)
    return {name: root / LAYOUTS[name].folder for name in names}


def foreign(root: Path) -> str:
    """Returns the name of a file or folder in a data root that the generator did not create; empty for none."""
    made = {Path(layout.folder).parts[0] for layout in LAYOUTS.values() if (root / layout.folder / MARKER).is_file()}
    there = sorted(path.name for path in root.iterdir()) if root.is_dir() else []
    return next((name for name in there if name not in made and not name.startswith(".")), "")


def render(layout: Layout, seen: Sighting, seed: int, size: tuple[int, int] = (128, 64)) -> Image.Image:
    """Returns the image of one sighting, before compression."""
    return _render(_Job(layout.world, seen, seed, size, layout.box_error, ()))


def _render(job: _Job) -> Image.Image:
    world, seen = job.world, job.seen
    camera = camera_of(world, job.seed, seen.camid, seen.slot)
    camera = replace(camera, crop=camera.crop * job.box_error)
    who = None if seen.who is None else person(seen.who, world.wardrobe)
    quality = {"occluded": seen.occluded, "misaligned": seen.misaligned}
    image = Image.fromarray(draw(who, camera, seen.shot, job.size, passage=seen.passage, **quality))
    if world.ragged:
        tall, wide = np.random.default_rng(derive(seen.shot, "size")).uniform(0.75, 1.0, 2)
        image = image.resize((round(job.size[1] * tall * (0.9 + 0.1 * wide)), round(job.size[0] * tall)))
    return image


def _write(job: _Job) -> None:
    """Writes the image with the JPEG quality of its camera; PNG files contain the decompressed JPEG image."""
    buffer = io.BytesIO()
    quality = camera_of(job.world, job.seed, job.seen.camid, job.seen.slot).quality
    _render(job).save(buffer, "JPEG", quality=quality)
    if job.paths[0].endswith(".png"):
        image, buffer = Image.open(buffer), io.BytesIO()
        six_bits = image.point(lambda level: (level & 0xFC) | 2)  # reduces files to two thirds of their size
        six_bits.save(buffer, "PNG", compress_type=HUFFMAN_ONLY)
    for path in job.paths:
        Path(path).write_bytes(buffer.getvalue())


def _run(work: list[_Job], workers: int, progress: Callable[[int, int], None] | None) -> None:
    def drawn() -> Iterator[None]:
        if workers <= 1:
            yield from map(_write, work)
        else:
            with multiprocessing.get_context("spawn").Pool(workers) as pool:
                yield from pool.imap_unordered(_write, work, chunksize=64)

    for done, _ in enumerate(drawn(), start=1):
        if progress is not None:
            progress(done, len(work))


def _expand(layouts: Sequence[str]) -> list[str]:
    names: list[str] = []
    for name in layouts:
        if name != "cuhk03" and name not in LAYOUTS:
            raise unknown("layout", name, [*LAYOUTS, "cuhk03"])
        names += ["cuhk03-detected", "cuhk03-labeled"] if name == "cuhk03" else [name]
    return list(dict.fromkeys(names))


def _request(name: str, scale: Scale, seed: int, size: tuple[int, int]) -> dict[str, Any]:
    """Returns the content of `stand-in.json` without the counts; a folder with the same content is complete."""
    return {
        "generated": True,
        "layout": name,
        "seed": seed,
        "generator_version": GENERATOR_VERSION,
        "size": list(size),
        "scale": asdict(scale),
    }


def _complete(root: Path, name: str, request: dict[str, Any]) -> bool:
    folder = root / LAYOUTS[name].folder
    if not folder.exists():
        return False
    try:
        found = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise DataError(
            f"{folder} exists and does not contain generated data, so it is not overwritten. Choose another data root."
        ) from None
    found.pop("counts", None)
    if found != request:
        other = ", ".join(key for key in request if found.get(key) != request[key])
        raise DataError(
            f"{folder} contains generated data with another {other}. Remove it, or choose another data root."
        )
    return True


def _partial(root: Path, name: str) -> Path:
    folder = root / LAYOUTS[name].folder
    return folder.with_name(f".{folder.name}.partial")
