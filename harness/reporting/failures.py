"""What did not work, and why: failed runs, blocked cells, records that cannot be read."""

from __future__ import annotations

from collections import Counter

from harness.reporting import text
from harness.reporting.section import Context, Section, bullets, paragraphs

MOST_LINES = 200


def build(context: Context) -> Section:
    """Failed runs by reason, then what was planned and could not start, then unreadable records."""
    parts = [
        _part("### Runs that did not end well", _failed(context)),
        _part("### Planned, but blocked", _blocked(context)),
        _part("### Records that cannot be read", _unreadable(context)),
    ]
    if not any(parts):
        parts = ["Nothing failed and nothing was blocked."]
    return Section(paragraphs("## Failed and blocked", *parts))


def _part(heading: str, body: str) -> str:
    return paragraphs(heading, body) if body else ""


def _failed(context: Context) -> str:
    """Equal failures of a setting over its seeds are one line."""
    counts: Counter[tuple[str, ...]] = Counter()
    for record in context.material.records:
        if record["status"] != "ok" and record["source"] != "search":  # trials are told of with their search
            spec, error = record["spec"], record["error"] or {}
            where = (context.material.title(spec["dataset"]), spec["backbone"], spec["recipe"])
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
    """Cells the last plan could not start; a cell that has a finished run since is not among them."""
    done = {
        (r["spec"]["backbone"], r["spec"]["dataset"], r["spec"]["recipe"])
        for r in context.material.records
        if r["status"] == "ok"
    }
    cells = {
        (context.material.title(c["dataset"]), c["backbone"], c["recipe"], c["reason"])
        for c in context.material.plan
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
    problems = sorted(context.material.problems)
    return paragraphs(bullets([text.escape(p, limit=400) for p in problems[:MOST_LINES]]), _rest(len(problems)))


def _rest(number: int) -> str:
    return f"And {text.count(number - MOST_LINES, 'more line')}, not shown." if number > MOST_LINES else ""
