"""The result tables, one per dataset and recipe, with published numbers; every cell without a number has a reason."""

from __future__ import annotations

from collections.abc import Sequence

from harness.reporting import data_facts, published, starts, text
from harness.reporting.rows import Row, RunGroup, Table, TableKey
from harness.reporting.section import Context, Section, bullets, file_name, paragraphs

MOST_COLUMNS = 8
MAP, INTERVAL, RANK1, MINP, SEEDS = "mAP", "95 % interval of mAP", "rank-1", "mINP", "Seeds"
ORIGIN, PUBLISHED, SIDE, PARAMETERS = "Origin", "Published mAP / rank-1", "Side information", "Params at test (M)"
RIGHT = (MAP, RANK1, MINP, SEEDS, PARAMETERS)
DISPENSABLE = (MINP, PARAMETERS, SEEDS)
"""Columns to leave out of a wider table, in this order; details and flat files have them, too."""

SOURCES = {"published-checkpoint": "published checkpoint, evaluated here", "features": "features extracted elsewhere"}

LEGEND = (
    "One table per dataset and recipe, scored by the same evaluation code: the plain test in percent, mean over seeds "
    "± standard deviation. The interval is a bootstrap over the identities of the queries. Side information is what a "
    "backbone reads besides the image."
)
ABOUT_PUBLISHED = (
    " Published numbers are as printed by the source in the footnote; the brackets hold reproduced minus published, in "
    "points."
)


def build(context: Context) -> Section:
    """All result tables."""
    parts = [_one(context, table) for table in context.tables]
    if not parts:
        return Section("## Results\n\nThere are no scored runs yet.")
    legend = LEGEND + (ABOUT_PUBLISHED if any(PUBLISHED in part for part in parts) else "")
    return Section(paragraphs("## Results", legend, *_notices(context), *parts))


def heading(context: Context, key: TableKey) -> str:
    """Title of a table: dataset, protocol if there are several, and recipe."""
    name = context.data.title(key.dataset)
    if key.dataset != key.trained_on:
        joint = key.dataset in key.trained_on.split("+")
        name = f"{context.data.title(key.trained_on)} to {name} ({'trained on' if joint else 'cross-domain'})"
    name += " (generated)" if key.generated else ""
    name += f", protocol {key.protocol}" if len(context.protocols) > 1 else ""
    return f"{name}, recipe {key.recipe}"


def stem(context: Context, key: TableKey) -> str:
    """Start of the file names of a table's figures; default properties are omitted."""
    parts = [key.dataset, key.recipe]
    parts += [f"from-{key.trained_on}"] if key.trained_on != key.dataset else []
    parts += ["generated"] if key.generated else []
    parts += [f"protocol-{key.protocol.replace('.', '-')}"] if len(context.protocols) > 1 else []
    return file_name(*parts)


def _one(context: Context, table: Table) -> str:
    lines = [_row(context, table, row) for row in table.plain()]
    lines += [_unfinished(context, table, label, setting) for label, setting in table.unfinished]
    planned = _planned(context, table)
    lines += [_filled(context, table, name, word) for name, word, _ in planned]
    return paragraphs(
        f"### {text.escape(heading(context, table.key))}",
        *data_facts.caveats(table),
        text.table(_narrow(starts.only_if_mixed(lines)), RIGHT),
        bullets([*_statuses(table), *(reason for _, _, reason in planned), *_doubts(context, table)]),
    )


