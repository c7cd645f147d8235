"""The fingerprint changes only with the files of a dataset, and is cached between calls."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from datasets import fingerprint_cache, layouts
from harness import registry
from harness.system import paths
from tests.support import small_datasets as small

MARKET = "Market-1501-v15.09.15"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    small.market(tmp_path / "data" / MARKET)
    small.settle(tmp_path)
    return tmp_path / "data"


def test_it_is_the_same_elsewhere_and_in_another_order(root: Path, tmp_path: Path) -> None:
    entry = registry.dataset("market1501")
    first = entry.fingerprint(root)
    copy = tmp_path / "elsewhere" / "market1501"
    for path in sorted((p for p in root.rglob("*") if p.is_file()), reverse=True):
        target = copy / path.relative_to(root / MARKET)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    assert len(first) == 64
    assert entry.fingerprint(copy) == entry.fingerprint(copy.parent) == first


CHANGES: dict[str, Callable[[Path], object]] = {
    "an image less": lambda f: sorted((f / "query").iterdir())[0].unlink(),
    "an image more": lambda f: small.picture(f / "query" / "0001_c3s1_000001_00.jpg"),
    "another camera": lambda f: sorted((f / "query").iterdir())[0].rename(f / "query" / "0001_c2s1_000005_01.jpg"),
    "another name": lambda f: sorted((f / "query").iterdir())[0].rename(f / "query" / "0001_c1s1_000009_01.jpg"),
    "into another split": lambda f: sorted((f / "query").iterdir())[0].rename(
        f / "bounding_box_test" / "0001_c1s1_000005_01.jpg"
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_it_changes_with_what_is_read(change: str, root: Path) -> None:
    entry = registry.dataset("market1501")
    first = entry.fingerprint(root)
    CHANGES[change](root / MARKET)
    second = entry.fingerprint(root)
    assert second != first
    small.settle(root)
    assert entry.fingerprint(root) == second


def test_an_image_of_another_size_changes_it(root: Path) -> None:
    entry = registry.dataset("market1501")
    splits = entry.load(root)
    first = fingerprint_cache.digest(splits)
    splits.query[0].path.write_bytes(splits.query[0].path.read_bytes() + b"!")
    assert fingerprint_cache.digest(splits) != first


def test_it_is_remembered_without_reading(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = registry.dataset("market1501")
    first = entry.fingerprint(root)
    monkeypatch.setattr(layouts, "_read", None)  # reading would fail
    assert entry.fingerprint(root) == first


def test_data_that_changed_just_now_is_not_remembered(root: Path) -> None:
    small.picture(root / MARKET / "query" / "0003_c1s1_000001_00.jpg")
    registry.dataset("market1501").fingerprint(root)
    assert not list(paths.cache_folder().rglob("*.json"))


def test_lists_and_options_are_part_of_the_key(tmp_path: Path) -> None:
    folder = small.msmt17(tmp_path / "MSMT17_V1")
    small.msmt17(tmp_path / "MSMT17_V2", "mask_train_v2", "mask_test_v2")
    small.settle(tmp_path)
    entry = registry.dataset("msmt17")
    first = entry.fingerprint(tmp_path)
    assert entry.fingerprint(tmp_path, version="v2") != first
    assert registry.dataset("msmt17-train").fingerprint(tmp_path) != first
    (folder / "list_val.txt").write_text("")
    os.utime(folder / "list_val.txt", (1e9, 1e9))
    assert entry.fingerprint(tmp_path) != first


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"facts": {"fingerprint": "x"}, "stamps": {"query": [0, 0]}}', "null"]
)
def test_a_damaged_cache_is_ignored(content: str, root: Path) -> None:
    entry = registry.dataset("market1501")
    first = entry.fingerprint(root)
    [kept] = paths.cache_folder().rglob("*.json")
    kept.write_text(content)
    assert entry.fingerprint(root) == first


def test_a_cache_that_cannot_be_written_is_done_without(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "file").write_text("in the way")
    monkeypatch.setenv("HARNESS_CACHE", str(root / "file"))
    assert len(registry.dataset("market1501").fingerprint(root)) == 64


def test_many_may_remember_at_once(root: Path) -> None:
    entry = registry.dataset("market1501")
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: entry.fingerprint(root), range(40)))) == 1
    assert [path.suffix for path in (paths.cache_folder() / "fingerprints").iterdir()] == [".json"]
