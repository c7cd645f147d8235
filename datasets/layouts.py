"""Finds a dataset below the data root and reads it, by the layouts its card declares."""

from __future__ import annotations

import gc
import inspect
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import fingerprint_cache
from datasets.readers import READERS, Reader
from datasets.readers.source import Source, first
from harness.cards import Layout, same_type
from harness.contracts import SPLITS, UNKNOWN_CAMERAS, Item, Splits
from harness.errors import DataError, UsageError, unknown
from harness.spec.run_spec import canonical

if TYPE_CHECKING:
    from harness.registry import DatasetEntry

STAND_IN = "stand-in.json"
VERSION = "version"
LACKS = "it lacks"
KINDS = {
    "needs": "Sequence[str]",
    "hint": "str",
    "archives": "Sequence[str]",
    "builder": "str",
    "inputs": "Sequence[str]",
    "value_range": "Sequence[float]",
}
OURS = tuple(KINDS)
"""Layout options read here; all others go to the reader."""


@dataclass(frozen=True)
class Found:
    """Where a dataset was found: layout name, folder, and the other places that would do as (layout, folder)."""

    layout: str
    folder: Path
    alternatives: tuple[tuple[str, Path], ...] = ()


def find(entry: DatasetEntry, root: Path, version: str = "", splits: Sequence[str] = SPLITS) -> Found:
    """Finds the folder of a dataset without reading it.

    Layouts are tried in the card's order; the first complete one is chosen and the others are reported.

    Args:
        entry: the dataset.
        root: the folder that holds the datasets, or the dataset's own folder.
        version: name of the layout to take, or its last word (`v2` for `msmt17-v2`); empty takes the first found.
        splits: what must be there.

    Raises:
        DataError: nothing is found; says what was tried, what is incomplete, and where to ask for the data.
    """
    root = Path(os.path.abspath(root))
    if not root.is_dir():
        raise DataError(f"The data root {root} is not a folder. Name it with --data-root, or set REID_DATASETS.")
    layouts = _chosen(entry, version)
    found: list[tuple[str, Path]] = []
    refused: dict[str, None] = {}
    for layout in layouts:
        for folder in _places(layout, root):
            if reason := refusal(entry, layout, folder, splits):
                refused[f"{folder} ({layout.name}): {reason}"] = None
            elif not any(name == layout.name and os.path.samefile(folder, other) for name, other in found):
                found.append((layout.name, folder))
    if not found:  # last, the root itself under any name
        reasons = {layout.name: refusal(entry, layout, root, splits) for layout in layouts}
        found = [(name, root) for name, reason in reasons.items() if not reason][:1]
        refused |= {f"{root} ({name}): {why}": None for name, why in reasons.items() if not why.startswith(LACKS)}
    if not found:
        raise DataError(_nowhere(entry, layouts, root, list(refused)))
    (name, folder), *others = found
    return Found(name, folder, tuple(others))


def load(entry: DatasetEntry, root: Path, *, splits: Sequence[str] = SPLITS, **options: Any) -> Splits:
    """Reads the splits of a dataset; no image is opened.

    Args:
        entry: the dataset.
        root: the folder that holds the datasets, or the dataset's own folder.
        splits: those to read; the files of the others may be absent, and they are returned empty.
        **options: reader options of the card, and `version`.

    Raises:
        DataError: nothing found, or what was found is damaged.
        UsageError: an option the card does not declare.
    """
    values = _options(entry, options)
    return _read(entry, find(entry, root, values.pop(VERSION), splits), values, splits)[0]


def fingerprint(entry: DatasetEntry, root: Path, *, splits: Sequence[str] = SPLITS, **options: Any) -> str:
    """Hash over (split, relative path, size, identity, camera) of every item `load` returns; see `facts`."""
    return facts(entry, root, splits=splits, **options).fingerprint


def facts(
    entry: DatasetEntry, root: Path, *, splits: Sequence[str] = SPLITS, **options: Any
) -> fingerprint_cache.Facts:
    """Fingerprint and counts of a dataset, without opening an image.

    They are remembered in the cache folder, and used again as long as the folders and lists that were read keep
    their modification times. An image rewritten in place under its old name is noticed once the cache is emptied.

    Args:
        entry: the dataset.
        root: the folder that holds the datasets, or the dataset's own folder.
        splits: those to read, as for `load`.
        **options: reader options of the card, and `version`.

    Raises:
        DataError: nothing found, or what was found is damaged.
    """
    values = _options(entry, options)
    found = find(entry, root, values.pop(VERSION), splits)
    part = [] if len(splits) == len(SPLITS) else [list(splits)]
    key = fingerprint_cache.key(entry.folder, [entry.name, found.layout, str(found.folder), values, *part])
    if remembered := fingerprint_cache.recall(key, found.folder):
        return remembered
    read, source = _read(entry, found, values, splits)
    found_out = fingerprint_cache.Facts.of(read)
    fingerprint_cache.remember(key, found_out, source.stamps)
    return found_out


