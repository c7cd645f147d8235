"""Builders of datasets: CUHK03 from `cuhk-03.mat`, Occluded-Duke from DukeMTMC-reID and lists, and generated people.

A builder is called as `builder(layout, root, sources, progress)`. It returns sentences about what it did, or an empty
list if its inputs are missing. Folders are created atomically; existing folders are not changed.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from datasets.layouts import STAND_IN, find
from datasets.preparation.unpack import Progress, fresh_folder
from datasets.readers.cuhk03 import TESTSETS, protocol
from datasets.readers.source import SPLIT_FOLDERS, Source, first
from harness import registry
from harness.cards import Layout
from harness.contracts import SPLITS, Splits
from harness.errors import DataError
from harness.registry import DatasetEntry
from harness.system import files

VIEW_COLUMNS = 5


def cuhk03(layout: Layout, root: Path, sources: Sequence[Path], progress: Progress | None = None) -> list[str]:
    """Extracts the images and test sets of `cuhk-03.mat`, and copies the file of the new protocol next to them."""
    places = _places(layout, root, sources)
    target = next((root / folder for folder in layout.folders if (root / folder).is_dir()), root / layout.folders[0])
    images = layout.options["images"]
    done = []
    if mat := _file(places, "cuhk-03.mat"):
        if not (target / images).exists():
            count = extract_cuhk03(mat, target / images, images.removeprefix("images_"), progress)
            done.append(f"Extracted {count:,} images from {mat} to {target / images}.")
        if not (target / TESTSETS).exists():
            extract_testsets(mat, target / TESTSETS)
            done.append(f"Wrote the 20 classic test sets to {target / TESTSETS}.")
    config = layout.options.get("config", "")
    if config and not (target / config).exists() and (found := _file(places, config)):
        protocol(found)  # raises for a damaged file
        target.mkdir(parents=True, exist_ok=True)
        files.replace(target / config, found.read_bytes())
        done.append(f"Copied {config} to {target}.")
    return done


DAMAGE = (OSError, LookupError, ValueError, TypeError, AttributeError, RuntimeError, ArithmeticError, MemoryError)
"""Exceptions that h5py raises for damaged files."""


def extract_cuhk03(mat: Path, target: Path, boxes: str, progress: Progress | None = None) -> int:
    """Writes the crops of one kind as `{pair}_{person:03d}_{view}_{column:02d}.png`, all counted from one.

    Args:
        mat: `cuhk-03.mat` (MATLAB 7.3, which is HDF5).
        target: folder to create.
        boxes: `detected` or `labeled`.
        progress: called with the number of people done and the total.

    Returns:
        The number of images.

    Raises:
        DataError: the file is damaged or another one.
    """
    from PIL import Image

    count = 0
    with fresh_folder(target) as folder:
        if folder is None:
            return 0
        for name, pixels in _crops(mat, boxes, progress):
            Image.fromarray(pixels).save(folder / name)
            count += 1
        if not count:
            raise DataError(f"{mat} contains no {boxes} images. Download it again.")
    return count


def _crops(mat: Path, boxes: str, progress: Progress | None) -> Iterator[tuple[str, Any]]:
    """Yields name and pixels [H, W, 3] of every crop. HDF5 stores MATLAB's axes in reverse order."""
    import h5py

    try:
        with h5py.File(mat, "r") as file:
            pairs = [file[reference] for reference in file[boxes][:].ravel()]
            people = sum(pair.shape[1] for pair in pairs)
            done = 0
            for pair_number, pair in enumerate(pairs, start=1):
                for person, row in enumerate(pair[:].T, start=1):
                    for column, reference in enumerate(row, start=1):
                        cell = file[reference]
                        if cell.ndim == 3:  # an empty cell has fewer axes
                            if cell.dtype != "uint8" or cell.shape[0] != 3:
                                raise ValueError(f"an image of {cell.dtype} {cell.shape}")
                            view = 1 if column <= VIEW_COLUMNS else 2
                            yield f"{pair_number}_{person:03d}_{view}_{column:02d}.png", cell[:].transpose(2, 1, 0)
                    done += 1
                    if progress is not None:
                        progress(done, people)
    except DAMAGE as error:
        raise _damaged(mat, error) from error


def _damaged(mat: Path, error: BaseException) -> DataError:
    return DataError(f"{mat} is damaged or not CUHK03's file ({type(error).__name__}: {error}). Download it again.")


def extract_testsets(mat: Path, target: Path) -> None:
    """Writes the 20 test sets, each a list of (pair, person) counted from one, as JSON.

    Raises:
        DataError: the file is damaged or another one.
    """
    import h5py

    try:
        with h5py.File(mat, "r") as file:
            cells = [file[reference][:] for reference in file["testsets"][:].ravel()]
            sets = [[[int(pair), int(person)] for pair, person in cell.T] for cell in cells]
    except DAMAGE as error:
        raise _damaged(mat, error) from error
    target.parent.mkdir(parents=True, exist_ok=True)
    files.replace(target, json.dumps({"testsets": sets}))


