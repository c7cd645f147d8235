"""Properties of the readers: valid datasets are read back, all others raise a DataError."""

from __future__ import annotations

import contextlib
import csv
import io
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.readers import cuhk03, market, msmt17, table
from datasets.readers.source import Source, below, number, order, printable
from harness.errors import DataError

FEW = settings(max_examples=60, deadline=None)
NAMES = st.text(st.characters(blacklist_characters="/\0", blacklist_categories=("Cs",)), min_size=1, max_size=40)


@FEW
@given(pid=st.integers(0, 9999), cam=st.integers(1, 99), tail=st.text("cs_0123456789", max_size=12))
def test_identity_and_camera_come_back(pid: int, cam: int, tail: str) -> None:
    match = re.match(market.PATTERN, f"{pid:04d}_c{cam}s1_{tail}.jpg", re.ASCII)
    assert match and (number(match["pid"]), number(match["camid"])) == (pid, cam)


@FEW
@given(st.lists(NAMES.map(lambda name: f"{name}.jpg"), min_size=1, max_size=5))
def test_any_file_name_is_read_or_refused(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for sub in ("bounding_box_train", "query", "bounding_box_test"):
            (Path(folder) / sub).mkdir()
            for name in names:
                with contextlib.suppress(OSError):  # the file system's own limits
                    (Path(folder) / sub / name).touch()
        with contextlib.suppress(DataError):
            splits = market.read(Source(Path(folder)))
            assert all(item.pid >= 0 and item.camid >= 0 for items in splits.values() for item in items)


def lists(folder: Path, text: str) -> dict[str, list]:
    for name in ("list_train.txt", "list_val.txt", "list_query.txt", "list_gallery.txt"):
        (folder / name).write_text(text, encoding="utf-8", newline="")
    return msmt17.read(Source(folder))


LINE = st.one_of(
    st.text(max_size=60),
    st.builds("{:04d}/{:04d}_000_{:02d}_x_0.jpg {}".format, *[st.integers(0, 3)] * 4),
    st.builds("{}/{}_{}_{}_ {}".format, *[st.text("0123456789_./-", max_size=6)] * 5),
)


@FEW
@given(st.lists(LINE, max_size=6))
def test_any_list_is_read_or_refused(lines: list[str]) -> None:
    text = "\n".join(line.encode("utf-8", "replace").decode() for line in lines)
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(DataError):
        lists(Path(folder), text)


ROW = st.tuples(
    st.integers(0, 30).map("images/{:02d}.jpg".format),
    st.integers(-1, 50),
    st.integers(0, 20),
    st.sampled_from(["train", "query", "gallery"]),
)


@FEW
@given(st.lists(ROW, min_size=1, max_size=20, unique_by=lambda row: (row[0], row[3])))
def test_a_table_comes_back(rows: list[tuple[str, int, int, str]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "images").mkdir()
        with (folder / "items.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerows([("split", "note", "camid", "pid", "path")])
            writer.writerows((split, "a,\n'b\"", camid, pid, path) for path, pid, camid, split in rows)
        for path, *_ in rows:
            (folder / path).touch()
        source = Source(folder)
        found = table.read(source)
        read = [(str(i.path.relative_to(folder)), i.pid, i.camid, s) for s, items in found.items() for i in items]
        assert sorted(read) == sorted(row for row in rows if row[1] >= 0)
        assert sum(source.notes.get("junk", {}).values()) == sum(row[1] < 0 for row in rows)
        assert all(items == sorted(items) for items in found.values())


@FEW
@given(st.text(st.characters(blacklist_categories=("Cs",)), max_size=200))
def test_any_table_is_read_or_refused(text: str) -> None:
    for content in (text, "path,pid,camid,split\n" + text):
        with tempfile.TemporaryDirectory() as folder, contextlib.suppress(DataError):
            (Path(folder) / "items.csv").write_text(content, encoding="utf-8", newline="")
            table.read(Source(Path(folder)))


@FEW
@given(st.binary(max_size=400))
def test_any_bytes_are_a_protocol_file_or_refused(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for start in (b"", b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"):
            path = Path(folder) / "config.mat"
            path.write_bytes(start + content)
            with pytest.raises(DataError):
                cuhk03.protocol(path)


@FEW
@given(
    st.one_of(st.text(max_size=40), st.sampled_from(["null", '{"testsets": 3}', '{"testsets": [[[1]]]}', "[" * 5000]))
)
def test_any_text_is_a_list_of_test_sets_or_refused(text: str) -> None:
    with pytest.raises(DataError):
        cuhk03.testsets(text, Path("x.json"))


@FEW
@given(st.text(max_size=30))
def test_numbers_are_sane_or_nothing(text: str) -> None:
    value = number(text)
    assert value is None or (value == int(text) and abs(value) < 2**63 and text.isascii())


@pytest.mark.parametrize("text", ["", "²", "٣", "1e3", "0x1", "1_0", "9" * 5000, str(2**63), "--1", "1 2"])
def test_what_is_no_number(text: str) -> None:
    assert number(text) is None


@FEW
@given(st.lists(st.text("ab-./", min_size=1, max_size=6), max_size=6))
def test_order_is_that_of_paths(names: list[str]) -> None:
    plain = [str(Path("x") / name.strip("/.")) for name in names]
    assert sorted(plain, key=order) == [str(path) for path in sorted(map(Path, plain))]


PATHS = {
    "a/b.jpg": "a/b.jpg",
    "a/..b.jpg": "a/..b.jpg",
    "./a/../a//b.jpg": "a/b.jpg",
    "a\\b.jpg": "a/b.jpg",
    "FOLDER/a/b.jpg": "a/b.jpg",
    "LINK/a/b.jpg": "a/b.jpg",
    "FOLDER/../folder/a/b.jpg": "a/b.jpg",
    "..": "",
    "../a": "",
    "a/../../folder-2/b": "",
    "FOLDER-2/b": "",
    "/a": "",
    "": "",
    ".": "",
    "FOLDER": "",
    "C:\\a.jpg": "",
    "a\0.jpg": "",
}


@pytest.mark.parametrize("text", PATHS)
@pytest.mark.parametrize("base", ["folder", "link"])
def test_what_lies_below_a_folder(text: str, base: str, tmp_path: Path) -> None:
    (tmp_path / "folder" / "a").mkdir(parents=True)
    (tmp_path / "link").symlink_to("folder")
    path = text.replace("FOLDER", str(tmp_path / "folder")).replace("LINK", str(tmp_path / "link"))
    assert below(tmp_path / base, path) == PATHS[text]


def test_a_field_beyond_the_limit_of_csv_is_refused(tmp_path: Path) -> None:
    buffer = io.StringIO("path,pid,camid,split\n" + "x" * 200_000 + ",1,1,train\n")
    (tmp_path / "items.csv").write_text(buffer.getvalue())
    with pytest.raises(DataError, match="not valid CSV"):
        table.read(Source(tmp_path))


def test_any_name_can_be_shown() -> None:
    assert printable("a\udcffb") == "a\\udcffb"
