"""Datasets that are trained on together, named `market1501+msmt17`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec

from harness.cards import SplitCount
from harness.errors import UsageError
from harness.registry.entries import DatasetEntry

JOINT = "+"


def join(parts: Sequence[DatasetEntry]) -> DatasetEntry:
    """Returns the entry of several datasets: the training images of all, query and gallery of the first.

    Raises:
        UsageError: a dataset is named twice.
    """
    names = [part.name for part in parts]
    if len(set(names)) < len(names):
        raise UsageError(f"A dataset is named twice in {JOINT.join(names)}.")
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