def _options(entry: DatasetEntry, given: dict[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {VERSION: "", **entry.card.options}
    for key, value in given.items():
        if key not in values:
            raise unknown(f"option of {entry.name}", key, values)
        values[key] = same_type(value, values[key], f"{entry.name}.{key}")
    return values


def _chosen(entry: DatasetEntry, version: str) -> list[Layout]:
    layouts = list(entry.card.layouts)
    if version:
        names = [layout.name for layout in layouts]
        layouts = [x for x in layouts if x.name == version or x.name.endswith(f"-{version}")]
        if not layouts:
            raise unknown(f"version of {entry.name}", version, names)
    return layouts


def _places(layout: Layout, root: Path) -> Iterator[Path]:
    """Existing folders of a layout: below the root, or the root itself or its parent being a part of the way."""
    for folder in layout.folders:
        parts = Path(folder).parts
        for known in range(len(parts) + 1):
            if known == 0 or root.parts[-known:] == parts[:known]:
                place = root.joinpath(*parts[known:])
                if place.is_dir():
                    yield place


def refusal(entry: DatasetEntry, layout: Layout, folder: Path, splits: Sequence[str] = SPLITS) -> str:
    """Why this folder does not hold the layout; empty if it seems to."""
    if missing := [name for name in needed(entry, layout, splits) if not (folder / name).exists()]:
        return f"{LACKS} {', '.join(missing)}"
    return _quick_reader(entry, layout).probe(folder, **_reader_options(layout))


def needed(entry: DatasetEntry, layout: Layout, splits: Sequence[str] = SPLITS) -> list[str]:
    """Names of the folders and files that must exist below the folder of a layout."""
    try:
        needs = _quick_reader(entry, layout).needs(**_reader_options(layout), splits=splits)
    except TypeError as error:
        raise UsageError(f"Layout '{layout.name}' of {entry.name} does not fit its reader: {error}.") from error
    return [*needs, *layout.options.get("needs", ())]


def _quick_reader(entry: DatasetEntry, layout: Layout) -> Reader:
    """The reader without code of the plug-in, which runs when the data is read, not before."""
    return Reader(read=lambda: {}, needs=lambda **_: []) if ":" in layout.reader else _reader(entry, layout)


def _reader(entry: DatasetEntry, layout: Layout) -> Reader:
    if ":" in layout.reader:
        return Reader(read=entry.function(layout.reader), needs=lambda **_: [])
    if layout.reader not in READERS:
        raise unknown(f"reader of {entry.name}", layout.reader, READERS)
    return READERS[layout.reader]


def _reader_options(layout: Layout) -> dict[str, Any]:
    options = {key: value for key, value in layout.options.items() if key not in OURS}
    for key, kind in KINDS.items():
        if key in layout.options and not _is(kind, layout.options[key]):
            raise UsageError(f"Layout '{layout.name}': {key} must be {kind}, found {layout.options[key]!r}.")
    if layout.reader in READERS:
        for key, parameter in inspect.signature(READERS[layout.reader].read).parameters.items():
            if key in options and not _is(parameter.annotation, options[key]):
                raise UsageError(
                    f"Layout '{layout.name}': {key} must be {parameter.annotation}, found {options[key]!r}."
                )
    return options


def _is(kind: str, value: Any) -> bool:
    """Whether an option of a layout is of the type that a reader's signature names."""
    if kind == "Sequence[str]":
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    if kind == "Sequence[float]":
        return isinstance(value, list) and all(type(one) in (int, float) for one in value)
    return type(value).__name__ == kind


def _read(entry: DatasetEntry, found: Found, values: dict[str, Any], wanted: Sequence[str]) -> tuple[Splits, Source]:
    layout = next(layout for layout in entry.card.layouts if layout.name == found.layout)
    source = Source(found.folder, splits=wanted)
    generated = _stand_in(entry, source)
    options = {**_reader_options(layout), **values}
    read = _reader(entry, layout).read
    _check_arguments(entry, layout, read, options)
    with _collector_paused():
        splits = read(source, **options)
    splits = {split: splits.get(split, []) for split in wanted}
    _check_items(entry, layout, source, splits)
    if source.notes.get("cameras") == UNKNOWN_CAMERAS:
        splits = _without_cameras(source, splits)
    if low_high := layout.options.get("value_range"):
        source.notes["value_range"] = _range(layout, low_high)
    if found.alternatives:
        source.notes["alternatives"] = [f"{name} in {folder}" for name, folder in found.alternatives]
    train, query, gallery = (splits.get(split, []) for split in SPLITS)
    return Splits(train, query, gallery, found.folder, found.layout, generated, source.notes), source


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Keeps the garbage collector from walking a hundred thousand new items again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _stand_in(entry: DatasetEntry, source: Source) -> dict[str, Any] | None:
    """Contents of `stand-in.json`, which marks generated data."""
    path = source.folder / STAND_IN
    if not os.path.lexists(path):
        return None
    try:
        content = json.loads(source.text(STAND_IN))
        canonical(content)  # it goes into the record: no NaN, no infinity
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON; generate the stand-in again.") from error
    if not isinstance(content, dict) or content.get("generated") is not True:
        raise DataError(f"{path} must say '\"generated\": true'; generate the stand-in again.")
    made_for = content.get("layout", entry.name)
    if entry.name != made_for and not entry.name.startswith(f"{made_for}-"):
        raise DataError(f"{source.folder} holds generated data for {made_for}, not for {entry.name}.")
    return content


def _range(layout: Layout, low_high: list[float]) -> list[float]:
    """The gray values that are black and white in images of more than 8 bits."""
    if len(low_high) != 2 or not low_high[0] < low_high[1]:
        raise UsageError(f"Layout '{layout.name}': value_range must be [low, high], low first, found {low_high!r}.")
    return low_high


def _check_arguments(entry: DatasetEntry, layout: Layout, read: Callable[..., Any], options: dict[str, Any]) -> None:
    try:
        inspect.signature(read).bind(None, **options)
    except TypeError as error:
        raise UsageError(f"Layout '{layout.name}' of {entry.name} does not fit its reader: {error}.") from error


def _check_items(entry: DatasetEntry, layout: Layout, source: Source, splits: dict[str, list[Item]]) -> None:
    """What every reader must keep: the wanted splits there and not empty, sorted, below the folder."""
    folder = source.folder
    below = f"{folder}{os.sep}" if ":" in layout.reader else ""  # the readers here keep it by construction
    for split, items in splits.items():
        if not items:
            others = ", ".join(f"{n:,} {kind}" for kind, n in source.notes.get("ignored_kinds", {}).items())
            left_out = f"; files of kinds that are not read: {others}" if others else ""
            raise DataError(f"{folder} ({layout.name}) holds no images of the {split} split{left_out}.")
        if below and any(i.pid < 0 or i.camid < 0 or not str(i.path).startswith(below) for i in items):
            raise DataError(f"The reader of {entry.name} returned an image outside {folder} or a negative label.")


def _without_cameras(source: Source, splits: dict[str, list[Item]]) -> dict[str, list[Item]]:
    """Numbers unknown cameras so that the protocol ignores no image: all queries 1, everything else 0.

    Raises:
        DataError: an image is in query and gallery, and nothing would keep it from being its own match.
    """
    searched = {item.path for item in splits.get("gallery", [])}
    if own := [item.path.name for item in splits.get("query", []) if item.path in searched]:
        raise DataError(
            f"{source.folder}: {len(own)} image(s) are both query and gallery: {first(own)}. Without cameras each "
            "would be its own match; leave them out of one of the two."
        )
    return {split: [item._replace(camid=int(split == "query")) for item in items] for split, items in splits.items()}


def _nowhere(entry: DatasetEntry, layouts: list[Layout], root: Path, refused: list[str]) -> str:
    card = entry.card
    accepted = "; ".join(f"{layout.name}: {' or '.join(layout.folders)}" for layout in layouts)
    hints = dict.fromkeys(str(layout.options["hint"]) for layout in layouts if "hint" in layout.options)
    sentences = [
        f"{card.title} was not found below {root}.",
        *(f"Incomplete or something else: {reason}." for reason in refused),
        f"Accepted folders: {accepted}.",
        *hints,
        f"Where to get it: {card.ask}" if card.ask else (f"See {card.url}." if card.url else ""),
        card.notice,
    ]
    return " ".join(sentence for sentence in sentences if sentence)
