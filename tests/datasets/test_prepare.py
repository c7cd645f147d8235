"""Preparation: archives, CUHK03's file, Occluded-Duke, conversion; repeated, interrupted, and without inputs."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import msgspec
import numpy as np
import pytest
import scipy.io
from PIL import Image

from datasets.preparation.prepare import prepare_dataset
from harness import registry
from harness.errors import DataError
from harness.registry import dataset_checks
from tests.support import small_datasets as small

MARKET = "Market-1501-v15.09.15"


def zipped(folder: Path, archive: Path, top: str | None = None) -> Path:
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w") as opened:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                inner = path.relative_to(folder)
                opened.write(path, Path(top) / inner if top else inner)
    return archive


@pytest.mark.parametrize("top", [MARKET, "market1501", None, "some folder", f"download/{MARKET}"])
def test_an_archive_is_unpacked_whatever_its_folders(top: str | None, tmp_path: Path) -> None:
    archive = zipped(small.market(tmp_path / "made"), tmp_path / "given.zip", top)
    entry, calls = registry.dataset("market1501"), []
    outcome = prepare_dataset(
        entry, tmp_path / "data", sources=[archive], progress=lambda done, total: calls.append((done, total))
    )
    assert outcome.status == "built" and outcome.splits is not None
    assert len(outcome.splits.train) == 4
    assert any("expects 12,936 images, but" in sentence for sentence in outcome.sentences)
    assert calls and calls[-1][0] == calls[-1][1]
    assert not list((tmp_path / "data").glob(".*"))
    assert prepare_dataset(entry, tmp_path / "data", sources=[archive]).status == "ready"


def test_windows_nested_and_doubled_archives(tmp_path: Path) -> None:
    made, entry = small.market(tmp_path / "made"), registry.dataset("market1501")
    archives = {
        "doubled": zipped(made, tmp_path / "doubled.zip", f"{MARKET}/{MARKET}"),
        "under another name": zipped(made, tmp_path / "named.zip", f"{MARKET}/data v2/box"),
        "nested": wrapped(zipped(made, tmp_path / f"{MARKET}.zip", MARKET), tmp_path / "nested.zip", "readme.txt"),
        "nested twice": wrapped(wrapped(zipped(made, tmp_path / "x.zip"), tmp_path / "y.zip"), tmp_path / "z.zip"),
        "Windows": tmp_path / "windows.zip",
    }
    with zipfile.ZipFile(archives["Windows"], "w") as opened:
        for path in sorted(made.rglob("*.jpg")):
            name = f"{MARKET}\\" + str(path.relative_to(made)).replace("/", "\\")
            opened.writestr(zipfile.ZipInfo(name), path.read_bytes())
    for kind, archive in archives.items():
        root = tmp_path / kind
        outcome = prepare_dataset(entry, root, sources=[archive])
        assert outcome.status == "built" and outcome.splits is not None, (kind, outcome.sentences)
        assert outcome.splits.root == root / MARKET and len(outcome.splits.train) == 4, kind
        assert [path.name for path in root.iterdir()] == [MARKET], kind


def wrapped(inner: Path, archive: Path, *others: str) -> Path:
    with zipfile.ZipFile(archive, "w") as opened:
        opened.write(inner, inner.name)
        for name in others:
            opened.writestr(name, "x")
    return archive


def names_of_duke(folder: Path) -> Path:
    for path in list(folder.rglob("*.jpg")):
        path.rename(path.with_name(path.name.replace("s1_", "_f")))
    return folder


UNFIT: dict[str, tuple[Callable[[Path], Path], str]] = {
    "empty": (lambda f: zipped(f / "x", f / "a.zip"), "found no files"),
    "only a folder": (lambda f: [(f / "x" / MARKET).mkdir(parents=True), zip_of_folders(f / "x")][1], "no files"),
    "pictures": (lambda f: [small.picture(f / "x" / "a.jpg"), zipped(f / "x", f / "a.zip")][1], "found 'a.jpg'"),
    "another dataset": (
        lambda f: zipped(small.msmt17(f / "x" / "MSMT17_V1").parent, f / "a.zip"),
        "'MSMT17_V1/list_gallery.txt', .*, and 3 more, which looks like MSMT17",
    ),
    "another one of the same layout": (
        lambda f: zipped(names_of_duke(small.market(f / "x")), f / "a.zip", "DukeMTMC-reID"),
        "image names such as .* are not like 0002_c1s1_000451_03.jpg",
    ),
    "under the right name": (
        lambda f: zipped(names_of_duke(small.market(f / "x")), f / "a.zip", MARKET), "which looks like DukeMTMC-reID"
    ),
    "a wrong name among the images": (
        lambda f: [small.picture(small.market(f / "x") / "query" / "b.jpg"), zipped(f / "x", f / "a.zip", MARKET)][1],
        "query has 1 image.* whose name is not like",
    ),
    "cut in the middle": (
        lambda f: [shutil.rmtree(small.market(f / "x") / "query"), zipped(f / "x", f / "a.zip", MARKET)][1],
        r"expected a folder with bounding_box_train, query, bounding_box_test \(market1501\)",
    ),
}  # fmt: skip


def zip_of_folders(folder: Path) -> Path:
    with zipfile.ZipFile(folder.parent / "a.zip", "w") as opened:
        opened.write(folder / MARKET, MARKET)
    return folder.parent / "a.zip"


@pytest.mark.parametrize("kind", UNFIT)
def test_nothing_of_a_wrong_archive_is_kept(kind: str, tmp_path: Path) -> None:
    make, message = UNFIT[kind]
    (tmp_path / "w").mkdir()
    archive, entry = make(tmp_path / "w"), registry.dataset("market1501")
    outcome = prepare_dataset(entry, tmp_path / "data", sources=[archive])
    assert outcome.status == "absent" and not list((tmp_path / "data").iterdir())
    assert re.search(f"a.zip does not contain Market-1501: .*{message}.* Nothing was unpacked", outcome.sentences[0])
    assert ".unpacked" not in outcome.sentences[0]
    right = zipped(small.market(tmp_path / "made"), tmp_path / "given.zip", MARKET)
    assert prepare_dataset(entry, tmp_path / "data", sources=[archive, right]).status == "built"


def test_a_dataset_with_the_numbers_of_another_is_that_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DukeMTMC-reID and Occluded-Duke have the same layout."""
    archive = zipped(duke(tmp_path / "made"), tmp_path / "given.zip", "DukeMTMC-reID")
    split = registry.dataset("dukemtmc").load(tmp_path / "made")
    counts = {name: dataset_checks.counts(getattr(split, name)) for name in ("train", "query", "gallery")}
    known = registry.datasets()
    changed = [
        dataclasses.replace(e, card=msgspec.structs.replace(e.card, expected=counts)) if e.name == "dukemtmc" else e
        for e in known
    ]
    monkeypatch.setattr(registry, "datasets", lambda: changed)
    outcome = prepare_dataset(registry.dataset("occluded-duke"), tmp_path / "data", sources=[archive])
    assert outcome.status == "absent"
    assert "it has the numbers of images of DukeMTMC-reID" in outcome.sentences[0]


