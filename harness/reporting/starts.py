"""What the rows of a table were trained from: the column “Start”, and a warning where rows differ."""

from __future__ import annotations

from collections.abc import Iterable

from harness.reporting import text
from harness.reporting.report_data import ReportData
from harness.reporting.rows import RunGroup
from harness.weights import kind_of_start

COLUMN = "Start"


def start_of(data: ReportData, setting: RunGroup) -> str:
    """Kind of start of a configuration; from its record, or from the card for records without it.

    A file that was scored does not tell how it was trained.
    """
    if setting.source != "trained":
        return text.NOT_APPLICABLE
    recorded = next((run["start"] for run in setting.runs if run.get("start")), "")
    card = data.backbone(setting.backbone)
    if recorded or card is None:
        return recorded or text.NOT_RECORDED
    return kind_of_start(card, setting.spec["options"], setting.spec.get("pretrained") or "none")


def mixed(data: ReportData, settings: Iterable[RunGroup]) -> list[str]:
    """A warning if the configurations of a table differ in their kind of start; else nothing."""
    by_kind: dict[str, dict[str, None]] = {}
    for setting in settings:
        if (kind := start_of(data, setting)) not in (text.NOT_APPLICABLE, text.NOT_RECORDED):
            by_kind.setdefault(kind, {})[setting.backbone] = None
    if len(by_kind) < 2:
        return []
    parts = [f"{text.escape(kind)} ({text.escape(', '.join(names))})" for kind, names in sorted(by_kind.items())]
    return [f"**Rows start from different weights**, which moves scores as much as backbones do: {'; '.join(parts)}."]