def _narrow(lines: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Leaves out columns that say nothing, then dispensable ones until the table is narrow enough."""
    empty = {
        name
        for name in (PUBLISHED, ORIGIN)
        if all(line.get(name, text.NOT_APPLICABLE) == text.NOT_APPLICABLE for line in lines)
    }
    kept = [name for name in (lines[0] if lines else ()) if name not in empty]
    for name in DISPENSABLE:
        if len(kept) > MOST_COLUMNS and name in kept:
            kept.remove(name)
    return [{name: line[name] for name in kept} for line in lines]


def _notices(context: Context) -> list[str]:
    """Notices of the cards, such as a withdrawal, each once."""
    names = {name for table in context.tables for name in (table.key.dataset, table.key.trained_on)}
    of: dict[str, list[str]] = {}
    for name in sorted(names):
        if (card := context.data.datasets.get(name)) and card.notice:
            of.setdefault(card.notice, []).append(card.title)
    return [f"*{text.escape(', '.join(titles))}: {text.escape(notice)}*" for notice, titles in of.items()]


def _row(context: Context, table: Table, row: Row) -> dict[str, str]:
    return {
        "Backbone": text.escape(row.label),
        ORIGIN: text.escape(row.setting.origin) or text.NOT_APPLICABLE,
        MAP: row.mAP(),
        INTERVAL: text.interval(row.interval("mAP")),
        RANK1: row.shown("rank-1"),
        MINP: row.shown("mINP") if row.values("mINP") else text.NOT_RECORDED,
        PUBLISHED: published.beside(context, table.key, row),
        starts.COLUMN: starts.start_of(context.data, row.setting),
        SIDE: side_information(context, row.setting),
        PARAMETERS: text.millions(row.efficiency("parameters_inference", "parameters")),
        SEEDS: str(len(row.scored)),
    }


def _filled(
    context: Context, table: Table, backbone: str, word: str, setting: RunGroup | None = None
) -> dict[str, str]:
    """A row without results, with the same word in place of every number."""
    size = setting.spec["values"].get("augmentation", {}).get("image_size") if setting else None
    known = published.find(context, setting.backbone if setting else backbone, table.key, size)
    return {
        "Backbone": text.escape(backbone),
        ORIGIN: text.escape(setting.origin if setting else "") or text.NOT_APPLICABLE,
        MAP: word,
        INTERVAL: word,
        RANK1: word,
        MINP: word,
        PUBLISHED: published.cell(context, known, size),
        starts.COLUMN: starts.start_of(context.data, setting) if setting else text.NOT_APPLICABLE,
        SIDE: side_information(context, setting) if setting else _declared(context, backbone),
        PARAMETERS: word,
        SEEDS: "0",
    }


def _unfinished(context: Context, table: Table, label: str, setting: RunGroup) -> dict[str, str]:
    return _filled(context, table, label, "not scored" if setting.ok else setting.runs[-1]["status"], setting)


def _planned(context: Context, table: Table) -> list[tuple[str, str, str]]:
    """Planned runs without results: the backbone, the text of its cells, and the reason."""
    key = table.key
    if key.dataset != key.trained_on or key.generated:
        return []
    present = {s.backbone for s in [*(row.setting for row in table.rows), *(s for _, s in table.unfinished)]}
    reasons = {
        cell["backbone"]: ("blocked", f"blocked: {cell['reason']}")
        if cell["state"] == "blocked"
        else ("not run", "not run: planned")
        for cell in context.data.plan
        if (cell["dataset"], cell["recipe"]) == (key.dataset, key.recipe)
    }
    return [
        (name, word, f"{text.escape(name)}: {text.escape(reason, limit=100)}")
        for name, (word, reason) in sorted(reasons.items())
        if name not in present
    ]


def _statuses(table: Table) -> list[str]:
    """What a row is, where it is not simply the plain test of finished training runs."""
    lines = []
    for row in table.plain():
        words = [row.setting.status()] if row.setting.status() != "ok" else []
        words += [SOURCES[row.setting.source]] if row.setting.source in SOURCES else []
        words += [row.setting.start] if row.setting.untrained else []
        words += [f"{row.test.label} test"] if row.test.flip else []
        lines += [f"{text.escape(row.label)}: {text.escape('; '.join(words))}"] if words else []
    for label, setting in table.unfinished:
        last = setting.runs[-1]
        message = last["error"]["message"] if last["error"] else ""
        where = f"{setting.status()} in {last['stage'] or 'an unknown stage'}: {message}"
        lines.append(f"{text.escape(label)}: {'not scored' if setting.ok else text.escape(where, limit=100)}")
    return lines


def _doubts(context: Context, table: Table) -> list[str]:
    """What the rows do not share: starting weights, files, code, libraries or the distance."""
    scored = [(run, e) for row in table.rows for run, e in row.scored]
    remarks = [starts.sentence(context.data, table.settings())] if table.rows else []
    prints = {str(run["spec"].get("fingerprint", "")) for run, _ in scored}
    if len(prints) > 1:
        shown = ", ".join(text.code(p[:8] or "none") for p in sorted(prints))
        remarks.append(f"**Not all rows used the same files**: fingerprints {shown}.")
    for row in {id(row.setting): row for row in reversed(table.rows)}.values():
        if origins := row.origins():
            parts = [f"{name} {', '.join(map(text.code, values))}" for name, values in origins.items()]
            changed = " (+: with uncommitted changes)" if any("+" in part for part in parts) else ""
            remarks.append(f"**{text.escape(row.label)} mixes runs of different origin**: {'; '.join(parts)}{changed}.")
    metrics = {e["metric"] for _, e in scored}
    if len(metrics) > 1:
        remarks.append(f"Rows use different distances: {', '.join(map(text.escape, sorted(metrics)))}.")
    return remarks


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
