"""What the check of a record finds: errors, doubts, and what could not be checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from harness.cards import BackboneCard, DatasetCard

Weight = Literal["wrong", "doubtful", "unchecked"]


class Finding(NamedTuple):
    """A sentence about a record: it is wrong, doubtful, or could not be checked."""

    weight: Weight
    words: str


@dataclass(frozen=True)
class Subject:
    """A record to check.

    Attributes:
        record: the record.
        folder: its folder, with the values of its queries.
        backbones: cards by name.
        datasets: cards by name.
        sources: hash of the code of a backbone in this checkout, by name; missing for an unknown one.
        fingerprints: fingerprints of each dataset in the reader's own records.
        counts: numbers of queries, valid queries and gallery images in these records, by dataset and fingerprint.
    """

    record: Mapping[str, Any]
    folder: Path
    backbones: Mapping[str, BackboneCard] = field(default_factory=dict)
    datasets: Mapping[str, DatasetCard] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    fingerprints: Mapping[str, set[str]] = field(default_factory=dict)
    counts: Mapping[tuple[str, str], set[tuple[int, ...]]] = field(default_factory=dict)


def wrong(words: str) -> Finding:
    """Something that contradicts itself; the record must not be used."""
    return Finding("wrong", words)


def doubtful(words: str) -> Finding:
    """Something that a reader should know before using the record."""
    return Finding("doubtful", words)


def unchecked(words: str) -> Finding:
    """Something that could not be checked."""
    return Finding("unchecked", words)