def test_a_bomb_in_an_archive_is_no_larger_than_one_without(tmp_path: Path) -> None:
    inner = tmp_path / "inner.zip"
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("a.jpg", bytes(70 << 20))
    with pytest.raises(DataError, match="too much for images"):
        prepare_dataset(registry.dataset("market1501"), tmp_path / "data", sources=[wrapped(inner, tmp_path / "o.zip")])
    assert not list((tmp_path / "data").iterdir())


def test_builder_takes_its_input_from_archive_or_file(tmp_path: Path) -> None:
    entry = registry.dataset("cuhk03-classic-detected")
    write_mat(tmp_path / "x" / "cuhk-03.mat")
    archive = zipped(tmp_path / "x", tmp_path / "given.zip", "release/cuhk03")
    bad = tmp_path / "bad" / "cuhk-03.mat"
    bad.parent.mkdir()
    bad.write_bytes(b"no HDF5")
    root = tmp_path / "data"
    with pytest.raises(DataError, match=r"cuhk-03.mat is damaged or not CUHK03's file .* Removed .* again"):
        prepare_dataset(entry, root, sources=[zipped(bad.parent, tmp_path / "bad.zip", "cuhk03_release")])
    outcome = prepare_dataset(entry, root, sources=[archive])
    assert outcome.status == "built", outcome.sentences
    outcome = prepare_dataset(entry, tmp_path / "other", sources=[tmp_path / "x" / "cuhk-03.mat"])
    assert outcome.status == "built", outcome.sentences


