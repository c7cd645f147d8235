"""The top of the page: what it is, counts and links to explanations."""

from __future__ import annotations

from collections import Counter

from harness.records.schema import ended
from harness.reporting import text
from harness.reporting.environments import covered, kinds
from harness.reporting.section import Context, Section, paragraphs
from harness.system.version import PROTOCOL_VERSION


def build(context: Context) -> Section:
    """Title, counts and links."""
    versions = sorted({r["protocol_version"] for r in context.data.records}) or [PROTOCOL_VERSION]
    about = (
        "This page is generated from the records in the results folder by `python -m harness report`. Do not edit it "
        f"by hand. {context.doc('report.md')} explains it. Protocol: {', '.join(map(text.escape, versions))} "
        f"({context.doc('protocol.md')}); compare only results of the same version."
    )
    return Section(paragraphs("# Benchmarks", about, _counts(context), _begin(context)))


def _counts(context: Context) -> str:
    records = context.data.records
    if not records:
        return (
            "**There are no results yet.** The command below runs every backbone on every available dataset and "
            "rewrites this page."
        )
    statuses = Counter(map(ended, records))
    shown = ", ".join(f"{statuses[s]:,} {s}" for s in sorted(statuses, key=lambda s: (s != "ok", s)))
    return f"Contents: {kinds(records)}; {', '.join(covered(records))}. Status of the runs: {shown}."


BEGIN = "python -m harness run --backbones all --datasets all --data-root DATA_ROOT --weights-root WEIGHTS_ROOT"


def _begin(context: Context) -> str:
    """The first command, if there are no results."""
    return "" if context.tables else paragraphs("To begin:", f"```bash\n{BEGIN}\n```")
