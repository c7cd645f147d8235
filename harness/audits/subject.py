"""What audits look at: one network, or its features alone, on the test split of one dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from harness import metrics
from harness.audits.audit import Row, Setting, mean_row
from harness.contracts import PROTOCOLS, Item

if TYPE_CHECKING:
    from torch import Tensor

    from harness.data.transforms import Images, Pixels

Change = Callable[["Pixels", int], "Pixels"]
"""Takes an image, uint8 [3, H, W], and its row in the split; returns the changed image of the same shape.

It is called by several threads, so random numbers come from a generator that is seeded by the row.
"""


class Network(Protocol):
    """A network in evaluation mode, which computes features of images.

    Attributes:
        camera_mode: how the evaluation uses its camera embedding: `on` or `mean`; empty if there is none, or it is off.
    """

    camera_mode: str

    def images(self, items: Sequence[Item]) -> Images:
        """Returns the resized images of the items, by index; from the cache of decoded images where there is one."""
        ...

    def features(
        self, items: Sequence[Item], *, change: Change | None = None, original: bool = False, cameras: str = ""
    ) -> Tensor:
        """Computes features [N, D], as the evaluation does.

        Args:
            items: images; their cameras are used as the evaluation uses them.
            change: changes each image, for example to cover a part of it.
            original: whether to change images in their original size, before resizing.
            cameras: mode of the camera embedding: `mean`, `off`, or empty for that of the evaluation.
        """
        ...


@dataclass
class Subject:
    """A network, or its features alone, on the test split of one dataset.

    Attributes:
        dataset: name of the dataset.
        query: query images.
        gallery: gallery images.
        features: features of both as they are ranked, without flip test and re-ranking, each [N, D].
        metric: `cosine` or `euclidean`.
        protocol: evaluation rule of the dataset.
        knows_cameras: whether the cameras of the images are known.
        network: computes features of changed images; `None` if there are only stored features.
        open_images: returns resized images of items; audits call `images`.
        earlier: blocks of audits that were made before of the same network, also on other datasets.
        train: training images of the dataset.
        keep: stores a text file beside the record, by its name.
        emit: receives progress events.
    """

    dataset: str
    query: Sequence[Item]
    gallery: Sequence[Item]
    features: tuple[Any, Any]
    metric: str = "cosine"
    protocol: str = "standard"
    knows_cameras: bool = True
    network: Network | None = None
    open_images: Callable[[Sequence[Item]], Images] | None = None
    earlier: Sequence[Mapping[str, Any]] = ()
    train: Sequence[Item] = ()
    keep: Callable[[str, str], None] = lambda *_: None
    emit: Callable[..., None] = lambda *_, **__: None

    @cached_property
    def pids(self) -> tuple[np.ndarray, np.ndarray]:
        """Identities of query and gallery."""
        return _column(self.query, "pid"), _column(self.gallery, "pid")

    @cached_property
    def camids(self) -> tuple[np.ndarray, np.ndarray]:
        """Cameras of query and gallery."""
        return _column(self.query, "camid"), _column(self.gallery, "camid")

    @property
    def standard(self) -> bool:
        """Whether the dataset uses the standard protocol, not single-shot galleries."""
        return self.protocol == "standard"

    @cached_property
    def ranking(self) -> metrics.Ranking:
        """The ranking by the features as they are."""
        return self.rank(*self.features)

    def rank(
        self, query: Any, gallery: Any, *, queries: np.ndarray | None = None, images: np.ndarray | None = None
    ) -> metrics.Ranking:
        """Scores other features [N, D] of the same images under the protocol of the dataset.

        Args:
            query: features of the queries.
            gallery: features of the gallery.
            queries: mask or indices of the queries to rank; all by default. The features are of these alone.
            images: likewise of the gallery.
        """
        score: Callable[..., metrics.Ranking] = getattr(metrics, PROTOCOLS[self.protocol].scorer)
        (q_pids, g_pids), (q_cams, g_cams) = self.pids, self.camids
        q, g = (slice(None) if chosen is None else chosen for chosen in (queries, images))
        return score(query, gallery, q_pids[q], g_pids[g], q_cams[q], g_cams[g], metric=self.metric)

    def scores(
        self,
        ranking: metrics.Ranking,
        setting: Setting,
        names: Iterable[str] = ("mAP", "rank-1"),
        *,
        queries: np.ndarray | None = None,
        resamples: int = 10_000,
    ) -> list[Row]:
        """Returns rows of a ranking with intervals over the identities of the queries.

        Args:
            ranking: the ranking.
            setting: what was changed.
            names: `mAP`, `rank-1` and `mINP`, or some of them.
            queries: mask or indices of the ranked queries.
            resamples: number of bootstrap samples.
        """
        values = {
            "mAP": ranking.average_precision,
            "rank-1": ranking.first_hit,
            "mINP": ranking.inverse_negative_penalty,
        }
        groups = self.pids[0][slice(None) if queries is None else queries]
        return [mean_row(name, setting, values[name], groups, resamples=resamples) for name in names]

    def images(self, items: Sequence[Item]) -> Images:
        """Returns resized images of the items, uint8 [3, H, W] by index."""
        assert self.open_images is not None
        return self.open_images(items)


class Changed:
    """Images that are changed on access.

    Args:
        images: the images.
        change: the change.
        finish: what follows the change, for example resizing.
    """

    def __init__(self, images: Images, change: Change, finish: Callable[[Pixels], Pixels] | None = None) -> None:
        self._images, self._change, self._finish = images, change, finish

    def __getitem__(self, index: int) -> Pixels:
        changed = self._change(self._images[index], index)
        return changed if self._finish is None else self._finish(changed)


def _column(items: Sequence[Item], name: str) -> np.ndarray:
    return np.array([getattr(item, name) for item in items], dtype=np.int64)
