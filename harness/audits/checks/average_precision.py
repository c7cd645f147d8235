"""How far the two average precisions of the literature are apart, from the same ranks."""

from __future__ import annotations

from harness import metrics
from harness.audits.audit import Audit, Found, mean_row
from harness.audits.subject import Subject


def run(subject: Subject) -> Found:
    """Yields both, and their difference."""
    ranking, pids = subject.ranking, subject.pids[0]
    mean, trapezoid = ranking.average_precision, metrics.trapezoid_average_precision(ranking)
    yield mean_row("mAP", {"AP": "mean of precisions"}, mean, pids)
    yield mean_row("mAP", {"AP": "trapezoid"}, trapezoid, pids)
    yield mean_row("mAP", {"AP": "trapezoid minus mean of precisions"}, trapezoid - mean, pids)


AUDIT = Audit(
    run,
    about="How much of a difference to a published mAP is the definition of AP?",
    source="Mean of precisions: as in torchreid, fast-reid and TransReID, the AP of this harness. Trapezoid: scripts "
    "of Zheng et al., Scalable Person Re-identification: A Benchmark, ICCV 2015, as in "
    "github.com/layumi/Person_reID_baseline_pytorch.",
)
