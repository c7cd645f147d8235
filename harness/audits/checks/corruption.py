"""What is left of a score if each image has one of 20 corruptions, as on the leaderboard of CIL-ReID."""

from __future__ import annotations

import numpy as np

from harness.audits.audit import Audit, Found, Row, mean_row
from harness.audits.corrupting import METRICS, SOURCE, VARIANTS, Averages, corrupting, drawn
from harness.audits.subject import Subject

DRAWS = 10
"""Number of times that every image gets a new corruption; the published evaluation repeats as often."""

PUBLISHED = {
    "market1501": {
        "TransReID": (88.93, 27.38),
        "LightMBN": (91.54, 14.84),
        "AGW": (88.10, 10.80),
        "OSNet": (85.67, 10.37),
        "MGN": (86.51, 9.72),
        "BoT": (83.90, 6.60),
    },
    "cuhk03-detected": {"MGN": (62.73, 4.20)},
    "msmt17": {"OSNet": (40.05, 7.86), "AGW": (51.84, 6.53), "BoT": (48.34, 5.28)},
}
"""mAP in percent, clean and with query and gallery corrupted: the leaderboards of CIL-ReID at commit ac44dfa."""


def run(subject: Subject) -> Found:
    """Yields the scores of clean images, of the three variants, and those published for the dataset."""
    assert subject.network is not None
    yield from subject.scores(subject.ranking, {"corrupted": "nothing"}, METRICS)
    averages, means = Averages(), list[float]()
    for draw in range(DRAWS):
        subject.emit("progress", stage="audit", audit=f"corruption, draw {draw + 1} of {DRAWS}")
        query, gallery = (
            subject.network.features(items, change=corrupting(items, drawn(draw), seed=draw), original=True)
            for items in (subject.query, subject.gallery)
        )
        pairs = ((query, gallery), (query, subject.features[1]), (subject.features[0], gallery))
        for variant, pair in zip(VARIANTS, pairs, strict=True):
            ranking = subject.rank(*pair)
            averages.add(variant, ranking)
            means += [ranking.mAP] if variant == VARIANTS[0] else []
    for variant in VARIANTS:
        for metric in METRICS:
            yield mean_row(metric, {"corrupted": variant}, averages[variant, metric], subject.pids[0])
    yield (
        f"Each image has one of 20 kinds at one of 5 levels, at random. The values are means of {DRAWS} draws; the "
        f"standard deviation of mAP over draws is {100 * np.std(means, ddof=1):.2f} points with query and gallery "
        "corrupted."
    )
    for network, scores in PUBLISHED.get(subject.dataset, {}).items():
        for images, percent in zip(("clean", "with query and gallery corrupted"), scores, strict=True):
            yield Row("mAP", {"as published": f"{network} {images}"}, percent / 100)


AUDIT = Audit(
    run,
    about="What is left of the score if each image has a random corruption: noise, blur, weather or digital effects?",
    source=SOURCE,
    needs_network=True,
    default=False,
)
