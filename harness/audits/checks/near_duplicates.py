"""What a score rests on images that look like training images, or like the query itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from harness.audits.audit import Audit, Found, Row
from harness.audits.subject import Subject
from harness.contracts import Item
from harness.data import near_duplicates
from harness.errors import HarnessError
from harness.spec.job import slug

KINDS = {
    ("train", "query"): "query images that look like a training image",
    ("train", "gallery"): "gallery images that look like a training image",
    ("query", "gallery"): "gallery images that look like a query of another camera or identity",
}
"""What a pair of splits says about the images of the second one."""

SHARES = (0.9, 0.99, 0.999)
"""A test image is close to a training image if it is closer than this share of queries is to a stranger."""

REMOVED = 0.999
"""Share from which a test image is removed."""

CHUNK = 1_024


def run(subject: Subject) -> Found:
    """Yields the scores with all images, and without those that are near-duplicates by picture or by feature."""
    yield from subject.scores(subject.ranking, {"images": "all"})
    if not subject.train:
        yield "There are no training images, so test images are compared with each other alone."
    yield from _by_picture(subject)
    if subject.network is None:
        yield "The features are stored, so there are none of training images to compare with."
    elif subject.train:
        yield from _by_feature(subject)


def _by_picture(subject: Subject) -> Found:
    lists: dict[str, Sequence[Item]] = {"train": subject.train, "query": subject.query, "gallery": subject.gallery}
    prints = {
        split: near_duplicates.of_images(subject.images(items), len(items)) for split, items in lists.items() if items
    }
    pairs = [pair for pair in near_duplicates.between(lists, prints) if not pair.is_ignored]
    for splits, what in KINDS.items():
        found, count = {pair.items[1] for pair in pairs if pair.splits == splits}, len(lists[splits[1]])
        yield Row("share of near-duplicates", {"of": what}, len(found) / count)
        yield f"{len(found):,} of {count:,} {what}."
    if pairs:
        subject.keep(f"near_duplicates.{slug(subject.dataset)}.csv", near_duplicates.table(pairs))
        removed = {item for pair in pairs for item in (pair.items if pair.is_leak else pair.items[1:])}
        kept = [np.array([item not in removed for item in items]) for items in (subject.query, subject.gallery)]
        yield from _without(subject, kept, "without near-duplicate pictures")


def _by_feature(subject: Subject) -> Found:
    """Compares each test image with its nearest training image in the space of features.

    What is close depends on the network, so the scale are the nearest gallery images of other people than the query.
    """
    assert subject.network is not None
    query, gallery = subject.features
    trained = subject.network.features(subject.train)
    closest = [nearest(features, trained) for features in subject.features]
    strangers = nearest(query, gallery, *subject.pids)
    every = np.concatenate(closest)
    for share in SHARES:
        close = float((every > np.quantile(strangers, share)).mean())
        yield Row("share of test images close to a training image", {"closer than strangers": share}, close)
    kept = [cosines <= np.quantile(strangers, REMOVED) for cosines in closest]
    if not all(part.all() for part in kept):
        yield from _without(subject, kept, "without those close to a training image")


def _without(subject: Subject, kept: Sequence[np.ndarray], setting: str) -> Found:
    queries, images = kept
    yield f"{setting.capitalize()}: {(~queries).sum():,} query and {(~images).sum():,} gallery images are removed."
    query, gallery = (features[part] for features, part in zip(subject.features, kept, strict=True))
    try:
        ranking = subject.rank(query, gallery, queries=queries, images=images)
    except HarnessError:
        yield "No query with a match is left, so there is no score without them."
    else:
        yield from subject.scores(ranking, {"images": setting}, queries=queries)


def nearest(
    features: Any, others: Any, pids: np.ndarray | None = None, other_pids: np.ndarray | None = None
) -> np.ndarray:
    """Returns the cosine of each feature [N, D] and its nearest neighbour among others [M, D].

    Args:
        features: the features.
        others: the features to compare with.
        pids: identities of the features; with them, only other features of another identity count.
        other_pids: identities of the others.
    """
    ours, theirs = (torch.nn.functional.normalize(torch.as_tensor(x).float(), dim=1) for x in (features, others))
    found = []
    for start in range(0, len(ours), CHUNK):
        cosines = ours[start : start + CHUNK] @ theirs.T
        if pids is not None and other_pids is not None:
            own = torch.from_numpy(pids[start : start + CHUNK, None] == other_pids)
            cosines = cosines.masked_fill(own.to(cosines.device), -1)
        found.append(cosines.amax(dim=1).cpu().numpy())
    return np.concatenate(found)


AUDIT = Audit(
    run,
    about="Does the score rest on test images that look like training images, or on copies of the query?",
    source="Near-duplicates between training and test images of image classification: Barz and Denzler, Do We Train on "
    "Test Data?, Journal of Imaging 2020 (arXiv 1902.00423), by features there. Here also by a perceptual hash: the "
    "signs of the low frequencies of a 32 x 32 gray image, confirmed by its correlation.",
)
