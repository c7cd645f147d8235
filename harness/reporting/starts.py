"""What the rows of a table were trained from: the column “Start” and a warning where rows differ, else a sentence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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


def only_if_mixed(lines: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """The rows of a table, without the column “Start” if all rows with a known start have the same one."""
    mixed = len({line[COLUMN] for line in lines} - {text.NOT_APPLICABLE}) > 1
    return [{name: cell for name, cell in line.items() if mixed or name != COLUMN} for line in lines]


def sentence(data: ReportData, settings: Iterable[RunGroup]) -> str:
    """What the configurations of a table were trained from; a warning if they differ."""
    by_kind: dict[str, dict[str, None]] = {}
    for setting in settings:
        if kind := of_record(data, setting.runs[0]):
            by_kind.setdefault(kind, {})[setting.backbone] = None
    if not by_kind:
        return "Start of the training: not known, because the files were trained elsewhere."
    if len(by_kind) == 1:
        (kind,) = by_kind
        return f"Start of the training: {text.escape(kind) if kind != 'none' else 'random weights'}."
    parts = [f"{text.escape(kind)} ({text.escape(', '.join(names))})" for kind, names in sorted(by_kind.items())]
    return f"**Rows start from different weights**, which moves scores as much as backbones do: {'; '.join(parts)}."