@pytest.mark.parametrize("kind", ["gz", "xz", ""])
def test_tar_archive_in_the_data_root_is_found(kind: str, tmp_path: Path) -> None:
    small.msmt17(tmp_path / "made" / "MSMT17_V1")
    (tmp_path / "data").mkdir()
    with tarfile.open(tmp_path / "data" / "MSMT17_V1.tar.gz", f"w:{kind}") as archive:  # type: ignore[call-overload]
        archive.add(tmp_path / "made" / "MSMT17_V1", "MSMT17_V1")
    outcome = prepare_dataset(registry.dataset("msmt17"), tmp_path / "data")
    assert outcome.status == "built" and outcome.splits is not None
    assert outcome.splits.layout == "msmt17-v1" and len(outcome.splits.train) == 4


def test_an_interrupted_call_leaves_nothing_and_can_be_repeated(tmp_path: Path) -> None:
    archive = zipped(small.market(tmp_path / "made"), tmp_path / "given.zip", MARKET)
    entry = registry.dataset("market1501")

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_dataset(entry, tmp_path / "data", sources=[archive], progress=interrupt)
    assert not list((tmp_path / "data").iterdir())
    left = tmp_path / "data" / f".{archive.name}.unpacked" / ".content.partial"  # as after a kill
    left.mkdir(parents=True)
    (left / "half.jpg").touch()
    assert prepare_dataset(entry, tmp_path / "data", sources=[archive]).status == "built"
    assert [path.name for path in (tmp_path / "data").iterdir()] == [MARKET]


def test_what_exists_is_left_alone(tmp_path: Path) -> None:
    archive = zipped(small.market(tmp_path / "made"), tmp_path / "given.zip", MARKET)
    (tmp_path / "data" / MARKET / "query").mkdir(parents=True)
    outcome = prepare_dataset(registry.dataset("market1501"), tmp_path / "data", sources=[archive])
    assert outcome.status == "absent"
    assert "was not unpacked, because" in outcome.sentences[0]
    assert "it lacks bounding_box_train, bounding_box_test" in outcome.sentences[1]


@pytest.mark.parametrize("name", [e.name for e in registry.datasets() if e.name != "synthetic"])
def test_without_inputs_it_says_where_to_ask(name: str, tmp_path: Path) -> None:
    entry = registry.dataset(name)
    outcome = prepare_dataset(entry, tmp_path / "data")
    assert (outcome.status, outcome.splits) == ("absent", None)
    assert entry.card.ask in outcome.sentences[-1] and entry.card.notice in outcome.sentences[-1]


def test_the_notice_of_dukemtmc_is_given_with_the_data(tmp_path: Path) -> None:
    duke(tmp_path / "DukeMTMC-reID")
    outcome = prepare_dataset(registry.dataset("dukemtmc"), tmp_path)
    assert outcome.status == "built" or outcome.status == "ready"
    assert "withdrawn" in outcome.sentences[-1]


def test_a_source_that_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_text("<html>403</html>")
    with pytest.raises(DataError, match=r"x\.zip is not a zip or tar archive"):
        prepare_dataset(registry.dataset("market1501"), tmp_path / "data", sources=[tmp_path / "x.zip"])
    with pytest.raises(DataError, match=r"y\.zip does not exist"):
        prepare_dataset(registry.dataset("market1501"), tmp_path / "data", sources=[tmp_path / "y.zip"])


def crop(pair: int, person: int, column: int) -> np.ndarray:
    """Returns a crop [H, W, 3] that differs from all others and from its transpose."""
    pixels = np.zeros((16 + pair, 8, 3), np.uint8)
    pixels[0, :, 0], pixels[:, 0, 1], pixels[1, 1, 2] = 50 * pair, 60 * person, 20 * column
    return pixels


