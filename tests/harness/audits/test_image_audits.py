"""Audits that change images: corruptions and occlusion, with a small network on images in files."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from harness.audits import audit, load
from harness.audits.checks import corruption, near_duplicates, occlusion
from harness.audits.corrupting import always, corrupting, drawn
from harness.audits.subject import Subject
from harness.contracts import Item
from harness.data.corruptions import KINDS, LEVELS
from harness.data.loader import EvaluationData
from harness.data.reader import Reader
from harness.worker.audit import AuditedNetwork

SIZE = (48, 24)
IDENTITIES = 6


class Patches(nn.Module):
    """Mean colours of the cells of a grid, which is enough to tell the people of this test apart."""

    def forward(self, images, camera_ids):
        return nn.functional.adaptive_avg_pool2d(images, (6, 3)).flatten(1)


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    """Query and gallery: people of plain colours and noise, from two cameras, in two sizes of images."""
    folder, rng = tmp_path_factory.mktemp("people"), np.random.default_rng(0)
    splits = {"query": [], "gallery": []}
    for pid in range(IDENTITIES):
        colours = rng.uniform(40, 215, (4, 1, 3))
        for camid, split in ((0, "query"), (1, "gallery"), (1, "gallery")):
            height, width = (60, 30) if camid else (52, 26)
            clothes = np.kron(colours, np.ones((height // 4, width, 1))) + rng.normal(0, 20, (height, width, 3))
            path = folder / split / f"{pid:04d}_c{camid}_{len(splits[split])}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(clothes.clip(0, 255).astype(np.uint8)).save(path)
            splits[split].append(Item(path, pid, camid))
    return splits["query"], splits["gallery"]


def network(cache=None, batch_size=4, workers=0):
    def batches(items, images):
        return EvaluationData(
            items, image_size=SIZE, interpolation="bilinear", mean=[0.5] * 3, std=[0.2] * 3, batch_size=batch_size,
            images=images, workers=workers,
        )  # fmt: skip

    reader = Reader(SIZE, "bilinear", folder=cache)
    return AuditedNetwork(Patches(), torch.device("cpu"), reader, batches, lambda *_, **__: None)


@pytest.fixture
def subject(items, tmp_path):
    made = network(tmp_path / "cache")
    return Subject(
        dataset="market1501", query=items[0], gallery=items[1], network=made,
        features=(made.features(items[0]), made.features(items[1])),
    )  # fmt: skip


def test_level_zero_is_the_clean_image(items, tmp_path):
    for cache in (None, tmp_path):
        made = network(cache)
        change = corrupting(items[0], always("fog", 0))
        assert torch.equal(made.features(items[0], change=change, original=True), made.features(items[0]))


def test_draws_do_not_depend_on_batch_order_threads_or_cache(items, tmp_path):
    every, backwards = [*items[0], *items[1]], [*items[1], *items[0]][::-1]
    features = partial(lambda made, chosen: made.features(chosen, change=corrupting(chosen, drawn(3)), original=True))
    expected = features(network(), every)
    assert torch.equal(features(network(tmp_path, batch_size=5, workers=3), every), expected)
    turned = features(network(batch_size=1), backwards)
    at = {item.path: row for row, item in enumerate(backwards)}
    assert torch.equal(turned[[at[item.path] for item in every]], expected)
    assert not torch.equal(network().features(every, change=corrupting(every, drawn(4)), original=True), expected)


def test_random_corruptions_use_every_kind_and_level():
    chosen = [drawn(0)(str(name)) for name in range(2000)]
    assert {kind for kind, _ in chosen} == set(KINDS)
    assert {level for _, level in chosen} == set(LEVELS)


def test_corruption_rows(subject, monkeypatch):
    monkeypatch.setattr(corruption, "DRAWS", 2)
    block = audit.run(["corruption"], subject)[0]
    assert block["error"] is None
    rows = {(row["name"], *row["setting"].values()): row["value"] for row in block["rows"]}
    assert rows["mAP", "nothing"] == pytest.approx(subject.ranking.mAP)
    assert rows["mAP", "query and gallery"] < rows["mAP", "nothing"]
    assert {("mINP", "query"), ("rank-1", "gallery"), ("mAP", "query")} <= set(rows)
    assert rows["mAP", "TransReID with query and gallery corrupted"] == pytest.approx(0.2738)
    assert "2 draws" in block["notes"][0]


def test_rows_of_all_kinds_and_their_mean(subject):
    block = audit.run(["corruption-kinds"], subject)[0]
    assert block["error"] is None
    matrix = {
        (row["setting"]["kind"], row["setting"]["level"]): row["value"]
        for row in block["rows"]
        if row["name"] == "mAP of corruptions"
    }
    assert len(matrix) == 100
    mean = next(
        row["value"]
        for row in block["rows"]
        if row["name"] == "mAP" and row["setting"] == {"corrupted": "query and gallery"}
    )
    assert mean == pytest.approx(np.mean(list(matrix.values())))
    assert min(matrix.values()) < max(matrix.values()) == pytest.approx(1.0)


def test_no_audit_of_many_passes_runs_by_default():
    assert not load("corruption").default
    assert not load("corruption-kinds").default
    assert load("occlusion").default


def test_occlusion_rows(subject):
    block = audit.run(["occlusion"], subject)[0]
    assert block["error"] is None
    values = {row["setting"]["covered share"]: row["value"] for row in block["rows"] if row["name"] == "mAP"}
    assert list(values) == [0, 0.1, 0.2, 0.3, 0.4, 0.5]
    assert values[0] == pytest.approx(subject.ranking.mAP)
    assert values[0.5] < values[0]


def test_a_patch_has_the_share_and_is_from_another_person(items):
    queries = items[0]
    plain = [np.full((3, 100, 50), 10 * item.pid, dtype=np.uint8) for item in queries]
    covered = {}
    for share in (0.0, 0.1, 0.3, 0.5, 1.0):
        change = occlusion.covering(plain, queries, share)
        for row, image in enumerate(plain):
            changed = change(image, row)
            different = changed != image
            assert different.mean() == pytest.approx(share, abs=0.02)
            assert len(np.unique(changed[different])) == (share > 0)  # one other person
            covered[share, row] = set(np.unique(changed[different]))
    assert all(covered[0.1, row] == covered[0.5, row] for row in range(len(queries)))


def test_an_image_without_another_person_stays(items):
    alone = [items[0][0]]
    image = np.arange(3 * 8 * 4, dtype=np.uint8).reshape(3, 8, 4)
    assert np.array_equal(occlusion.covering([image], alone, 1.0)(image, 0), image)


def test_near_duplicates_of_training_images_are_removed(subject, items, tmp_path):
    query, gallery = items
    copies = [tmp_path / "train" / f"{number}.png" for number in range(2)]
    copies[0].parent.mkdir()
    for copy, item in zip(copies, (query[1], gallery[4]), strict=True):
        with Image.open(item.path) as image:
            image.resize((26, 52)).save(copy)
    subject.train = [Item(path, 100 + number, 0) for number, path in enumerate(copies)]
    kept = {}
    subject.keep, subject.open_images = kept.__setitem__, subject.network.images
    block = audit.run(["near-duplicates"], subject)[0]
    assert block["error"] is None
    values = {(row["name"], *row["setting"].values()): row for row in block["rows"]}
    for split, number in (("query", len(query)), ("gallery", len(gallery))):
        row = values["share of near-duplicates", f"{split} images that look like a training image"]
        assert row["value"] == pytest.approx(1 / number)
    assert f"1 of {len(query)} query images that look like a training image." in block["notes"]
    without = values["mAP", "without near-duplicate pictures"]
    queries, images = np.arange(len(query)) != 1, np.arange(len(gallery)) != 4
    ranking = subject.rank(subject.features[0][queries], subject.features[1][images], queries=queries, images=images)
    assert (without["value"], without["queries"]) == (pytest.approx(ranking.mAP), len(query) - 1)
    assert str(copies[0]) in kept["near_duplicates.market1501.csv"]
    shares = [values["share of test images close to a training image", share]["value"] for share in (0.9, 0.99, 0.999)]
    assert shares[0] >= shares[1] >= shares[2] >= 2 / (len(query) + len(gallery))


def test_nearest_neighbours_and_nearest_strangers():
    features, others = np.eye(3)[[0, 1]], np.array([[2.0, 0, 0], [0, 1, 1], [1, 0, 1]])
    half = np.sqrt(0.5)
    assert near_duplicates.nearest(features, others) == pytest.approx([1, half])
    strangers = near_duplicates.nearest(features, others, np.array([0, 1]), np.array([0, 1, 2]))
    assert strangers == pytest.approx([half, 0])


def test_near_duplicates_without_training_images_or_a_network(subject):
    subject.open_images, subject.network = subject.network.images, None
    block = audit.run(["near-duplicates"], subject)[0]
    assert block["error"] is None
    assert "no training images" in block["notes"][0]
    assert "stored" in block["notes"][-1]
