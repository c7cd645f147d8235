"""Gets a dataset ready from what the user holds: unpacks, extracts, builds. Nothing is ever downloaded here."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.cards import Layout
from harness.contracts import Splits
from harness.errors import DataError
from harness.registry import DatasetEntry
from harness.unpack import Progress, is_archive, only_writer, top_folders, unpack
from harness.validate import check_counts


@dataclass(frozen=True)
class Outcome:
    """What became of one dataset.

    Attributes:
        dataset: its name.
        status: `ready` (was there already), `built`, or `absent` (the sentences say where to ask for it).
        sentences: what was done; where the data is and how it differs from the card, or where to ask; the notice.
        splits: what was read at the end, `None` for an absent dataset.
    """

    dataset: str
    status: str
    sentences: tuple[str, ...]
    splits: Splits | None = None


def prepare_dataset(
    entry: DatasetEntry,
    root: str | os.PathLike[str],
    *,
    sources: Sequence[str | os.PathLike[str]] = (),
    progress: Progress | None = None,
) -> Outcome:
    """Makes a dataset readable below the data root. It can be repeated, and interrupted at any time.

    Archives among `sources`, or lying in the data root under their usual name, are unpacked. Then the card's builders
    run. Data that must be asked for is never fetched.

    Args:
        entry: the dataset.
        root: the data root; made if missing.
        sources: archives or folders of the user's.
        progress: called with (done, in all) while something long goes on.

    Raises:
        DataError: an input is damaged or unsafe.
    """
    from datasets.layouts import find

    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    places = [Path(source) for source in sources]
    if missing := [place for place in places if not place.exists()]:
        raise DataError(f"{missing[0]} does not exist.")
    notice = [entry.card.notice] if entry.card.notice else []
    done: list[str] = []
    if not _found(entry, root):
        for archive in _archives(entry, root, places):
            done += _unpack(entry, archive, root, progress)
        for layout in entry.card.layouts:
            if not _found(entry, root):
                done += _build(entry, layout, root, places, progress)
    try:
        find(entry, root)
    except DataError as error:
        return Outcome(entry.name, "absent", (*done, str(error)))
    splits = entry.load(root)
    where = f"{entry.card.title} is in {splits.root} ({splits.layout})."
    return Outcome(
        entry.name, "built" if done else "ready", (*done, where, *check_counts(entry, splits), *notice), splits
    )


def _found(entry: DatasetEntry, root: Path) -> bool:
    from datasets.layouts import find

    try:
        return bool(find(entry, root))
    except DataError:
        return False


def _archives(entry: DatasetEntry, root: Path, places: Sequence[Path]) -> list[Path]:
    usual = [root / name for layout in entry.card.layouts for name in layout.options.get("archives", ())]
    for place in places:
        if place.is_file() and not is_archive(place):
            raise DataError(f"{place} is not a zip or tar archive, or it is cut off.")
    return list(dict.fromkeys(path for path in (*places, *usual) if path.is_file()))


def _unpack(entry: DatasetEntry, archive: Path, root: Path, progress: Progress | None) -> list[str]:
    """Unpacks an archive beside its place and moves it there, by the folder names the card accepts."""
    accepted = [Path(folder).parts for layout in entry.card.layouts for folder in layout.folders]
    if any((root / top).exists() for top in top_folders(archive) if top in {parts[0] for parts in accepted}):
        return [f"{archive} was not unpacked again, because its folder exists in {root}."]
    room = root / f".{archive.name}.unpacked"
    with only_writer(root):
        shutil.rmtree(room, ignore_errors=True)
        try:
            unpack(archive, room / "content", progress=progress)
            content, target = _destination(room / "content", root, accepted)
            if target.exists():
                return [f"{archive} was not unpacked, because {target} exists."]
            target.parent.mkdir(parents=True, exist_ok=True)
            content.rename(target)
        finally:
            shutil.rmtree(room, ignore_errors=True)
    return [f"{archive} unpacked to {target}."]


def _destination(content: Path, root: Path, accepted: Sequence[tuple[str, ...]]) -> tuple[Path, Path]:
    """Which folder of what was unpacked goes where: the first that completes an accepted path, else all of it."""
    while True:
        for parts in accepted:
            if content.joinpath(*parts).is_dir():
                return content / parts[0], root / parts[0]
            for known in range(1, len(parts)):
                if content.joinpath(*parts[known:]).is_dir():
                    return content, root.joinpath(*parts[:known])
        inner = list(content.iterdir())
        if len(inner) != 1 or not inner[0].is_dir():
            return content, root.joinpath(*accepted[0])
        content = inner[0]


def _build(
    entry: DatasetEntry, layout: Layout, root: Path, places: Sequence[Path], progress: Progress | None
) -> list[str]:
    from datasets.builders import BUILDERS

    name = layout.options.get("builder", "")
    if not name:
        return []
    builder = entry.reader(name) if ":" in name else BUILDERS[name]
    return builder(layout, root, places, progress)
