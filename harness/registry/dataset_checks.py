"""Checks a dataset: counts, labels, unreadable images, duplicate files and image sizes."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import registry
from harness.cards import SplitCount
from harness.contracts import SPLITS, Item, Splits
from harness.errors import DataError
from harness.registry import DatasetEntry
from harness.registry.findings import EXAMPLES, LEVELS, Finding
from harness.system.redact import readable

if TYPE_CHECKING:
    from PIL import Image

QUANTITIES = ("images", "identities", "cameras")

Progress = Callable[[int, int], None]
"""Called with the number of images done and the total."""


def validate_dataset(
    entry: DatasetEntry,
    root: str | os.PathLike[str],
    *,
    deep: bool = True,
    progress: Progress | None = None,
    workers: int = 4,
    **options: Any,
) -> list[Finding]:
    """Reads a dataset and runs all checks. If it cannot be read, the result is one error.

    Args:
        entry: the dataset.
        root: folder that contains the datasets, or the dataset's own folder.
        deep: whether to open every image and look for duplicates.
        progress: called with the number of opened images and the total.
        workers: number of threads that open images.
        **options: reader options of the card.

    Returns:
        The findings, errors first.
    """
    try:
        splits = entry.load(root, **options)
    except DataError as error:
        return [Finding("error", str(error))]
    findings = [Finding("warning", entry.card.notice)] if entry.card.notice and splits.generated is None else []
    findings += [Finding("error", sentence) for sentence in check_counts(entry, splits)]
    findings += check_labels(splits)
    if deep:
        findings += check_images(splits, progress, workers) + check_sizes(entry, splits)
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))


def counts(items: Sequence[Item]) -> SplitCount:
    """Returns the number of images, identities and cameras of one split."""
    return SplitCount(len(items), len({item.pid for item in items}), len({item.camid for item in items}))


def expected_counts(entry: DatasetEntry, splits: Splits) -> dict[str, SplitCount]:
    """Returns the expected counts: those of the card, or of `stand-in.json` for generated data.

    Raises:
        DataError: the counts in `stand-in.json` are damaged.
    """
    if splits.generated is None:
        return entry.card.expected
    stated = splits.generated.get("counts")
    try:
        rows = {name: SplitCount(*(int(row[q]) for q in QUANTITIES)) for name, row in dict(stated or {}).items()}
        found = {split: rows[split] for split in SPLITS}
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"The counts in {splits.root / 'stand-in.json'} are damaged. Generate the dataset again."
        ) from error
    if "val" in rows and "val" in splits.notes.get("lists", {}):  # val has the same identities and cameras as train
        train, val = rows["train"], rows["val"]
        identities, cameras = max(train.identities, val.identities), max(train.cameras, val.cameras)
        found["train"] = SplitCount(train.images + val.images, identities, cameras)
    return found


def check_counts(entry: DatasetEntry, splits: Splits) -> list[str]:
    """Compares the number of images, identities and cameras of every split with the expected counts.

    Opens no image. An expected count of 0 is not checked.

    Returns:
        One sentence per difference, with the expected and the found number.
    """
    sentences = []
    expected = expected_counts(entry, splits)
    source = "stand-in.json" if splits.generated else "the card"
    for split in SPLITS:
        items = getattr(splits, split)
        found = counts(items)
        for quantity in QUANTITIES:
            have, want = getattr(found, quantity), getattr(expected.get(split, found), quantity)
            if want and have != want:
                sentences.append(
                    f"{split}: {source} expects {want:,} {quantity}, but {splits.root} has {have:,} "
                    f"(first images: {_names(splits, items)}{_same_as(entry, split, quantity, have)})."
                )
        limit = entry.card.cameras
        if limit and (beyond := [item for item in items if item.camid >= limit]):
            numbers = sorted({item.camid + 1 for item in beyond})
            sentences.append(
                f"{split}: the card expects cameras 1 to {limit}, but {splits.root} also has "
                f"{', '.join(map(str, numbers[:5]))} (first images: {_names(splits, beyond)})."
            )
    return sentences


def _same_as(entry: DatasetEntry, split: str, quantity: str, have: int) -> str:
    """Names another dataset with this number of images, because a wrong folder or split is a common mistake."""
    if quantity != "images":
        return ""
    for other in registry.datasets():
        if other.name != entry.name and (row := other.card.expected.get(split)) and row.images == have:
            return f"; {other.name} has {have:,}"
    return ""


def check_labels(splits: Splits) -> list[Finding]:
    """Checks identities and cameras across the splits. Opens no image."""
    findings = [Finding("info", f"Read as {splits.layout} from {splits.root}.")]
    if splits.generated is not None:
        findings.append(Finding("info", "This is generated data. Scores on it say nothing about real people."))
    for other in splits.notes.get("alternatives", ()):
        sentence = (
            f"Another version of the dataset exists and is not read: {other}. Choose one with the option `version`."
        )
        findings.append(Finding("warning", sentence))
    for split, number in splits.notes.get("junk", {}).items():
        findings.append(Finding("info", f"Junk images left out of {split}: {number:,}."))
    if kinds := splits.notes.get("ignored_kinds"):
        listed = ", ".join(f"{count:,} {kind or 'without extension'}" for kind, count in sorted(kinds.items()))
        findings.append(Finding("info", f"Files that are not images of a supported format were left out: {listed}."))
    if folders := splits.notes.get("ignored_folders"):
        findings.append(Finding("warning", "Folders with names like image files were left out.", _texts(folders)))
    train, test = {item.pid for item in splits.train}, {item.pid for item in (*splits.query, *splits.gallery)}
    if shared := sorted(train & test) if not splits.notes.get("own_train_labels") else []:
        sentence = (
            f"{len(shared):,} of {len(train):,} training identities are also in the test split; every identity must "
            "be in one of the two only."
        )
        findings.append(Finding("error", sentence, _texts(shared)))
    trained = {item.path for item in splits.train}
    if leaked := [item for item in (*splits.query, *splits.gallery) if item.path in trained]:
        sentence = (
            f"{len(leaked):,} of {len(trained):,} training images are also in query or gallery; remove them from one "
            "of the two."
        )
        findings.append(Finding("error", sentence, _paths(leaked)))
    return findings + _matches(splits) + _camera_sets(splits)


def _matches(splits: Splits) -> list[Finding]:
    """Reports queries without a match, which the evaluation excludes."""
    seen_by: dict[int, set[int]] = defaultdict(set)
    for item in splits.gallery:
        seen_by[item.pid].add(item.camid)
    absent = [item for item in splits.query if item.pid not in seen_by]
    alone = [item for item in splits.query if seen_by.get(item.pid) == {item.camid}]
    total, good = len(splits.query), len(splits.query) - len(absent) - len(alone)
    elsewhere = " from another camera" if splits.knows_cameras else ""
    findings = [Finding("info", f"{good:,} of {total:,} queries have a match in the gallery{elsewhere}.")]
    if absent:
        findings.append(
            Finding(
                "warning",
                f"{len(absent):,} of {total:,} queries have an identity that is not in the gallery; they are excluded "
                "from the scores.",
                _paths(absent),
            )
        )
    if alone:
        findings.append(
            Finding(
                "warning",
                f"{len(alone):,} of {total:,} queries have gallery images of their identity only from their own "
                "camera, which the protocol ignores; they are excluded from the scores.",
                _paths(alone),
            )
        )
    return findings if good else [Finding("error", _no_match(splits), _paths(splits.query))]


def _no_match(splits: Splits) -> str:
    test = [*splits.query, *splits.gallery]
    if len({item.camid for item in test}) == 1:
        return (
            f"All {len(test):,} query and gallery images are from one camera, so no query has a match: the protocol "
            "ignores gallery images from the query's camera. Correct the camera numbers, or set cameras = false in the "
            "layout's options if they are unknown."
        )
    if not {item.pid for item in splits.query} & {item.pid for item in splits.gallery}:
        return "Query and gallery have no identity in common, so they cannot be scored. Check the identities."
    return "No query has a match from another camera, so the test split cannot be scored. Check the camera numbers."


def _camera_sets(splits: Splits) -> list[Finding]:
    if not splits.knows_cameras:
        return [Finding("info", "The cameras are unknown, so no gallery image is ignored for the query's camera.")]
    trained = {item.camid for item in splits.train}
    tested = {item.camid: item for item in (*splits.query, *splits.gallery)}
    unseen = {camid: item for camid, item in tested.items() if camid not in trained}
    if not unseen:
        return []
    sentence = (
        f"{len(unseen):,} of {len(tested):,} cameras of the test split have no training image, so backbones cannot "
        "learn an embedding for them."
    )
    return [Finding("warning", sentence, _paths([unseen[camid] for camid in sorted(unseen)]))]


def check_images(splits: Splits, progress: Progress | None = None, workers: int = 4) -> list[Finding]:
    """Decodes every image and looks for duplicate files.

    Args:
        splits: splits of the dataset.
        progress: called with the number of opened images and the total.
        workers: number of threads.
    """
    where: dict[Path, list[tuple[str, Item]]] = defaultdict(list)
    for split in SPLITS:
        for item in getattr(splits, split):
            where[item.path].append((split, item))
    damaged: dict[str, list[str]] = defaultdict(list)
    same: dict[bytes, list[Path]] = defaultdict(list)
    sizes: Counter[tuple[int, int]] = Counter()
    deep: list[_Opened] = []
    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        for done, (path, opened) in enumerate(zip(where, pool.map(_open, where), strict=True), start=1):
            if isinstance(opened, str):
                damaged[opened].append(readable(str(path)))
            else:
                same[opened.digest].append(path)
                sizes[opened.size] += 1
                deep += [opened] if opened.depth else []
            if progress is not None:
                progress(done, len(where))
    findings = [
        Finding("error", f"{len(paths):,} of {len(where):,} images cannot be read: {reason}.", tuple(paths[:EXAMPLES]))
        for reason, paths in damaged.items()
    ]
    if sizes:
        low, high = (f"{height} x {width}" for height, width in (min(sizes), max(sizes)))
        several = f"Images have {len(sizes):,} sizes, from {low} to {high}"
        one = f"All images are {low}"
        findings.append(Finding("info", f"{several if len(sizes) > 1 else one} pixels (height x width)."))
    findings += _deep_gray([one for one in deep if one.depth == "gray"], splits.value_range)
    findings += _deep_colour([one for one in deep if one.depth == "colour"])
    return findings + _duplicates([[place for path in paths for place in where[path]] for paths in same.values()])


def _deep_gray(images: Sequence[_Opened], value_range: tuple[float, float] | None) -> list[Finding]:
    """Reports the values of gray images of more than 8 bits, and whether the card's range covers them."""
    if not images:
        return []
    low, high = min(one.low for one in images), max(one.high for one in images)
    found = f"{len(images):,} gray image(s) have more than 8 bits, with values from {low:g} to {high:g}"
    examples = tuple(readable(str(one.path)) for one in images[:EXAMPLES])
    if value_range is None:
        sentence = (
            f"{found}. Set the values of black and white for all images in the layout's options: value_range = "
            f"[{low:g}, {high:g}], or the range of the sensor."
        )
        return [Finding("error", sentence, examples)]
    scaled = f"{found}. value_range = [{value_range[0]:g}, {value_range[1]:g}] is scaled to 8 bits"
    if beyond := [one for one in images if one.low < value_range[0] or one.high > value_range[1]]:
        sentence = f"{scaled}, and values outside it are clipped in {len(beyond):,} image(s)."
        return [Finding("warning", sentence, tuple(readable(str(one.path)) for one in beyond[:EXAMPLES]))]
    return [Finding("info", f"{scaled}.")]


