"""What was read for a table, once: layout, counts, notes, how data was generated, further datasets that failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from harness.contracts import UNKNOWN_CAMERAS
from harness.reporting import text
from harness.reporting.rows import RunGroup, Table

SAID_ELSEWHERE = {"junk", "own_train_labels"}
"""Notes that are in another line, or say nothing about the numbers."""

MOST_LABELS = 3


def caveats(table: Table) -> list[str]:
    """Notes in whole sentences that all rows share: to be read before the first number."""
    rows = _settings(table)
    return [note for note, of in _labels(rows, partial(_sentences, table)).items() if len(of) == len(rows)]


def lines(table: Table) -> list[str]:
    """One line a fact; a fact of some rows alone names them."""
    rows, above = _settings(table), caveats(table)
    labels = {**_labels(rows, partial(_facts, table)), **_labels(rows, partial(_sentences, table))}
    return [
        *(f if len(of) == len(rows) else f"{_named(of)}: {f}" for f, of in labels.items() if f not in above),
        *_mismatches(table),
    ]


def _settings(table: Table) -> dict[str, RunGroup]:
    return {row.label: row.setting for row in table.rows}


def _labels(rows: Mapping[str, RunGroup], facts: Callable[[RunGroup], Iterator[str]]) -> dict[str, list[str]]:
    """Each fact once, with the labels of the rows it is about."""
    labels: dict[str, list[str]] = {}
    for label, setting in rows.items():
        for fact in dict.fromkeys(facts(setting)):
            labels.setdefault(fact, []).append(label)
    return labels


def _blocks(table: Table, run: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The data that a run was trained on and those it was scored on, which may be the same."""
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
    """A note in words; empty where it is a plain value."""
    if (key, value) == ("cameras", UNKNOWN_CAMERAS):
        return "The cameras are unknown, so no image is ignored as taken by the query's own camera."
    if key == "value_range":
        return f"Gray values from {value[0]:g} to {value[1]:g} are scaled to black and white."
    return text.escape(value, limit=400) if isinstance(value, str) and " " in value.strip() else ""


def _mismatches(table: Table) -> list[str]:
    """How the data differ from the card, of any row."""
    runs = [run for row in table.rows for run, _ in row.scored]
    blocks = [block for run in runs for block in (run["data"], *(run["data"].get("evaluated") or {}).values())]
    found = sorted({sentence for block in blocks for sentence in block.get("count_mismatch") or ()})
    note = ["The commands need `--allow-count-mismatch` to run on such data."] if found else []
    return [*map(text.escape, found), *note]


def _named(labels: Sequence[str]) -> str:
    shown = ", ".join(map(text.escape, labels[:MOST_LABELS]))
    return shown + (f" and {len(labels) - MOST_LABELS:,} more" if len(labels) > MOST_LABELS else "")


def _facts(table: Table, setting: RunGroup) -> Iterator[str]:
    for run in setting.ok:
        data, test = _blocks(table, run)
        yield _read(data, test)
        if test is not data:
            yield f"Scored on layout {text.code(test.get('layout') or text.NOT_RECORDED)}."
        for block in (data, test):
            yield from _generated(block.get("generated") or {})
            yield from _notes(block.get("notes") or {})
        if test is data:
            yield from _failed(data.get("evaluated") or {})
    if setting.source in ("published-checkpoint", "features"):
        yield f"Scored file: {text.code(str(setting.spec.get('pretrained'))[:19])}."


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
    """What is no sentence, after its name."""
    for key, value in sorted(notes.items()):
        if key not in SAID_ELSEWHERE and value not in (None, "", [], {}) and not _sentence(key, value):
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
