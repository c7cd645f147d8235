"""Figures of one run: ranked lists of its worst, median and best queries, and a distance histogram."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from harness import metrics
from harness.contracts import Item
from harness.data.images import to_rgb8
from harness.figures import pictures

if TYPE_CHECKING:
    from harness.worker.scoring import Scored

TOP = 10


def draw(
    scored: Scored,
    query: Sequence[Item],
    gallery: Sequence[Item],
    folder: Path,
    title: str,
    metric: str,
    *,
    cameras: bool = True,
    value_range: tuple[float, float] | None = None,
) -> list[str]:
    """Draws the figures of one evaluation.

    Args:
        scored: an evaluation with its features.
        query: query items.
        gallery: gallery items.
        folder: folder of the run; figures go into `pictures` inside it.
        title: name of the run, for the titles.
        metric: distance of the recipe.
        cameras: whether cameras are known and written beside the images.
        value_range: gray values of black and white, for images with more than 8 bits.

    Returns:
        Paths of the files, relative to the folder of the run; none without features.
    """
    if scored.features is None:
        return []
    labels = [np.array([getattr(i, key) for i in items]) for key in ("pid", "camid") for items in (query, gallery)]
    features = scored.features
    bins = metrics.distance_histogram(*features, *labels, metric=metric).filled()
    histogram = pictures.distance_histogram(
        bins.edges.tolist(),
        bins.same.tolist(),
        bins.different.tolist(),
        folder / "pictures" / "distances.png",
        title=f"Distances, {title}",
        metric=metric,
    )
    chosen = pictures.choose_queries([row["AP"] for row in scored.per_query])
    rows = np.array([index for _, index in chosen])
    query_pids, gallery_pids, query_camids, gallery_camids = labels
    lists = metrics.ranked_list(
        features[0][rows],
        features[1],
        query_pids[rows],
        gallery_pids,
        query_camids[rows],
        gallery_camids,
        k=TOP,
        metric=metric,
    )
    sheet = pictures.ranked_sheet(
        [
            {
                **_plain(query[index], cameras),
                "ap": scored.per_query[index]["AP"],
                "kind": kind,
                "results": [_plain(gallery[i], cameras) for i in lists.indices[row] if i >= 0],
            }
            for row, (kind, index) in enumerate(chosen)
        ],
        folder / "pictures" / "ranked_lists.png",
        title=f"Ranked lists, {title}",
        load=partial(_load, value_range=value_range),
    )
    return [path.relative_to(folder).as_posix() for path in (sheet, histogram)]


def _load(path: Path, value_range: tuple[float, float] | None) -> Image.Image:
    with Image.open(path) as image:
        return to_rgb8(image, value_range)


def _plain(item: Item, cameras: bool) -> dict[str, Any]:
    return {"path": item.path, "pid": item.pid, "camid": item.camid if cameras else None}
