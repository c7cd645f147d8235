"""MAT-files that scipy can read give the same arrays."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.readers import matfile

TYPES = ["u1", "i2", "u2", "i4", "u4", "f4", "f8", "i8", "u8"]


def as_scipy(data: bytes) -> dict[str, list[Any]]:
    found = {}
    for name, value in scipy.io.loadmat(io.BytesIO(data)).items():
        if not name.startswith("__"):
            values = value.ravel(order="F").tolist()
            found[name] = [str(v.ravel()[0]) if isinstance(v, np.ndarray) else v for v in values]
    return found


@settings(max_examples=60, deadline=None)
@given(
    numbers=st.lists(st.integers(0, 255), min_size=1, max_size=40),
    dtype=st.sampled_from(TYPES),
    names=st.lists(st.text("abc_.0123456789é", min_size=1, max_size=20), min_size=1, max_size=8),
    compressed=st.booleans(),
    rows=st.booleans(),
)
def test_numbers_and_names_come_back(
    numbers: list[int], dtype: str, names: list[str], compressed: bool, rows: bool
) -> None:
    cells = np.empty(len(names), dtype=object)
    cells[:] = names
    column = np.array(numbers, dtype)
    file = io.BytesIO()
    table = {"filelist": cells[:, None], "labels": column[None] if rows else column[:, None]}
    scipy.io.savemat(file, {**table, "other": {"a": 1}}, do_compression=compressed)
    found = matfile.read(file.getvalue())
    assert found["filelist"] == names and found["labels"] == numbers
    assert {name: found[name] for name in table} == {name: as_scipy(file.getvalue())[name] for name in table}


def test_columns_come_before_rows() -> None:
    file = io.BytesIO()
    scipy.io.savemat(file, {"x": np.array([[1, 2], [3, 4]])})
    assert matfile.read(file.getvalue())["x"] == [1, 3, 2, 4]


def test_the_published_protocols_are_read_as_scipy_reads_them(shared: Path) -> None:
    files = sorted(shared.rglob("cuhk03_new_protocol_config_*.mat"))
    if not files:
        pytest.skip(f"needs CUHK03's published protocols below {shared}; with them run: python -m pytest")
    for path in files:
        expected = as_scipy(path.read_bytes())
        found = matfile.read(path.read_bytes())
        assert {"filelist", "labels", "camId", "train_idx", "query_idx", "gallery_idx"} <= found.keys()
        assert {name: found[name] for name in expected} == expected


@pytest.mark.slow
def test_a_bomb_is_refused() -> None:
    import struct
    import zlib

    packed = zlib.compress(bytes(matfile.LARGEST + 16), 9)
    data = (
        b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + struct.pack("<II", matfile.COMPRESSED, len(packed)) + packed
    )
    with pytest.raises(ValueError, match="too large"):
        matfile.read(data)
