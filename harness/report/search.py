"""Search runs: scored on held-out training identities, so never beside test results."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from harness import store
from harness.report import text
from harness.report.section import Context, Section, paragraphs


def build(context: Context) -> Section:
    """How many trials each search has, how they ended, and the best held-out mAP."""
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for record in context.material.records:
        if record["source"] == "search":
            spec = record["spec"]
            groups[(spec["dataset"], spec["backbone"], spec["recipe"])].append(record)
    if not groups:
        return Section()
    about = (
        "Trials train on part of the training identities and are scored on the held-out rest; the test split is not "
        "touched. These numbers serve to choose settings and do not compare with any table above."
    )
    lines = [
        {
            "Dataset": text.escape(context.material.title(dataset)),
            "Backbone": text.escape(backbone),
            "Recipe": text.escape(recipe),
            "Finished": str(sum(r["status"] == "ok" for r in trials)),
            "Others": str(sum(r["status"] != "ok" for r in trials)),
            "Best held-out mAP": _best(trials),
        }
        for (dataset, backbone, recipe), trials in sorted(groups.items())
    ]
    return Section(paragraphs("## Searches", about, text.table(lines, ("Finished", "Others", "Best held-out mAP"))))


def _best(trials: list[Mapping[str, Any]]) -> str:
    scores = [row["mAP"] for trial in trials if trial["status"] == "ok" and (row := store.plain(trial))]
    return text.percent(max(scores)) if scores else "no finished trial"
