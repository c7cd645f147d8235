"""The result tables, one per dataset and recipe, with published numbers; every cell without a number has a reason."""

from __future__ import annotations

from collections.abc import Sequence

from harness.reporting import commands, data_facts, plots, published, starts, text
from harness.reporting.parallel import Drawn
from harness.reporting.rows import Row, RunGroup, Table, TableKey, device, matched_in
from harness.reporting.section import Context, Section, bullets, file_name, paragraphs

RIGHT = ("mAP", "rank-1", "mINP", "Seeds", "Params at test (M)", "GFLOPs", "Images/s")
MOST_DRAWN = 12
"""Configurations per figure; more would be indistinguishable."""

SOURCES = {"published-checkpoint": "published checkpoint, evaluated here", "features": "features extracted elsewhere"}

PUBLISHED = "Published mAP / rank-1"
DIFFERENCE = "Reproduced minus published"
PUBLISHED_NOTES = (
    f"**{PUBLISHED}**: as printed by the source in the footnote; “{text.NOT_APPLICABLE}” if none was published for "
    "this network, dataset and test.",
    f"**{DIFFERENCE}**: difference in points for mAP / rank-1, if the input size is the same.",
)


def build(context: Context) -> Section:
    """All result tables with their figures."""
    figures: dict[str, Drawn] = {}
    parts = [_one(context, table, figures) for table in context.tables]
    with_published = any(PUBLISHED in part for part in parts)
    if not parts:
        return Section("## Results\n\nThere are no scored runs yet.")
    return Section(paragraphs("## Results", *_legend(context, with_published), *parts), figures)


def heading(context: Context, key: TableKey) -> str:
    """Title of a table: dataset, protocol if there are several, and recipe."""
    name = context.data.title(key.dataset)
    if key.dataset != key.trained_on:
        joint = key.dataset in key.trained_on.split("+")
        name = f"{context.data.title(key.trained_on)} to {name} ({'trained on' if joint else 'cross-domain'})"
    name += " (generated)" if key.generated else ""
    name += f", protocol {key.protocol}" if len(context.protocols) > 1 else ""
    return f"{name}, recipe {key.recipe}"


def _legend(context: Context, with_published: bool) -> tuple[str, str]:
    """Introduction and explanation of the columns."""
    about = (
        "One table per dataset and recipe. All rows are scored by the same evaluation code; "
        f"{context.doc('protocol.md')} explains the protocol and the metrics."
    )
    columns = [
        "**Test**: plain, with flip test, with re-ranking, or before training (the untrained model).",
        "**mAP, rank-1, mINP**: percent, mean over seeds ± sample standard deviation. The deviation shows the variance "
        "of training.",
        "**95 % interval of mAP**: bootstrap over the identities of the queries, bounds averaged over seeds. It shows "
        f"the variance of the query set; see {context.doc('statistics.md')}.",
        *(PUBLISHED_NOTES if with_published else ()),
        "**Params at test (M), GFLOPs, Images/s**: cost of the test-time feature, in the first row of each "
        "configuration. Parameters of classifiers are not counted; “Efficiency of the runs” gives all parameters.",
        "**(shared)**: other processes or runs used the device while the speed was measured.",
        starts.LEGEND,
        "**Side information**: what the backbone uses besides the image, such as camera ids.",
        f"“{text.NOT_APPLICABLE}” means not applicable.",
        *commands.NOTES,
    ]
    return about, bullets(columns)


def _one(context: Context, table: Table, figures: dict[str, Drawn]) -> str:
    key = table.key
    lines = [_row(context, table, row, first) for row, first in _with_first(table.rows)]
    lines += [_unfinished(context, table, label, setting) for label, setting in table.unfinished]
    lines += _planned(context, table)
    if all(line[PUBLISHED] == text.NOT_APPLICABLE for line in lines):
        lines = [{k: v for k, v in line.items() if k not in (PUBLISHED, DIFFERENCE)} for line in lines]
    return paragraphs(
        f"### {text.escape(heading(context, key))}",
        _warning(context, key),
        *data_facts.caveats(table),
        _about(table),
        text.table(lines, RIGHT),
        bullets([*starts.mixed(context.data, table.settings()), *data_facts.lines(table), *_remarks(table)]),
        commands.of_table(table.settings()),
        *_figures(context, table, figures),
    )


