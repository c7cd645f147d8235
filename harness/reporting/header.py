"""The top of the page: origin, counts and links to explanations."""

from __future__ import annotations

from collections import Counter

from harness.reporting import text
from harness.reporting.section import Context, Section, bullets, paragraphs
from harness.system.version import PROTOCOL_VERSION


def build(context: Context) -> Section:
    """Title, counts and links."""
    versions = sorted({r["protocol_version"] for r in context.data.records}) or [PROTOCOL_VERSION]
    origin = (
        "This page is generated from the records in the results folder by `python -m harness report`. "
        "Do not edit it by hand."
    )
    links = [
        f"Evaluation protocol and metrics: {context.doc('protocol.md')}. This page has results of protocol "
        f"{', '.join(map(text.escape, versions))}; compare only results of the same version.",
        f"Intervals and significance tests: {context.doc('statistics.md')}.",
        f"Speed and memory measurements: {context.doc('speed.md')}.",
    ]
    return Section(paragraphs("# Benchmarks", origin, _counts(context), bullets(links), _commands(context)))


def _counts(context: Context) -> str:
    records = context.data.records
    if not records:
        return (
            "**There are no results yet.** The command below runs every backbone on every available dataset and "
            "rewrites this page."
        )
    kinds = Counter(KINDS.get(r["source"], "scored run") for r in records)
    statuses = Counter(r["status"] for r in records)
    counts = [text.count(kinds[kind], kind) for kind in ("scored run", *KINDS.values()) if kinds[kind]]
    ended = ", ".join(f"{statuses[s]:,} {s}" for s in sorted(statuses, key=lambda s: (s != "ok", s)))
    backbones = len({r["spec"]["backbone"] for r in records})
    datasets = len({r["spec"]["dataset"] for r in records if r["source"] != "profile"})
    of = [text.count(backbones, "backbone"), *([text.count(datasets, "dataset")] if datasets else [])]
    return f"Contents: {', '.join(counts)}; {', '.join(of)}. Status of the runs: {ended}."


KINDS = {"search": "search trial", "profile": "efficiency measurement"}
"""What a record is called by its source; all others are scored runs."""


BEGIN = "python -m harness run --backbones all --datasets all --data-root DATA_ROOT --weights-root WEIGHTS_ROOT"


def _commands(context: Context) -> str:
    """The first command, or where to find the commands."""
    if context.tables:
        return "The commands below each table reproduce its rows. Finished runs are not repeated."
    return paragraphs("To begin:", f"```bash\n{BEGIN}\n```")