def occluded_duke(layout: Layout, root: Path, sources: Sequence[Path], progress: Progress | None = None) -> list[str]:
    """Builds Occluded-Duke from DukeMTMC-reID and the published lists, with hard links to the images, or copies.

    A listed image is taken from DukeMTMC-reID's folder of the same split or, if it is not there, from its gallery.
    """
    places = _places(layout, root, sources)
    lists = {split: _file(places, f"{split}.list") for split in SPLITS}
    if not all(lists.values()):
        return []
    duke = registry.dataset("dukemtmc")
    base = next((source for source in sources if source.is_dir() and holds(duke, source)), root)
    if not holds(duke, base):
        return [f"The lists of Occluded-Duke exist, but DukeMTMC-reID, which they need, was not found below {root}."]
    original = duke.load(base)
    target = next((place.parent for place in lists.values() if place and place.parent.name in layout.folders), None)
    target = target or root / layout.folders[0]
    known = {split: {item.path.name: item.path for item in getattr(original, split)} for split in SPLITS}
    chosen: dict[str, dict[str, Path]] = {}
    for split, place in lists.items():
        assert place is not None
        names = Source(place.parent).text(place.name).split()
        found = {name: known[split].get(name) or known["gallery"].get(name) for name in names}
        if absent := [name for name, path in found.items() if path is None]:
            raise DataError(
                f"{place} lists {len(absent)} image(s) that {original.root} does not have: {first(absent)}."
            )
        chosen[split] = {name: path for name, path in found.items() if path is not None}
    _mark(target, original, chosen)
    return _link(target, chosen, progress)


def synthetic(layout: Layout, root: Path, sources: Sequence[Path], progress: Progress | None = None) -> list[str]:
    """Generates the synthetic dataset."""
    from datasets.synthetic.writing import generate

    folders = generate(root, layouts=["synthetic"], progress=progress)
    return [f"Generated images of people in {folder}." for folder in folders.values()]


BUILDERS: dict[str, Callable[..., list[str]]] = {
    "cuhk03": cuhk03,
    "occluded-duke": occluded_duke,
    "synthetic": synthetic,
}


def holds(entry: DatasetEntry, folder: Path) -> bool:
    """Returns whether the dataset is found below a folder."""
    try:
        return bool(find(entry, folder))
    except DataError:
        return False


def _link(target: Path, chosen: dict[str, dict[str, Path]], progress: Progress | None) -> list[str]:
    total = sum(len(names) for names in chosen.values())
    done, sentences = 0, []
    for split, names in chosen.items():
        with fresh_folder(target / SPLIT_FOLDERS[split]) as folder:
            if folder is not None:
                sentences.append(f"Put {len(names):,} {split} images into {target / SPLIT_FOLDERS[split]}.")
                for name, path in names.items():
                    _place(path, folder / name)
                    done += 1
                    if progress is not None:
                        progress(done, total)
    return sentences


def _place(path: Path, target: Path) -> None:
    try:
        os.link(os.path.realpath(path), target)
    except OSError:  # another disk, or a file system without hard links
        shutil.copyfile(path, target)


def _mark(target: Path, original: Splits, chosen: dict[str, dict[str, Path]]) -> None:
    """Marks a dataset built from generated data as generated, before its images are written."""
    if original.generated is None:
        return
    counts = {}
    for split, names in chosen.items():
        used = set(names.values())
        items = {item.path: item for part in SPLITS for item in getattr(original, part) if item.path in used}.values()
        counts[split] = {
            "images": len(names),
            "identities": len({item.pid for item in items}),
            "cameras": len({item.camid for item in items}),
        }
    kept = {key: value for key, value in original.generated.items() if key != "layout"}
    target.mkdir(parents=True, exist_ok=True)
    files.replace(target / STAND_IN, json.dumps({**kept, "counts": counts}, indent=2))


def _places(layout: Layout, root: Path, sources: Iterable[Path]) -> list[Path]:
    """Returns the folders to search for inputs: the given sources, the dataset's own folders and the data root."""
    own = [root / folder for folder in layout.folders]
    bases = [source if source.is_dir() else source.parent for source in sources]
    places = [*bases, *own, root]
    below = [place / name for place in places for name in ("cuhk03_release", "Occluded_Duke", "DukeMTMC-reID")]
    return [place for place in dict.fromkeys([*places, *below]) if place.is_dir()]


def _file(places: Sequence[Path], name: str) -> Path | None:
    return next((place / name for place in places if (place / name).is_file()), None)
