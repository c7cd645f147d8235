"""The readers of layouts, by the names used in cards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from datasets.readers import cuhk03, folders, market, msmt17, table
from harness.contracts import Item


def _no_probe(folder: Path, **options: object) -> str:
    return ""


@dataclass(frozen=True)
class Reader:
    """The functions that detect and read a layout.

    Attributes:
        read: `read(source, **options)` returns the items of each split, sorted by path.
        needs: `needs(**options)` returns the names of files and folders that must exist below the folder.
        probe: `probe(folder, **options)` returns the reason if the content does not fit, or an empty string.
    """

    read: Callable[..., dict[str, list[Item]]]
    needs: Callable[..., list[str]]
    probe: Callable[..., str] = _no_probe


READERS = {
    "market": Reader(market.read, market.needs, market.probe),
    "msmt17": Reader(msmt17.read, msmt17.needs),
    "cuhk03": Reader(cuhk03.read, cuhk03.needs),
    "cuhk03-classic": Reader(cuhk03.read_classic, cuhk03.needs_classic),
    "csv": Reader(table.read, table.needs),
    "folders": Reader(folders.read, folders.needs),
}
