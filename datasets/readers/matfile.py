"""Reads arrays of numbers and lists of text from untrusted MAT-files of level 5 (MATLAB 5 to 7.2).

Source: MathWorks, "MAT-File Format". scipy's reader is not used, because it crashes the process on some damaged files.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

HEADER = 128
MATRIX, COMPRESSED = 14, 15
NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
TEXTS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
WIDE = (4, 17, 18)
CELL, TEXT, NUMERIC = 1, 4, range(6, 16)
LARGEST = 1 << 28
"""Maximum size of a decompressed variable, in bytes; protocol files need one or two million."""


def read(data: bytes) -> dict[str, list[Any]]:
    """Returns the variables by name: the numbers of an array in column-major order, or a list of texts.

    Variables of other types are left out.

    Raises:
        ValueError: the file has another format or is damaged.
    """
    return {
        name: value.ravel(order="F").tolist() if isinstance(value, np.ndarray) else value
        for name, value in arrays(data).items()
    }


def arrays(data: bytes, largest: int = LARGEST) -> dict[str, np.ndarray | list[str]]:
    """Returns the variables by name: arrays of numbers, or the texts of a cell array or of the rows of a char matrix.

    Variables of other types are left out.

    Args:
        data: content of the file.
        largest: maximum size of a decompressed variable, in bytes.

    Raises:
        ValueError: the file has another format or is damaged.
    """
    order = {b"IM": "<", b"MI": ">"}.get(data[126:HEADER], "")
    if not order:
        raise ValueError("it does not have the header of a MAT-file of level 5")
    found = {}
    for kind, content in _elements(memoryview(data)[HEADER:], order):
        if kind == COMPRESSED:
            content = _inflated(content, largest)
            kind, content = next(_elements(content, order), (0, memoryview(b"")))
        if kind == MATRIX:
            name, values = _matrix(content, order)
            found[name] = values
    return {name: values for name, values in found.items() if values is not None}


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Yields type and content of each element. Short ones are stored in their tag; all but compressed are padded."""
    at = 0
    while at + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        start = at + 8
        if kind >> 16:
            kind, size, start = kind & 0xFFFF, kind >> 16, at + 4
        if start + size > len(data) or (start == at + 4 and size > 4):
            raise ValueError("an element is truncated")
        yield kind, data[start : start + size]
        at = start + size if kind == COMPRESSED else at + 8 if start == at + 4 else start + size + -size % 8


def _inflated(content: memoryview, largest: int) -> memoryview:
    unpacked = zlib.decompressobj()
    data = unpacked.decompress(content, largest)
    if unpacked.unconsumed_tail or not unpacked.eof:
        raise ValueError("a compressed variable is truncated or too large")
    return memoryview(data)


def _matrix(content: memoryview, order: str, nested: bool = False) -> tuple[str, np.ndarray | list[str] | None]:
    """Returns name and values of an array; None instead of values for other types."""
    (_, flags), (_, shape), (_, name_), *rest = _elements(content, order)
    kind = struct.unpack_from(f"{order}I", flags)[0] & 0xFF
    name = bytes(name_).decode("ascii", "replace")
    sides = np.frombuffer(shape, f"{order}i4").tolist()
    values: np.ndarray | list[str]
    if kind in NUMERIC and rest:
        values = np.frombuffer(rest[0][1], order + NUMBERS[rest[0][0]])
    elif kind == TEXT and rest:
        return name, _rows(rest[0], sides, order)
    elif kind == CELL and not nested:
        values = [_text(inner, order) for _, inner in rest]
    else:
        return name, None
    if len(values) != math.prod(sides) or min(sides, default=0) < 0:
        raise ValueError("the size of an array contradicts its header")
    return name, values.reshape(sides, order="F") if isinstance(values, np.ndarray) else values


def _rows(stored: tuple[int, memoryview], sides: list[int], order: str) -> list[str]:
    """Returns the rows of a char matrix, which is stored in column-major order, without trailing spaces."""
    kind, letters = stored
    end = {"<": "-le", ">": "-be"}[order] if kind in WIDE else ""
    text = bytes(letters).decode(TEXTS[kind] + end)
    if len(sides) != 2 or sides[0] < 2 or len(text) != math.prod(sides):
        return [text]
    return [text[row :: sides[0]].rstrip() for row in range(sides[0])]


def _text(content: memoryview, order: str) -> str:
    _, values = _matrix(content, order, nested=True)
    if values is None or len(values) != 1 or not isinstance(values[0], str):
        raise ValueError("a cell does not contain text")
    return values[0]
