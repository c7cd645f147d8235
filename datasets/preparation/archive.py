"""Finds a dataset in an archive that a user brings, whatever folders lie around it; keeps only what fits the card."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from datasets import layouts
from datasets.preparation.unpack import Limits, Progress, is_archive, only_writer, top_folders, unpack
from datasets.readers.source import first
from harness import registry
from harness.cards import Layout
from harness.contracts import SPLITS, Splits
from harness.errors import DataError
from harness.registry import DatasetEntry

NESTED = 2
"""Archives in each other that are opened, beside the outer one."""

MOST_INNER = 8
"""Archives in one archive that are opened."""

SEARCHED = 300
"""Folders in which another dataset is looked for, to name it."""

ARCHIVE_ENDINGS = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".tbz2", ".xz", ".txz")


class UnfitArchive(DataError):
    """An archive that is sound and holds something else."""


@dataclass(frozen=True)
class Taken:
    """What was taken out of an archive: one sentence, and the paths that are new below the data root."""

    sentence: str
    paths: tuple[Path, ...] = ()


def take(entry: DatasetEntry, archive: Path, root: Path, progress: Progress | None = None) -> Taken:
    """Unpacks an archive beside its place, finds the dataset or its raw inputs in it, and moves them into place.

    Args:
        entry: the dataset.
        archive: zip or tar; archives in it are opened, too.
        root: the data root.
        progress: called with (bytes unpacked, bytes in all).

    Raises:
        UnfitArchive: it holds something else; nothing of it is kept.
        DataError: it is damaged or unsafe.
    """
    names = {folder for layout in entry.card.layouts for folder in layout.folders}
    there = [root / top for top in top_folders(archive) if top in names and _filled(root / top)]
    if there and not _inputs(entry):
        return Taken(_left_alone(archive, there[0]))
    room = root / f".{archive.name}.unpacked"
    with only_writer(root):
        shutil.rmtree(room, ignore_errors=True)
        try:
            content = room / "content"
            budget = Limits().bytes - unpack(archive, content, progress=progress)
            for level in range(NESTED + 1):
                if taken := _take_folder(entry, archive, content, root) or _take_inputs(entry, archive, content, root):
                    return taken
                if level == NESTED or not (inner := _inner(content)):
                    break
                for path in inner:
                    budget -= unpack(path, path.with_name(f"{path.name}.d"), limits=_within(archive, budget))
                    path.unlink()
            raise UnfitArchive(_unfit(entry, archive, content))
        finally:
            shutil.rmtree(room, ignore_errors=True)


def _take_folder(entry: DatasetEntry, archive: Path, content: Path, root: Path) -> Taken | None:
    """Moves the first folder that a layout of the card reads."""
    accepted = {Path(name).name for layout in entry.card.layouts for name in layout.folders}
    for folder in sorted(_folders(content), key=lambda folder: folder.name not in accepted):  # else near the top first
        try:
            splits = layouts.load(entry, folder)
        except DataError:
            continue
        if _counted(entry, splits):
            continue
        layout = next(layout for layout in entry.card.layouts if layout.name == splits.layout)
        target = root / _place(layout, splits.root)
        if _filled(target):
            return Taken(_left_alone(archive, target))
        target.parent.mkdir(parents=True, exist_ok=True)
        splits.root.rename(target)
        return Taken(f"{archive} unpacked to {target}.", (target,))
    return None


def _take_inputs(entry: DatasetEntry, archive: Path, content: Path, root: Path) -> Taken | None:
    """Moves the files from which the card's builder makes the dataset; those that are there already stay."""
    for layout in entry.card.layouts:
        wanted = layout.options.get("inputs", ())
        for folder in _folders(content):
            if not (found := [name for name in wanted if (folder / name).is_file()]):
                continue
            there = (root / name for name in layout.folders if (root / name).is_dir())
            target = next(there, root / _place(layout, folder))
            target.mkdir(parents=True, exist_ok=True)
            new = [name for name in found if not (target / name).exists()]
            for name in new:
                (folder / name).rename(target / name)
            kept = f"{', '.join(new)} unpacked from {archive} to {target}." if new else _left_alone(archive, target)
            return Taken(kept, tuple(target / name for name in new))
    return None


