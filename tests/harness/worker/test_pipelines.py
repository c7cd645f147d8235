"""Names in tables and what they stand for."""

from __future__ import annotations

from harness import metrics
from harness.contracts import PROTOCOLS
from harness.spec.names import PURPOSES
from harness.worker.pipelines import PIPELINES


def test_each_purpose_has_its_pipeline() -> None:
    assert PIPELINES.keys() == PURPOSES.keys()
    assert len(set(PIPELINES.values())) == len(PIPELINES)


def test_each_protocol_has_its_scorer() -> None:
    scorers = [getattr(metrics, rule.scorer) for rule in PROTOCOLS.values()]
    assert scorers == [metrics.evaluate_ranking, metrics.evaluate_single_shot]
