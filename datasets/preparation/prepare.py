"""Prepares one dataset: unpacks its archives, runs its builders and checks its counts. Does not download anything."""

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
    """The result of preparing one dataset.

    Attributes:
        dataset: name of the dataset.
        status: `ready` (it existed already), `built`, or `absent`.
        sentences: what was done; where the dataset is and how it differs from its card, or where to get it; its notice.
        splits: the splits of the dataset, `None` if it is absent.
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
    """Prepares a dataset below the data root. It can be interrupted and repeated at any time.

    Archives in `sources`, and archives with a known name in the data root, are unpacked if they contain the dataset or
    its raw inputs. Nothing of other archives is kept. Then the builders of the card run. Nothing is downloaded.

    Args:
        entry: the dataset.
        root: the data root; created if it does not exist.
        sources: archives or folders of the user.
        progress: called with the amount of work done and the total during long steps.

    Raises:
        DataError: an input is missing, damaged or unsafe.
    """
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    places = [Path(source) for source in sources]
    if missing := [place for place in places if not place.exists()]:
        raise DataError(f"The source {missing[0]} does not exist.")
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
            raise DataError(f"{file} is not a zip or tar archive, or it is truncated. Pass an archive or a folder.")
    return list(dict.fromkeys(path for path in (*files, *usual) if path.is_file()))


@contextmanager
def _undone_on_damage(paths: Sequence[Path]) -> Iterator[None]:
    """Removes the files that were just unpacked if a builder finds them damaged, so that prepare can be repeated."""
    try:
        yield
    except DataError as error:
        for path in paths:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        removed = f" Removed {' and '.join(map(str, paths))} again." if paths else ""
        raise DataError(f"{error}{removed}") from error


def _build(
    entry: DatasetEntry, layout: Layout, root: Path, places: Sequence[Path], progress: Progress | None
) -> list[str]:
    name = layout.options.get("builder", "")
    if not name:
        return []
    builder = entry.function(name) if ":" in name else BUILDERS[name]
    return builder(layout, root, places, progress)
