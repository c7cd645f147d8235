"""Datasets with one folder per identity, and datasets with unknown cameras."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from harness import registry
from harness.contracts import Item
from harness.data.holdout import holdout_split
from harness.errors import DataError, UsageError
from harness.records import store
from harness.registry import dataset_checks
from harness.training.trained import check_cameras
from tests.support import small_datasets as small

MARS = r"pattern = 'C(?P<camid>\d+)T\d+F\d+'"
MARS_FOLDERS = 'train = "bbox_train"\nquery = "bbox_query"\ngallery = "bbox_test"\n'


def dataset(tmp_path: Path, options: str, reader: str = "folders", name: str = "office") -> registry.DatasetEntry:
    folder = tmp_path / "plugins" / name
    folder.mkdir(parents=True)
    (folder / "card.toml").write_text(
        f'kind = "dataset"\nname = "{name}"\ntitle = "Our office"\n'
        f'[[layouts]]\nname = "{name}"\nreader = "{reader}"\nfolders = ["{name}"]\n[layouts.options]\n{options}\n'
    )
    return registry.dataset(name, tmp_path / "plugins")


def pictures(folder: Path, *names: str) -> None:
    for shade, name in enumerate(names):
        small.picture(folder / name, 3 * shade + 1)


def mars(folder: Path) -> None:
    for split, pids in (("bbox_train", (1, 3)), ("bbox_query", (2, 20)), ("bbox_test", (2, 20))):
        for pid in pids:
            cameras = (1,) if split == "bbox_query" else (2, 6)
            pictures(folder, *(f"{split}/{pid:04d}/{pid:04d}C{c}T0001F001.jpg" for c in cameras))


def test_mars_names(tmp_path: Path) -> None:
    entry = dataset(tmp_path, MARS_FOLDERS + MARS)
    mars(tmp_path / "office")
    pictures(tmp_path / "office", "bbox_test/00-1/00-1C1T0001F001.jpg", "bbox_test/0000/0000C1T0001F001.jpg")
    splits = entry.load(tmp_path)
    assert [(item.pid, item.camid) for item in splits.train] == [(1, 1), (1, 5), (3, 1), (3, 5)]
    assert [(item.pid, item.camid) for item in splits.gallery] == [(0, 0), (2, 1), (2, 5), (20, 1), (20, 5)]
    assert splits.notes == {"junk": {"gallery": 1}} and splits.knows_cameras
    assert entry.fingerprint(tmp_path) == entry.fingerprint(tmp_path)


def test_names_of_people_and_folders_of_cameras(tmp_path: Path) -> None:
    entry = dataset(tmp_path, "pattern = '^cam(?P<camid>\\d+)/'\nfirst_camera = 0")
    for split, people in (("train", ("bob", "zoë")), ("query", ("alice", "Carl")), ("gallery", ("alice", "Carl"))):
        pictures(
            tmp_path / "office", *(f"{split}/{who}/cam{c}/a b.JPG" for who in people for c in (0, 20230001))
        )  # fmt: skip
    splits = entry.load(tmp_path)
    assert [item.pid for item in splits.train] == [2, 2, 3, 3]  # Carl, alice, bob, zoë
    assert [(item.pid, item.camid) for item in splits.query] == [(0, 0), (0, 20230001), (1, 0), (1, 20230001)]
    alone = entry.load(tmp_path, splits=("train",))
    assert alone.train == splits.train and not alone.query


def test_without_cameras_nothing_is_ignored(tmp_path: Path) -> None:
    entry = dataset(tmp_path, "cameras = false")
    for split, people in (("train", ("1", "2")), ("query", ("5", "6")), ("gallery", ("5", "6", "7"))):
        pictures(tmp_path / "office", *(f"{split}/{who}/{n}.jpg" for who in people for n in (1, 2)))
    splits = entry.load(tmp_path)
    assert splits.notes["cameras"] == "unknown" and not splits.knows_cameras
    assert {i.camid for i in (*splits.train, *splits.gallery)} == {0} and {i.camid for i in splits.query} == {1}
    sentences = [finding.sentence for finding in dataset_checks.check_labels(splits)]
    assert "4 of 4 queries have a match in the gallery." in sentences
    assert any("The cameras are unknown" in sentence for sentence in sentences)
    assert not any("Test camera" in sentence or "test camera" in sentence for sentence in sentences)


@pytest.mark.parametrize("reader", ["csv", "market"])
def test_other_readers_without_cameras(reader: str, tmp_path: Path) -> None:
    entry = dataset(tmp_path, "cameras = false\n" + "pattern = '(?P<pid>\\d+)_'" * (reader == "market"), reader)
    names = {"train": "bounding_box_train/1_a.jpg", "query": "query/2_a.jpg", "gallery": "bounding_box_test/2_b.jpg"}
    pictures(tmp_path / "office", *names.values())
    rows = "".join(f"{path},{Path(path).name[0]},{split}\n" for split, path in names.items())
    (tmp_path / "office" / "items.csv").write_text("path,pid,split\n" + rows)
    splits = entry.load(tmp_path)
    assert [(i.pid, i.camid) for i in (*splits.train, *splits.query, *splits.gallery)] == [(1, 0), (2, 1), (2, 0)]


def test_an_image_that_would_match_itself_is_refused(tmp_path: Path) -> None:
    entry = dataset(tmp_path, "cameras = false", "csv")
    pictures(tmp_path / "office", "a.jpg", "b.jpg")
    (tmp_path / "office" / "items.csv").write_text("path,pid,split\na.jpg,1,train\nb.jpg,2,query\nb.jpg,2,gallery\n")
    with pytest.raises(DataError, match=r"1 image\(s\) are both query and gallery: 'b.jpg'"):
        entry.load(tmp_path)


WRONG: dict[str, tuple[str, Callable[[Path], object], type[Exception], str]] = {
    "neither cameras nor a pattern": ("", lambda f: None, UsageError, "or cameras = false"),
    "a pattern without cameras": (MARS + "\ncameras = false", lambda f: None, UsageError, "or cameras = false"),
    "a name without a camera": (
        MARS, lambda f: pictures(f, "bbox_test/0002/x.jpg"), DataError, "1 gallery image.* finds no camera .*/x.jpg"
    ),
    "camera zero": (
        MARS, lambda f: pictures(f, "bbox_test/0002/0002C0T0001F001.jpg"), DataError, "no camera from 1 on: .*C0T0001"
    ),
    "a link that leads back": (
        MARS, lambda f: (f / "bbox_test" / "0002" / "up").symlink_to(f / "bbox_test"), DataError, "a circular link"
    ),
    "no folders": (
        MARS,
        lambda f: [p.rename(f / "bbox_query" / p.name) for p in (f / "bbox_query").glob("*/*")],
        DataError, "has no images of the query split",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_what_does_not_fit_is_an_error(kind: str, tmp_path: Path) -> None:
    options, change, error, message = WRONG[kind]
    mars(tmp_path / "office")
    change(tmp_path / "office")
    with pytest.raises(error, match=message):
        dataset(tmp_path, MARS_FOLDERS + options).load(tmp_path)


def test_a_search_without_cameras_holds_out_queries_that_match(tmp_path: Path) -> None:
    items = [Item(Path(f"{pid}/{n}.jpg"), pid, 0) for pid in range(8) for n in range(1 + pid % 4)]
    with pytest.raises(DataError, match="images from one camera only"):
        holdout_split(items, seed=0, fraction=0.5)
    train, query, gallery = holdout_split(items, seed=0, fraction=0.5, cameras=False)
    assert query and {i.camid for i in query} == {1} and {i.camid for i in (*train, *gallery)} == {0}
    assert {i.pid for i in query} <= {i.pid for i in gallery}
    assert not {i.path for i in query} & {i.path for i in gallery}
    assert sorted(i.path for i in (*train, *query, *gallery)) == sorted(i.path for i in items)


def test_a_trained_camera_embedding_is_not_used_without_cameras(tmp_path: Path) -> None:
    """Its two rows would fit the numbers used for unknown cameras."""
    entry = dataset(tmp_path, "cameras = false")
    for split, person in (("train", "a"), ("query", "x"), ("gallery", "x")):
        pictures(tmp_path / "office", f"{split}/{person}/1.jpg")
    module = torch.nn.Linear(1, 1)
    backbone = registry.backbone("transreid")
    for mode in ("off", "mean"):
        module.camera_mode = mode  # type: ignore[assignment]
        check_cameras(backbone, module, 2, entry.load(tmp_path))
    module.camera_mode = "on"  # type: ignore[assignment]
    with pytest.raises(DataError, match=r"are unknown\. Pass --camera-embedding mean or off"):
        check_cameras(backbone, module, 2, entry.load(tmp_path))


@pytest.mark.usefixtures("quick_runs")
def test_a_run_without_cameras_says_so(
    cli: Callable[..., tuple[int, str, str]], tmp_path: Path, plugin_folder: Path
) -> None:
    dataset(tmp_path, "cameras = false")
    for split, people in (("train", "abcd"), ("query", "xyz"), ("gallery", "xyz")):
        for person in people:
            for n in range(2):
                shade = np.random.default_rng([ord(person), n]).integers(256)
                small.picture(tmp_path / "office" / split / person / f"{n}.jpg", int(shade))
    common = ["--datasets", "office", "--plugins", plugin_folder, "--data-root", tmp_path, "--recipe", "smoke"]
    common += ["--from-scratch", "--device", "cpu", "--results", tmp_path / "results", "--cache", tmp_path / "cache"]
    code, out, err = cli("plan", "--backbones", "transreid,pixels", "--format", "json", *common)
    states = {row["backbone"]: row for row in json.loads(out)}
    assert states["transreid"]["state"] == "blocked" and states["pixels"]["state"] == "to do", out + err
    assert "the cameras of office are unknown: pass --camera-embedding off" in states["transreid"]["reason"]
    code, out, err = cli("plan", "--backbones", "transreid", "--camera-embedding", "off", *common)
    assert code == 0 and "blocked" not in out.replace("0 blocked", "")
    page = tmp_path / "BENCHMARKS.md"
    run = ["--backbones", "pixels", "--report", page, "--debug", "--no-mlflow"]
    code, out, err = cli("run", *run, *common)
    assert code == 0, out + err
    (record,) = store.records(tmp_path / "results")
    assert record["data"]["notes"]["cameras"] == "unknown"
    assert all(e["n_valid"] == e["n_query"] == 6 for e in record["evaluations"])
    assert "The cameras are unknown, so gallery images from the query's own camera are not ignored" in page.read_text()
