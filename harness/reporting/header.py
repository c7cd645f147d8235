"""The top of the page: what it is, what it rests on, how to begin."""

from __future__ import annotations

from collections import Counter

from harness.reporting import text
from harness.reporting.section import Context, Section, paragraphs
from harness.system.version import PROTOCOL_VERSION


def build(context: Context) -> Section:
    """Title, counts and commands."""
    versions = sorted({r["protocol_version"] for r in context.material.records}) or [PROTOCOL_VERSION]
    protocol = f"Protocol {', '.join(map(text.escape, versions))}: only results of one protocol compare."
    made = "Made from the records in the results folder by `python -m harness report`; do not edit it by hand."
    parts = ["# Benchmarks", f"{made} {protocol}", _counts(context), _commands(context)]
    return Section(paragraphs(*parts))


def _counts(context: Context) -> str:
    records = context.material.records
    if not records:
        return (
            "**Nothing has been run here yet.** The command below plans every backbone on every dataset, runs what is "
            "not blocked, and rewrites this page. The published numbers at the end are what it will stand beside."
        )
    statuses = Counter(r["status"] for r in records)
    ended = ", ".join(f"{statuses[s]:,} {s}" for s in sorted(statuses, key=lambda s: (s != "ok", s)))
    backbones = len({r["spec"]["backbone"] for r in records})
    datasets = len({r["spec"]["dataset"] for r in records if r["source"] != "profile"})
    on = text.count(datasets, "dataset") if datasets else "random images"
    return f"{text.count(len(records), 'run')} ({ended}) of {text.count(backbones, 'backbone')} on {on}."


BEGIN = "python -m harness run --backbones all --datasets all --data-root DATA_ROOT --weights-root WEIGHTS_ROOT"


def _commands(context: Context) -> str:
    """How to begin; below each table is what makes its rows again."""
    if context.tables:
        return "The commands below each table reproduce its rows; finished runs are not repeated."
    return paragraphs("To begin:", f"    {BEGIN}")
