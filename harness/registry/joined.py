"""Datasets that are trained on together, named `market1501+msmt17`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec

from harness.cards import SplitCount
from harness.errors import UsageError
from harness.registry.entries import DatasetEntry

JOINT = "+"

SAME_PEOPLE = (
    ("cuhk03-detected", "cuhk03-labeled", "cuhk03-classic-detected", "cuhk03-classic-labeled"),
    ("dukemtmc", "occluded-duke"),
    ("msmt17", "msmt17-train"),
)
"""Datasets of the same people; together they would teach one person as two, or train on the people of the test."""


def join(parts: Sequence[DatasetEntry]) -> DatasetEntry:
    """Returns the entry of several datasets: the training images of all, query and gallery of the first.

    Raises:
        UsageError: two of the datasets show the same people.
    """
    names = [part.name for part in parts]
    for position, name in enumerate(names):
        if other := next((earlier for earlier in names[:position] if people(earlier) == people(name)), None):
            raise UsageError(f"{other} and {name} show the same people, so they cannot be trained on together.")
    first = parts[0].card
    card = msgspec.structs.replace(
        first,
        name=JOINT.join(names),
        title=f" {JOINT} ".join(part.card.title for part in parts),
        notice=" ".join(part.card.notice for part in parts if part.card.notice),
        aliases=(),
        group="",
        in_all=False,
        cameras=sum(part.card.cameras for part in parts) if all(part.card.cameras for part in parts) else 0,
        image_size=first.image_size if len({part.card.image_size for part in parts}) == 1 else "",
        options={},
        expected=_expected(parts),
    )
    return replace(parts[0], card=card, parts=tuple(parts))


def people(name: str) -> str:
    """Returns a name for the people of a dataset, the same for all datasets of these people."""
    return next((family[0] for family in SAME_PEOPLE if name in family), name)


def others(datasets: Sequence[DatasetEntry], left_out: DatasetEntry) -> list[DatasetEntry]:
    """Returns the datasets of other people than those of one dataset, one for each group of people."""
    found: dict[str, DatasetEntry] = {}
    for entry in datasets:
        found.setdefault(people(entry.name), entry)
    return [entry for name, entry in found.items() if name != people(left_out.name)]


def _expected(parts: Sequence[DatasetEntry]) -> dict[str, SplitCount]:
    """Returns the expected counts; without those of training images if a card does not have them."""
    expected = dict(parts[0].card.expected)
    stated = [part.card.expected.get("train") for part in parts]
    if any(row is None for row in stated):
        expected.pop("train", None)
        return expected
    rows = [row for row in stated if row is not None]
    expected["train"] = SplitCount(
        sum(row.images for row in rows),
        sum(row.identities for row in rows),
        sum(row.cameras for row in rows),
    )
    return expected
