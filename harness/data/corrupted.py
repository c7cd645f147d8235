"""Corrupted or covered images of a split, by index, as the loaders read them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from harness.contracts import Item
from harness.data.corruptions import KINDS, LEVELS, corrupt
from harness.data.rng import generator
from harness.data.transforms import Images, Pixels, resize

Choice = Callable[[str], tuple[str, int]]
"""Returns the kind and the level of the corruption of an image, by the name of the image."""


def name_of(path: Path) -> str:
    """Returns the name that seeds the draws of an image: its file and folder, wherever the dataset lies."""
    return "/".join(path.parts[-2:])


def drawn(seed: int) -> Choice:
    """Returns a choice that gives each image one of all kinds and one of the levels 1 to 5, at random."""
    kinds = tuple(KINDS)

    def choose(name: str) -> tuple[str, int]:
        kind, level = generator(seed, "corruption of", name).random(2)
        return kinds[int(kind * len(kinds))], LEVELS[int(level * len(LEVELS))]

    return choose


class CorruptedImages:
    """Images that are corrupted in their original size and then resized, on access.

    Args:
        originals: the images in their original sizes.
        items: the same images; their names seed the draws, so an image does not depend on the order or the batch.
        choice: kind and level of each image.
        image_size: (height, width) after resizing.
        interpolation: `bicubic` or `bilinear`.
        seed: seed of the draws.
    """

    def __init__(
        self,
        originals: Images,
        items: Sequence[Item],
        choice: Choice,
        *,
        image_size: tuple[int, int],
        interpolation: str,
        seed: int = 0,
    ) -> None:
        self._originals, self._choice, self._seed = originals, choice, seed
        self._names = [name_of(item.path) for item in items]
        self._size, self._interpolation = image_size, interpolation

    def __getitem__(self, index: int) -> Pixels:
        name = self._names[index]
        changed = corrupt(self._originals[index], *self._choice(name), self._seed, name)
        picture = Image.fromarray(np.ascontiguousarray(changed.transpose(1, 2, 0)))
        return resize(picture, self._size, self._interpolation)


class Occluder:
    """Covers a share of an image by a rectangle from an image of another person.

    The draws depend on the seed and the name of the image, not on the share: a larger share covers the same place by
    more of the same image.

    Args:
        images: resized images, uint8 [3, H, W], from which rectangles are taken.
        items: the same images; their identities tell persons apart.
        share: covered share of the area, 0 to 1.
        seed: seed of the draws.
    """

    SHAPES = (0.5, 2.0)
    """Smallest and largest height of a rectangle for its width, compared with the image."""

    def __init__(self, images: Images, items: Sequence[Item], share: float, *, seed: int = 0) -> None:
        self._images, self._items, self._share, self._seed = images, items, share, seed
        names = [name_of(item.path) for item in items]
        self._names, self._order = names, sorted(range(len(items)), key=names.__getitem__)

    def __getitem__(self, index: int) -> Pixels:
        image = self._images[index]
        rng = generator(self._seed, "occlusion", self._names[index])
        other, shape, *places = rng.random(6).tolist()
        _, height, width = image.shape
        high, wide = self._rectangle(shape, height, width)
        if not high or not wide:
            return image
        patch = self._images[self._other(index, other)]
        top, from_top = (int(place * (height - high + 1)) for place in places[:2])
        left, from_left = (int(place * (width - wide + 1)) for place in places[2:])
        covered = np.array(image)
        covered[:, top : top + high, left : left + wide] = patch[
            :, from_top : from_top + high, from_left : from_left + wide
        ]
        return covered

    def _rectangle(self, draw: float, height: int, width: int) -> tuple[int, int]:
        """Returns height and width of the rectangle in pixels; its shape is drawn, as far as it fits the image."""
        low, high = np.log(self.SHAPES)
        longest = min(1 / self._share, np.exp(low + draw * (high - low))) if self._share else 1.0
        ratio = max(longest, self._share)
        tall, wide = np.sqrt(self._share * ratio), np.sqrt(self._share / ratio)
        return int(np.rint(height * min(1, tall))), int(np.rint(width * min(1, wide)))

    def _other(self, index: int, draw: float) -> int:
        """Returns the image of another person at a random place in the order of names."""
        start, count = int(draw * len(self._order)), len(self._order)
        for step in range(count):
            other = self._order[(start + step) % count]
            if self._items[other].pid != self._items[index].pid:
                return other
        return index
