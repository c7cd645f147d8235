"""A validation split made from training images, so that a hyperparameter search never uses the test set."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from harness.contracts import Item
from harness.data.rng import generator, integers, permutation
from harness.errors import DataError, UsageError


def holdout_split(
    items: Sequence[Item], *, seed: int, fraction: float, cameras: bool = True
) -> tuple[list[Item], list[Item], list[Item]]:
    """Splits training images by identity into training images, a query and a gallery.

    About `fraction` of the identities are held out at random. Every camera keeps training images, so that camera
    embeddings fit. The query takes one image per held-out identity and camera, the gallery the other images. An image
    without a match from another camera goes to the gallery instead, so every query has a match. Held-out identities
    with a single camera are distractors in the gallery.

    Args:
        items: training images of a dataset.
        seed: seed of the random choice.
        fraction: fraction of identities to hold out, between 0 and 1.
        cameras: whether the cameras are known. If not, up to two images of each identity are queries, and all other
            images of the identity match them.

    Returns:
        Training items, query and gallery, each in the order of `items`.

    Raises:
        UsageError: the fraction is not between 0 and 1.
        DataError: no held-out identity has images from two cameras.
    """
    if not 0 < fraction < 1:
        raise UsageError(f"The fraction of identities to hold out must lie between 0 and 1, found {fraction}.")
    if not cameras:
        parts = holdout_split(_alternating(items), seed=seed, fraction=fraction)
        train, query, gallery = ([i._replace(camid=c) for i in part] for part, c in zip(parts, (0, 1, 0), strict=True))
        return train, query, gallery
    by_identity: dict[int, list[int]] = defaultdict(list)
    for index, item in enumerate(items):
        by_identity[item.pid].append(index)
    held = _held_out(items, by_identity, seed, fraction)
    queries: set[int] = set()
    for pid in held:
        queries |= _queries(items, by_identity[pid], seed)
    if not queries:
        raise DataError(
            f"None of the {len(held)} held-out identities can be a query, because each has images from one camera "
            "only. Use a larger fraction, another seed, or a dataset with several cameras."
        )
    split: tuple[list[Item], list[Item], list[Item]] = ([], [], [])
    for index, item in enumerate(items):
        split[0 if item.pid not in held else 1 if index in queries else 2].append(item)
    return split


def _alternating(items: Sequence[Item]) -> list[Item]:
    """Assigns the images of every identity to cameras 0 and 1 in turn."""
    seen: Counter[int] = Counter()
    numbered = []
    for item in items:
        numbered.append(item._replace(camid=seen[item.pid] % 2))
        seen[item.pid] += 1
    return numbered


def _held_out(items: Sequence[Item], by_identity: dict[int, list[int]], seed: int, fraction: float) -> set[int]:
    cameras = {pid: {items[i].camid for i in members} for pid, members in by_identity.items()}
    seen_by = Counter(camera for of_identity in cameras.values() for camera in of_identity)
    pids = sorted(by_identity)
    wanted = max(1, round(fraction * len(pids)))
    held: set[int] = set()
    for position in permutation(generator(seed, "holdout"), len(pids)):
        pid = pids[position]
        if len(held) < wanted and all(seen_by[camera] > 1 for camera in cameras[pid]):
            held.add(pid)
            seen_by.subtract(cameras[pid])
    return held


def _queries(items: Sequence[Item], members: list[int], seed: int) -> set[int]:
    """Draws one image per camera, but none whose identity would then have no gallery image from another camera."""
    by_camera: dict[int, list[int]] = defaultdict(list)
    for index in members:
        by_camera[items[index].camid].append(index)
    if len(by_camera) < 2:
        return set()
    cameras = sorted(by_camera)
    if sum(len(by_camera[camera]) > 1 for camera in cameras) < 2:
        cameras.remove(max(cameras, key=lambda camera: len(by_camera[camera])))
    rng = generator(seed, "holdout", items[members[0]].pid)
    picks = (integers(rng, 1, len(by_camera[camera]))[0] for camera in cameras)
    return {by_camera[camera][pick] for camera, pick in zip(cameras, picks, strict=True)}
