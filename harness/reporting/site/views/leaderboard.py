"""Every row of every table, with all its numbers, intervals, sources and runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from harness.reporting import published
from harness.reporting.accuracy import heading, side_information
from harness.reporting.commands import changed_options
from harness.reporting.rows import PLAIN, EvalVariant, Row, RunGroup, Table, device, image_size, other_work
from harness.reporting.site.source import Source, columnar

METRICS = ("mAP", "rank-1", "rank-5", "rank-10", "mINP")
COSTS = {
    "parameters": ("parameters",),
    "parameters_inference": ("parameters_inference", "parameters"),
    "flops": ("flops",),
    "images_per_second": ("inference_images_per_second",),
    "train_images_per_second": ("train_images_per_second",),
    "memory": ("peak_memory_bytes",),
}
"""Columns of costs, and the metrics they are read from."""


def build(source: Source) -> Mapping[str, Any]:
    """The tables, and one row per configuration and test, also for those without a score."""
    rows = [row for number, table in enumerate(source.tables) for row in _rows(source, number, table)]
    return {"leaderboard": {"tables": [_about(source, table) for table in source.tables], **columnar(rows)}}


def _about(source: Source, table: Table) -> dict[str, Any]:
    key = table.key
    notices = {source.data.datasets[n].notice for n in (key.dataset, key.trained_on) if n in source.data.datasets}
    return {"title": heading(source.context, key), **key._asdict(), "notices": sorted(notices - {""})}


def _rows(source: Source, number: int, table: Table) -> Iterator[dict[str, Any]]:
    for row in table.rows:
        yield {**_common(source, number, table, row.setting, row.label), **_scores(source, number, table, row)}
    for label, setting in table.unfinished:
        last = setting.runs[-1]
        message = f"{last['stage'] or 'unknown stage'}: {last['error']['message']}" if last["error"] else "not scored"
        yield {
            **_common(source, number, table, setting, label),
            **dict.fromkeys((*METRICS, *COSTS, "published", "n_query", "n_valid", "n_gallery")),
            "key": f"{number}-{source.short(last)}-x",
            "test": PLAIN.label,
            "spread": {},
            "interval": {},
            "seeds": [],
            "shared": False,
            "note": message,
        }


def _common(source: Source, number: int, table: Table, setting: RunGroup, label: str) -> dict[str, Any]:
    """What a row says about its configuration."""
    spec, size = setting.spec, image_size(setting.runs[0])
    return {
        "table": number,
        "dataset": source.data.title(table.key.dataset),
        "trained_on": source.data.title(table.key.trained_on),
        "label": label,
        "backbone": setting.backbone,
        "recipe": table.key.recipe,
        "start": setting.start if setting.untrained else str(spec.get("pretrained") or "none"),
        "source": setting.source,
        "origin": setting.origin,
        "side": side_information(source.context, setting),
        "size": " × ".join(map(str, size)) if size else "",
        "device": device(setting.runs[0]),
        "generated": table.key.generated,
        "status": setting.status(),
        "runs": source.shorts(setting.runs),
    }


def _scores(source: Source, number: int, table: Table, row: Row) -> dict[str, Any]:
    names = [name for name in METRICS if row.values(name)]
    first = row.scored[0][1]
    return {
        **{name: row.mean(name) if name in names else None for name in METRICS},
        **{name: row.efficiency(*read) for name, read in COSTS.items()},
        "published": _published(source, table, row),
        **{name: first.get(name) for name in ("n_query", "n_valid", "n_gallery")},
        "key": source.key(row, number),
        "test": row.test.label,
        "spread": {name: row.deviation(name) for name in names if len(row.values(name)) > 1},
        "interval": {name: bounds for name in ("mAP", "rank-1") if (bounds := row.interval(name))},
        "seeds": [
            [source.short(run), run["spec"]["seed"], *(e.get(name) for name in METRICS)] for run, e in row.scored
        ],
        "shared": any(other_work(run["efficiency"]) for run, _ in row.scored),
        "note": row.matched(),
    }


def _published(source: Source, table: Table, row: Row) -> dict[str, Any] | None:
    """The published number for a row, if there is one with the same test."""
    if row.setting.untrained or changed_options(row.setting):
        return None
    size, test = row.image_size(), EvalVariant(*row.test)
    checkpoint = row.setting.source == "published-checkpoint"
    known = published.find(source.context, row.setting.backbone, table.key, size, test, checkpoint=checkpoint)
    if known is None:
        return None
    return {
        "mAP": known.mAP,
        "rank-1": known.rank1,
        "size": " × ".join(map(str, known.image_size)),
        "same_size": published.same_size(known, size),
        "source": known.source,
        "setup": known.setup,
    }
