"""The result tables: one a dataset and recipe, published beside reproduced, a word in every cell without a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.reporting import commands, data_facts, plots, published, text
from harness.reporting.parallel import Drawn
from harness.reporting.rows import Row, RunGroup, Table, TableKey, matched_in
from harness.reporting.section import Context, Section, bullets, file_name, paragraphs

RIGHT = ("Params (M)", "GFLOPs", "mAP", "rank-1", "mINP", "Seeds", "Images/s")
MOST_DRAWN = 12
"""Settings in a figure; more could not be told apart."""

SOURCES = {"published-checkpoint": "published checkpoint, evaluated here", "features": "features from outside"}


def build(context: Context) -> Section:
    """All result tables with their figures."""
    figures: dict[str, Drawn] = {}
    parts = [_one(context, table, figures) for table in context.tables]
    if not parts:
        return Section("## Results\n\nThere is no record of a scored run here yet.")
    return Section(paragraphs("## Results", _legend(), *parts), figures)


def heading(context: Context, key: TableKey) -> str:
    """Title of a table: dataset, recipe, and what is special."""
    name = context.material.title(key.dataset)
    if key.dataset != key.trained_on:
        name = f"{context.material.title(key.trained_on)} to {name} (cross-domain)"
    name += " (generated)" if key.generated else ""
    name += f", protocol {key.protocol}" if len(context.protocols) > 1 else ""
    return f"{name}, recipe {key.recipe}"


def _legend() -> str:
    return (
        "mAP, rank-1 and mINP are in percent: the mean over seeds ± the sample standard deviation (the variance of "
        "training). The 95 % interval is a bootstrap over the identities of the queries (the variance of the query "
        "set), its bounds averaged over seeds. Flip test, re-ranking and the untrained model are rows of their own. "
        "Parameters are those that the test-time feature depends on; cost stands in the first row of a setting. "
        f"“{text.NOT_APPLICABLE}” means that a number cannot apply. {commands.PLACEHOLDERS}"
    )


def _one(context: Context, table: Table, figures: dict[str, Drawn]) -> str:
    key = table.key
    lines = [_row(context, table, row, first) for row, first in _with_first(table.rows)]
    lines += [_unfinished(context, table, label, setting) for label, setting in table.unfinished]
    lines += _planned(context, table)
    return paragraphs(
        f"### {text.escape(heading(context, key))}",
        _warning(context, key),
        *data_facts.caveats(table),
        _about(table),
        text.table(lines, RIGHT),
        bullets([*data_facts.lines(table), *_remarks(table)]),
        commands.of_table(table.settings()),
        *_figures(context, table, figures),
    )


def stem(context: Context, key: TableKey) -> str:
    """Start of the names of a table's figures; what is usual is left out."""
    parts = [key.dataset, key.recipe]
    parts += [f"from-{key.trained_on}"] if key.trained_on != key.dataset else []
    parts += ["generated"] if key.generated else []
    parts += [f"protocol-{key.protocol.replace('.', '-')}"] if len(context.protocols) > 1 else []
    return file_name(*parts)


def _warning(context: Context, key: TableKey) -> str:
    """What a reader must know before the first number."""
    lines = []
    if key.generated:
        lines.append(
            "**Generated stand-in, not the real dataset.** Its scores show that the program works; "
            "they say nothing about accuracy on people, and no published number applies."
        )
    for name in sorted({key.dataset, key.trained_on}):
        card = context.material.datasets.get(name)
        if card and card.notice:
            lines.append(f"*{text.escape(card.notice)}*")
    return "\n\n".join(lines)


def _about(table: Table) -> str:
    """What the recipe says of itself; `native` is one of each backbone."""
    said: dict[str, list[str]] = {}
    for setting in table.settings():
        if about := commands.about_recipe(setting):
            said.setdefault(about, []).append(setting.backbone)
    if len(said) < 2:
        return "".join(f"Recipe {text.escape(table.key.recipe)}: {text.escape(about)}" for about in said)
    return bullets(
        [f"Recipe of {text.escape(', '.join(dict.fromkeys(of)))}: {text.escape(about)}" for about, of in said.items()]
    )