def write_mat(path: Path) -> Path:
    """`cuhk-03.mat` as MATLAB 7.3 writes it: all axes reversed, cells as references, empty cells of two numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        cells = file.create_group("#refs#")

        def cell(value: np.ndarray) -> h5py.Reference:
            return cells.create_dataset(str(len(cells)), data=value).ref

        for boxes in ("detected", "labeled"):
            pairs = []
            for pair, people in ((1, 3), (2, 2)):
                rows = np.empty((people, 10), h5py.ref_dtype)
                for person in range(people):
                    for column in range(10):
                        present = column in (0, 1, 5) or (boxes == "labeled" and column == 9)
                        image = crop(pair, person + 1, column + 1).transpose(2, 1, 0)
                        rows[person, column] = cell(image if present else np.zeros(2, np.uint64))
                pairs.append(cell(rows.T))
            file.create_dataset(boxes, data=np.array([pairs], h5py.ref_dtype).T)
        tests = [cell(np.array([[1, 1], [2, 2]], float).T), cell(np.array([[1, 3], [2, 1]], float).T)]
        file.create_dataset("testsets", data=np.array([tests], h5py.ref_dtype))
    return path


def test_cuhk03_is_extracted_under_the_published_names(tmp_path: Path) -> None:
    write_mat(tmp_path / "cuhk03" / "cuhk03_release" / "cuhk-03.mat")
    outcome = prepare_dataset(registry.dataset("cuhk03-classic-detected"), tmp_path)
    assert outcome.status == "built" and outcome.splits is not None
    images = tmp_path / "cuhk03" / "images_detected"
    names = [f"{pair}_{person:03d}_{end}.png" for pair, person in ((1, 1), (1, 2), (1, 3), (2, 1), (2, 2))
             for end in ("1_01", "1_02", "2_06")]  # fmt: skip
    assert sorted(path.name for path in images.iterdir()) == names
    for name in names:
        pair, person, _, column = (int(part) for part in name[:-4].split("_"))
        assert (np.asarray(Image.open(images / name)) == crop(pair, person, column)).all()
    splits = outcome.splits
    assert {item.pid for item in splits.query} == {1001, 2002} == {item.pid for item in splits.gallery}
    assert {item.pid for item in splits.train} == {1002, 1003, 2001}
    assert {item.camid for item in splits.train} == {0, 1}
    entry = registry.dataset("cuhk03-classic-detected")
    assert {item.pid for item in entry.load(tmp_path, split=1).query} == {1003, 2001}
    assert {item.pid for item in entry.load(tmp_path, split="1").query} == {1003, 2001}
    assert prepare_dataset(entry, tmp_path).status == "ready"
    labeled = prepare_dataset(registry.dataset("cuhk03-classic-labeled"), tmp_path).splits
    assert labeled is not None and len(labeled.query) == 8


def test_cuhk03_comes_from_the_archive_and_the_protocol_file(tmp_path: Path) -> None:
    write_mat(tmp_path / "made" / "cuhk-03.mat")
    archive = zipped(tmp_path / "made", tmp_path / "data" / "cuhk03_release.zip", "cuhk03_release")
    names = np.empty((3, 1), dtype=object)
    names[:, 0] = ["1_001_1_01.png", "1_001_1_02.png", "1_002_2_06.png"]
    table = {"filelist": names, "labels": [[1], [1], [2]], "camId": [[1], [1], [2]]}
    config = tmp_path / "data" / "cuhk03_new_protocol_config_detected.mat"
    scipy.io.savemat(config, {**table, "train_idx": [[1]], "query_idx": [[2]], "gallery_idx": [[3]]})
    outcome = prepare_dataset(registry.dataset("cuhk03-detected"), tmp_path / "data")
    assert archive.is_file() and outcome.splits is not None
    assert (outcome.status, outcome.splits.layout) == ("built", "cuhk03-release")
    assert [item.path.name for item in outcome.splits.gallery] == ["1_002_2_06.png"]


@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\n" + bytes(100), b"MATLAB 5.0"])
def test_a_damaged_mat_is_an_error_and_leaves_nothing(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "cuhk03").mkdir()
    (tmp_path / "cuhk03" / "cuhk-03.mat").write_bytes(content)
    with pytest.raises(DataError, match="is damaged or not CUHK03's file"):
        prepare_dataset(registry.dataset("cuhk03-classic-detected"), tmp_path)
    assert [path.name for path in (tmp_path / "cuhk03").iterdir()] == ["cuhk-03.mat"]


def test_an_hdf5_file_of_something_else_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "cuhk03").mkdir()
    with h5py.File(tmp_path / "cuhk03" / "cuhk-03.mat", "w") as file:
        file.create_dataset("detected", data=np.zeros((5, 5)))
    with pytest.raises(DataError, match="is damaged or not CUHK03's file"):
        prepare_dataset(registry.dataset("cuhk03-classic-detected"), tmp_path)


def duke(folder: Path) -> Path:
    """Duke's names; it has no junk."""
    small.market(folder, "c{cam}_f{n:07d}.jpg")
    next((folder / "bounding_box_test").glob("-1*")).unlink()
    return folder


