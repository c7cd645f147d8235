"""Makes one dataset readable: unpacks its archives, runs its builders, checks its counts. Downloads nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from datasets.layouts import find
from datasets.preparation.archive import UnfitArchive, take
from datasets.preparation.builders import BUILDERS, holds
from datasets.preparation.unpack import Progress, is_archive
from harness.cards import Layout
from harness.contracts import Splits
from harness.errors import DataError
from harness.registry import DatasetEntry
from harness.registry.dataset_checks import check_counts


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

    Archives among `sources`, or lying in the data root under their usual name, are unpacked if they hold the dataset
    or its raw inputs; nothing of another archive is kept. Then the card's builders run. Data that must be asked for is
    never fetched.

    Args:
        entry: the dataset.
        root: the data root; made if missing.
        sources: archives or folders of the user's.
        progress: called with (done, in all) while something long goes on.

    Raises:
        DataError: an input is damaged or unsafe.
    """
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    places = [Path(source) for source in sources]
    if missing := [place for place in places if not place.exists()]:
        raise DataError(f"{missing[0]} does not exist.")
    notice = [entry.card.notice] if entry.card.notice else []
    done: list[str] = []
    refused: list[str] = []
    if not holds(entry, root):
        new: list[Path] = []
        for archive in _archives(entry, root, places):
            try:
                taken = take(entry, archive, root, progress)
                done.append(taken.sentence)
                new += taken.paths
            except UnfitArchive as error:
                refused.append(str(error))
        for layout in entry.card.layouts:
            if not holds(entry, root):
                with _undone_on_damage(new):
                    done += _build(entry, layout, root, places, progress)
    try:
        find(entry, root)
    except DataError as error:
        return Outcome(entry.name, "absent", (*done, *refused, str(error)))
    splits = entry.load(root)
    where = f"{entry.card.title} is in {splits.root} ({splits.layout})."
    return Outcome(
        entry.name,
        "built" if done else "ready",
        (*done, *refused, where, *check_counts(entry, splits), *notice),
        splits,
    )


def _archives(entry: DatasetEntry, root: Path, places: Sequence[Path]) -> list[Path]:
    usual = [root / name for layout in entry.card.layouts for name in layout.options.get("archives", ())]
    inputs = {name for layout in entry.card.layouts for name in layout.options.get("inputs", ())}
    files = [place for place in places if place.is_file() and place.name not in inputs]
    for file in files:
        if not is_archive(file):
            raise DataError(f"{file} is not a zip or tar archive, or it is cut off.")
    return list(dict.fromkeys(path for path in (*files, *usual) if path.is_file()))


@contextmanager
def _undone_on_damage(paths: Sequence[Path]) -> Iterator[None]:
    """Removes what was just unpacked where a builder finds it damaged, so that a good copy can take its place."""
    try:
        yield
    except DataError as error:
        for path in paths:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        removed = f" {' and '.join(map(str, paths))} was removed again." if paths else ""
        raise DataError(f"{error}{removed}") from error


def _build(
    entry: DatasetEntry, layout: Layout, root: Path, places: Sequence[Path], progress: Progress | None
) -> list[str]:
    name = layout.options.get("builder", "")
    if not name:
        return []
    builder = entry.function(name) if ":" in name else BUILDERS[name]
    return builder(layout, root, places, progress)