def _with_first(rows: Sequence[Row]) -> list[tuple[Row, bool]]:
    seen: set[int] = set()
    marked = []
    for row in rows:
        marked.append((row, id(row.setting) not in seen))
        seen.add(id(row.setting))
    return marked


def _row(context: Context, table: Table, row: Row, first: bool) -> dict[str, str]:
    claimed, difference = _published_cells(context, table.key, row)
    status = [text.escape(row.setting.status())]
    status += [SOURCES[row.setting.source]] if row.setting.source in SOURCES else []
    status += [row.setting.start] if row.setting.untrained else []
    none = text.NOT_APPLICABLE
    return {
        "Backbone": text.escape(row.label),
        "Test": row.way.label,
        "Params (M)": text.millions(row.efficiency("parameters_inference", "parameters")) if first else none,
        "GFLOPs": text.giga(row.efficiency("flops")) if first else none,
        "Size": text.NOT_RECORDED if row.setting.source == "features" else text.size(row.image_size()),
        "Side information": side_information(context, row.setting),
        "Published mAP / rank-1": claimed,
        "mAP": row.mAP(),
        "rank-1": row.shown("rank-1"),
        "mINP": row.shown("mINP") if row.values("mINP") else text.NOT_RECORDED,
        "Seeds": str(len(row.scored)),
        "Difference": difference,
        "95 % interval of mAP": text.interval(row.interval("mAP")),
        "Images/s": text.rate(row.efficiency("inference_images_per_second")) if first else none,
        "Status": "; ".join(status),
    }


def _filled(word: str, **cells: str) -> dict[str, str]:
    """A row without results: the word stands where a number would."""
    return {
        "Backbone": cells["backbone"],
        "Test": "plain",
        "Params (M)": word,
        "GFLOPs": word,
        "Size": cells.get("size", word),
        "Side information": cells.get("side", text.NOT_RECORDED),
        "Published mAP / rank-1": cells["published"],
        "mAP": word,
        "rank-1": word,
        "mINP": word,
        "Seeds": "0",
        "Difference": word,
        "95 % interval of mAP": word,
        "Images/s": word,
        "Status": cells["status"],
    }


def _unfinished(context: Context, table: Table, label: str, setting: RunGroup) -> dict[str, str]:
    last = setting.runs[-1]
    if setting.ok:  # it finished, but was not scored on this dataset
        return _filled("not scored", backbone=text.escape(label), published=text.NOT_APPLICABLE, status="not scored")
    size = setting.spec["values"].get("augmentation", {}).get("image_size")
    message = last["error"]["message"] if last["error"] else ""
    return _filled(
        last["status"],
        backbone=text.escape(label),
        size=text.size(size),
        side=side_information(context, setting),
        published=published.cell(context, table.key, published.find(context, setting.backbone, table.key, size), size),
        status=text.escape(f"{setting.status()} in {last['stage'] or 'an unknown stage'}: {message}", limit=100),
    )


def _planned(context: Context, table: Table) -> list[dict[str, str]]:
    """Cells that were planned for this table and did not run, and published backbones that were not run here."""
    key = table.key
    if key.dataset != key.trained_on or key.generated:
        return []
    present = {s.backbone for s in [*(row.setting for row in table.rows), *(s for _, s in table.unfinished)]}
    planned = {
        cell["backbone"]: ("blocked", f"blocked: {cell['reason']}")
        if cell["state"] == "blocked"
        else ("not run", "not run: planned")
        for cell in context.material.plan
        if (cell["dataset"], cell["recipe"]) == (key.dataset, key.recipe)
    }
    for card in context.material.backbones.values():
        if card.name not in planned and any(p.dataset == key.dataset and not p.variant for p in card.published):
            planned[card.name] = ("not run", "not run: nobody asked for it")
    return [
        _filled(
            word,
            backbone=text.escape(name),
            side=_declared(context, name),
            published=published.cell(context, key, published.find(context, name, key, None), None),
            status=text.escape(status, limit=100),
        )
        for name, (word, status) in sorted(planned.items())
        if name not in present
    ]


def side_information(context: Context, setting: RunGroup) -> str:
    """What the backbone sees beside the image; a switched-off camera embedding sees nothing."""
    cameras = setting.spec["options"].get("camera_embedding")
    if cameras in (False, 0):
        return "none"
    if cameras == "mean":
        return "mean of the cameras"
    return _declared(context, setting.backbone)


