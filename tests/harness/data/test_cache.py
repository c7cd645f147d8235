"""The cache of decoded images is built once, is always complete, and is optional."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.data.cache import FileImages, key, open_images
from harness.errors import DataError

SIZE = (32, 16)


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    files = [tmp_path / "images" / f"{i}.jpg" for i in range(10)]
    for file in files:
        Image.fromarray(rng.integers(0, 256, (16, 8, 3), dtype=np.uint8)).save(file)
    return files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


class Told:
    """Collects progress calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    def __call__(self, done: int, total: int) -> None:
        self.calls.append((done, total))


def same_pixels(images, paths, interpolation="bicubic") -> bool:
    files = FileImages(paths, SIZE, interpolation)
    return all(np.array_equal(images[i], files[i]) for i in range(len(paths)))


def names(folder: Path) -> set[str]:
    return {path.suffix for path in folder.iterdir()}


def test_built_once_then_only_mapped(paths, folder):
    first, second = Told(), Told()
    built = open_images(paths, SIZE, "bicubic", folder=folder, progress=first)
    again = open_images(paths, SIZE, "bicubic", folder=folder, progress=second)
    assert first.calls == [(10, 10)]
    assert second.calls == []
    assert same_pixels(built, paths)
    assert same_pixels(again, paths)
    assert names(folder) == {".npy", ".lock"}
    with pytest.raises(ValueError, match="read-only"):
        again[0][:] = 0


def test_nothing_is_shared_by_what_differs(paths, folder):
    keys = {
        key(FileImages(paths, SIZE, "bicubic")),
        key(FileImages(paths, SIZE, "bilinear")),
        key(FileImages(paths, (16, 32), "bicubic")),
        key(FileImages(paths[:9], SIZE, "bicubic")),
        key(FileImages(paths[::-1], SIZE, "bicubic")),
    }
    Image.new("RGB", (8, 16), "red").save(paths[4])
    keys.add(key(FileImages(paths, SIZE, "bicubic")))
    assert len(keys) == 6
    assert same_pixels(open_images(paths, SIZE, "bilinear", folder=folder), paths, "bilinear")
    assert same_pixels(open_images(paths, SIZE, "bicubic", folder=folder), paths)


def test_of_many_builders_at_once_one_builds(paths, folder):
    told = [Told() for _ in range(4)]
    images: list = [None] * 4
    barrier = threading.Barrier(4)

    def build(number: int) -> None:
        barrier.wait()
        images[number] = open_images(paths, SIZE, "bicubic", folder=folder, progress=told[number])

    threads = [threading.Thread(target=build, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(bool(progress.calls) for progress in told) == 1
    assert all(same_pixels(each, paths) for each in images)


@pytest.mark.slow
def test_a_builder_that_was_killed_leaves_nothing_that_counts(paths, folder):
    script = (
        "import sys, time; from pathlib import Path; import harness.data.cache as cache\n"
        "read = cache.decode\n"
        "cache.decode = lambda path, *how: time.sleep(3600) if path.name == '5.jpg' else read(path, *how)\n"
        "cache.open_images([Path(p) for p in sys.argv[2:]], (32, 16), 'bicubic', folder=Path(sys.argv[1]))\n"
    )
    command = [sys.executable, "-c", script, str(folder), *map(str, paths)]
    child = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    while not list(folder.glob(".*.tmp")) and child.poll() is None:
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert names(folder) == {".tmp", ".lock"}
    told = Told()
    assert same_pixels(open_images(paths, SIZE, "bicubic", folder=folder, progress=told), paths)
    assert told.calls
    assert names(folder) == {".npy", ".lock"}


@pytest.mark.parametrize("damage", ["cut", "text", "pickle", "shape"])
def test_a_damaged_cache_is_built_again(paths, folder, damage):
    open_images(paths, SIZE, "bicubic", folder=folder)
    (cached,) = folder.glob("*.npy")
    if damage == "cut":
        os.truncate(cached, 5000)
    elif damage == "text":
        cached.write_text("no array")
    elif damage == "shape":
        np.save(cached, np.zeros((10, 3, 16, 32), dtype=np.uint8))
    else:
        np.save(cached, np.array([print] * 10, dtype=object), allow_pickle=True)
    told = Told()
    assert same_pixels(open_images(paths, SIZE, "bicubic", folder=folder, progress=told), paths)
    assert told.calls


def test_without_a_folder_images_come_from_their_files(paths):
    assert same_pixels(open_images(paths, SIZE, "bicubic", folder=None), paths)


def test_a_short_disk_is_no_obstacle(paths, folder, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 10**12, 1000))
    with pytest.warns(UserWarning, match="No cache of decoded images"):
        images = open_images(paths, SIZE, "bicubic", folder=folder)
    assert same_pixels(images, paths)
    assert names(folder) == {".lock"}


def test_a_disk_that_fills_up_while_building_is_no_obstacle(paths, folder):
    """A limit on the size of files makes writing fail like a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    try:
        with pytest.warns(UserWarning, match="No cache of decoded images"):
            images = open_images(paths, SIZE, "bicubic", folder=folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert same_pixels(images, paths)
    assert names(folder) == {".lock"}


def test_a_folder_that_cannot_be_is_no_obstacle(paths, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="No cache of decoded images"):
        assert same_pixels(open_images(paths, SIZE, "bicubic", folder=tmp_path / "file" / "cache"), paths)


@pytest.mark.parametrize("workers", [0, 3])
def test_an_unreadable_image_stops_the_building_and_is_named(paths, folder, workers):
    paths[6].write_bytes(paths[6].read_bytes()[:200])
    with pytest.raises(DataError, match=r"6\.jpg"):
        open_images(paths, SIZE, "bicubic", folder=folder, workers=workers)
    assert names(folder) == {".lock"}


def test_a_missing_image_is_named(paths, folder):
    paths[6].unlink()
    with pytest.raises(DataError, match=r"6\.jpg"):
        open_images(paths, SIZE, "bicubic", folder=folder)
