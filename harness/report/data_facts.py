"""What was read for a table, once: layout, counts, notes, how data was generated, further datasets that failed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from harness.contracts import UNKNOWN_CAMERAS
from harness.report import text
from harness.report.rows import Setting, Table

SAID_ELSEWHERE = {"junk", "own_train_labels"}
"""Notes that are in another line, or say nothing about the numbers."""

MOST_LABELS = 3


def lines(table: Table) -> list[str]:
    """One line a fact; a fact of some rows alone names them."""
    labels: dict[str, dict[str, None]] = {}
    rows = {row.label: row.setting for row in table.rows}
    for label, setting in rows.items():
        for fact in _facts(table, setting):
            labels.setdefault(fact, {})[label] = None
    facts = [fact if len(of) == len(rows) else f"{_named(list(of))}: {fact}" for fact, of in labels.items()]
    return facts + _mismatches(table)


def _mismatches(table: Table) -> list[str]:
    """How the data differ from the card, of any row."""
    runs = [run for row in table.rows for run, _ in row.scored]
    blocks = [block for run in runs for block in (run["data"], *(run["data"].get("evaluated") or {}).values())]
    found = sorted({sentence for block in blocks for sentence in block.get("count_mismatch") or ()})
    note = ["The commands need `--allow-count-mismatch` to run on such data."] if found else []
    return [*map(text.escape, found), *note]


def _named(labels: list[str]) -> str:
    shown = ", ".join(map(text.escape, labels[:MOST_LABELS]))
    return shown + (f" and {len(labels) - MOST_LABELS:,} more" if len(labels) > MOST_LABELS else "")


def _facts(table: Table, setting: Setting) -> Iterator[str]:
    key = table.key
    for run in setting.ok:
        data = run["data"]
        test = (data.get("evaluated") or {}).get(key.dataset) or {} if key.dataset != key.trained_on else data
        yield _read(data, test)
        if test is not data:
            yield f"Scored on layout {text.code(test.get('layout') or text.NOT_RECORDED)}."
        for block in (data, test) if test is not data else (data,):
            yield from _generated(block.get("generated") or {})
            yield from _notes(block.get("notes") or {})
        yield from _failed(data.get("evaluated") or {})


def _read(data: Mapping[str, Any], test: Mapping[str, Any]) -> str:
    """The layout, which tells versions of a dataset apart, and what was trained on."""
    train = (data.get("splits") or {}).get("train")
    junk = ((test.get("notes") or {}).get("junk") or {}).get("gallery")
    parts = [f"Read as layout {text.code(data.get('layout') or text.NOT_RECORDED)}"]
    if train:
        parts.append(f"{text.count(train['images'], 'training image')} of {train['identities']:,} identities")
    if junk:
        parts.append(f"{text.count(junk, 'junk image')} of the gallery left out")
    return "; ".join(parts) + "."


def _generated(block: Mapping[str, Any]) -> Iterator[str]:
    """How data was generated."""
    words = [
        f"{word} {text.size(value) if isinstance(value, list) else text.escape(value)}"
        for key, word in (("generator_version", "generator version"), ("seed", "seed"), ("size", "images of"))
        if (value := block.get(key)) is not None
    ]
    if block:
        yield f"Generated data{': ' if words else ''}{', '.join(words)}."


def _notes(notes: Mapping[str, Any]) -> Iterator[str]:
    """A sentence as it is; another value after its name."""
    for key, value in sorted(notes.items()):
        if key in SAID_ELSEWHERE or value in (None, "", [], {}):
            continue
        if (key, value) == ("cameras", UNKNOWN_CAMERAS):
            yield "The cameras are unknown, so no image is ignored as taken by the query's own camera."
        elif key == "value_range":
            yield f"Gray values from {value[0]:g} to {value[1]:g} are scaled to black and white."
        elif isinstance(value, str) and " " in value:
            yield text.escape(value, limit=400)
        else:
            name = key.replace("_", " ")
            yield f"{text.escape(name[:1].upper() + name[1:])}: {text.escape(_plain(value), limit=400)}."


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def _failed(evaluated: Mapping[str, Any]) -> Iterator[str]:
    """Further datasets that could not be scored; the run's own score stands."""
    for name, block in sorted(evaluated.items()):
        if error := block.get("error"):
            message = error.get("message") if isinstance(error, dict) else error
            yield f"Not scored on {text.escape(name)}: {text.escape(message, limit=400)}"