def _declared(context: Context, backbone: str) -> str:
    card = context.material.backbone(backbone)
    return (", ".join(map(text.escape, card.side_information)) or "none") if card else text.NOT_RECORDED


def _published_cells(context: Context, key: TableKey, row: Row) -> tuple[str, str]:
    """Published numbers, and reproduced minus published in points where the input size is the same."""
    size = row.image_size()
    if row.setting.untrained or commands.changed_options(row.setting):  # another network than the published one
        return text.NOT_APPLICABLE, text.NOT_APPLICABLE
    known = published.find(
        context, row.setting.backbone, key, size, row.way, checkpoint=row.setting.source == "published-checkpoint"
    )
    shown = text.NOT_APPLICABLE if row.way.untrained else published.cell(context, key, known, size)
    if known is None:
        return shown, text.NOT_APPLICABLE
    if not published.same_size(known, size):
        return shown, "other size"
    pairs = ((row.mean("mAP"), known.mAP), (row.mean("rank-1"), known.rank1))
    return shown, " / ".join(text.signed(100 * mean - value) for mean, value in pairs)


def _remarks(table: Table) -> list[str]:
    """What sets rows apart that look alike, and how many queries the numbers rest on."""
    scored = [(row, run, e) for row in table.rows for run, e in row.scored]
    remarks = [
        f"{text.escape(row.label)} is built with {text.code(', '.join(f'{k}={v}' for k, v in options.items()))}."
        for row in table.plain()
        if (options := commands.changed_options(row.setting))
    ]
    names = ("n_query", "n_valid", "n_gallery")
    for counts in sorted({tuple(e.get(n) or 0 for n in names) for _, _, e in scored}):
        queries, valid, gallery = counts
        remarks.append(
            f"{text.count(queries, 'query')}, {valid:,} of them with a match; {text.count(gallery, 'gallery image')}."
        )
    prints = {str(run["spec"].get("fingerprint", "")) for _, run, _ in scored}
    if len(prints) > 1:
        shown = ", ".join(text.code(p[:8] or "none") for p in sorted(prints))
        remarks.append(f"**Not all rows saw the same files**: fingerprints {shown}.")
    for row in table.rows:
        if tied := max((e.get("tied_queries") or 0 for _, e in row.scored), default=0):
            remarks.append(f"{text.escape(row.label)}, {row.way.label}: tied distances in {text.count(tied, 'query')}.")
    for row, first in _with_first(table.rows):
        if first and (origins := row.origins()):
            parts = [f"{name} {', '.join(map(text.code, values))}" for name, values in origins.items()]
            changed = " (+: with uncommitted changes)" if any("+" in part for part in parts) else ""
            remarks.append(f"**{text.escape(row.label)} mixes runs of different origin**: {'; '.join(parts)}{changed}.")
    metrics = {e["metric"] for _, _, e in scored}
    if len(metrics) > 1:
        remarks.append(f"Rows differ in the distance: {', '.join(map(text.escape, sorted(metrics)))}.")
    return remarks


def _figures(context: Context, table: Table, figures: dict[str, Drawn]) -> list[str]:
    """Accuracy against cost and CMC curves, of the plain rows."""
    title, links = heading(context, table.key), []
    plain = table.plain()
    title += "".join(f" ({words})" for words in matched_in(plain))
    best = sorted(range(len(plain)), key=lambda i: -plain[i].mean("mAP"))[:MOST_DRAWN]
    rows = [plain[i] for i in sorted(best)]
    panels = [
        (label, more, points)
        for label, more, names, unit in (
            ("parameters (M)", False, ("parameters_inference", "parameters"), 1e6),
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
        links.append(f"The figures show the {MOST_DRAWN} settings with the highest mAP, of {len(plain):,}.")
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


def device(record: Mapping[str, Any]) -> str:
    """Name of what a run's speed was measured on."""
    environment, kind = record["environment"], record["efficiency"].get("device") or record["spec"]["device"]
    return str(environment.get("gpu") or kind) if str(kind).startswith("cuda") else str(environment.get("cpu") or kind)
