"""Finds a dataset below the data root and reads it, using the layouts that its card declares."""

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

from datasets import fingerprint_cache, joined
from datasets.readers import READERS, Reader
from datasets.readers.source import Source, first
from harness.cards import Layout, same_type
from harness.contracts import SPLITS, UNKNOWN_CAMERAS, Item, Splits
from harness.errors import DataError, UsageError, unknown
from harness.spec.run_spec import canonical
from harness.system.paths import short

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
"""Layout options used in this module; all others are passed to the reader."""


@dataclass(frozen=True)
class Found:
    """Where a dataset was found: layout name, folder, and alternatives as (layout name, folder)."""

    layout: str
    folder: Path
    alternatives: tuple[tuple[str, Path], ...] = ()


def find(entry: DatasetEntry, root: Path, version: str = "", splits: Sequence[str] = SPLITS) -> Found:
    """Finds the folder of a dataset without reading it.

    Layouts are tried in the order of the card. The first complete one is used, and the others are reported.

    Args:
        entry: the dataset.
        root: folder that contains the datasets, or the dataset's own folder.
        version: name of the layout, or its last part (`v2` for `msmt17-v2`); empty for the first complete one.
        splits: splits that must exist.

    Raises:
        DataError: the dataset is not found; names the accepted and incomplete folders, and where to get the data.
    """
    if entry.parts:
        places = [find(part, root, "", joined.wanted(i, splits)) for i, part in enumerate(entry.parts)]
        return Found("+".join(place.layout for place in places), places[0].folder)
    root = Path(os.path.abspath(root))
    if not root.is_dir():
        raise DataError(
            f"The data root {root} does not exist or is not a folder. Set --data-root or REID_DATASETS to the folder "
            "of the datasets."
        )
    layouts = _chosen(entry, version)
    found: list[tuple[str, Path]] = []
    refused: dict[str, None] = {}
    for layout in layouts:
        for folder in _places(layout, root):
            if reason := refusal(entry, layout, folder, splits):
                refused[f"{folder} ({layout.name}): {reason}"] = None
            elif not any(name == layout.name and os.path.samefile(folder, other) for name, other in found):
                found.append((layout.name, folder))
    if not found:  # finally, the root itself, whatever its name is
        reasons = {layout.name: refusal(entry, layout, root, splits) for layout in layouts}
        found = [(name, root) for name, reason in reasons.items() if not reason][:1]
        refused |= {f"{root} ({name}): {why}": None for name, why in reasons.items() if not why.startswith(LACKS)}
    if not found:
        raise DataError(_nowhere(entry, layouts, root, list(refused)))
    (name, folder), *others = found
    return Found(name, folder, tuple(others))


def load(entry: DatasetEntry, root: Path, *, splits: Sequence[str] = SPLITS, **options: Any) -> Splits:
    """Reads the splits of a dataset without opening images.

    Args:
        entry: the dataset.
        root: folder that contains the datasets, or the dataset's own folder.
        splits: splits to read; the others are returned empty, and their files may be missing.
        **options: reader options of the card, and `version`.

    Raises:
        DataError: the dataset is missing or damaged.
        UsageError: the card does not declare an option.
    """
    values = _options(entry, options)
    if entry.parts:
        return joined.splits_of(entry.parts, lambda i: load(entry.parts[i], root, splits=joined.wanted(i, splits)))
    return _read(entry, find(entry, root, values.pop(VERSION), splits), values, splits)[0]


def fingerprint(entry: DatasetEntry, root: Path, *, splits: Sequence[str] = SPLITS, **options: Any) -> str:
    """Returns a hash over (split, relative path, size, identity, camera) of every item; cached, see `facts`."""
    return facts(entry, root, splits=splits, **options).fingerprint


def facts(
    entry: DatasetEntry, root: Path, *, splits: Sequence[str] = SPLITS, **options: Any
) -> fingerprint_cache.Facts:
    """Returns fingerprint and counts of a dataset, without opening images.

    They are stored in the cache folder and valid while the folders and lists of the dataset keep their modification
    times. Limitation: an image that is overwritten in place is noticed only after the cache is deleted.

    Args:
        entry: the dataset.
        root: folder that contains the datasets, or the dataset's own folder.
        splits: splits to read, as for `load`.
        **options: reader options of the card, and `version`.

    Raises:
        DataError: the dataset is missing or damaged.
    """
    values = _options(entry, options)
    if entry.parts:
        return joined.facts_of(entry.parts, lambda i: facts(entry.parts[i], root, splits=joined.wanted(i, splits)))
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
    """Yields the existing folders of a layout below the root; the root may already include part of their path."""
    for folder in layout.folders:
        parts = Path(folder).parts
        for known in range(len(parts) + 1):
            if known == 0 or root.parts[-known:] == parts[:known]:
                place = root.joinpath(*parts[known:])
                if place.is_dir():
                    yield place


def refusal(entry: DatasetEntry, layout: Layout, folder: Path, splits: Sequence[str] = SPLITS) -> str:
    """Returns why this folder does not have the layout; an empty string if it seems to have it."""
    if missing := [name for name in needed(entry, layout, splits) if not (folder / name).exists()]:
        return f"{LACKS} {', '.join(missing)}"
    return _quick_reader(entry, layout).probe(folder, **_reader_options(layout))


def needed(entry: DatasetEntry, layout: Layout, splits: Sequence[str] = SPLITS) -> list[str]:
    """Returns the names of the folders and files that must exist below the folder of a layout.

    Raises:
        UsageError: the options of the layout do not fit the reader.
    """
    try:
        needs = _quick_reader(entry, layout).needs(**_reader_options(layout), splits=splits)
    except TypeError as error:
        raise _unfit_options(entry, layout, error) from error
    return [*needs, *layout.options.get("needs", ())]


