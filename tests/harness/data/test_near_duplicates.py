"""Near-duplicates: planted copies are found, other images are not."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, ImageEnhance

import harness
from datasets.synthetic import generate
from harness import registry
from harness.cli import cli
from harness.data import near_duplicates
from harness.data.near_duplicates import Pair, correlation, find
from harness.registry.near_duplicates import check


@pytest.fixture
def data(tmp_path):
    """A small generated dataset in the layout of Market-1501."""
    generate(tmp_path, layouts=["market1501"], scale="smoke", seed=0, size=(128, 64))
    return tmp_path


def market(data):
    return registry.dataset("market1501").load(data)


def saved_again(image):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=40)
    return Image.open(file)


CHANGES = {
    "the same": lambda image: image,
    "saved again": saved_again,
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.15),
}


def plant(source, target, change):
    """Replaces an image by a changed copy of another one."""
    with Image.open(source.path) as image:
        change(image.convert("RGB")).save(target.path, quality=95)


@pytest.mark.parametrize("change", CHANGES)
def test_a_planted_copy_of_a_training_image_is_found(data, change):
    before = {pair.items for pair in find(market(data))}
    splits = market(data)
    plant(splits.train[3], splits.gallery[5], CHANGES[change])
    found = [pair for pair in find(splits) if pair.items not in before]
    assert (splits.train[3], splits.gallery[5]) in [pair.items for pair in found]
    assert all(pair.items[1] == splits.gallery[5] for pair in found)
    assert found[0].splits == ("train", "gallery")
    assert found[0].is_leak
    assert harness.near_duplicates("market1501", data) == find(splits)


def test_kinds_of_pairs(data):
    splits = market(data)
    query = splits.query[0]
    same = next(item for item in splits.gallery if item.pid == query.pid and item.camid != query.camid)
    own = same._replace(camid=query.camid)
    assert Pair(("query", "gallery"), (query, own), 1).is_ignored
    assert not Pair(("query", "gallery"), (query, same), 1).is_ignored
    assert not Pair(("train", "gallery"), (query, own), 1).is_ignored


def test_the_command_counts_lists_and_draws(data, tmp_path):
    splits = market(data)
    plant(splits.train[0], splits.query[0], saved_again)
    pairs, pictures = tmp_path / "out" / "pairs.csv", tmp_path / "pictures"
    arguments = ["validate", "market1501", "--data-root", str(data), "--near-duplicates", "--no-images"]
    ran = CliRunner().invoke(cli, [*arguments, "--pairs", str(pairs), "--pictures", str(pictures)])
    assert "training images look like test images" in ran.output
    rows = list(csv.DictReader(pairs.open()))
    assert [rows[0]["split"], rows[0]["other_split"]] == ["train", "query"]
    assert rows[0]["path"] == str(splits.train[0].path)
    with Image.open(sorted(pictures.iterdir())[0]) as picture:
        assert picture.size == (260, 256)
    refused = CliRunner().invoke(cli, ["validate", "market1501", "--pairs", str(pairs)], standalone_mode=False)
    assert "need --near-duplicates" in str(refused.exception)


def test_findings_of_a_dataset_that_cannot_be_read(tmp_path):
    findings = check(registry.dataset("market1501"), tmp_path)
    assert [finding.level for finding in findings] == ["error"]


def test_hashes_and_correlation():
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (5, 32 * 32), dtype=np.uint8)
    brighter = (small // 2 + 100).astype(np.uint8)  # contrast and brightness do not count, except for rounding
    different = np.bitwise_count(near_duplicates.hashes(small) ^ near_duplicates.hashes(brighter))
    assert different.max() <= 2
    assert correlation(small[0], brighter[0]) > 0.999
    assert abs(correlation(small[0], small[1])) < 0.2
    plain = np.full(32 * 32, 7, dtype=np.uint8)
    assert correlation(plain, plain) == 1
    assert correlation(plain, small[0]) == 0