def _deep_colour(images: Sequence[_Opened]) -> list[Finding]:
    """Reports colour images of 16 bits per channel, of which Pillow keeps the upper 8."""
    if not images:
        return []
    brightest = max(one.high for one in images)
    sentence = (
        f"{len(images):,} image(s) have 16 bits per channel, of which the upper 8 are used; their largest value is "
        f"then {brightest:g} of 255."
    )
    examples = tuple(readable(str(one.path)) for one in images[:EXAMPLES])
    return [Finding("warning" if brightest < 128 else "info", sentence, examples)]


def check_sizes(entry: DatasetEntry, splits: Splits) -> list[Finding]:
    """Compares the sizes of all images with the size in the card. Reads only the headers of images."""
    from harness.data.images import read_sizes, resized_copy

    paths = (item.path for split in SPLITS for item in getattr(splits, split))
    found = read_sizes(paths, value_range=splits.value_range or (0.0, 1.0)).values()
    sizes = [size for size in found if not isinstance(size, str)]
    note = "" if splits.generated else resized_copy(entry.card.image_size, sizes)
    return [Finding("warning", note)] if note else []


@dataclass(frozen=True)
class _Opened:
    """A decoded image.

    Attributes:
        path: path of the file.
        digest: hash of the file.
        size: (height, width) in pixels.
        depth: `gray` or `colour` for an image of more than 8 bits; otherwise empty.
        low: smallest value of an image of more than 8 bits.
        high: largest value of an image of more than 8 bits.
    """

    path: Path
    digest: bytes
    size: tuple[int, int]
    depth: str = ""
    low: float = 0.0
    high: float = 0.0


