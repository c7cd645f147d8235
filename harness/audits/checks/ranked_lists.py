"""The nearest gallery images of every query, for the view of queries in the HTML report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness import metrics
from harness.audits.audit import Audit, Found
from harness.audits.subject import Subject
from harness.contracts import Item
from harness.records import ranked_lists


def run(subject: Subject) -> Found:
    """Stores the lists beside the record."""
    name = ranked_lists.file_name(subject.dataset)
    text = render(subject.features, subject.query, subject.gallery, subject.metric, cameras=subject.knows_cameras)
    subject.keep(name, text)
    yield f"{name} beside the record has the {ranked_lists.LENGTH} nearest gallery images of every query."


def render(
    features: tuple[Any, Any], query: Sequence[Item], gallery: Sequence[Item], metric: str, *, cameras: bool
) -> str:
    """Returns the file with the lists of all queries.

    Args:
        features: features of both splits, each [N, D].
        query: query items.
        gallery: gallery items.
        metric: `cosine` or `euclidean`.
        cameras: whether the cameras are known.
    """
    labels = [[getattr(item, key) for item in items] for key in ("pid", "camid") for items in (query, gallery)]
    lists = metrics.ranked_list(*features, *labels, k=ranked_lists.LENGTH, metric=metric)
    return ranked_lists.render(lists.indices, lists.distances, query, gallery, cameras=cameras)


AUDIT = Audit(
    run,
    about="Which gallery images are nearest to each query?",
    source="The ranking of the evaluation, without images of the query's identity from its own camera.",
    default=False,
)