def stem(context: Context, key: TableKey) -> str:
    """Start of the file names of a table's figures; default properties are omitted."""
    parts = [key.dataset, key.recipe]
    parts += [f"from-{key.trained_on}"] if key.trained_on != key.dataset else []
    parts += ["generated"] if key.generated else []
    parts += [f"protocol-{key.protocol.replace('.', '-')}"] if len(context.protocols) > 1 else []
    return file_name(*parts)


def _warning(context: Context, key: TableKey) -> str:
    """Warnings that a reader must see before the first number."""
    lines = []
    if key.generated:
        lines.append(
            "**Generated stand-in, not the real dataset.** The scores only show that the program works. "
            "They say nothing about accuracy on real people, and no published number applies."
        )
    for name in sorted({key.dataset, key.trained_on}):
        card = context.data.datasets.get(name)
        if card and card.notice:
            lines.append(f"*{text.escape(card.notice)}*")
    return "\n\n".join(lines)


def _about(table: Table) -> str:
    """Descriptions of the recipe; `native` has one per backbone."""
    backbones: dict[str, list[str]] = {}
    for setting in table.settings():
        if about := commands.about_recipe(setting):
            backbones.setdefault(about, []).append(setting.backbone)
    if len(backbones) < 2:
        return "".join(f"Recipe {text.escape(table.key.recipe)}: {text.escape(about)}" for about in backbones)
    return bullets(
        [
            f"Recipe of {text.escape(', '.join(dict.fromkeys(names)))}: {text.escape(about)}"
            for about, names in backbones.items()
        ]
    )


def _with_first(rows: Sequence[Row]) -> list[tuple[Row, bool]]:
    """Each row, and whether it is the first of its configuration."""
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
        "Test": row.test.label,
        "mAP": row.mAP(),
        "95 % interval of mAP": text.interval(row.interval("mAP")),
        "rank-1": row.shown("rank-1"),
        "mINP": row.shown("mINP") if row.values("mINP") else text.NOT_RECORDED,
        "Seeds": str(len(row.scored)),
        PUBLISHED: claimed,
        DIFFERENCE: difference,
        "Size": text.NOT_RECORDED if row.setting.source == "features" else text.size(row.image_size()),
        "Params at test (M)": text.millions(row.efficiency("parameters_inference", "parameters")) if first else none,
        "GFLOPs": text.giga(row.efficiency("flops")) if first else none,
        "Images/s": row.speed() if first else none,
        starts.COLUMN: starts.start_of(context.data, row.setting),
        "Side information": side_information(context, row.setting),
        "Status": "; ".join(status),
    }


def _filled(shown: str, **cells: str) -> dict[str, str]:
    """A row without results, with the same text in place of every number."""
    return {
        "Backbone": cells["backbone"],
        "Test": "plain",
        "mAP": shown,
        "95 % interval of mAP": shown,
        "rank-1": shown,
        "mINP": shown,
        "Seeds": "0",
        PUBLISHED: cells["published"],
        DIFFERENCE: shown,
        "Size": cells.get("size", shown),
        "Params at test (M)": shown,
        "GFLOPs": shown,
        "Images/s": shown,
        starts.COLUMN: cells.get("start", text.NOT_RECORDED),
        "Side information": cells.get("side", text.NOT_RECORDED),
        "Status": cells["status"],
    }


def _unfinished(context: Context, table: Table, label: str, setting: RunGroup) -> dict[str, str]:
    last = setting.runs[-1]
    if setting.ok:  # finished, but not scored on this dataset
        return _filled("not scored", backbone=text.escape(label), published=text.NOT_APPLICABLE, status="not scored")
    size = setting.spec["values"].get("augmentation", {}).get("image_size")
    message = last["error"]["message"] if last["error"] else ""
    return _filled(
        last["status"],
        backbone=text.escape(label),
        size=text.size(size),
        start=starts.start_of(context.data, setting),
        side=side_information(context, setting),
        published=published.cell(context, published.find(context, setting.backbone, table.key, size), size),
        status=text.escape(f"{setting.status()} in {last['stage'] or 'an unknown stage'}: {message}", limit=100),
    )


