"""Several training sets as one: numbers never collide, and the test is that of the first set."""

from __future__ import annotations

import shutil

import pytest

from datasets import layouts
from datasets.synthetic import generate
from harness import registry
from harness.errors import DataError, UsageError
from harness.registry import dataset_checks

NAMES = ("market1501", "cuhk03-detected", "dukemtmc")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    generate(folder, layouts=list(NAMES), scale="smoke", seed=0, size=(32, 16))
    return folder


def test_training_images_of_all_and_the_test_of_the_first(root):
    parts = [registry.dataset(name).load(root) for name in NAMES]
    joined = registry.dataset("+".join(NAMES)).load(root)
    assert [item.path for item in joined.train] == [item.path for part in parts for item in part.train]
    assert (joined.query, joined.gallery) == (parts[0].query, parts[0].gallery)
    assert joined.train[: len(parts[0].train)] == list(parts[0].train)
    assert all(str(item.path).startswith(str(joined.root)) for item in (*joined.train, *joined.query))


def test_identities_and_cameras_of_different_sets_do_not_collide(root):
    joined = registry.dataset("+".join(NAMES)).load(root)
    folder = {item.path: item.path.relative_to(root).parts[0] for item in joined.train}
    for field in ("pid", "camid"):
        sets = {}
        for item in joined.train:
            sets.setdefault(getattr(item, field), set()).add(folder[item.path])
        assert all(len(owners) == 1 for owners in sets.values())
    parts = [registry.dataset(name).load(root) for name in NAMES]
    assert len({item.camid for item in joined.train}) == sum(len({i.camid for i in part.train}) for part in parts)
    assert len({item.pid for item in joined.train}) == sum(len({i.pid for i in part.train}) for part in parts)
    tested = {item.pid for item in (*joined.query, *joined.gallery)}
    assert not tested & {item.pid for item in joined.train}


def test_counts_and_facts_are_sums(root):
    entry = registry.dataset("market1501+dukemtmc")
    splits = entry.load(root)
    assert dataset_checks.check_counts(entry, splits) == []
    assert (entry.name, entry.card.title) == ("market1501+dukemtmc", "Market-1501 + DukeMTMC-reID")
    assert entry.card.expected["train"].images == 12_936 + 16_522
    assert entry.card.expected["query"].images == 3_368
    facts = layouts.facts(entry, root)
    assert (facts.images, facts.queries) == (len(splits.train), len(splits.query))
    assert facts.fingerprint != layouts.facts(registry.dataset("dukemtmc+market1501"), root).fingerprint
    assert facts.unseen == ()


def test_a_further_set_with_validation_images_counts_them(tmp_path):
    """MSMT17 trains on the images of `train` and `val`."""
    generate(tmp_path, layouts=["market1501", "msmt17"], scale="smoke", seed=0, size=(32, 16))
    for names in ("market1501+msmt17", "msmt17+market1501"):
        entry = registry.dataset(names)
        assert dataset_checks.check_counts(entry, entry.load(tmp_path)) == [], names


def test_further_sets_need_training_images_alone(root, tmp_path):
    shutil.copytree(root, tmp_path / "data")
    duke = layouts.find(registry.dataset("dukemtmc"), tmp_path / "data").folder
    shutil.rmtree(duke / "query")
    assert registry.dataset("market1501+dukemtmc").load(tmp_path / "data").query
    with pytest.raises(DataError, match="query"):
        registry.dataset("dukemtmc+market1501").load(tmp_path / "data")


def test_the_same_people_are_not_joined():
    with pytest.raises(UsageError, match="same people"):
        registry.dataset("dukemtmc+occluded-duke")
    with pytest.raises(UsageError, match="same people"):
        registry.dataset("market1501+market1501")
    with pytest.raises(UsageError, match="market1501"):
        registry.dataset("market1501+markt1501")


def test_real_and_generated_data_are_not_mixed(root, tmp_path):
    shutil.copytree(root, tmp_path / "data")
    duke = layouts.find(registry.dataset("dukemtmc"), tmp_path / "data").folder
    (duke / "stand-in.json").unlink()
    with pytest.raises(DataError, match="generated"):
        registry.dataset("market1501+dukemtmc").load(tmp_path / "data")