def _open(path: Path) -> str | _Opened:
    """Decodes an image; returns the reason if it cannot be read."""
    import io
    import warnings

    from PIL import Image

    try:
        content = path.read_bytes()
        if not content:
            return "the file is empty"
        with warnings.catch_warnings(), Image.open(io.BytesIO(content)) as image:
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            digest, size = hashlib.blake2b(content, digest_size=16).digest(), (image.height, image.width)
            return _Opened(path, digest, size, *_depth(image))
    except DataError as error:
        return str(error)
    except Exception as error:  # decoders raise many kinds of exceptions for damaged files
        return "it is not an image" if type(error).__name__ == "UnidentifiedImageError" else str(error) or repr(error)


def _depth(image: Image.Image) -> tuple[str, float, float]:
    """Decodes an image as training does; returns `depth`, `low` and `high` of `_Opened`."""
    import numpy as np

    from harness.data.images import DEEP, to_rgb8

    raw = " ".join(str(tile[3]) for tile in getattr(image, "tile", ()))
    image.load()
    if image.mode in DEEP:
        to_rgb8(image, (0.0, 1.0))  # raises if values are not finite
        values = np.asarray(image)
        return "gray", float(values.min()), float(values.max())
    rgb = to_rgb8(image)
    if ";16" in raw:
        return "colour", 0.0, float(np.asarray(rgb).max())
    return "", 0.0, 0.0


