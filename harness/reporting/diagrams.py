"""Figures of the result tables: accuracy against cost, and CMC curves."""

from __future__ import annotations

from collections.abc import Sequence

from harness.reporting import plots
from harness.reporting.accuracy import heading, stem
from harness.reporting.parallel import Drawn
from harness.reporting.rows import Row, Table, device, matched_in
from harness.reporting.section import Context, Section, folded

MOST_DRAWN = 12
"""Configurations per figure; more would be indistinguishable."""


def build(context: Context) -> Section:
    """Two figures per table with two configurations to compare."""
    figures: dict[str, Drawn] = {}
    parts = [part for table in context.tables if (part := " ".join(_figures(context, table, figures)))]
    if not parts:
        return Section()
    return Section(folded("Figures", "accuracy against cost, and CMC curves", "\n".join(parts)), figures)


def _figures(context: Context, table: Table, figures: dict[str, Drawn]) -> list[str]:
    """Draws accuracy against cost and CMC curves of the plain rows, if there are two to compare; returns Markdown."""
    plain = table.plain()
    if len(plain) < 2:
        return []
    title, links = heading(context, table.key), []
    title += "".join(f" ({words})" for words in matched_in(plain))
    best = sorted(range(len(plain)), key=lambda i: -plain[i].mean("mAP"))[:MOST_DRAWN]
    rows = [plain[i] for i in sorted(best)]
    panels = [
        (label, more, points)
        for label, more, names, unit in (
            ("parameters at test (M)", False, ("parameters_inference", "parameters"), 1e6),
            (f"inference (images/s, {_devices(rows)})", True, ("inference_images_per_second",), 1.0),
        )
        if (points := _points(rows, names, unit))
    ]
    if panels:
        name = f"{stem(context, table.key)}.cost.png"
        figures[name] = context.draw(plots.cost, f"{title}: accuracy against cost", panels, context.looks)
        links.append(context.image(name, f"{title}: mAP against parameters and throughput"))
    curved = [row for row in rows if all(e["cmc"] for _, e in row.scored)]
    if curves := [(row.label, row.setting.backbone, _mean_cmc(row)) for row in curved]:
        name = f"{stem(context, table.key)}.cmc.png"
        figures[name] = context.draw(plots.cmc, f"{title}: CMC", curves, context.looks)
        links.append(context.image(name, f"{title}: CMC curves of all backbones"))
    if links and len(rows) < len(plain):
        links.append(f"The figures show the {MOST_DRAWN} configurations with the highest mAP, of {len(plain):,}.")
    return links


def _points(rows: Sequence[Row], names: Sequence[str], unit: float) -> list[plots.Point]:
    return [
        plots.Point(row.label, row.setting.backbone, x / unit, 100 * row.mean("mAP"), 100 * (row.deviation("mAP") or 0))
        for row in rows
        if (x := row.efficiency(*names))
    ]


def _mean_cmc(row: Row) -> list[float]:
    curves = [e["cmc"] for _, e in row.scored]
    length = min(map(len, curves))
    return [sum(curve[k] for curve in curves) / len(curves) for k in range(length)]


def _devices(rows: Sequence[Row]) -> str:
    names = sorted({device(run) for row in rows for run, _ in row.scored})
    return names[0] if len(names) == 1 else f"{len(names)} devices, see the efficiency table"