def _planned(context: Context, table: Table) -> list[dict[str, str]]:
    """Rows for planned runs without results, and for backbones with published numbers that were not requested."""
    key = table.key
    if key.dataset != key.trained_on or key.generated:
        return []
    present = {s.backbone for s in [*(row.setting for row in table.rows), *(s for _, s in table.unfinished)]}
    planned = {
        cell["backbone"]: ("blocked", f"blocked: {cell['reason']}")
        if cell["state"] == "blocked"
        else ("not run", "not run: planned")
        for cell in context.data.plan
        if (cell["dataset"], cell["recipe"]) == (key.dataset, key.recipe)
    }
    for card in context.data.backbones.values():
        if card.name not in planned and any(p.dataset == key.dataset and not p.variant for p in card.published):
            planned[card.name] = ("not run", "not run: not requested")
    return [
        _filled(
            word,
            backbone=text.escape(name),
            side=_declared(context, name),
            published=published.cell(context, published.find(context, name, key, None), None),
            status=text.escape(status, limit=100),
        )
        for name, (word, status) in sorted(planned.items())
        if name not in present
    ]


def side_information(context: Context, setting: RunGroup) -> str:
    """Input of the backbone besides the image; none if its camera embedding is off."""
    cameras = setting.spec["options"].get("camera_embedding")
    if cameras in (False, 0):
        return "none"
    if cameras == "mean":
        return "mean of the training cameras"
    return _declared(context, setting.backbone)


def _declared(context: Context, backbone: str) -> str:
    card = context.data.backbone(backbone)
    return (", ".join(map(text.escape, card.side_information)) or "none") if card else text.NOT_RECORDED


def _published_cells(context: Context, key: TableKey, row: Row) -> tuple[str, str]:
    """Published numbers, and reproduced minus published in points if the input size is the same."""
    size = row.image_size()
    if row.setting.untrained or commands.changed_options(row.setting):  # not the published network
        return text.NOT_APPLICABLE, text.NOT_APPLICABLE
    known = published.find(
        context, row.setting.backbone, key, size, row.test, checkpoint=row.setting.source == "published-checkpoint"
    )
    shown = text.NOT_APPLICABLE if row.test.untrained else published.cell(context, known, size)
    if known is None:
        return shown, text.NOT_APPLICABLE
    if not published.same_size(known, size):
        return shown, "other size"
    pairs = ((row.mean("mAP"), known.mAP), (row.mean("rank-1"), known.rank1))
    return shown, " / ".join(text.signed(100 * mean - value) for mean, value in pairs)


def _remarks(table: Table) -> list[str]:
    """Differences between rows, and the numbers of queries and gallery images."""
    scored = [(row, run, e) for row in table.rows for run, e in row.scored]
    remarks = [
        f"{text.escape(row.label)} uses the options {text.code(', '.join(f'{k}={v}' for k, v in options.items()))}."
        for row in table.plain()
        if (options := commands.changed_options(row.setting))
    ]
    names = ("n_query", "n_valid", "n_gallery")
    for counts in sorted({tuple(e.get(n) or 0 for n in names) for _, _, e in scored}):
        queries, valid, gallery = counts
        remarks.append(
            f"{text.count(queries, 'query')}, of which {valid:,} have a match; {text.count(gallery, 'gallery image')}."
        )
    prints = {str(run["spec"].get("fingerprint", "")) for _, run, _ in scored}
    if len(prints) > 1:
        shown = ", ".join(text.code(p[:8] or "none") for p in sorted(prints))
        remarks.append(f"**Not all rows used the same files**: fingerprints {shown}.")
    for row in table.rows:
        if tied := max((e.get("tied_queries") or 0 for _, e in row.scored), default=0):
            remarks.append(
                f"{text.escape(row.label)}, {row.test.label}: tied distances in {text.count(tied, 'query')}."
            )
    for row, first in _with_first(table.rows):
        if first and (origins := row.origins()):
            parts = [f"{name} {', '.join(map(text.code, values))}" for name, values in origins.items()]
            changed = " (+: with uncommitted changes)" if any("+" in part for part in parts) else ""
            remarks.append(f"**{text.escape(row.label)} mixes runs of different origin**: {'; '.join(parts)}{changed}.")
    metrics = {e["metric"] for _, _, e in scored}
    if len(metrics) > 1:
        remarks.append(f"Rows use different distances: {', '.join(map(text.escape, sorted(metrics)))}.")
    return remarks


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