def _place(layout: Layout, folder: Path) -> str:
    """Where below the data root a folder goes: under its own name if the card accepts it."""
    own = (name for name in layout.folders if folder.parts[-len(Path(name).parts) :] == Path(name).parts)
    return next(own, layout.folders[0])


def _folders(content: Path) -> Iterator[Path]:
    """All folders, those near the top first."""
    level = [content]
    while level:
        yield from level
        level = [Path(entry) for folder in level for entry in sorted(os.scandir(folder), key=_name) if entry.is_dir()]


def _name(entry: os.DirEntry[str]) -> str:
    return entry.name


def _inner(content: Path) -> list[Path]:
    """Archives among the unpacked files; none where there are so many that they are the data themselves."""
    found = [path for path in sorted(content.rglob("*")) if path.name.lower().endswith(ARCHIVE_ENDINGS)]
    return [path for path in found if is_archive(path)] if len(found) <= MOST_INNER else []


def _within(archive: Path, budget: int) -> Limits:
    """What an archive in an archive may become: no more than the outer one may, and than is left of that."""
    limits = Limits()
    return Limits(bytes=min(budget, max(limits.ratio_from, int(limits.ratio * archive.stat().st_size))))


def _inputs(entry: DatasetEntry) -> list[str]:
    return [name for layout in entry.card.layouts for name in layout.options.get("inputs", ())]


def _filled(folder: Path) -> bool:
    return folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))


def _left_alone(archive: Path, place: Path) -> str:
    return f"{archive} was not unpacked again, because {place} exists. If it is wrong or incomplete, remove it first."


def _unfit(entry: DatasetEntry, archive: Path, content: Path) -> str:
    """What was found and what was expected."""
    inner = content
    while len(found := sorted(inner.iterdir())) == 1 and found[0].is_dir():
        inner = found[0]
    holds = first([path.relative_to(content).as_posix() for path in found]) if found else "no files"
    other = _other(entry, content)
    is_other = f", which looks like {other}" if other else ""
    wanted = "; ".join(f"{one.name}: {', '.join(layouts.needed(entry, one))}" for one in entry.card.layouts)
    inputs = f"; or {', '.join(dict.fromkeys(_inputs(entry)))}" if _inputs(entry) else ""
    return (
        f"{archive} does not hold {entry.card.title}: it holds {holds}{is_other}. Expected is a folder with all of one "
        f"layout ({wanted}){inputs}.{_reason(entry, content)} Nothing was kept."
    )


def _other(entry: DatasetEntry, content: Path) -> str:
    """Title of the dataset that the folders look like."""
    folders = list(islice(_folders(content), SEARCHED))
    for other in registry.datasets():
        for folder in folders:
            try:
                layouts.find(other, folder)
            except DataError:
                continue
            if other.name != entry.name:
                return other.card.title
    return ""


def _counted(entry: DatasetEntry, splits: Splits) -> str:
    """Title of the dataset that has these numbers of images, where that is another one: layouts may be alike."""
    images = [len(getattr(splits, split)) for split in SPLITS]
    titles = {}
    for other in registry.datasets():
        expected = [other.card.expected[split].images for split in SPLITS if split in other.card.expected]
        if expected == images:
            titles[other.name] = other.card.title
    return "" if entry.name in titles else next(iter(titles.values()), "")


def _reason(entry: DatasetEntry, content: Path) -> str:
    """Why a folder was refused that has all that a layout needs."""
    for folder in islice(_folders(content), SEARCHED):
        for layout in entry.card.layouts:
            if (why := layouts.refusal(entry, layout, folder)).startswith(layouts.LACKS):
                continue
            if not why:
                try:
                    other = _counted(entry, layouts.load(entry, folder, version=layout.name))
                    why = f"its numbers of images are those of {other}"
                except DataError as error:
                    why = str(error)
            return f" {folder.name} ({layout.name}): {why.replace(str(content), 'its top folder').rstrip('.')}."
    return ""
