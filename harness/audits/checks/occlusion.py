"""What is left of a score if a part of each query is covered by a part of another person's image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.audits.audit import Audit, Found
from harness.audits.corrupting import name_of
from harness.audits.subject import Change, Subject
from harness.contracts import Item
from harness.data.rng import generator
from harness.data.transforms import Images, Pixels

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)
SHAPES = (0.5, 2.0)
"""Smallest and largest ratio of height to width of the patch, both as fractions of the image."""


def run(subject: Subject) -> Found:
    """Yields the scores of queries as they are, and of queries with a growing share covered; the gallery stays."""
    assert subject.network is not None
    yield from subject.scores(subject.ranking, {"covered share": 0.0})
    images = subject.network.images(subject.query)
    for share in SHARES:
        query = subject.network.features(subject.query, change=covering(images, subject.query, share))
        yield from subject.scores(subject.rank(query, subject.features[1]), {"covered share": share})


def covering(images: Images, items: Sequence[Item], share: float, *, seed: int = 0) -> Change:
    """Returns a change that covers a rectangle of an image by a rectangle of an image of another person.

    Shape, places and the other image depend on the seed and the name of the image. They do not depend on the share, so
    a larger share covers about the same place.

    Args:
        images: resized images, uint8 [3, H, W]; patches are from these.
        items: the same images; their identities tell persons apart.
        share: covered share of the area, 0 to 1.
        seed: seed of the draws.
    """
    names = [name_of(item.path) for item in items]
    order = sorted(range(len(items)), key=names.__getitem__)

    def change(image: Pixels, row: int) -> Pixels:
        shape, top, left, from_top, from_left, other = generator(seed, "occlusion", names[row]).random(6).tolist()
        high, wide = patch_size(share, shape, image.shape[1], image.shape[2])
        patch = images[_another(items, order, row, other)]
        covered = np.array(image)
        place, source = (
            np.s_[:, down : down + high, right : right + wide]
            for down, right in (
                (int(y * (image.shape[1] - high + 1)), int(x * (image.shape[2] - wide + 1)))
                for y, x in ((top, left), (from_top, from_left))
            )
        )
        covered[place] = patch[source]
        return covered

    return change


def patch_size(share: float, draw: float, height: int, width: int) -> tuple[int, int]:
    """Returns height and width of a patch in pixels.

    Args:
        share: share of the area.
        draw: 0 to 1, where the ratio of the patch lies between the two of `SHAPES`, on a logarithmic scale.
        height: height of the image.
        width: width of the image.
    """
    low, high = np.log(SHAPES)
    ratio = float(np.exp(low + draw * (high - low)))
    tall = min(1.0, float(np.sqrt(share * ratio)))
    wide = min(1.0, share / tall) if tall else 0.0
    tall = share / wide if wide else 0.0
    return round(height * tall), round(width * wide)


def _another(items: Sequence[Item], order: Sequence[int], row: int, draw: float) -> int:
    """Returns an image of another person; the image itself if there is no other person."""
    start = int(draw * len(order))
    for step in range(len(order)):
        other = order[(start + step) % len(order)]
        if items[other].pid != items[row].pid:
            return other
    return row


AUDIT = Audit(
    run,
    about="How does the score fall if a growing share of each query is covered?",
    source="The patch is a rectangle of another person's image. Its place and shape are drawn per image and do not "
    "depend on the share. There is no published protocol; Occluded-Duke (Miao et al., ICCV 2019) has real occlusion.",
    needs_network=True,
)
