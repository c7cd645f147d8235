"""Readers of the known layouts, by the name a card uses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from datasets.readers import cuhk03, folders, market, msmt17, table
from harness.contracts import Item


def _nothing_to_say(folder: Path, **options: object) -> str:
    return ""


@dataclass(frozen=True)
class Reader:
    """How a layout is recognised and read.

    Attributes:
        read: `read(source, **options)` returns the items of each split, sorted by path.
        needs: `needs(**options)` names what must exist below the folder.
        probe: `probe(folder, **options)` says in a few words why the content is something else, or nothing.
    """

    read: Callable[..., dict[str, list[Item]]]
    needs: Callable[..., list[str]]
    probe: Callable[..., str] = _nothing_to_say


READERS = {
    "market": Reader(market.read, market.needs, market.probe),
    "msmt17": Reader(msmt17.read, msmt17.needs),
    "cuhk03": Reader(cuhk03.read, cuhk03.needs),
    "cuhk03-classic": Reader(cuhk03.read_classic, cuhk03.needs_classic),
    "csv": Reader(table.read, table.needs),
    "folders": Reader(folders.read, folders.needs),
}
