"""Facts about the data of a table: layout, counts, notes, generator settings, additional datasets that failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from harness.contracts import UNKNOWN_CAMERAS
from harness.reporting import text
from harness.reporting.rows import RunGroup, Table

OMITTED_NOTES = {"junk", "own_train_labels"}
"""Notes that are part of another fact, or do not affect the numbers."""

MOST_LABELS = 3


def caveats(table: Table) -> list[str]:
    """Notes in whole sentences that apply to all rows; shown above the table."""
    rows = _settings(table)
    return [note for note, of in _labels(rows, partial(_sentences, table)).items() if len(of) == len(rows)]


def lines(table: Table) -> list[str]:
    """One line per fact; a fact that applies to some rows only starts with their labels."""
    rows, above = _settings(table), caveats(table)
    labels = {**_labels(rows, partial(_facts, table)), **_labels(rows, partial(_sentences, table))}
    return [
        *(f if len(of) == len(rows) else f"{_named(of)}: {f}" for f, of in labels.items() if f not in above),
        *_mismatches(table),
    ]


def _settings(table: Table) -> dict[str, RunGroup]:
    return {row.label: row.setting for row in table.rows}


def _labels(rows: Mapping[str, RunGroup], facts: Callable[[RunGroup], Iterator[str]]) -> dict[str, list[str]]:
    """Each fact with the labels of the rows it applies to."""
    labels: dict[str, list[str]] = {}
    for label, setting in rows.items():
        for fact in dict.fromkeys(facts(setting)):
            labels.setdefault(fact, []).append(label)
    return labels


def _blocks(table: Table, run: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The data blocks for training and for scoring, which may be the same."""
    data, key = run["data"], table.key
    return data, data if key.dataset == key.trained_on else (data.get("evaluated") or {}).get(key.dataset) or {}


def _sentences(table: Table, setting: RunGroup) -> Iterator[str]:
    """Notes in whole sentences."""
    for run in setting.ok:
        for block in _blocks(table, run):
            for key, value in sorted((block.get("notes") or {}).items()):
                if words := _sentence(key, value):
                    yield words


def _sentence(key: str, value: Any) -> str:
    """A note as a sentence; empty if it is a plain value."""
    if (key, value) == ("cameras", UNKNOWN_CAMERAS):
        return "The cameras are unknown, so gallery images from the query's own camera are not ignored."
    if key == "value_range":
        return f"Gray values from {value[0]:g} (black) to {value[1]:g} (white) are scaled to 8 bits."
    return text.escape(value, limit=400) if isinstance(value, str) and " " in value.strip() else ""


def _mismatches(table: Table) -> list[str]:
    """Differences between the data of any row and the card."""
    runs = [run for row in table.rows for run, _ in row.scored]
    blocks = [block for run in runs for block in (run["data"], *(run["data"].get("evaluated") or {}).values())]
    found = sorted({sentence for block in blocks for sentence in block.get("count_mismatch") or ()})
    note = ["On such data, add `--allow-count-mismatch` to the commands."] if found else []
    return [*map(text.escape, found), *note]


def _named(labels: Sequence[str]) -> str:
    shown = ", ".join(map(text.escape, labels[:MOST_LABELS]))
    return shown + (f" and {len(labels) - MOST_LABELS:,} more" if len(labels) > MOST_LABELS else "")


def _facts(table: Table, setting: RunGroup) -> Iterator[str]:
    for run in setting.ok:
        data, test = _blocks(table, run)
        yield _read(data, test)
        if test is not data:
            yield f"Layout of the scored dataset: {text.code(test.get('layout') or text.NOT_RECORDED)}."
        for block in (data, test):
            yield from _generated(block.get("generated") or {})
            yield from _notes(block.get("notes") or {})
        if test is data:
            yield from _failed(data.get("evaluated") or {})
    if setting.source in ("published-checkpoint", "features"):
        yield f"Scored file: {text.code(str(setting.spec.get('pretrained'))[:19])}."


def _read(data: Mapping[str, Any], test: Mapping[str, Any]) -> str:
    """The layout, which identifies the version of a dataset, and the size of the training set."""
    train = (data.get("splits") or {}).get("train")
    junk = ((test.get("notes") or {}).get("junk") or {}).get("gallery")
    parts = [f"Dataset layout {text.code(data.get('layout') or text.NOT_RECORDED)}"]
    if train:
        parts.append(f"{text.count(train['images'], 'training image')} of {train['identities']:,} identities")
    if junk:
        parts.append(f"{text.count(junk, 'junk image')} excluded from the gallery")
    return "; ".join(parts) + "."


def _generated(block: Mapping[str, Any]) -> Iterator[str]:
    """Settings of the generator."""
    words = [
        f"{word} {text.size(value) if isinstance(value, list) else text.escape(value)}"
        for key, word in (("generator_version", "generator version"), ("seed", "seed"), ("size", "images of"))
        if (value := block.get(key)) is not None
    ]
    if block:
        yield f"Generated data{': ' if words else ''}{', '.join(words)}."


def _notes(notes: Mapping[str, Any]) -> Iterator[str]:
    """Notes that are plain values, with their names."""
    for key, value in sorted(notes.items()):
        if key not in OMITTED_NOTES and value not in (None, "", [], {}) and not _sentence(key, value):
            name = key.replace("_", " ")
            yield f"{text.escape(name[:1].upper() + name[1:])}: {text.escape(_plain(value), limit=400)}."


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def _failed(evaluated: Mapping[str, Any]) -> Iterator[str]:
    """Additional datasets that could not be scored."""
    for name, block in sorted(evaluated.items()):
        if error := block.get("error"):
            message = error.get("message") if isinstance(error, dict) else error
            yield f"Not scored on {text.escape(name)}: {text.escape(message, limit=400)}"
