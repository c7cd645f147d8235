"""What each of 20 corruptions at each of 5 levels leaves of a score: 100 passes over query and gallery."""

from __future__ import annotations

from itertools import product

from harness.audits.audit import Audit, Found, mean_row
from harness.audits.corrupting import METRICS, SOURCE, VARIANTS, Averages, always, corrupting
from harness.audits.subject import Subject
from harness.data.corruptions import KINDS, LEVELS

RESAMPLES = 1_000


def run(subject: Subject) -> Found:
    """Yields mAP per kind and level with query and gallery corrupted, and the means over all for each variant."""
    assert subject.network is not None
    yield from subject.scores(subject.ranking, {"corrupted": "nothing"}, METRICS)
    averages, passes = Averages(), list(product(KINDS, LEVELS))
    for done, (kind, level) in enumerate(passes, start=1):
        subject.emit("progress", stage="audit", audit=f"{kind}, level {level}, pass {done} of {len(passes)}")
        query, gallery = (
            subject.network.features(items, change=corrupting(items, always(kind, level)), original=True)
            for items in (subject.query, subject.gallery)
        )
        both = subject.rank(query, gallery)
        averages.add(VARIANTS[0], both)
        averages.add(VARIANTS[1], subject.rank(query, subject.features[1]))
        averages.add(VARIANTS[2], subject.rank(subject.features[0], gallery))
        setting = {"kind": kind.replace("_", " "), "level": level}
        yield mean_row("mAP of corruptions", setting, both.average_precision, subject.pids[0], resamples=RESAMPLES)
    for variant in VARIANTS:
        for metric in METRICS:
            yield mean_row(metric, {"corrupted": variant}, averages[variant, metric], subject.pids[0])
    yield "The values per kind and level have query and gallery corrupted. The others are means over all 100 passes."


AUDIT = Audit(
    run,
    about="Which corruptions hurt the score, and at which of five levels?",
    source=SOURCE,
    needs_network=True,
    default=False,
)