def _duplicates(groups: Iterable[list[tuple[str, Item]]]) -> list[Finding]:
    """Reports duplicate files by the splits and identities in which they appear."""
    leaks, copies, wrong, others = [], [], [], []
    for group in groups:
        if len(group) < 2:
            continue
        example = " = ".join(readable(str(item.path)) for _, item in group[:2])
        tested = [item for split, item in group if split != "train"]
        if 0 < len(tested) < len(group):
            leaks.append(example)
        elif len({item.pid for _, item in group}) > 1:
            wrong.append(example)
        elif len({split for split, _ in group}) > 1 and len({item.camid for item in tested}) == 1:
            copies.append(example)
        else:
            others.append(example)
    kinds = (
        ("error", leaks, "image(s) of the training split are also in the test split"),
        ("warning", wrong, "image(s) appear under more than one identity"),
        (
            "info",
            copies,
            "query image(s) are also in the gallery with the same identity and camera; the protocol ignores them",
        ),
        ("warning", others, "image(s) appear more than once under the same identity"),
    )
    return [
        Finding(level, f"{len(found):,} {sentence}.", tuple(found[:EXAMPLES]))
        for level, found, sentence in kinds
        if found
    ]


def _names(splits: Splits, items: Sequence[Item]) -> str:
    skip = len(str(splits.root)) + 1
    return ", ".join(readable(str(item.path)[skip:]) for item in items[:EXAMPLES])


def _paths(items: Sequence[Item]) -> tuple[str, ...]:
    return tuple(readable(str(item.path)) for item in items[:EXAMPLES])


def _texts(values: Sequence[object]) -> tuple[str, ...]:
    return tuple(readable(str(value)) for value in values[:EXAMPLES])
