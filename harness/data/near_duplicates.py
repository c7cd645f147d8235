"""Finds near-duplicates: images that show the same picture, saved again, resized, or a little brighter.

A perceptual hash finds candidates, and the correlation of small gray versions confirms them. Both limits are set on the
photographs of CUHK03 (detected). There, 100 photographs saved as JPEG of quality 30, halved in size, or brightened by
20 % are all found, and none of the 50 million pairs of training and test images is a near-duplicate.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import fft

from harness.contracts import SPLITS, Item, Splits
from harness.data.images import Range, to_rgb8
from harness.data.transforms import Images
from harness.errors import DataError
from harness.system import files

Progress = Callable[[int, int], None]
"""Called with the number of images done and the total."""

SIDE = 32
"""Height and width of the small gray versions."""

BITS = 8
"""Frequencies per direction in the hash."""

MOST_BITS = 8
"""Largest number of different bits of two hashes."""

LEAST_CORRELATION = 0.95

CHUNK = 256


class Pair(NamedTuple):
    """Two images that show the same picture.

    Attributes:
        splits: the split of each.
        items: the two images.
        similarity: correlation of their small gray versions.
    """

    splits: tuple[str, str]
    items: tuple[Item, Item]
    similarity: float

    @property
    def is_leak(self) -> bool:
        """Whether one of the two is a training image."""
        return "train" in self.splits

    @property
    def is_ignored(self) -> bool:
        """Whether the protocol ignores the pair: query and gallery images of one identity and one camera."""
        first, second = self.items
        return not self.is_leak and (first.pid, first.camid) == (second.pid, second.camid)


class Prints(NamedTuple):
    """What is compared of images.

    Attributes:
        small: gray values, uint8 [N, 32 * 32].
        hashes: one bit per low frequency, whether it is above the median, uint64 [N].
    """

    small: NDArray[np.uint8]
    hashes: NDArray[np.uint64]


def find(splits: Splits, *, workers: int = 4, progress: Progress | None = None) -> list[Pair]:
    """Returns the near-duplicates between the splits of a dataset, the most similar first.

    Args:
        splits: splits of the dataset.
        workers: number of threads that read images.
        progress: called with the number of read images and the total.

    Raises:
        DataError: an image cannot be read.
    """
    lists: dict[str, Sequence[Item]] = {split: getattr(splits, split) for split in SPLITS}
    total = sum(map(len, lists.values()))
    prints, done = dict[str, Prints](), 0
    for split, items in lists.items():
        paths = [item.path for item in items]
        before = done
        shown = (lambda count, before=before: progress(before + count, total)) if progress else None
        prints[split] = read(paths, value_range=splits.value_range, workers=workers, progress=shown)
        done += len(items)
    return between(lists, prints)


def between(lists: Mapping[str, Sequence[Item]], prints: Mapping[str, Prints]) -> list[Pair]:
    """Returns the near-duplicates between any two splits, the most similar first.

    Args:
        lists: the images of each split.
        prints: what is compared of them; a split without is left out.
    """
    pairs = [
        Pair((a, b), (lists[a][i], lists[b][j]), similarity)
        for a, b in combinations([split for split in SPLITS if split in prints], 2)
        for i, j, similarity in compare(prints[a], prints[b])
        if lists[a][i].path != lists[b][j].path
    ]
    return sorted(pairs, key=lambda pair: (-pair.similarity, pair.items))


def read(
    paths: Sequence[Path],
    *,
    value_range: Range | None = None,
    workers: int = 4,
    progress: Callable[[int], None] | None = None,
) -> Prints:
    """Reads images and returns what is compared of them."""
    small = np.zeros((len(paths), SIDE * SIDE), dtype=np.uint8)
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for row, values in enumerate(pool.map(partial(_small, value_range=value_range), paths)):
            small[row] = values
            if progress and (row % 500 == 499 or row == len(paths) - 1):
                progress(row + 1)
    return Prints(small, hashes(small))


def of_images(images: Images, count: int) -> Prints:
    """Returns what is compared of images in memory, uint8 [3, H, W] by index."""
    small = np.zeros((count, SIDE * SIDE), dtype=np.uint8)
    for row in range(count):
        small[row] = _shrink(Image.fromarray(np.ascontiguousarray(images[row].transpose(1, 2, 0))))
    return Prints(small, hashes(small))


def _shrink(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR)).ravel()


def _small(path: Path, value_range: Range | None) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            return _shrink(to_rgb8(image, value_range))
    except Exception as error:  # decoders raise many kinds of exceptions for damaged files
        raise DataError(f"Cannot read the image {path}: {error}. Run `validate` without this check first.") from error


def hashes(small: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Returns the perceptual hashes of small gray images, uint64 [N].

    Each bit says whether a coefficient of the cosine transform is above the median of the 63 lowest ones. The mean of
    the image is left out, so brightness does not count.
    """
    found = np.zeros(len(small), dtype=np.uint64)
    for start in range(0, len(small), CHUNK):
        images = small[start : start + CHUNK].reshape(-1, SIDE, SIDE).astype(np.float64)
        low = fft.dctn(images, axes=(1, 2), norm="ortho")[:, :BITS, :BITS].reshape(len(images), -1)[:, 1:]
        bits = low > np.median(low, axis=1, keepdims=True)
        found[start : start + CHUNK] = bits @ (np.uint64(1) << np.arange(bits.shape[1], dtype=np.uint64))
    return found


def compare(a: Prints, b: Prints) -> Iterator[tuple[int, int, float]]:
    """Yields the rows of near-duplicates and their correlation."""
    for start in range(0, len(a.hashes), CHUNK):
        different = np.bitwise_count(a.hashes[start : start + CHUNK, None] ^ b.hashes)
        for i, j in zip(*np.nonzero(different <= MOST_BITS), strict=True):
            similarity = correlation(a.small[start + i], b.small[j])
            if similarity >= LEAST_CORRELATION:
                yield int(start + i), int(j), similarity


def correlation(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Returns the correlation of two small gray images; that of two plain images is 1."""
    first, second = (values - values.mean() for values in (a.astype(float), b.astype(float)))
    scale = np.linalg.norm(first) * np.linalg.norm(second)
    return float(first @ second / scale) if scale else float(not first.any() and not second.any())


def table(pairs: Sequence[Pair]) -> str:
    """Returns pairs as CSV, one line each."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(
        ["similarity", "split", "pid", "camid", "path", "other_split", "other_pid", "other_camid", "other_path"]
    )
    for pair in pairs:
        sides = [
            value
            for split, item in zip(pair.splits, pair.items, strict=True)
            for value in (split, item.pid, item.camid, item.path)
        ]
        lines.writerow([f"{pair.similarity:.4f}", *sides])
    return text.getvalue()


def draw(pairs: Sequence[Pair], folder: Path, *, most: int = 100, value_range: Range | None = None) -> int:
    """Writes a picture of the two images of each pair, the most similar first; returns the number of pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, pair in enumerate(pairs[:most], start=1):
        sides = []
        for item in pair.items:
            with Image.open(item.path) as image:
                sides.append(to_rgb8(image, value_range).resize((128, 256), Image.Resampling.BICUBIC))
        picture = Image.new("RGB", (260, 256))
        for side, left in zip(sides, (0, 132), strict=True):
            picture.paste(side, (left, 0))
        with files.replacing(folder / f"{number:03d}_{'_'.join(pair.splits)}.png", flush=False) as path:
            picture.save(path, "PNG")
    return min(most, len(pairs))
