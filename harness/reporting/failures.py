"""What is missing or in doubt: runs in several folders, failed and blocked runs, unreadable records."""

from __future__ import annotations

from collections import Counter

from harness.reporting import text
from harness.reporting.section import Context, Section, bullets, paragraphs

MOST_LINES = 200


def build(context: Context) -> Section:
    """Duplicates, failed runs by reason, blocked runs and unreadable records; nothing if there is none."""
    parts = [
        _part("### Runs in several results folders", _repeated(context)),
        _part("### Failed runs", _failed(context)),
        _part("### Blocked runs", _blocked(context)),
        _part("### Unreadable records", _unreadable(context)),
    ]
    if not any(parts):
        return Section()
    return Section(paragraphs("## Failed and blocked runs", *parts))


def _part(heading: str, body: str) -> str:
    return paragraphs(heading, body) if body else ""


def _repeated(context: Context) -> str:
    """Duplicates and contradictions."""
    remarks = context.data.remarks
    return paragraphs(bullets([text.escape(remark) for remark in remarks[:MOST_LINES]]), _rest(len(remarks)))


def _failed(context: Context) -> str:
    """One row per configuration and reason, with the number of runs."""
    counts: Counter[tuple[str, ...]] = Counter()
    for record in context.data.records:
        if record["status"] != "ok" and record["source"] != "search":  # trials are listed under their search
            spec, error = record["spec"], record["error"] or {}
            where = (context.data.title(spec["dataset"]), spec["backbone"], spec["recipe"])
            reason = f"{error.get('type', '')}: {error.get('message', '')}".removeprefix(": ")
            counts[(*where, record["status"], record["stage"] or "unknown", reason)] += 1
    lines = [
        {
            "Dataset": text.escape(dataset),
            "Backbone": text.escape(backbone),
            "Recipe": text.escape(recipe),
            "Status": text.escape(status),
            "Stage": text.escape(stage),
            "Runs": str(number),
            "Reason": text.escape(reason, limit=240),
        }
        for (dataset, backbone, recipe, status, stage, reason), number in sorted(counts.items())
    ]
    return paragraphs(text.table(lines[:MOST_LINES], ("Runs",)), _rest(len(lines)))


def _blocked(context: Context) -> str:
    """Runs that were blocked in the last plan and have not finished since."""
    done = {
        (r["spec"]["backbone"], r["spec"]["dataset"], r["spec"]["recipe"])
        for r in context.data.records
        if r["status"] == "ok"
    }
    cells = {
        (context.data.title(c["dataset"]), c["backbone"], c["recipe"], c["reason"])
        for c in context.data.plan
        if c["state"] == "blocked" and (c["backbone"], c["dataset"], c["recipe"]) not in done
    }
    lines = [
        {
            "Dataset": text.escape(dataset),
            "Backbone": text.escape(backbone),
            "Recipe": text.escape(recipe),
            "Reason": text.escape(reason, limit=400),
        }
        for dataset, backbone, recipe, reason in sorted(cells)
    ]
    return paragraphs(text.table(lines[:MOST_LINES]), _rest(len(lines)))


def _unreadable(context: Context) -> str:
    problems = sorted(context.data.problems)
    return paragraphs(bullets([text.escape(p, limit=400) for p in problems[:MOST_LINES]]), _rest(len(problems)))


def _rest(number: int) -> str:
    return f"{text.count(number - MOST_LINES, 'more line')} not shown." if number > MOST_LINES else ""
