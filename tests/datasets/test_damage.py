"""Damaged, unusual and hostile folders: each is a clear error or a documented acceptance."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from harness import registry
from harness.errors import DataError
from harness.registry import dataset_checks
from tests.support import small_datasets as small

MARKET, MSMT = "Market-1501-v15.09.15", "MSMT17_V1"
QUERY = "0001_c1s1_000005_01.jpg"
Change = Callable[[Path], object]


def rename(folder: Path, name: str, to: str) -> None:
    (folder / name).rename(folder / to)


def raw(name: bytes) -> Change:
    """An image under a name that need not be valid Unicode."""
    return lambda f: Path(os.fsdecode(os.path.join(os.fsencode(f / "query"), name))).write_bytes(b"x")


def relist(name: str, change: Callable[[str], str]) -> Change:
    return lambda f: (f / name).write_text(change((f / name).read_text()))


def linked(folder: Path) -> None:
    """Every query becomes a relative link to an image outside the dataset."""
    for path in list((folder / "query").iterdir()):
        store = folder.parent / "store" / path.name
        store.parent.mkdir(exist_ok=True)
        path.rename(store)
        path.symlink_to(os.path.relpath(store, path.parent))


MARKET_ERRORS: dict[str, tuple[Change, str]] = {
    "missing folder": (lambda f: shutil.rmtree(f / "query"), "it lacks query"),
    "two missing folders": (
        lambda f: [shutil.rmtree(f / sub) for sub in ("query", "bounding_box_test")],
        "it lacks query, bounding_box_test",
    ),
    "file in place of a folder": (
        lambda f: [shutil.rmtree(f / "query"), (f / "query").touch()],
        "query cannot be read: Not a directory",
    ),
    "empty folder": (
        lambda f: [p.unlink() for p in (f / "query").iterdir()],
        r"has no images of the query",
    ),
    "empty training folder": (
        lambda f: [p.unlink() for p in (f / "bounding_box_train").iterdir()],
        "no images of the train split",
    ),
    "wrong name": (
        lambda f: small.picture(f / "query" / "portrait.jpg"),
        "query has 1 image.* whose name is not like 0002_c1s1_000451_03.jpg .* 'portrait.jpg'",
    ),
    "a copy's name": (lambda f: small.picture(f / "query" / "Copy of 0001_c1s1_000005_01.jpg"), "'Copy of 0001"),
    "no camera": (lambda f: small.picture(f / "query" / "0001_s1_000005_01.jpg"), "0001_s1"),
    "camera zero": (
        lambda f: small.picture(f / "query" / "0001_c0s1_000005_01.jpg"),
        "with cameras from 1 on: '0001_c0",
    ),
    "identity -2": (lambda f: small.picture(f / "query" / "-2_c1s1_000005_01.jpg"), "'-2_c1"),
    "huge identity": (lambda f: small.picture(f / "query" / f"{'9' * 20}_c1s1_000005_01.jpg"), "99999999999_c1"),
    "huge camera": (lambda f: small.picture(f / "query" / f"0001_c{'9' * 40}s1_000005_01.jpg"), "0001_c999"),
    "digits of another script": (lambda f: (f / "query" / "٠٠٠١_c1s1_000005_01.jpg").touch(), "whose name is not like"),
    "a name that is not Unicode": (raw(b"\xff\xfe.jpg"), r"whose name is not like"),
    "a line break in a name": (raw(b"a\nb.jpg"), r"'a\\nb.jpg'"),
    "link to nothing": (
        lambda f: (f / "query" / "0001_c2s1_000005_01.jpg").symlink_to("gone.jpg"),
        "0001_c2s1_000005_01.jpg is a broken link",
    ),
    "link to itself": (
        lambda f: (f / "query" / "0001_c2s1_000005_01.jpg").symlink_to("0001_c2s1_000005_01.jpg"),
        "(link to nothing|cannot be read)",
    ),
    "names of another dataset": (
        lambda f: [p.rename(p.with_name(p.name.replace("s1_", "_f"))) for p in (f / "bounding_box_train").iterdir()],
        "image names such as .* are not like 0002_c1s1_000451_03.jpg",
    ),
    "only junk": (
        lambda f: [p.rename(p.with_name("-1" + p.name[4:])) for p in (f / "query").iterdir()],
        "no images of the query split",
    ),
}

MARKET_ACCEPTED: dict[str, tuple[Change, str, object]] = {
    "Thumbs.db": (lambda f: (f / "query" / "Thumbs.db").write_bytes(b"x"), "ignored_files", 1),
    "text beside the images": (lambda f: (f / "query" / "readme.txt").touch(), "ignored_files", 1),
    "a Mac's hidden file": (lambda f: (f / "query" / f"._{QUERY}").write_bytes(b"x"), "ignored_files", 1),
    "a folder named like an image": (
        lambda f: (f / "query" / "0001_c2s1_01_01.jpg").mkdir(), "ignored_folders", ["query/0001_c2s1_01_01.jpg"]
    ),
    "a folder beside the images": (lambda f: (f / "query" / "old").mkdir(), "ignored_files", None),
    ".JPG": (lambda f: rename(f / "query", QUERY, "0001_c1s1_000005_01.JPG"), "ignored_files", None),
    ".jpeg": (lambda f: rename(f / "query", QUERY, "0001_c1s1_000005_01.jpeg"), "ignored_files", None),
    ".PNG": (lambda f: rename(f / "query", QUERY, "0001_c1s1_000005_01.PNG"), "ignored_files", None),
    "images are relative links": (linked, "ignored_files", None),
    "gt_bbox beside the folders": (lambda f: small.picture(f / "gt_bbox" / "x.jpg"), "ignored_files", None),
}  # fmt: skip

MSMT_ERRORS: dict[str, tuple[Change, str]] = {
    "a missing list": (lambda f: (f / "list_val.txt").unlink(), "it lacks list_val.txt"),
    "a list naming an absent image": (
        lambda f: next((f / "test" / "0001").glob("*_05_*")).unlink(),
        r"list_gallery.txt .* 1 listed image\(s\) do not exist: 'test/0001/0001_001_05",
    ),
    "a missing identity folder": (lambda f: shutil.rmtree(f / "train" / "0000"), r"2 listed image\(s\) do not exist"),
    "an empty list": (lambda f: (f / "list_query.txt").write_text(""), "no images of the query split"),
    "a list that is not text": (
        lambda f: (f / "list_query.txt").write_bytes(b"\xff\xfe\0"),
        "not a UTF-8 text file",
    ),
    "a folder in place of a list": (
        lambda f: [(f / "list_query.txt").unlink(), (f / "list_query.txt").mkdir()],
        "list_query.txt cannot be read: Is a directory",
    ),
    "a line without identity": (relist("list_query.txt", lambda t: t.replace(" 0\n", "\n")), "line 1: expected"),
    "an identity that is no number": (
        relist("list_query.txt", lambda t: t.replace(" 0\n", " x\n")),
        "line 1: expected",
    ),
    "a negative identity": (relist("list_query.txt", lambda t: t.replace(" 0\n", " -1\n")), "line 1: expected"),
    "a wrong identity": (relist("list_query.txt", lambda t: t.replace(" 0\n", " 1\n")), "identity 1 contradicts"),
    "an image twice": (relist("list_query.txt", lambda t: t + t), "images are listed twice"),
    "a path upwards": (relist("list_query.txt", lambda t: "../../etc/0000_000_01_x.jpg 0\n"), "line 1: expected"),
    "an absolute path": (relist("list_query.txt", lambda t: "/etc/0000_000_01_x.jpg 0\n"), "line 1: expected"),
    "a name without camera": (relist("list_query.txt", lambda t: "0000/0000.jpg 0\n"), "no camera from 1 on"),
    "camera 00": (relist("list_query.txt", lambda t: t.replace("_01_", "_00_")), "no camera from 1 on"),
}

MSMT_ACCEPTED: dict[str, Change] = {
    "Windows line ends": lambda f: (f / "list_query.txt").write_bytes(
        (f / "list_query.txt").read_bytes().replace(b"\n", b"\r\n")
    ),
    "a byte-order mark": lambda f: (f / "list_query.txt").write_bytes(
        b"\xef\xbb\xbf" + (f / "list_query.txt").read_bytes()
    ),
    "no final line end, blank lines": relist("list_query.txt", lambda t: "\n" + t.rstrip() + "\n\n   "),
    "images nobody lists": lambda f: small.picture(f / "test" / "0000" / "0000_009_01_x_0.jpg"),
}


@pytest.mark.parametrize("kind", MARKET_ERRORS)
def test_market_damage_is_an_error(kind: str, tmp_path: Path) -> None:
    change, message = MARKET_ERRORS[kind]
    change(small.market(tmp_path / MARKET))
    with pytest.raises(DataError, match=message) as error:
        registry.dataset("market1501").load(tmp_path)
    str(error.value).encode()  # can be printed


@pytest.mark.parametrize("kind", MARKET_ACCEPTED)
def test_market_oddities_are_accepted_and_noted(kind: str, tmp_path: Path) -> None:
    change, note, value = MARKET_ACCEPTED[kind]
    change(small.market(tmp_path / MARKET))
    splits = registry.dataset("market1501").load(tmp_path)
    assert [(item.pid, item.camid) for item in splits.query] == [(1, 0), (3, 1)]
    assert splits.notes.get(note) == value
    json.dumps(splits.notes)


@pytest.mark.parametrize("above", ["exp1_c4", "0002_c5s1_1", "with space", "ünïcode", "-1_c2"])
def test_folder_names_above_do_no_harm(above: str, tmp_path: Path) -> None:
    small.market(tmp_path / above / MARKET)
    splits = registry.dataset("market1501").load(tmp_path / above)
    assert [(item.pid, item.camid) for item in splits.query] == [(1, 0), (3, 1)]


def test_cameras_with_two_digits(tmp_path: Path) -> None:
    folder = small.market(tmp_path / "MSMT17", "c{cam}_{n:06d}.jpg")
    next((folder / "bounding_box_test").glob("-1*")).unlink()
    small.picture(folder / "bounding_box_test" / "0001_c15_000451.jpg")
    small.picture(folder / "bounding_box_test" / "0001_c1_000451.jpg")
    splits = registry.dataset("msmt17").load(tmp_path)
    assert {item.camid for item in splits.gallery if item.pid == 1} == {0, 1, 14}


def test_a_camera_the_card_does_not_know_is_a_mismatch(tmp_path: Path) -> None:
    small.picture(small.market(tmp_path / MARKET) / "query" / "0001_c7s1_000001_00.jpg")
    entry = registry.dataset("market1501")
    sentences = dataset_checks.check_counts(entry, entry.load(tmp_path))
    assert any("also has 7 (first images: query/0001_c7s1_000001_00.jpg)" in s for s in sentences)


@pytest.mark.parametrize("kind", MSMT_ERRORS)
def test_msmt17_damage_is_an_error(kind: str, tmp_path: Path) -> None:
    change, message = MSMT_ERRORS[kind]
    change(small.msmt17(tmp_path / MSMT))
    with pytest.raises(DataError, match=message):
        registry.dataset("msmt17").load(tmp_path)


@pytest.mark.parametrize("kind", MSMT_ACCEPTED)
def test_msmt17_oddities_are_accepted(kind: str, tmp_path: Path) -> None:
    folder = small.msmt17(tmp_path / MSMT)
    before = registry.dataset("msmt17").load(tmp_path)
    MSMT_ACCEPTED[kind](folder)
    assert registry.dataset("msmt17").load(tmp_path).query == before.query


def protocol_table(**changes: object) -> dict[str, object]:
    names = np.empty((6, 1), dtype=object)
    names[:, 0] = [
        "1_001_1_01.png",
        "1_001_2_06.png",
        "1_002_1_01.png",
        "1_002_2_06.png",
        "1_003_1_01.png",
        "1_003_2_06.png",
    ]
    table: dict[str, object] = {
        "filelist": names,
        "labels": np.array([[1], [1], [2], [2], [3], [3]], np.uint16),
        "camId": np.array([[1], [2]] * 3, np.uint8),
        "train_idx": np.array([[1, 2]], np.uint16),
        "query_idx": np.array([[3, 5]], np.uint16),
        "gallery_idx": np.array([[4, 6]], np.uint16),
    }
    return {**table, **changes}


CUHK_ERRORS: dict[str, dict[str, object]] = {
    "index zero": {"train_idx": np.array([[0, 2]], np.uint16)},
    "index beyond the end": {"train_idx": np.array([[1, 7]], np.uint16)},
    "an image in two splits": {"train_idx": np.array([[1, 3]], np.uint16)},
    "labels cut off": {"labels": np.array([[1], [1]], np.uint16)},
    "a third view": {"camId": np.array([[1], [3]] * 3, np.uint8)},
    "text for numbers": {"labels": np.array(["one"])},
    "names of another kind": {"filelist": np.array([["../../x.png"]] * 6, dtype=object)},
}


def cuhk03(folder: Path, table: dict[str, object]) -> Path:
    for index in range(3):
        for view, column in ((1, 1), (2, 6)):
            small.picture(folder / "images_detected" / f"1_{index + 1:03d}_{view}_{column:02d}.png", 10 * index + view)
    scipy.io.savemat(folder / "cuhk03_new_protocol_config_detected.mat", table)
    return folder


def test_cuhk03_indices_count_from_one(tmp_path: Path) -> None:
    cuhk03(tmp_path / "cuhk03", protocol_table())
    splits = registry.dataset("cuhk03-detected").load(tmp_path)
    assert [(item.path.name, item.pid, item.camid) for item in splits.train + splits.query] == [
        ("1_001_1_01.png", 1, 0), ("1_001_2_06.png", 1, 1), ("1_002_1_01.png", 2, 0), ("1_003_1_01.png", 3, 0)
    ]  # fmt: skip


@pytest.mark.parametrize("kind", CUHK_ERRORS)
def test_a_damaged_protocol_file_is_an_error(kind: str, tmp_path: Path) -> None:
    cuhk03(tmp_path / "cuhk03", protocol_table(**CUHK_ERRORS[kind]))
    with pytest.raises(DataError, match=r"is inconsistent|not a file of CUHK03's new protocol"):
        registry.dataset("cuhk03-detected").load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"MATLAB 5.0 MAT-file" + bytes(200), os.urandom(300)])
def test_a_protocol_file_that_is_none_is_an_error(content: bytes, tmp_path: Path) -> None:
    folder = cuhk03(tmp_path / "cuhk03", protocol_table())
    (folder / "cuhk03_new_protocol_config_detected.mat").write_bytes(content)
    with pytest.raises(DataError, match="not a file of CUHK03's new protocol"):
        registry.dataset("cuhk03-detected").load(tmp_path)


IMAGE_DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "zero bytes": (lambda b: b"", "the file is empty"),
    "truncated JPEG": (lambda b: b[: len(b) // 2], "truncated|broken|cannot"),
    "text": (lambda b: b"<html>403 Forbidden</html>", "it is not an image"),
    "all zeros": (lambda b: bytes(len(b)), "it is not an image"),
}


@pytest.mark.parametrize("kind", IMAGE_DAMAGE)
def test_a_damaged_image_is_found_by_the_deep_check(kind: str, tmp_path: Path) -> None:
    change, message = IMAGE_DAMAGE[kind]
    path = small.market(tmp_path / MARKET) / "query" / QUERY
    path.write_bytes(change(path.read_bytes()))
    splits = registry.dataset("market1501").load(tmp_path)
    [error] = [finding for finding in dataset_checks.check_images(splits) if finding.level == "error"]
    assert error.examples == (str(path),)
    assert re.search(message, error.sentence)
