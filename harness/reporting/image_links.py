"""Links to the figures of single runs: ranked lists and distance histograms."""

from __future__ import annotations

from pathlib import Path

from harness.records import store
from harness.reporting import text
from harness.reporting.section import Context, Section, bullets, paragraphs

MOST_LINES = 100
RANKED = "ranked_lists.png"
"""Shows images of people. For real people it is named but not linked, because git ignores it."""


def build(context: Context) -> Section:
    """One line per configuration, with the figures of its first seed."""
    lines = []
    for table in context.tables:
        for row in table.plain():
            run = row.scored[0][0]
            if names := [name for name in run.get("pictures") or () if ".." not in Path(name).parts]:
                folder = store.folder_of(Path(), run).as_posix()
                shown = ", ".join(_shown(context, table.key.generated, f"{folder}/{name}") for name in sorted(names))
                title = f"{context.data.title(table.key.dataset)}, {table.key.recipe}, {row.label}"
                lines.append(f"{text.escape(title)}, seed {run['spec']['seed']}: {shown}")
    if not lines:
        return Section()
    about = (
        "Ranked lists show the worst, median and best queries; distances are histograms for pairs of the same and of "
        "different identities. Ranked lists of real people are not committed and stay in the local results folder."
    )
    rest = f"{text.count(len(lines) - MOST_LINES, 'more configuration')} not shown." if len(lines) > MOST_LINES else ""
    return Section(paragraphs("## Figures of single runs", about, bullets(lines[:MOST_LINES]), rest))


def _shown(context: Context, generated: bool, path: str) -> str:
    """A link if the results are below the folder of the page, else the path within the results folder."""
    if context.results is None or (Path(path).name == RANKED and not generated):
        return text.code(path)
    target = f"{context.results}/{path}" if context.results else path
    return f"[{text.escape(Path(path).stem.replace('_', ' '))}](<{text.address(target)}>)"
