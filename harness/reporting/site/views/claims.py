"""Verdicts on published numbers and on the claims of cards, with the rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from harness.reporting.claims import RULES, judge
from harness.reporting.site.source import Source


def build(source: Source) -> Mapping[str, Any]:
    """All verdicts, also those of numbers without a run."""
    found = judge(source.data, source.tables)
    published = [{**_plain(source, result), "dataset": source.data.title(result.dataset)} for result in found.published]
    claims = [
        {"backbone": relation.backbone, "words": relation.words, "verdict": relation.verdict, "reason": relation.reason,
         "source": relation.claim.source, "pairs": [_plain(source, pair) for pair in relation.pairs]}
        for relation in found.claims
    ]  # fmt: skip
    return {"claims": {"rules": {k: list(v) for k, v in RULES.items()}, "published": published, "claims": claims}}


def _plain(source: Source, value: Any) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(value)
    return {**plain, "runs": [source.short_of(run) for run in plain["runs"]]}
