"""What the rows of a table were trained from: the column “Start”, and a warning where rows differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from harness.reporting import text
from harness.reporting.report_data import ReportData
from harness.reporting.rows import RunGroup
from harness.weights import kind_of_start

COLUMN = "Start"


def of_record(data: ReportData, record: Mapping[str, Any]) -> str:
    """Kind of start of a run: what its record says, or what the card says of older records.

    Empty where it is not known; a file that was scored does not tell how it was trained.
    """
    card = data.backbone(record["spec"]["backbone"])
    if record["source"] != "trained" or record.get("start") or card is None:
        return str(record.get("start") or "")
    return kind_of_start(card, record["spec"]["options"], record["spec"].get("pretrained") or "none")


def start_of(data: ReportData, setting: RunGroup) -> str:
    """The cell of a configuration."""
    return text.escape(of_record(data, setting.runs[0])) or text.NOT_APPLICABLE


def mixed(data: ReportData, settings: Iterable[RunGroup]) -> list[str]:
    """A warning if the configurations of a table differ in what they were trained from; else nothing."""
    by_kind: dict[str, dict[str, None]] = {}
    for setting in settings:
        if kind := of_record(data, setting.runs[0]):
            by_kind.setdefault(kind, {})[setting.backbone] = None
    if len(by_kind) < 2:
        return []
    parts = [f"{text.escape(kind)} ({text.escape(', '.join(names))})" for kind, names in sorted(by_kind.items())]
    return [f"**Rows start from different weights**, which moves scores as much as backbones do: {'; '.join(parts)}."]
