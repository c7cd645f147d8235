"""Finds a dataset anywhere in an archive of the user, and keeps only the files that fit the card."""

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
"""Maximum depth of archives inside the outer archive."""

MOST_INNER = 8
"""Maximum number of archives in one archive to open."""

SEARCHED = 300
"""Maximum number of folders to search for another dataset, to name it in the message."""

ARCHIVE_ENDINGS = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".tbz2", ".xz", ".txz")


class UnfitArchive(DataError):
    """A valid archive does not contain the dataset."""


@dataclass(frozen=True)
class Taken:
    """What was taken from an archive: a sentence, and the new paths below the data root."""

    sentence: str
    paths: tuple[Path, ...] = ()


def take(entry: DatasetEntry, archive: Path, root: Path, progress: Progress | None = None) -> Taken:
    """Unpacks an archive to a temporary folder, finds the dataset or its raw inputs, and moves them into place.

    Args:
        entry: the dataset.
        archive: zip or tar archive; archives inside it are opened, too.
        root: the data root.
        progress: called with the number of unpacked bytes and the total.

    Raises:
        UnfitArchive: the archive does not contain the dataset; nothing is kept.
        DataError: the archive is damaged or unsafe.
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
    """Moves the first folder that fits a layout of the card into place; folders with accepted names come first."""
    accepted = {Path(name).name for layout in entry.card.layouts for name in layout.folders}
    for folder in sorted(_folders(content), key=lambda folder: folder.name not in accepted):
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
        return Taken(f"Unpacked {archive} to {target}.", (target,))
    return None


def _take_inputs(entry: DatasetEntry, archive: Path, content: Path, root: Path) -> Taken | None:
    """Moves the input files of the card's builder into place; existing files are kept."""
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
            kept = f"Unpacked {', '.join(new)} from {archive} to {target}." if new else _left_alone(archive, target)
            return Taken(kept, tuple(target / name for name in new))
    return None


def _place(layout: Layout, folder: Path) -> str:
    """Returns the place of a folder below the data root: its own name if the card accepts it."""
    own = (name for name in layout.folders if folder.parts[-len(Path(name).parts) :] == Path(name).parts)
    return next(own, layout.folders[0])


def _folders(content: Path) -> Iterator[Path]:
    """Yields all folders, level by level from the top."""
    level = [content]
    while level:
        yield from level
        level = [Path(entry) for folder in level for entry in sorted(os.scandir(folder), key=_name) if entry.is_dir()]


def _name(entry: os.DirEntry[str]) -> str:
    return entry.name


def _inner(content: Path) -> list[Path]:
    """Returns the archives among the unpacked files; none if there are too many, because these are data."""
    found = [path for path in sorted(content.rglob("*")) if path.name.lower().endswith(ARCHIVE_ENDINGS)]
    return [path for path in found if is_archive(path)] if len(found) <= MOST_INNER else []


def _within(archive: Path, budget: int) -> Limits:
    """Returns the limits of an inner archive: at most those of the outer archive, and at most the remaining bytes."""
    limits = Limits()
    return Limits(bytes=min(budget, max(limits.ratio_from, int(limits.ratio * archive.stat().st_size))))


def _inputs(entry: DatasetEntry) -> list[str]:
    return [name for layout in entry.card.layouts for name in layout.options.get("inputs", ())]


def _filled(folder: Path) -> bool:
    return folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))


def _left_alone(archive: Path, place: Path) -> str:
    return f"{archive} was not unpacked, because {place} exists. If that is wrong or incomplete, remove it first."


def _unfit(entry: DatasetEntry, archive: Path, content: Path) -> str:
    """Returns a message with the content of the archive and the expected content."""
    inner = content
    while len(found := sorted(inner.iterdir())) == 1 and found[0].is_dir():
        inner = found[0]
    holds = first([path.relative_to(content).as_posix() for path in found]) if found else "no files"
    other = _other(entry, content)
    is_other = f", which looks like {other}" if other else ""
    wanted = " or ".join(f"{', '.join(layouts.needed(entry, one))} ({one.name})" for one in entry.card.layouts)
    inputs = f", or the files {', '.join(dict.fromkeys(_inputs(entry)))}" if _inputs(entry) else ""
    return (
        f"{archive} does not contain {entry.card.title}: found {holds}{is_other}; expected a folder with {wanted}"
        f"{inputs}.{_reason(entry, content)} Nothing was unpacked to the data root."
    )


def _other(entry: DatasetEntry, content: Path) -> str:
    """Returns the title of another dataset that the folders look like; an empty string for none."""
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
    """Returns the title of another dataset with these numbers of images, because layouts may be the same."""
    images = [len(getattr(splits, split)) for split in SPLITS]
    titles = {}
    for other in registry.datasets():
        expected = [other.card.expected[split].images for split in SPLITS if split in other.card.expected]
        if expected == images:
            titles[other.name] = other.card.title
    return "" if entry.name in titles else next(iter(titles.values()), "")


def _reason(entry: DatasetEntry, content: Path) -> str:
    """Returns why a folder was refused although it has all files and folders of a layout."""
    for folder in islice(_folders(content), SEARCHED):
        for layout in entry.card.layouts:
            if (why := layouts.refusal(entry, layout, folder)).startswith(layouts.LACKS):
                continue
            if not why:
                try:
                    other = _counted(entry, layouts.load(entry, folder, version=layout.name))
                    why = f"it has the numbers of images of {other}"
                except DataError as error:
                    why = str(error)
            return f" {folder.name} ({layout.name}): {why.replace(str(content), 'its top folder').rstrip('.')}."
    return ""