def _quick_reader(entry: DatasetEntry, layout: Layout) -> Reader:
    """Returns the reader of a layout, or a stand-in for a reader of a plug-in, whose code runs only to read data."""
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
            raise UsageError(
                f"Layout '{layout.name}': the option {key} must be {_words(kind)}, found {layout.options[key]!r}."
            )
    if layout.reader in READERS:
        for key, parameter in inspect.signature(READERS[layout.reader].read).parameters.items():
            if key in options and not _is(parameter.annotation, options[key]):
                kind = _words(parameter.annotation)
                raise UsageError(f"Layout '{layout.name}': the option {key} must be {kind}, found {options[key]!r}.")
    return options


def _words(kind: str) -> str:
    """Describes the type of an option in words."""
    words = {"Sequence[str]": "a list of text", "Sequence[float]": "a list of numbers", "str": "text"}
    return {**words, "int": "a whole number", "bool": "true or false"}.get(kind, kind)


def _is(kind: str, value: Any) -> bool:
    """Returns whether the value of an option has the type given in a reader's signature."""
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
    """Pauses the garbage collector, which would repeatedly scan hundreds of thousands of new items."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _stand_in(entry: DatasetEntry, source: Source) -> dict[str, Any] | None:
    """Returns the content of `stand-in.json`, which marks generated data; `None` for real data.

    Raises:
        DataError: the file is damaged or belongs to another dataset.
    """
    path = source.folder / STAND_IN
    if not os.path.lexists(path):
        return None
    try:
        content = json.loads(source.text(STAND_IN))
        canonical(content)  # refuses NaN and infinity, because the content is stored in the record
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON. Generate the dataset again.") from error
    if not isinstance(content, dict) or content.get("generated") is not True:
        raise DataError(f"{path} does not contain '\"generated\": true'. Generate the dataset again.")
    made_for = content.get("layout", entry.name)
    if entry.name != made_for and not entry.name.startswith(f"{made_for}-"):
        raise DataError(f"{source.folder} contains generated data for {made_for}, not for {entry.name}.")
    return content


def _range(layout: Layout, low_high: list[float]) -> list[float]:
    """Checks and returns the gray values of black and white in images of more than 8 bits.

    Raises:
        UsageError: it is not a pair of increasing values.
    """
    if len(low_high) != 2 or not low_high[0] < low_high[1]:
        raise UsageError(
            f"Layout '{layout.name}': value_range must be [low, high] with low below high, found {low_high!r}."
        )
    return low_high


def _check_arguments(entry: DatasetEntry, layout: Layout, read: Callable[..., Any], options: dict[str, Any]) -> None:
    try:
        inspect.signature(read).bind(None, **options)
    except TypeError as error:
        raise _unfit_options(entry, layout, error) from error


def _unfit_options(entry: DatasetEntry, layout: Layout, error: TypeError) -> UsageError:
    return UsageError(
        f"The options of layout '{layout.name}' of {entry.name} do not fit the reader '{layout.reader}': {error}."
    )


def _check_items(entry: DatasetEntry, layout: Layout, source: Source, splits: dict[str, list[Item]]) -> None:
    """Checks the items of a reader: no wanted split is empty, and all images are below the folder.

    Raises:
        DataError: a split is empty, an image is outside the folder, or a label is negative.
    """
    folder = source.folder
    below = f"{folder}{os.sep}" if ":" in layout.reader else ""  # our own readers guarantee it
    for split, items in splits.items():
        if not items:
            others = ", ".join(f"{n:,} {kind}" for kind, n in source.notes.get("ignored_kinds", {}).items())
            left_out = f", only files of unsupported formats: {others}" if others else ""
            raise DataError(f"{folder} ({layout.name}) has no images of the {split} split{left_out}.")
        if below and any(i.pid < 0 or i.camid < 0 or not str(i.path).startswith(below) for i in items):
            raise DataError(f"The reader of {entry.name} returned an image outside {folder} or a negative label.")


def _without_cameras(source: Source, splits: dict[str, list[Item]]) -> dict[str, list[Item]]:
    """Numbers unknown cameras so that the protocol ignores no image: queries have camera 1, all other images 0.

    Raises:
        DataError: an image is in query and gallery, so it would match itself.
    """
    searched = {item.path for item in splits.get("gallery", [])}
    if own := [item.path.name for item in splits.get("query", []) if item.path in searched]:
        raise DataError(
            f"{source.folder}: {len(own)} image(s) are both query and gallery: {first(own)}. With unknown cameras each "
            "would match itself. Remove them from one of the two."
        )
    return {split: [item._replace(camid=int(split == "query")) for item in items] for split, items in splits.items()}


def _nowhere(entry: DatasetEntry, layouts: list[Layout], root: Path, refused: list[str]) -> str:
    card = entry.card
    best, *_ = layouts
    others = {layout.name: [name for name in layout.folders if name != best.folders[0]] for layout in layouts}
    also = "; ".join(
        ", ".join(names) + (f" (layout {layout})" if len(layouts) > 1 else "")
        for layout, names in others.items()
        if names
    )
    hints = dict.fromkeys(str(layout.options["hint"]) for layout in layouts if "hint" in layout.options)
    sentences = [
        f"{card.title} was not found below {root}.",
        *(f"Not usable: {reason}." for reason in refused),
        f"Put it into {short(root / best.folders[0])}" + (f" (layout {best.name})." if len(layouts) > 1 else "."),
        f"Also accepted: {also}." if also else "",
        *hints,
        card.ask or (f"See {card.url}." if card.url else ""),
        card.notice,
    ]
    return " ".join(sentence for sentence in sentences if sentence)
