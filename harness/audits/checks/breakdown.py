"""For which queries a score is high or low: by matches, camera, image height and brightness; and the worst ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from harness.audits.audit import Audit, Found, Row, mean_row
from harness.audits.subject import Subject
from harness.data.images import read_sizes
from harness.spec.job import slug

PARTS = 4
"""Number of parts of about equal size that queries are divided into."""

WORST = 0.01
MOST_LISTED = 20
RESAMPLES = 1_000
LUMA = np.array([0.299, 0.587, 0.114])
"""Weights of red, green and blue (ITU-R BT.601)."""


def run(subject: Subject) -> Found:
    """Yields the breakdowns, then the worst queries."""
    ranking, (q_cams, _) = subject.ranking, subject.camids
    _keep_matches(subject)
    yield from _by(subject, "number of matches", ranking.n_positives.astype(float), "{:.0f}")
    if subject.knows_cameras:
        for camera in np.unique(q_cams):
            yield from _scores(subject, {"query camera": int(camera)}, q_cams == camera)
        yield from _by_pair(subject)
    yield from _by(subject, "image height", _heights(subject), "{:.0f}")
    yield from _by(subject, "brightness", brightness(subject), "{:.2f}")
    yield from _worst(subject)


def parts(values: np.ndarray, count: int = PARTS) -> Iterator[np.ndarray]:
    """Yields masks of consecutive ranges of values with about equally many each; equal values stay together.

    Args:
        values: one number per query, [n].
        count: number of ranges at most.
    """
    edges = np.unique(np.quantile(values, np.linspace(0, 1, count + 1)[1:-1], method="lower"))
    place = np.searchsorted(edges, values, side="left")
    yield from (place == part for part in np.unique(place))


def _by(subject: Subject, name: str, values: np.ndarray, form: str) -> Found:
    """Scores of the queries in each range of a number."""
    known = subject.ranking.valid & np.isfinite(values)
    if not known.any():
        yield f"The {name} of the queries is unknown."
        return
    masks = [np.zeros(len(values), bool) for _ in parts(values[known])]
    for mask, part in zip(masks, parts(values[known]), strict=True):
        mask[known] = part
    if len(masks) < 2:
        yield f"All queries have the same {name}."
        return
    for mask in masks:
        low, high = (form.format(end(values[mask])) for end in (np.min, np.max))
        yield from _scores(subject, {name: low if low == high else f"{low} to {high}"}, mask)


def _scores(subject: Subject, setting: dict[str, str | int | float], mask: np.ndarray) -> Sequence[Row]:
    ranking, pids = subject.ranking, subject.pids[0]
    values = {"mAP": ranking.average_precision, "rank-1": ranking.first_hit}
    return [mean_row(name, setting, one[mask], pids[mask], resamples=RESAMPLES) for name, one in values.items()]


def _by_pair(subject: Subject) -> Found:
    """Mean precision at the matches of each pair of cameras, in the ranking of the whole gallery."""
    ranking, (q_cams, g_cams), pids = subject.ranking, subject.camids, subject.pids[0]
    query = _query_of_each_match(subject)
    first = np.cumsum(ranking.n_positives) - ranking.n_positives
    precision = (np.arange(len(query)) - first[query] + 1) / ranking.match_ranks
    camera, other = q_cams[query], g_cams[ranking.match_images]
    for a, b in sorted(set(zip(camera.tolist(), other.tolist(), strict=True))):
        chosen = (camera == a) & (other == b)
        row = mean_row(
            "precision at matches",
            {"query camera": a, "gallery camera": b},
            precision[chosen],
            pids[query[chosen]],
            resamples=RESAMPLES,
        )
        yield Row(row.name, row.setting, row.value, row.interval, len(np.unique(query[chosen])))


def _query_of_each_match(subject: Subject) -> np.ndarray:
    return np.repeat(np.arange(len(subject.query)), subject.ranking.n_positives)


def _keep_matches(subject: Subject) -> None:
    """Stores rank, camera and gallery image of each match, from which other breakdowns can be computed."""
    ranking = subject.ranking
    images = ranking.match_images
    columns = (_query_of_each_match(subject), ranking.match_ranks, subject.camids[1][images], images)
    lines = (",".join(map(str, row)) for row in zip(*(column.tolist() for column in columns), strict=True))
    subject.keep(f"matches.{slug(subject.dataset)}.csv", "\n".join(["query,rank,camid,gallery", *lines, ""]))


def _heights(subject: Subject) -> np.ndarray:
    """Height of each query image in pixels, NaN where its file cannot be read."""
    paths = [item.path for item in subject.query]
    sizes = read_sizes(paths)
    found = (sizes[path] for path in paths)
    return np.array([math.nan if isinstance(size, str) else size[0] for size in found], dtype=float)


def brightness(subject: Subject) -> np.ndarray:
    """Returns the mean luma of each resized query image, 0 to 1."""
    images = subject.images(subject.query)
    return np.array([LUMA @ images[row].mean(axis=(1, 2)) / 255 for row in range(len(subject.query))])


def _worst(subject: Subject) -> Found:
    """The worst hundredth of the queries, and the score without it."""
    ranking, pids = subject.ranking, subject.pids[0]
    scores = ranking.average_precision
    valid = np.flatnonzero(ranking.valid)
    order = valid[np.lexsort((valid, scores[valid]))]
    count = math.ceil(WORST * len(order))
    worst, rest = order[:count], np.sort(order[count:])
    yield mean_row("mAP", {"queries": "worst 1 %"}, scores[worst], pids[worst])
    if len(rest):
        yield mean_row("mAP", {"queries": "all but the worst 1 %"}, scores[rest], pids[rest])
    for query in worst[:MOST_LISTED]:
        item = subject.query[query]
        setting = {
            "query": int(query),
            "image": item.path.name,
            "first match at rank": int(ranking.first_match_rank[query]),
        }
        yield Row("AP of a worst query", setting, float(scores[query]))


AUDIT = Audit(
    run,
    about="For which queries is the score high or low?",
    source="Ranges hold about a quarter of the queries each. Precision at matches: the mean over the matches of a "
    "query is its AP. Brightness: mean luma (ITU-R BT.601) of the resized image.",
)
