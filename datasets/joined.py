"""Several training sets as one: identities and cameras of different sets never have the same number."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets.fingerprint_cache import Facts
from harness.contracts import Item, Splits
from harness.errors import DataError

if TYPE_CHECKING:
    from harness.registry import DatasetEntry

TRAIN = ("train",)


def wanted(position: int, splits: Sequence[str]) -> Sequence[str]:
    """Returns the splits to read of a part: all of the first one, and training images of the others."""
    return splits if position == 0 else TRAIN


def splits_of(parts: Sequence[DatasetEntry], read: Callable[[int], Splits]) -> Splits:
    """Joins the training images of all parts; query and gallery are those of the first part.

    Args:
        parts: the datasets.
        read: reads the splits of the part at a position.

    Raises:
        DataError: real and generated data, or images of different gray ranges, are mixed.
    """
    found = [read(position) for position in range(len(parts))]
    names = [part.name for part in parts]
    if len({splits.generated is None for splits in found}) > 1:
        raise DataError(f"Some of {', '.join(names)} are generated data and others are not. Join one kind only.")
    if len({splits.value_range for splits in found}) > 1:
        raise DataError(f"The images of {', '.join(names)} have different values of black and white (value_range).")
    first, train = found[0], list[Item]()
    pids, camids = 0, 0
    for splits in found:
        train += [item._replace(pid=item.pid + pids, camid=item.camid + camids) for item in splits.train]
        every = (*splits.train, *splits.query, *splits.gallery)
        pids += max((item.pid for item in every), default=-1) + 1
        camids += max((item.camid for item in every), default=-1) + 1
    root = Path(os.path.commonpath([splits.root for splits in found]))
    layout = "+".join(splits.layout for splits in found)
    notes = {**first.notes, "joined": dict(zip(names, (splits.layout for splits in found), strict=True))}
    return Splits(train, first.query, first.gallery, root, layout, _generated(found), notes)


def _generated(found: Sequence[Splits]) -> dict[str, Any] | None:
    """Returns the content of `stand-in.json` of the joined data, with the stated counts added up."""
    if found[0].generated is None:
        return None
    counts = {name: dict(row) for name, row in dict(found[0].generated.get("counts") or {}).items()}
    for splits in found[1:]:
        stated = (splits.generated or {}).get("counts") or {}
        train = stated.get("train") or {}
        for quantity in counts.get("train", {}):
            counts["train"][quantity] += train.get(quantity, 0)
        if "train" in counts and "val" in splits.notes.get("lists", {}):  # the same people as in train
            counts["train"]["images"] += (stated.get("val") or {}).get("images", 0)
    return {**found[0].generated, "counts": counts}


def facts_of(parts: Sequence[DatasetEntry], read: Callable[[int], Facts]) -> Facts:
    """Joins the facts of all parts; those about query and gallery are of the first part."""
    found = [read(position) for position in range(len(parts))]
    first = found[0]
    return Facts(
        fingerprint=hashlib.sha256("+".join(facts.fingerprint for facts in found).encode()).hexdigest(),
        images=sum(facts.images for facts in found),
        identities=sum(facts.identities for facts in found),
        queries=first.queries,
        matched=first.matched,
        unseen=first.unseen,
    )
