"""How a dataset and its version are found, and the message if it is not found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from datasets import layouts
from harness import registry
from harness.cards import Layout
from harness.errors import DataError, UsageError
from harness.registry import dataset_checks
from tests.support import small_datasets as small

MARKET = "Market-1501-v15.09.15"


def test_items_are_sorted_and_cameras_count_from_zero(tmp_path: Path) -> None:
    small.market(tmp_path / MARKET)
    splits = registry.dataset("market1501").load(tmp_path)
    assert [(item.path.name[:7], item.pid, item.camid) for item in splits.train] == [
        ("0002_c1", 2, 0), ("0002_c2", 2, 1), ("0007_c1", 7, 0), ("0007_c2", 7, 1)
    ]  # fmt: skip
    assert [item.pid for item in splits.gallery] == [0, 1, 3]
    assert splits.notes == {"junk": {"gallery": 1}}
    assert splits.generated is None


@pytest.mark.parametrize("below", ["", "Market-1501-v15.09.15", "market1501", "market1501/Market-1501-v15.09.15"])
def test_the_root_may_hold_the_datasets_or_be_the_dataset(below: str, tmp_path: Path) -> None:
    folder = small.market(tmp_path / "market1501" / MARKET)
    root = {"": tmp_path, MARKET: folder, "market1501": tmp_path / "market1501"}.get(below, tmp_path)
    assert layouts.find(registry.dataset("market1501"), root).folder == folder


def test_the_datasets_own_folder_may_have_any_name(tmp_path: Path) -> None:
    folder = small.market(tmp_path / "copy of the disk" / "persons")
    assert registry.dataset("market1501").load(folder).root == folder


def test_of_two_versions_the_first_is_read_and_the_other_shown(tmp_path: Path) -> None:
    small.msmt17(tmp_path / "MSMT17_V1")
    small.msmt17(tmp_path / "MSMT17_V2", "mask_train_v2", "mask_test_v2")
    entry = registry.dataset("msmt17")
    assert layouts.find(entry, tmp_path).alternatives == (("msmt17-v2", tmp_path / "MSMT17_V2"),)
    splits = entry.load(tmp_path)
    assert (splits.layout, splits.root.name) == ("msmt17-v1", "MSMT17_V1")
    assert splits.notes["alternatives"] == [f"msmt17-v2 in {tmp_path / 'MSMT17_V2'}"]
    for version in ("v2", "msmt17-v2"):
        assert entry.load(tmp_path, version=version).layout == "msmt17-v2"
    with pytest.raises(UsageError, match="version of msmt17 'v3'"):
        entry.load(tmp_path, version="v3")
    with pytest.raises(UsageError, match=r"option of msmt17 'verison'. Did you mean 'version'"):
        entry.load(tmp_path, verison="v2")


def test_msmt17_with_and_without_val(tmp_path: Path) -> None:
    small.msmt17(tmp_path / "MSMT17_V1")
    both, alone = (registry.dataset(name).load(tmp_path) for name in ("msmt17", "msmt17-train"))
    assert (len(both.train), len(alone.train)) == (4, 3)
    assert both.notes["lists"] == {"train": 3, "val": 1, "query": 2, "gallery": 2}
    assert {item.camid for item in both.train} == {0, 1, 2, 14}


def test_market_is_not_taken_for_duke(tmp_path: Path) -> None:
    small.market(tmp_path / "duke")
    with pytest.raises(DataError, match=r"are not like 0005_c2_f0046985\.jpg"):
        registry.dataset("dukemtmc").load(tmp_path)


@pytest.mark.parametrize("entry", registry.datasets(), ids=lambda entry: entry.name)
def test_a_missing_dataset_says_where_it_looked_and_where_to_ask(entry: registry.DatasetEntry, tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        entry.load(tmp_path)
    for layout in entry.card.layouts:
        assert layout.name in str(error.value) or len(entry.card.layouts) == 1
        assert all(folder in str(error.value) for folder in layout.folders)
    assert str(tmp_path) in str(error.value)
    assert entry.card.ask and entry.card.ask in str(error.value)
    assert entry.card.notice in str(error.value)


def test_cards_of_the_benchmark() -> None:
    names = {entry.name for entry in registry.resolve_datasets("all")}
    assert names == {"market1501", "dukemtmc", "msmt17", "cuhk03-detected", "cuhk03-labeled", "occluded-duke"}
    assert {e.name for e in registry.resolve_datasets("cuhk03")} == {"cuhk03-detected", "cuhk03-labeled"}
    assert registry.dataset("dukemtmc").card.access == registry.dataset("occluded-duke").card.access == "withdrawn"
    assert "withdrawn" in registry.dataset("dukemtmc").card.notice
    for entry in registry.datasets():
        assert entry.card.access in ("open", "form", "withdrawn")
        assert entry.card.licence and entry.card.reference and entry.card.about
        assert len({layout.name for layout in entry.card.layouts}) == len(entry.card.layouts)
        assert entry.card.protocol == ("cuhk03-classic" if "classic" in entry.name else "standard")
        assert all(isinstance(layout, Layout) for layout in entry.card.layouts)


def stand_in(folder: Path, **changes: object) -> None:
    counts = {
        "train": {"images": 4, "identities": 2, "cameras": 2},
        "query": {"images": 2, "identities": 2, "cameras": 2},
        "gallery": {"images": 3, "identities": 3, "cameras": 2},
    }
    content = {"generated": True, "seed": 0, "generator_version": 1, "counts": counts, **changes}
    (folder / "stand-in.json").write_text(json.dumps(content))


def test_generated_data_is_marked_and_counted_by_its_own_file(tmp_path: Path) -> None:
    entry = registry.dataset("market1501")
    folder = small.market(tmp_path / MARKET)
    assert len(dataset_checks.check_counts(entry, entry.load(tmp_path))) == 9
    stand_in(folder)
    splits = entry.load(tmp_path)
    assert splits.generated is not None and splits.generated["seed"] == 0
    assert dataset_checks.check_counts(entry, splits) == []
    next((folder / "query").iterdir()).unlink()
    sentences = dataset_checks.check_counts(entry, entry.load(tmp_path))
    assert sentences[0].startswith("query: stand-in.json expects 2 images, but ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[1]", "does not contain"),
        ('{"generated": false}', "does not contain"),
        ('{"generated": true, "layout": "dukemtmc"}', "generated data for dukemtmc, not for market1501"),
    ],
)
def test_a_damaged_mark_is_an_error(text: str, message: str, tmp_path: Path) -> None:
    (small.market(tmp_path / MARKET) / "stand-in.json").write_text(text)
    with pytest.raises(DataError, match=message):
        registry.dataset("market1501").load(tmp_path)


def test_damaged_counts_of_a_mark_are_an_error(tmp_path: Path) -> None:
    stand_in(small.market(tmp_path / MARKET), counts={"train": {"images": "many"}})
    entry = registry.dataset("market1501")
    with pytest.raises(DataError, match=r"counts in .* are damaged"):
        dataset_checks.check_counts(entry, entry.load(tmp_path))


def test_real_images_are_not_taken_for_the_synthetic_dataset(tmp_path: Path) -> None:
    small.market(tmp_path / "synthetic")
    with pytest.raises(DataError, match=r"it lacks stand-in\.json"):
        registry.dataset("synthetic").load(tmp_path)
