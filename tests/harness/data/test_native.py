"""Images in their original sizes: one cache, equal to the files, rebuilt after damage."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from harness.contracts import Item
from harness.data.images import UnreadableImages
from harness.data.native import NativeCache, NativeFiles, open_native
from harness.data.reader import Reader

SIZES = ((40, 20), (31, 17), (40, 20), (5, 64))


@pytest.fixture
def paths(tmp_path):
    rng, paths = np.random.default_rng(0), []
    for number, (height, width) in enumerate(SIZES):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(paths[-1])
    return paths


def test_the_cache_equals_the_files(paths, tmp_path):
    seen = []
    cached = open_native(paths, folder=tmp_path / "cache", progress=lambda *counts: seen.append(counts))
    assert isinstance(cached, NativeCache)
    assert seen == [(4, 4)]
    for row, (path, size) in enumerate(zip(paths, SIZES, strict=True)):
        assert cached[row].shape == (3, *size)
        assert np.array_equal(cached[row], np.asarray(Image.open(path)).transpose(2, 0, 1))
        assert np.array_equal(cached[row], NativeFiles(paths)[row])
    open_native(paths, folder=tmp_path / "cache", progress=lambda *_: pytest.fail("the cache is built twice"))


def test_a_damaged_cache_is_built_again(paths, tmp_path):
    folder = tmp_path / "cache"
    expected = [image.copy() for image in map(open_native(paths, folder=folder).__getitem__, range(4))]
    pixels = next(folder.glob("*.bin"))
    pixels.write_bytes(pixels.read_bytes()[:-1])
    again = open_native(paths, folder=folder)
    assert all(np.array_equal(again[row], expected[row]) for row in range(4))
    next(folder.glob("*.sizes.npy")).write_bytes(b"no array")
    assert isinstance(open_native(paths, folder=folder), NativeCache)


def test_unreadable_images_are_listed_and_leave_no_cache(paths, tmp_path):
    paths[1].write_bytes(b"not an image")
    paths[2].write_bytes(b"not an image")
    with pytest.raises(UnreadableImages, match="2 images cannot be read"):
        open_native(paths, folder=tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.bin"))


def test_a_folder_that_cannot_be_written_means_no_cache(paths, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="No cache of decoded images"):
        images = open_native(paths, folder=tmp_path / "file")
    assert np.array_equal(images[0], NativeFiles(paths)[0])


def test_resizing_an_original_gives_the_resized_image(paths):
    reader = Reader((32, 16), "bicubic")
    items = [Item(path, 0, 0) for path in paths]
    for row in range(4):
        assert np.array_equal(reader.resize(reader.originals(items)[row]), reader.resized(items)[row])