def lists(folder: Path) -> Path:
    """One training image is left out, one query comes from the gallery."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.list").write_text("0002_c1_f0000001.jpg\n0002_c2_f0000002.jpg\n0007_c1_f0000003.jpg\n")
    (folder / "query.list").write_text("0001_c1_f0000005.jpg\n0003_c1_f0000010.jpg\n")
    (folder / "gallery.list").write_text("0000_c2_f0000008.jpg\n0001_c2_f0000009.jpg\n0003_c1_f0000010.jpg\n")
    return folder


@pytest.mark.parametrize("place", ["Occluded_Duke", "."])
def test_occluded_duke_is_built_from_duke_and_the_lists(place: str, tmp_path: Path) -> None:
    original = duke(tmp_path / "data" / "DukeMTMC-reID")
    lists(tmp_path / "data" / place)
    outcome = prepare_dataset(registry.dataset("occluded-duke"), tmp_path / "data")
    assert outcome.status == "built" and outcome.splits is not None
    splits = outcome.splits
    assert splits.root == tmp_path / "data" / "Occluded_Duke"
    assert [len(part) for part in (splits.train, splits.query, splits.gallery)] == [3, 2, 3]
    copy = splits.root / "query" / "0003_c1_f0000010.jpg"
    assert copy.read_bytes() == (original / "bounding_box_test" / copy.name).read_bytes()
    shutil.rmtree(splits.root / "query")  # as after an interruption
    assert prepare_dataset(registry.dataset("occluded-duke"), tmp_path / "data").status == "built"


def test_occluded_duke_from_named_folders(tmp_path: Path) -> None:
    sources = [lists(tmp_path / "repository"), duke(tmp_path / "elsewhere" / "my duke")]
    outcome = prepare_dataset(registry.dataset("occluded-duke"), tmp_path / "data", sources=sources)
    assert outcome.status == "built"
    assert (tmp_path / "data" / "Occluded_Duke" / "query" / "0003_c1_f0000010.jpg").is_file()


def test_occluded_duke_without_duke_or_with_a_wrong_one(tmp_path: Path) -> None:
    lists(tmp_path / "Occluded_Duke")
    outcome = prepare_dataset(registry.dataset("occluded-duke"), tmp_path)
    assert outcome.status == "absent" and "DukeMTMC-reID, which they need, was not found" in outcome.sentences[0]
    (duke(tmp_path / "DukeMTMC-reID") / "bounding_box_test" / "0003_c1_f0000010.jpg").unlink()
    with pytest.raises(DataError, match=r"query\.list lists 1 image\(s\) that .*DukeMTMC-reID does not have: '0003_c1"):
        prepare_dataset(registry.dataset("occluded-duke"), tmp_path)


def test_what_is_built_from_generated_data_is_generated(tmp_path: Path) -> None:
    folder = duke(tmp_path / "DukeMTMC-reID")
    (folder / "stand-in.json").write_text(json.dumps({"generated": True, "seed": 3, "layout": "dukemtmc"}))
    lists(tmp_path / "Occluded_Duke")
    splits = prepare_dataset(registry.dataset("occluded-duke"), tmp_path).splits
    assert splits is not None and splits.generated is not None
    assert splits.generated["seed"] == 3
    assert splits.generated["counts"]["query"] == {"images": 2, "identities": 2, "cameras": 1}


def test_the_synthetic_dataset_is_generated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from datasets.synthetic import writing

    monkeypatch.setitem(writing.SCALES, "demo", writing.SCALES["smoke"])
    outcome = prepare_dataset(registry.dataset("synthetic"), tmp_path)
    assert outcome.status == "built" and outcome.splits is not None and outcome.splits.generated is not None
    assert prepare_dataset(registry.dataset("synthetic"), tmp_path).status == "ready"


def test_images_are_copied_where_they_cannot_be_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("another disk")

    monkeypatch.setattr("os.link", refuse)
    original = duke(tmp_path / "DukeMTMC-reID")
    lists(tmp_path / "Occluded_Duke")
    splits = prepare_dataset(registry.dataset("occluded-duke"), tmp_path).splits
    assert splits is not None
    for item in splits.train:
        assert item.path.stat().st_nlink == 1
        assert item.path.read_bytes() == (original / "bounding_box_train" / item.path.name).read_bytes()
