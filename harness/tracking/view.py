"""A view of MLflow's charts that is stored with the experiment: scores, costs and curves, grouped by backbone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

NAME = "scores"
GROUPED_BY = ("backbone", "dataset")

BARS = {
    "Accuracy": ("mAP", "rank-1", "mINP"),
    "Cost": ("efficiency/parameters_inference", "efficiency/inference_images_per_second", "efficiency/flops"),
}
LINES = {"Curves of training": ("loss", "lr", "images_per_second")}
"""Metrics by section. MLflow sorts sections by name, and adds its own for all other metrics."""


def tags(experiment: str) -> dict[str, str]:
    """Tags of the experiment: its kind, its description with a link to the view, and the view.

    Args:
        experiment: id of the experiment.
    """
    about = (
        "Each call of `python -m harness` is a parent run, whose page shows its scores. Its children are single runs. "
        f"[Charts of all runs](#{path(experiment)}) are grouped by {' and '.join(GROUPED_BY)}; other tags are recipe, "
        "seed, kind, device and generated."
    )
    return {
        "mlflow.experimentKind": "custom_model_development",  # otherwise the browser opens pages about language models
        "mlflow.note.content": about,
        f"mlflow.sharedViewState.{NAME}": json.dumps(_view(), separators=(",", ":")),
    }


def path(experiment: str) -> str:
    """Path of the view in the address of a server, behind `#`."""
    return (
        f"/experiments/{experiment}/runs?viewStateShareKey={NAME}&compareRunsMode=CHART&workflowType=machine_learning"
    )


def _view() -> dict[str, Any]:
    keys = [{"mode": "tag", "groupByData": tag} for tag in GROUPED_BY]
    sections = [
        {"uuid": name, "name": name, "display": True, "isReordered": False, "deleted": False}
        for name in (*BARS, *LINES)
    ]
    return {
        "groupBy": {"aggregateFunction": "average", "groupByKeys": keys},
        "useGroupedValuesInCharts": True,
        "selectedColumns": ["attributes.`Created`", "metrics.`mAP`", "metrics.`rank-1`"],
        "compareRunSections": sections,
        "compareRunCharts": list(_charts()),
    }


def _charts() -> Iterator[dict[str, Any]]:
    common = {"runsCountToCompare": 10, "deleted": False, "isGenerated": False}
    for section, metrics in BARS.items():
        for metric in metrics:
            yield {"uuid": metric, "type": "BAR", "metricSectionId": section, "metricKey": metric, **common}
    axes = {"xAxisKey": "step", "xAxisScaleType": "linear", "scaleType": "linear", "yAxisKey": "metric", "range": {}}
    for section, metrics in LINES.items():
        for metric in metrics:
            line = {"uuid": metric, "type": "LINE", "metricSectionId": section, "metricKey": metric, **common, **axes}
            yield {**line, "selectedMetricKeys": [metric], "selectedXAxisMetricKey": "", "yAxisExpressions": []}
