"""Hyperparameter searches: trials, importance of the parameters, and final runs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from harness.records import store
from harness.reporting.search import importance
from harness.reporting.site.source import Source
from harness.tuning.state import Final, Search


def build(source: Source) -> Mapping[str, Any]:
    """One entry per search that has trials."""
    ordered = sorted(source.data.searches, key=lambda s: (s.spec.backbone, s.spec.dataset, s.settings.seed, s.id))
    return {"searches": [_entry(source, search) for search in ordered if search.trials]}


def _entry(source: Source, search: Search) -> dict[str, Any]:
    shares, trials, epoch = importance(search)
    spent, full = search.epochs
    return {
        "id": search.id,
        "study": search.settings.seed + 1 if search.settings.tuned else None,
        "space": search.space.name,
        "about": search.space.about,
        "backbone": search.spec.backbone,
        "dataset": source.data.title(search.spec.dataset),
        "recipe": search.spec.recipe,
        "sampler": search.settings.sampler,
        "samples": search.settings.samples,
        "rungs": list(search.settings.asha.rungs),
        "epochs": search.settings.asha.epochs,
        "spent": [spent, full],
        "holdout": search.holdout.fraction,
        "parameters": list(search.space.parameters),
        "importance": {"shares": shares, "trials": trials, "epoch": epoch},
        "trials": [
            {
                "number": trial.number,
                "name": trial.name,
                "state": trial.state,
                "value": trial.value,
                "reason": trial.reason,
                "run": source.short_of(trial.run_id),
                "point": {name: trial.point.get(name) for name in search.space.parameters},
                "curve": sorted(trial.curve.items()),
            }
            for trial in search.trials
        ],
        "finals": [_final(source, search, final) for final in search.finals],
    }


def _final(source: Source, search: Search, final: Final) -> dict[str, Any]:
    """A chosen point with the scores of its runs on the test split."""
    runs = [source.context.by_id[run] for run in final.run_ids if run in source.context.by_id]
    scores = [plain["mAP"] for run in runs if run["status"] == "ok" and (plain := store.plain(run))]
    return {
        "name": final.name,
        "point": {name: final.point.get(name) for name in search.space.parameters},
        "runs": [source.short_of(run) for run in final.run_ids],
        "scores": len(scores),
        "mAP": statistics.fmean(scores) if scores else None,
        "spread": statistics.stdev(scores) if len(scores) > 1 else None,
    }
